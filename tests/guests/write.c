/* Writes its second argument into the file that its first one names; ends with the errno of what failed. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
	if (argc != 3)
		return EINVAL;
	FILE *file = fopen(argv[1], "w");
	if (!file || fputs(argv[2], file) < 0 || fclose(file) != 0) {
		int error = errno;
		fprintf(stderr, "%s: %s\n", argv[1], strerror(error));
		return error;
	}
	return 0;
}
