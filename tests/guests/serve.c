/* An HTTP server on the first listener that it is given: answers each request with its number and its path. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void) {
	const char *start = getenv("LISTEN_FDS_START");
	if (!start) {
		fputs("LISTEN_FDS_START is not set: nothing to listen on\n", stderr);
		return 2;
	}
	int listener = atoi(start);
	for (int served = 0;; served++) {
		struct pollfd wanted = {.fd = listener, .events = POLLIN};
		if (poll(&wanted, 1, -1) < 0) {
			perror("poll");
			return 1;
		}
		int connection = accept(listener, NULL, NULL);
		if (connection < 0) {
			perror("accept");
			return 1;
		}
		char request[4096] = "";
		size_t got = 0;
		while (got + 1 < sizeof request && !strstr(request, "\r\n\r\n")) {
			ssize_t more = recv(connection, request + got, sizeof request - 1 - got, 0);
			if (more <= 0)
				break;
			got += (size_t)more;
			request[got] = '\0';
		}
		char path[256] = "";
		sscanf(request, "GET %255s", path);
		char body[512], answer[1024];
		int length = snprintf(body, sizeof body, "c %d %s\n", served, path);
		int all = snprintf(answer, sizeof answer,
			"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", length, body);
		send(connection, answer, (size_t)all, 0);
		shutdown(connection, SHUT_WR);
		close(connection);
	}
}
