/* Grows to 64 MiB and fills all of it eight times, each time by one memory.fill. Imports nothing. */
enum { PAGE = 65536, PAGES = 1024, FILLS = 8 };

__attribute__((export_name("_start"))) void start(void) {
	unsigned long have = __builtin_wasm_memory_size(0);
	if (__builtin_wasm_memory_grow(0, PAGES - have) != have)
		__builtin_trap();
	char *rest = (char *)(have * PAGE);
	for (int value = 1; value <= FILLS; value++)
		__builtin_memset(rest, value, (PAGES - have) * PAGE);
	if (rest[0] != FILLS)
		__builtin_trap();
}
