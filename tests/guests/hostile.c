/* What strangers do. `HOW` says what; `FOLDER` is where, for what needs one. What it got to is printed; where something
 * stops it, it ends with the errno. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char buffer[65536];

static int ended(const char *what, long count) {
	int error = errno;
	printf("%s: %ld, then errno %d\n", what, count, error);
	fflush(stdout);
	return error;
}

/* Without a call, and with one that costs the host something. */
static int spin(void) {
	for (volatile unsigned long i = 0;; i++)
		;
}
static int spin_calling(void) {
	struct timespec now;
	for (;;)
		clock_gettime(CLOCK_MONOTONIC, &now);
}

/* What nobody looked at again, the compiler would leave out. */
static char *volatile last;
static int memory(void) {
	for (long pages = 0;; pages++) {
		last = malloc(65536);
		if (!last) {
			ended("pages", pages);
			abort();
		}
		memset(last, 1, 65536);
	}
}

/* No frame in linear memory: only the interpreter's own stack can stop it. */
__attribute__((noinline)) static long deeper(long (*again)(long, void *), long depth, void *self) {
	return again(depth + 1, self) + 1;
}
static long recurse(long depth, void *self) { return deeper(self, depth, self) + depth; }

static int descriptors(const char *folder) {
	snprintf(buffer, sizeof buffer, "%s/file", folder);
	for (long opened = 0; opened < 1000000; opened++)
		if (open(buffer, O_RDWR | O_CREAT, 0600) < 0)
			return ended("descriptors", opened);
	return 0;
}

static int flood(void) {
	memset(buffer, 'x', sizeof buffer);
	for (size_t at = 99; at < sizeof buffer; at += 100)
		buffer[at] = '\n';
	for (;;)
		write(1, buffer, sizeof buffer);
}

static int fill(const char *folder) {
	static char path[256];
	snprintf(path, sizeof path, "%s/filled", folder);
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (fd < 0)
		return ended("not opened", 0);
	for (long bytes = 0;;) {
		ssize_t written = write(fd, buffer, 4096);
		if (written < 0)
			return ended("bytes", bytes);
		bytes += written;
	}
}

static int names(const char *folder) {
	for (long made = 0; made < 1000000; made++) {
		snprintf(buffer, sizeof buffer, "%s/name-%ld", folder, made);
		int fd = open(buffer, O_WRONLY | O_CREAT, 0600);
		if (fd < 0)
			return ended("names", made);
		close(fd);
	}
	return 0;
}

/* Anything of the host's that opens, or a link that can be made to it, is an escape. (/etc/hostname is the guest's own.) */
static int escape(const char *folder) {
	static const char *const out[] = {
		"/etc/passwd", "/proc/self/environ", "../../../../../../etc/passwd", "..", "../..",
		"link/../../../../../../../etc/passwd", "link/etc/passwd", "up/..", "up/../..", "up/up/up/up/up/etc/passwd",
	};
	char path[512], link[300];
	long escaped = 0;
	snprintf(link, sizeof link, "%s/link", folder);
	escaped += symlink("/", link) == 0;
	escaped += symlink("/etc", link) == 0;
	escaped += symlink("../../../../../../..", link) == 0 && open("link/etc/passwd", O_RDONLY) >= 0;
	snprintf(link, sizeof link, "%s/up", folder);
	escaped += symlink("..", link) != 0;
	for (size_t i = 0; i < sizeof out / sizeof *out; i++) {
		int fd = open(out[i], O_RDONLY);
		snprintf(path, sizeof path, "%s/%s", folder, out[i]);
		int within = open(path, O_RDONLY);
		if (fd >= 0 || within >= 0) {
			printf("escaped by %s\n", out[i]);
			escaped++;
		}
	}
	snprintf(path, sizeof path, "%s/../stolen", folder);
	escaped += rename(link, path) == 0;
	snprintf(path, sizeof path, "%s/up/stolen", folder);
	escaped += open(path, O_WRONLY | O_CREAT, 0600) >= 0;
	escaped += mkdir(path, 0700) == 0;
	printf("escapes: %ld\n", escaped);
	return escaped != 0;
}

/* One swaps a folder with a link that leads out, again and again, while the other goes through it. */
static int swap(const char *folder) {
	char is[300], was[300];
	snprintf(is, sizeof is, "%s/door", folder);
	snprintf(was, sizeof was, "%s/was", folder);
	mkdir(is, 0700);
	for (long i = 0; i < 20000; i++)
		if (rename(is, was) || symlink("../../../../../..", is) || unlink(is) || rename(was, is))
			return ended("swapped", i);
	printf("swapped\n");
	return 0;
}
static int pass(const char *folder) {
	static const char *const out[] = {"door/etc/passwd", "door/../../etc/passwd", "door/../../../../../../etc/passwd"};
	char path[300];
	for (long i = 0; i < 60000; i++) {
		snprintf(path, sizeof path, "%s/%s", folder, out[i % 3]);
		int fd = open(path, O_RDONLY);
		if (fd >= 0) {
			printf("escaped by %s\n", path);
			return 1;
		}
	}
	printf("passed\n");
	return 0;
}

int main(int argc, char **argv) {
	const char *how = argc > 1 ? argv[1] : "", *folder = argc > 2 ? argv[2] : "";
	if (!strcmp(how, "spin"))
		return spin();
	if (!strcmp(how, "spin-calling"))
		return spin_calling();
	if (!strcmp(how, "memory"))
		return memory();
	if (!strcmp(how, "recursion"))
		return (int)recurse(0, recurse);
	if (!strcmp(how, "descriptors"))
		return descriptors(folder);
	if (!strcmp(how, "flood"))
		return flood();
	if (!strcmp(how, "fill"))
		return fill(folder);
	if (!strcmp(how, "names"))
		return names(folder);
	if (!strcmp(how, "escape"))
		return escape(folder);
	if (!strcmp(how, "swap"))
		return swap(folder);
	if (!strcmp(how, "pass"))
		return pass(folder);
	return EINVAL;
}
