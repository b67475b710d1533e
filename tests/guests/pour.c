/* Moves bytes for the benchmarks. `stdout N` writes N MiB to standard output, by 4 KiB; `file PATH N` writes N MiB
 * to a file by 64 KiB and reads them again. Ends with the errno of what failed. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char buffer[65536];

static int move(int fd, size_t size, long count, ssize_t (*call)(int, char *, size_t)) {
	for (long i = 0; i < count; i++)
		for (size_t at = 0; at < size;) {
			ssize_t moved = call(fd, buffer + at, size - at);
			if (moved <= 0)
				return moved < 0 ? errno : EIO;
			at += (size_t)moved;
		}
	return 0;
}

static ssize_t out(int fd, char *bytes, size_t size) { return write(fd, bytes, size); }
static ssize_t in(int fd, char *bytes, size_t size) { return read(fd, bytes, size); }

int main(int argc, char **argv) {
	memset(buffer, 'x', sizeof buffer);
	for (size_t at = 79; at < sizeof buffer; at += 80)
		buffer[at] = '\n';
	if (argc == 3 && !strcmp(argv[1], "stdout"))
		return move(1, 4096, atol(argv[2]) * 256, out);
	if (argc != 4 || strcmp(argv[1], "file"))
		return EINVAL;
	long count = atol(argv[3]) * 16;
	int fd = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0)
		return errno;
	int error = move(fd, sizeof buffer, count, out);
	if (!error && lseek(fd, 0, SEEK_SET) < 0)
		error = errno;
	return error ? error : move(fd, sizeof buffer, count, in);
}
