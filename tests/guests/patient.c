/* Works until it is told to stop (COPEPOD_STOP_FILE), then says goodbye. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(void) {
	const char *stop = getenv("COPEPOD_STOP_FILE");
	if (!stop) {
		puts("there is no COPEPOD_STOP_FILE");
		return 1;
	}
	puts("at work");
	fflush(stdout);
	while (access(stop, F_OK) != 0)
		usleep(100000);
	puts("told to stop");
	return 7;
}
