/* Copies its standard input to its standard output, waiting for it by poll. */
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

int main(void) {
	char buffer[4096];
	for (;;) {
		struct pollfd wanted = {.fd = 0, .events = POLLIN};
		if (poll(&wanted, 1, -1) < 0) {
			perror("poll");
			return 1;
		}
		ssize_t got = read(0, buffer, sizeof buffer);
		if (got < 0) {
			perror("read");
			return 1;
		}
		if (got == 0)
			return 0;
		fwrite(buffer, 1, (size_t)got, stdout);
		fflush(stdout);
	}
}
