/* Says what it was given, then exits with the number in its last argument (0 where there is none). */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
	for (int i = 1; i < argc; i++)
		printf("argument %d: %s\n", i, argv[i]);
	const char *greeting = getenv("GREETING");
	if (greeting)
		printf("greeting: %s\n", greeting);
	fprintf(stderr, "about to exit\n");
	return argc > 1 ? atoi(argv[argc - 1]) : 0;
}
