/* Says that it is up, and sleeps for as long as it is let. */
#include <stdio.h>
#include <unistd.h>

int main(void) {
	puts("up");
	fflush(stdout);
	for (;;)
		sleep(1000);
}
