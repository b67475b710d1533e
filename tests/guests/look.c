/* Does what each of its arguments says, in order, and prints what came of it:
   cat=PATH, ls=PATH, write=PATH=TEXT, link=PATH=TARGET, move=PATH=PATH, remove=PATH, watch=PATH (for ever), swap=PATH=TARGET (for
   ever: now a folder, now a link), echo=PATH (what a device sends, back to it, line by line), env=NAME, sleep, exit=CODE. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static char text[8192];

/* Reads a file into `text`; an errno if it cannot. */
static int load(const char *path) {
	int fd = open(path, O_RDONLY);
	if (fd < 0)
		return errno;
	ssize_t got = read(fd, text, sizeof text - 1);
	int error = got < 0 ? errno : 0;
	close(fd);
	text[got < 0 ? 0 : got] = 0;
	return error;
}

static int by_name(const void *a, const void *b) {
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void list(const char *path) {
	DIR *folder = opendir(path);
	if (!folder) {
		printf("ls %s: %s\n", path, strerror(errno));
		return;
	}
	char *names[256];
	size_t count = 0;
	struct dirent *entry;
	while ((entry = readdir(folder)) && count < 256)
		if (entry->d_name[0] != '.')
			names[count++] = strdup(entry->d_name);
	closedir(folder);
	qsort(names, count, sizeof *names, by_name);
	printf("ls %s:", path);
	for (size_t index = 0; index < count; index++)
		printf(" %s", names[index]);
	printf("\n");
}

static void watch(const char *path) {
	char last[sizeof text] = "\1";
	for (;;) {
		int error = load(path);
		if (error)
			snprintf(text, sizeof text, "(%s)", strerror(error));
		if (strcmp(last, text) != 0) {
			printf("now %s: %s\n", path, text);
			fflush(stdout);
			strcpy(last, text);
		}
		usleep(200000);
	}
}

static void swap(const char *path, const char *target) {
	for (;;) {
		unlink(path);
		mkdir(path, 0777);
		rmdir(path);
		symlink(target, path);
	}
}

static void echo(const char *path) {
	int fd = open(path, O_RDWR);
	if (fd < 0) {
		printf("echo %s: %s\n", path, strerror(errno));
		return;
	}
	/* TIOCGWINSZ: WASI has no ioctl, and its libc none but FIONREAD and FIONBIO. */
	short size[4];
	printf("open %s, ioctl: %s\n", path, ioctl(fd, 0x5413, size) < 0 ? strerror(errno) : "done");
	fflush(stdout);
	for (;;) {
		struct pollfd wanted = {.fd = fd, .events = POLLIN};
		if (poll(&wanted, 1, -1) < 0 || !(wanted.revents & POLLIN))
			break;
		ssize_t got = read(fd, text, sizeof text - 1);
		if (got <= 0)
			break;
		text[got] = 0;
		printf("got %s", text);
		fflush(stdout);
		dprintf(fd, "echo %s", text);
	}
	printf("echo %s: ended\n", path);
}

static void told(const char *what, const char *path, int done) {
	printf("%s %s: %s\n", what, path, done < 0 ? strerror(errno) : "done");
}

int main(int argc, char **argv) {
	for (int index = 1; index < argc; index++) {
		char *verb = argv[index], *path = strchr(verb, '='), *more = NULL;
		if (path) {
			*path++ = 0;
			if ((more = strchr(path, '=')))
				*more++ = 0;
		}
		if (!strcmp(verb, "cat")) {
			int error = load(path);
			printf("cat %s: %s\n", path, error ? strerror(error) : text);
		} else if (!strcmp(verb, "ls")) {
			list(path);
		} else if (!strcmp(verb, "write")) {
			int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
			told("write", path, fd < 0 ? -1 : (int)write(fd, more, strlen(more)));
			close(fd);
		} else if (!strcmp(verb, "link")) {
			told("link", path, symlink(more, path));
		} else if (!strcmp(verb, "move")) {
			told("move", path, rename(path, more));
		} else if (!strcmp(verb, "remove")) {
			told("remove", path, unlink(path));
		} else if (!strcmp(verb, "watch")) {
			watch(path);
		} else if (!strcmp(verb, "swap")) {
			swap(path, more);
		} else if (!strcmp(verb, "echo")) {
			echo(path);
		} else if (!strcmp(verb, "env")) {
			const char *value = getenv(path);
			printf("env %s: %s\n", path, value ? value : "(none)");
		} else if (!strcmp(verb, "sleep")) {
			fflush(stdout);
			for (;;)
				sleep(1000);
		} else if (!strcmp(verb, "exit")) {
			return atoi(path);
		}
		fflush(stdout);
	}
	return 0;
}
