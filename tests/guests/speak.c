/* Says what its arguments tell it to, in order: `o=TEXT` to standard output and `e=TEXT` to standard error, without an
 * end of line; `n` an end of line; `b` all bytes but that, and then it; `l=N` a line of N letters; `s=N` nothing for N
 * seconds. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void say(int fd, const char *text, size_t size) {
	while (size > 0) {
		ssize_t said = write(fd, text, size);
		if (said <= 0)
			exit(1);
		text += said;
		size -= (size_t)said;
	}
}

int main(int argc, char **argv) {
	for (int i = 1; i < argc; i++) {
		const char *text = argv[i] + 2;
		switch (argv[i][0]) {
		case 'o':
			say(1, text, strlen(text));
			break;
		case 'e':
			say(2, text, strlen(text));
			break;
		case 'n':
			say(1, "\n", 1);
			break;
		case 'b':
			for (int byte = 0; byte < 256; byte++) {
				char one = (char)byte;
				if (one != '\n')
					say(1, &one, 1);
			}
			say(1, "\n", 1);
			break;
		case 'l':
			for (long left = atol(text); left > 0; left--)
				say(1, "y", 1);
			say(1, "\n", 1);
			break;
		case 's':
			sleep((unsigned)atol(text));
			break;
		}
	}
	return 0;
}
