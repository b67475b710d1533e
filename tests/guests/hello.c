/* hello 0, hello 1, … once a second, through wasi-libc. */
#include <stdio.h>
#include <unistd.h>

int main(void) {
	for (unsigned long n = 0;; n++) {
		printf("hello %lu\n", n);
		/* Standard output that is no terminal is buffered until it is told otherwise. */
		fflush(stdout);
		sleep(1);
	}
}
