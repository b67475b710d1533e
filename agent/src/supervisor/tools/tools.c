// The commands that `kubectl cp` sends: `test -d PATH`, `tar cf - PATH...` and `tar -xmf - [-C FOLDER]`.
//
// They run as a guest beside the container, with its folders: whatever an archive says, nothing else is reached.
// Archives are POSIX ustar and pax, with the long names of GNU tar. Modes, owners and times are not restored: WASI
// has none of the first two, and kubectl asks for the third not to be (-m).
//
// Built small: it is a part of the agent. Hence no stdio, and an allocator of its own.

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	BLOCK = 512,
	MAX_PATH = 4096,
	MAX_DEPTH = 64,    // folders within folders of what is packed
	MAX_RECORDS = 65536, // bytes of pax records, or of a long name, before one member
	BUFFER = 32768,
};

static char buffer[BUFFER];
static int failed;

// ---- memory
//
// libc wants some for its preopened folders, and for each folder that is read: a few blocks, given back last in, first
// out. What is given back in another order is lost, which is not much: a folder's depth is bounded.

enum { HEAP = 384 << 10, ALIGN = 16 };

static _Alignas(16) char heap[HEAP];
static size_t used;

void *malloc(size_t size) {
	size_t whole = (size + ALIGN - 1) / ALIGN * ALIGN + ALIGN;
	if (size > HEAP || whole > HEAP - used)
		return NULL;
	char *block = heap + used;
	*(size_t *)block = whole;
	used += whole;
	return block + ALIGN;
}

void free(void *given) {
	if (given && (char *)given - ALIGN + *(size_t *)((char *)given - ALIGN) == heap + used)
		used = (size_t)((char *)given - ALIGN - heap);
}

void *calloc(size_t count, size_t size) {
	if (size && count > HEAP / size)
		return NULL;
	void *block = malloc(count * size);
	return block ? memset(block, 0, count * size) : NULL;
}

void *realloc(void *given, size_t size) {
	if (!given)
		return malloc(size);
	size_t old = *(size_t *)((char *)given - ALIGN) - ALIGN;
	if (size <= old)
		return given;
	void *block = malloc(size);
	if (block) {
		memcpy(block, given, old);
		free(given);
	}
	return block;
}

// ---- bytes in and out

static void say(const char *text) {
	if (write(2, text, strlen(text)) < 0)
		failed = 1;
}

static void complain(const char *name, const char *what, int error) {
	say("tar: ");
	say(name);
	say(": ");
	say(what);
	if (error) {
		say(": ");
		say(strerror(error));
	}
	say("\n");
	failed = 1;
}

static void give_up(const char *why) {
	say("tar: ");
	say(why);
	say("\ntar: Error is not recoverable: exiting now\n");
	_exit(2);
}

static void write_all(const char *bytes, size_t count) {
	while (count > 0) {
		ssize_t written = write(1, bytes, count);
		if (written < 0)
			give_up(strerror(errno));
		bytes += written;
		count -= (size_t)written;
	}
}

// Reads this many bytes, or fewer where the input ends.
static size_t read_all(char *bytes, size_t count) {
	size_t got = 0;
	while (got < count) {
		ssize_t read_now = read(0, bytes + got, count - got);
		if (read_now < 0)
			give_up(strerror(errno));
		if (read_now == 0)
			break;
		got += (size_t)read_now;
	}
	return got;
}

static uint64_t padded(uint64_t size) { return (size + BLOCK - 1) / BLOCK * BLOCK; }

// A member's header (POSIX pax, "ustar Interchange Format").
struct header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100];
	char magic[6], version[2], user[32], group[32], major[8], minor[8], prefix[155], rest[12];
};

static unsigned checksum(const struct header *header) {
	const unsigned char *bytes = (const unsigned char *)header;
	size_t from = offsetof(struct header, checksum);
	unsigned sum = 0;
	for (size_t at = 0; at < BLOCK; at++)
		sum += at >= from && at < from + sizeof header->checksum ? ' ' : bytes[at];
	return sum;
}

// ---- packing

static void octal(char *field, size_t width, uint64_t value) {
	for (size_t at = width - 1; at-- > 0; value >>= 3)
		field[at] = (char)('0' + (value & 7));
}

// Sizes that have no room in octal are in base 256, as GNU tar and star have them.
static void number(char *field, size_t width, uint64_t value) {
	if (value >> (3 * (width - 1)) == 0) {
		octal(field, width, value);
		return;
	}
	for (size_t at = width; at-- > 1; value >>= 8)
		field[at] = (char)value;
	field[0] = (char)0x80;
}

static void put_header(const char *name, char type, unsigned mode, uint64_t size, uint64_t mtime, const char *link) {
	size_t length = strlen(name);
	if (length > sizeof(((struct header *)0)->name) && type != 'L' && type != 'K') {
		static const char zeros[BLOCK];
		put_header("././@LongLink", 'L', 0644, length + 1, 0, "");
		write_all(name, length);
		write_all(zeros, padded(length + 1) - length);
	}
	size_t link_length = strlen(link);
	if (link_length > sizeof(((struct header *)0)->link)) {
		static const char zeros[BLOCK];
		put_header("././@LongLink", 'K', 0644, link_length + 1, 0, "");
		write_all(link, link_length);
		write_all(zeros, padded(link_length + 1) - link_length);
	}
	struct header header;
	memset(&header, 0, sizeof header);
	memcpy(header.name, name, length < sizeof header.name ? length : sizeof header.name);
	memcpy(header.link, link, link_length < sizeof header.link ? link_length : sizeof header.link);
	octal(header.mode, sizeof header.mode, mode);
	octal(header.uid, sizeof header.uid, 0);
	octal(header.gid, sizeof header.gid, 0);
	number(header.size, sizeof header.size, size);
	number(header.mtime, sizeof header.mtime, mtime);
	header.type = type;
	memcpy(header.magic, "ustar ", 6);
	memcpy(header.version, " ", 2);
	octal(header.checksum, 7, checksum(&header));
	header.checksum[7] = ' ';
	write_all((const char *)&header, BLOCK);
}

static const char *relative(const char *path) {
	while (*path == '/')
		path++;
	return *path ? path : "./";
}

// What is shorter than it was is filled up, what is longer is cut: the header is out already.
static void pack_file(const char *path, uint64_t size, uint64_t mtime) {
	int fd = open(path, O_RDONLY);
	if (fd < 0) {
		complain(path, "Cannot open", errno);
		return;
	}
	put_header(relative(path), '0', 0644, size, mtime, "");
	uint64_t left = size;
	while (left > 0) {
		ssize_t got = read(fd, buffer, left < BUFFER ? (size_t)left : BUFFER);
		if (got <= 0) {
			if (got < 0)
				complain(path, "Read error", errno);
			else
				complain(path, "File shrank; it is filled up with zeros", 0);
			break;
		}
		write_all(buffer, (size_t)got);
		left -= (uint64_t)got;
	}
	close(fd);
	memset(buffer, 0, BUFFER);
	for (left += padded(size) - size; left > 0;) {
		size_t part = left < BUFFER ? (size_t)left : BUFFER;
		write_all(buffer, part);
		left -= part;
	}
}

// `path` has room for MAX_PATH bytes, and is as it was when this returns.
static void pack(char *path, unsigned depth) {
	struct stat stat;
	if (lstat(path, &stat) != 0) {
		complain(path, "Cannot stat", errno);
		return;
	}
	uint64_t mtime = stat.st_mtim.tv_sec < 0 ? 0 : (uint64_t)stat.st_mtim.tv_sec;
	size_t length = strlen(path);
	if (S_ISREG(stat.st_mode)) {
		pack_file(path, (uint64_t)stat.st_size, mtime);
	} else if (S_ISLNK(stat.st_mode)) {
		char target[MAX_PATH];
		ssize_t got = readlink(path, target, sizeof target - 1);
		if (got < 0) {
			complain(path, "Cannot read link", errno);
			return;
		}
		target[got] = 0;
		put_header(relative(path), '2', 0777, 0, mtime, target);
	} else if (S_ISDIR(stat.st_mode)) {
		if (depth >= MAX_DEPTH || length + 2 > MAX_PATH) {
			complain(path, "It lies too deep; it is left out", 0);
			return;
		}
		if (length == 0 || path[length - 1] != '/')
			strcpy(path + length, "/");
		put_header(relative(path), '5', 0755, 0, mtime, "");
		DIR *folder = opendir(path);
		if (!folder) {
			path[length] = 0;
			complain(path, "Cannot open", errno);
			return;
		}
		size_t at = strlen(path);
		for (;;) {
			errno = 0;
			struct dirent *entry = readdir(folder);
			if (!entry)
				break;
			if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
				continue;
			if (at + strlen(entry->d_name) + 2 > MAX_PATH) {
				complain(path, "Names in it are too long; one is left out", 0);
				continue;
			}
			strcpy(path + at, entry->d_name);
			pack(path, depth + 1);
			path[at] = 0;
		}
		if (errno)
			complain(path, "Cannot read", errno);
		closedir(folder);
		path[length] = 0;
	} else {
		complain(path, "It is neither file, folder nor link; it is left out", 0);
	}
}

// ---- unpacking

// A number in octal or, with the first bit set, in base 256; what is none is UINT64_MAX.
static uint64_t parse(const char *field, size_t width) {
	uint64_t value = 0;
	if (field[0] & 0x80) {
		if (field[0] & 0x7f)
			return UINT64_MAX;
		for (size_t at = 1; at < width; at++) {
			if (value >> 56)
				return UINT64_MAX;
			value = value << 8 | (unsigned char)field[at];
		}
		return value;
	}
	size_t at = 0;
	while (at < width && field[at] == ' ')
		at++;
	for (; at < width && field[at] && field[at] != ' '; at++) {
		if (field[at] < '0' || field[at] > '7' || value >> 60)
			return UINT64_MAX;
		value = value << 3 | (uint64_t)(field[at] - '0');
	}
	return value;
}

// What stands before a member and is about it: names of any length, a size.
struct records {
	char name[MAX_PATH], link[MAX_PATH];
	int has_name, has_link, has_size;
	uint64_t size;
};

static void keep(char *to, int *has, const char *text, size_t length) {
	if (length >= MAX_PATH || memchr(text, 0, length))
		length = MAX_PATH; // refused where it is used
	else
		memcpy(to, text, length);
	to[length < MAX_PATH ? length : 0] = 0;
	*has = 1;
}

// `LENGTH KEY=VALUE\n`, the length being that of the whole.
static void parse_pax(struct records *records, char *text, size_t length) {
	while (length > 0) {
		size_t whole = 0, at = 0;
		while (at < length && text[at] >= '0' && text[at] <= '9' && whole <= MAX_RECORDS)
			whole = whole * 10 + (size_t)(text[at++] - '0');
		if (whole > length || whole < at + 3 || text[at] != ' ' || text[whole - 1] != '\n')
			give_up("Malformed extended header");
		char *key = text + at + 1, *end = text + whole - 1;
		char *value = memchr(key, '=', (size_t)(end - key));
		if (!value)
			give_up("Malformed extended header");
		size_t key_length = (size_t)(value++ - key), value_length = (size_t)(end - value);
		if (key_length == 4 && memcmp(key, "path", 4) == 0) {
			keep(records->name, &records->has_name, value, value_length);
		} else if (key_length == 8 && memcmp(key, "linkpath", 8) == 0) {
			keep(records->link, &records->has_link, value, value_length);
		} else if (key_length == 4 && memcmp(key, "size", 4) == 0) {
			records->size = 0;
			for (char *digit = value; digit < end; digit++) {
				if (*digit < '0' || *digit > '9' || records->size > UINT64_MAX / 16)
					give_up("Malformed extended header");
				records->size = records->size * 10 + (uint64_t)(*digit - '0');
			}
			records->has_size = 1;
		}
		text += whole;
		length -= whole;
	}
}

static void skip(uint64_t count) {
	while (count > 0) {
		size_t part = count < BUFFER ? (size_t)count : BUFFER;
		if (read_all(buffer, part) < part)
			give_up("Unexpected EOF in archive");
		count -= part;
	}
}

// Makes the folders that `path` is in.
static void make_parents(char *path) {
	for (char *at = path + 1; *at; at++) {
		if (*at != '/' || at[1] == 0)
			continue;
		*at = 0;
		mkdir(path, 0777);
		*at = '/';
	}
}

static void unpack_file(char *path, uint64_t size) {
	// A new file in the place of the old one; what cannot be removed (it is mounted) is written over.
	unlink(path);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
	if (fd < 0 && errno == ENOENT) {
		make_parents(path);
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
	}
	if (fd < 0)
		complain(path, "Cannot open", errno);
	uint64_t left = size;
	while (left > 0) {
		size_t part = left < BUFFER ? (size_t)left : BUFFER;
		if (read_all(buffer, part) < part)
			give_up("Unexpected EOF in archive");
		for (size_t done = 0; fd >= 0 && done < part;) {
			ssize_t written = write(fd, buffer + done, part - done);
			if (written < 0) {
				complain(path, "Cannot write", errno);
				close(fd);
				fd = -1;
				break;
			}
			done += (size_t)written;
		}
		left -= part;
	}
	if (fd >= 0 && close(fd) != 0)
		complain(path, "Cannot close", errno);
	skip(padded(size) - size);
}

// The path of a member below `folder`, without what leads upwards; none: it must not be unpacked.
static int place(char *path, const char *folder, const char *name) {
	while (*name == '/')
		name++;
	for (const char *at = name; *at;) {
		size_t length = strcspn(at, "/");
		if (length == 2 && memcmp(at, "..", 2) == 0)
			return 0;
		at += length;
		at += strspn(at, "/");
	}
	size_t before = strlen(folder), length = strlen(name);
	if (before + length + 2 > MAX_PATH)
		return 0;
	memcpy(path, folder, before);
	path[before] = '/';
	memcpy(path + before + 1, name, length + 1);
	return 1;
}

static void link_member(char *path, const char *folder, char type, const char *target) {
	char linked[MAX_PATH];
	if (type == '1' && !place(linked, folder, target)) {
		complain(path, "Cannot link to what lies outside", 0);
		return;
	}
	for (int tries = 0; tries < 2; tries++) {
		unlink(path);
		int done = type == '1' ? link(linked, path) : symlink(target, path);
		if (done == 0)
			return;
		if (errno != ENOENT)
			break;
		make_parents(path);
	}
	complain(path, "Cannot create link", errno);
}

static void unpack(const char *folder) {
	static struct records records;
	static char text[MAX_RECORDS + 1];
	struct header header;
	memset(&records, 0, sizeof records);
	int any = 0;
	for (;;) {
		size_t got = read_all((char *)&header, BLOCK);
		if (got == 0) {
			if (!any)
				give_up("This does not look like a tar archive");
			return;
		}
		if (got < BLOCK)
			give_up("Unexpected EOF in archive");
		if (header.name[0] == 0 && parse(header.checksum, 8) == 0) {
			// The end. What follows is read, so that whoever sends it is not stopped.
			while (read_all(buffer, BUFFER) > 0)
				;
			return;
		}
		if (parse(header.checksum, sizeof header.checksum) != checksum(&header))
			give_up("This does not look like a tar archive");
		any = 1;
		uint64_t size = parse(header.size, sizeof header.size);
		char type = header.type;
		int about = type == 'x' || type == 'g' || type == 'L' || type == 'K';
		if (!about && records.has_size)
			size = records.size;
		if (size > UINT64_MAX / 2)
			give_up("A member has no valid size");
		if (about) {
			if (size > MAX_RECORDS)
				give_up("An extended header is too long");
			if (read_all(text, (size_t)size) < size)
				give_up("Unexpected EOF in archive");
			skip(padded(size) - size);
			text[size] = 0;
			if (type == 'x')
				parse_pax(&records, text, (size_t)size);
			else if (type == 'L')
				keep(records.name, &records.has_name, text, strlen(text));
			else if (type == 'K')
				keep(records.link, &records.has_link, text, strlen(text));
			continue;
		}
		if (!records.has_name) {
			size_t at = 0;
			// GNU has other things where POSIX has the prefix; its magic ends with a blank.
			if (header.magic[5] == 0 && memcmp(header.magic, "ustar", 5) == 0 && header.prefix[0]) {
				at = strnlen(header.prefix, sizeof header.prefix);
				memcpy(records.name, header.prefix, at);
				records.name[at++] = '/';
			}
			size_t length = strnlen(header.name, sizeof header.name);
			memcpy(records.name + at, header.name, length);
			records.name[at + length] = 0;
		}
		if (!records.has_link) {
			size_t length = strnlen(header.link, sizeof header.link);
			memcpy(records.link, header.link, length);
			records.link[length] = 0;
		}
		static char path[MAX_PATH];
		int file = type == '0' || type == 0 || type == '7';
		size_t length = strlen(records.name);
		if (length == 0 || !place(path, folder, records.name)) {
			complain(records.name, "Member name leads outside or is too long; it is left out", 0);
			skip(padded(size));
		} else if (type == '5' || (file && records.name[length - 1] == '/')) {
			struct stat stat;
			make_parents(path);
			if (mkdir(path, 0777) != 0) {
				int error = errno;
				if (lstat(path, &stat) != 0 || !S_ISDIR(stat.st_mode))
					complain(path, "Cannot mkdir", error);
			}
			skip(padded(size));
		} else if (file) {
			unpack_file(path, size);
		} else if (type == '1' || type == '2') {
			link_member(path, folder, type, records.link);
			skip(padded(size));
		} else {
			complain(path, "It is neither file, folder nor link; it is left out", 0);
			skip(padded(size));
		}
		memset(&records, 0, sizeof records);
	}
}

// ---- command lines

static int test(int count, char **args) {
	struct stat stat;
	if (count != 3 || args[1][0] != '-' || strlen(args[1]) != 2 || !strchr("def", args[1][1])) {
		say("test: this one knows -d PATH, -e PATH and -f PATH\n");
		return 2;
	}
	// From libc's own table, "." is there even where no folder is.
	if (stat.st_mode = 0, fstatat(AT_FDCWD, args[2], &stat, 0) != 0)
		return 1;
	switch (args[1][1]) {
	case 'd':
		return !S_ISDIR(stat.st_mode);
	case 'f':
		return !S_ISREG(stat.st_mode);
	}
	return 0;
}

static void usage(void) {
	say("tar: this one knows `tar cf - PATH...` and `tar xmf - [-C FOLDER]`\n");
	_exit(2);
}

static int tar(int count, char **args) {
	int mode = 0, archive = 0;
	const char *folder = "";
	int paths = 0;
	for (int at = 1; at < count; at++) {
		char *arg = args[at];
		if (strncmp(arg, "--", 2) == 0) {
			if (strcmp(arg, "--no-same-permissions") != 0 && strcmp(arg, "--no-same-owner") != 0)
				usage();
		} else if (strcmp(arg, "-C") == 0) {
			if (++at >= count)
				usage();
			folder = args[at];
		} else if (!mode) {
			for (char *letter = arg + (*arg == '-'); *letter; letter++) {
				if (*letter == 'c' || *letter == 'x')
					mode = *letter;
				else if (*letter != 'm' && *letter != 'f')
					usage();
			}
			if (!mode || arg[strlen(arg) - 1] != 'f' || ++at >= count || strcmp(args[at], "-") != 0)
				usage();
			archive = 1;
		} else {
			args[paths++] = arg;
		}
	}
	if (!archive || (mode == 'x') != (paths == 0))
		usage();
	if (mode == 'x') {
		unpack(folder);
	} else {
		for (int at = 0; at < paths; at++) {
			static char path[MAX_PATH];
			if (strlen(args[at]) + 2 > MAX_PATH) {
				complain(args[at], "The name is too long", 0);
				continue;
			}
			strcpy(path, args[at]);
			pack(path, 0);
		}
		memset(buffer, 0, 2 * BLOCK);
		write_all(buffer, 2 * BLOCK);
	}
	if (failed)
		say("tar: Exiting with failure status due to previous errors\n");
	return failed ? 2 : 0;
}

int main(int count, char **args) {
	const char *name = count > 0 ? args[0] : "";
	const char *slash = strrchr(name, '/');
	if (slash)
		name = slash + 1;
	if (strcmp(name, "test") == 0)
		return test(count, args);
	if (strcmp(name, "tar") == 0)
		return tar(count, args);
	say("this program is called test or tar\n");
	return 2;
}
