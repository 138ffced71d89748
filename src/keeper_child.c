/* keeper_child.c -- the keeper's own side, after the fork.  Floor 3.
 *
 * The process that forked has threads, any of which may have held any lock at that moment.  So
 * nothing here allocates, prints or takes a lock: system calls and memory from mmap only.
 *
 * Notes are kept as they come, one after the other in one block of memory: a kind, the text, a
 * NUL.  There are as many as jobs, so forgetting may walk over all of them.
 *
 * Directories are removed without recursion: a directory found inside a directory is lifted up to
 * the top under a new name, so nothing is ever deeper than two levels, whatever a job has
 * built.  Mount points are not entered, also not bind mounts.
 */
#include "worker/keeper_child.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "worker/cgdir.h"
#include "worker/keeper.h"
#include "worker/proctree.h"

/* A sanitizer's own tables look like a large heap and are needed to the end. */
#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define KEEP_HEAP 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(KEEP_HEAP)
#define KEEP_HEAP 1
#endif
#ifndef KEEP_HEAP
#define KEEP_HEAP 0
#endif

#define FIRST_BYTES 65536
#define END_ROUNDS  400 /* of 1 to 50 milliseconds: about 20 seconds for what does not die */
#define FILES_WALK  16384
#define LEAST_DROP  (1024 * 1024)
#define MOST_DROP   (1024ul * 1024 * 1024)

struct notes {
	char *data;
	size_t used, room;
};

struct entry {
	uint64_t inode;
	int64_t offset;
	unsigned short size;
	unsigned char type;
	char name[];
};

static void pause_ms(int ms)
{
	nanosleep(&(struct timespec){.tv_nsec = ms * 1000000l}, NULL);
}

/* --- becoming small --- */

static bool writable_private(const char *line)
{
	const char *mode = strchr(line, ' ');
	return mode != NULL && strncmp(mode + 1, "rw-p 00000000 00:00 0", 21) == 0;
}

static uintptr_t hex(const char **at)
{
	uintptr_t value = 0;
	for (;; ++*at) {
		if (**at >= '0' && **at <= '9')
			value = value * 16 + (uintptr_t)(**at - '0');
		else if (**at >= 'a' && **at <= 'f')
			value = value * 16 + (uintptr_t)(**at - 'a' + 10);
		else
			return value;
	}
}

/* Give back what this mapping copies from the worker, unless it holds our stack or errno. */
static void drop_mapping(const char *line)
{
	const char *at = line;
	uintptr_t from = hex(&at);
	at++;
	uintptr_t to = hex(&at);
	uintptr_t here = (uintptr_t)&at, there = (uintptr_t)&errno;
	bool ours = (here >= from && here < to) || (there >= from && there < to);
	bool heap = strstr(line, "[heap]") != NULL;
	bool large = to - from >= LEAST_DROP && to - from <= MOST_DROP && strchr(line, '[') == NULL;
	if (writable_private(line) && !ours && (heap || large))
		madvise((void *)from, to - from, MADV_DONTNEED);
}

/* The heap, arenas and thread stacks are copy-on-write: as the worker goes on, every page it
 * changes would live twice. */
static void drop_heap(void)
{
	char text[4096 + 1];
	size_t have = 0;
	int fd = open("/proc/self/maps", O_RDONLY);
	if (fd == -1)
		return;
	ssize_t n;
	while ((n = read(fd, text + have, 4096 - have)) > 0) {
		have += (size_t)n;
		text[have] = 0;
		char *line = text, *end;
		while ((end = strchr(line, '\n')) != NULL) {
			*end = 0;
			drop_mapping(line);
			line = end + 1;
		}
		have -= (size_t)(line - text);
		memmove(text, line, have);
		if (have == 4096)
			have = 0;
	}
	close(fd);
}

/* What ps shows: not the worker's command line, or "pkill -9 -f worker" would end both. */
static void rename_process(void)
{
	static const char title[] = "keeper: ends the jobs of a process that dies";
	char text[2048];
	prctl(PR_SET_NAME, "keeper", 0, 0, 0);
	if (cgdir_read(AT_FDCWD, "/proc/self/stat", text, sizeof text) == -1)
		return;
	const char *at = strrchr(text, ')');
	uintptr_t span[2] = {0, 0};
	for (int field = 2; at != NULL && field < 49; field++) {
		at = strchr(at + 1, ' ');
		if (at == NULL || field < 47)
			continue;
		for (const char *digit = at + 1; *digit >= '0' && *digit <= '9'; digit++)
			span[field - 47] = span[field - 47] * 10 + (uintptr_t)(*digit - '0');
	}
	if (span[0] == 0 || span[1] <= span[0])
		return;
	size_t room = span[1] - span[0], n = sizeof title < room ? sizeof title : room;
	memset((void *)span[0], 0, room);
	memcpy((void *)span[0], title, n);
	((char *)span[0])[room - 1] = 0;
}

/* Also where the kernel, or a sandbox, does not know the one call for it; then not over all numbers
 * that there may be, which are a thousand million on some machines. */
static void close_files(unsigned first, unsigned last)
{
	struct rlimit most = {.rlim_cur = 1024};
	if (first > last || syscall(SYS_close_range, first, last, 0u) == 0)
		return;
	getrlimit(RLIMIT_NOFILE, &most);
	if (most.rlim_cur > FILES_WALK)
		most.rlim_cur = FILES_WALK;
	for (unsigned fd = first; fd <= last && fd < most.rlim_cur; fd++)
		close((int)fd);
}

static void settle(int sock)
{
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	setsid();
	(void)!chdir("/");
	if (sock > 0)
		close_files(0, (unsigned)sock - 1);
	close_files((unsigned)sock + 1, ~0u);
	/* Nobody who reads our output waits for us to end. */
	for (int i = 0; i < 3; i++)
		(void)!open("/dev/null", O_RDWR);
	(void)cgdir_write(AT_FDCWD, "/proc/self/oom_score_adj", "-900");
	rename_process();
	if (!KEEP_HEAP)
		drop_heap();
}

/* --- notes --- */

static void add_note(struct notes *notes, const char *note, size_t n)
{
	if (notes->used + n > notes->room) {
		size_t room = notes->room ? notes->room * 2 : FIRST_BYTES;
		void *data = notes->room ? mremap(notes->data, notes->room, room, MREMAP_MAYMOVE)
					 : mmap(NULL, room, PROT_READ | PROT_WRITE,
						MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (data == MAP_FAILED)
			return;
		notes->data = data;
		notes->room = room;
	}
	memcpy(notes->data + notes->used, note, n);
	notes->used += n;
}

static void drop_note(struct notes *notes, const char *note, size_t n)
{
	for (size_t at = 0; at < notes->used;) {
		size_t size = strlen(notes->data + at) + 1;
		if (size == n && memcmp(notes->data + at, note, n) == 0) {
			notes->used -= n;
			memmove(notes->data + at, notes->data + at + n, notes->used - at);
			return;
		}
		at += size;
	}
}

/* Take notes until the worker is dead. */
static void listen_to_worker(int sock, struct notes *notes)
{
	char message[KEEPER_CHILD_MESSAGE + 1];
	for (;;) {
		ssize_t n = recv(sock, message, sizeof message - 1, 0);
		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		message[n] = 0;
		size_t size = strlen(message + 1) + 1;
		if (message[0] == '+')
			add_note(notes, message + 1, size);
		else if (message[0] == '-')
			drop_note(notes, message + 1, size);
		else if (message[0] == '.')
			_exit(0);
	}
}

/* --- ending --- */

static const char *next_note(const struct notes *notes, const char *after, char kind)
{
	const char *at = after == NULL ? notes->data : after + strlen(after) + 1;
	while (at != NULL && at < notes->data + notes->used && *at != kind)
		at += strlen(at) + 1;
	return at != NULL && at < notes->data + notes->used ? at : NULL;
}

/* Split in place and open what the last part is in; puts the slash back. */
static int open_parent(char *path, char **name)
{
	char *slash = strrchr(path, '/');
	if (slash == NULL || slash == path || slash[1] == 0)
		return -1;
	*slash = 0;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*slash = '/';
	*name = slash + 1;
	return fd;
}

/* Where the worker had moved into a leaf of its own group, so were we born there. */
static bool lives_in(int parent, const char *name)
{
	int dir = cgdir_open(parent, name);
	int spare = dir == -1 ? -1 : cgdir_open(dir, CGDIR_SPARE);
	if (dir != -1)
		close(dir);
	if (spare != -1)
		close(spare);
	return spare != -1;
}

static bool end_groups(const struct notes *notes)
{
	bool done = true;
	const char *note = NULL;
	while ((note = next_note(notes, note, KEEPER_GROUP)) != NULL) {
		char *name;
		int parent = open_parent((char *)(uintptr_t)note + 1, &name);
		if (parent == -1)
			continue;
		done = cgdir_end(parent, name, 1) == 0 && done;
		if (lives_in(parent, name))
			(void)cgdir_leave(parent, name);
		close(parent);
	}
	return done;
}

static bool end_processes(const struct notes *notes, struct proctree *all)
{
	enum { MEANT = 1 };
	const char *note = NULL;
	if (next_note(notes, NULL, KEEPER_TAG) == NULL &&
	    next_note(notes, NULL, KEEPER_SESSION) == NULL)
		return true;
	if (proctree_read(all) == -1)
		return false;
	while ((note = next_note(notes, note, KEEPER_SESSION)) != NULL) {
		uint64_t numbers[2] = {0, 0};
		for (int i = 0, at = 1; i < 2; i++, at++)
			for (; note[at] >= '0' && note[at] <= '9'; at++)
				numbers[i] = numbers[i] * 10 + (uint64_t)(note[at] - '0');
		proctree_mark_session(all, (pid_t)numbers[0], numbers[1], 0, MEANT);
	}
	proctree_spread(all, MEANT);
	while ((note = next_note(notes, note, KEEPER_TAG)) != NULL)
		proctree_mark_tag(all, note + 1, 0, MEANT);
	proctree_spread(all, MEANT);
	return proctree_signal(all, MEANT, SIGKILL) == 0;
}

/* Twice nothing: a child that was between clone and exec has its tag by the second look. */
static void end_all(const struct notes *notes)
{
	struct proctree all = {.list = NULL};
	int quiet = 0;
	for (int round = 0; round < END_ROUNDS && quiet < 2; round++) {
		bool groups = end_groups(notes), processes = end_processes(notes, &all);
		quiet = groups && processes ? quiet + 1 : 0;
		pause_ms(quiet > 0 || round > 50 ? 50 : 1 + round);
	}
	proctree_free(&all);
}

/* --- removing directories --- */

static int enter(int dir, const char *name)
{
	struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW,
			       .resolve = RESOLVE_NO_XDEV | RESOLVE_BENEATH};
	(void)!fchmodat(dir, name, 0700, 0);
	return (int)syscall(SYS_openat2, dir, name, &how, sizeof how);
}

/* One pass over ${dir}: files go, empty directories go; others are opened by ${deeper}, or are
 * lifted to ${top} where that is none.  Returns how much was done. */
static size_t clear_pass(int dir, int top, unsigned *serial)
{
	_Alignas(struct entry) char room[4096];
	size_t done = 0;
	long n;
	lseek(dir, 0, SEEK_SET);
	while ((n = syscall(SYS_getdents64, dir, room, sizeof room)) > 0) {
		for (long at = 0; at < n;) {
			struct entry *entry = (struct entry *)(void *)(room + at);
			const char *name = entry->name;
			at += entry->size;
			if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
				continue;
			if (unlinkat(dir, name, 0) == 0 || unlinkat(dir, name, AT_REMOVEDIR) == 0) {
				done++;
				continue;
			}
			if (dir == top) {
				int below = enter(dir, name);
				if (below == -1)
					continue;
				done += clear_pass(below, top, serial);
				close(below);
				continue;
			}
			char lifted[16] = ".lifted-";
			for (unsigned i = 8, rest = ++*serial; i < 15; i++, rest /= 16)
				lifted[i] = "0123456789abcdef"[rest % 16];
			(void)!fchmodat(dir, name, 0700, 0);
			done += renameat(dir, name, top, lifted) == 0;
		}
	}
	return done;
}

/* Of a file only the first step succeeds. */
static void remove_noted(char *path)
{
	char *name;
	unsigned serial = 0;
	int parent = open_parent(path, &name);
	bool gone = parent == -1 || unlinkat(parent, name, 0) == 0;
	int top = gone ? -1 : enter(parent, name);
	if (top != -1) {
		while (clear_pass(top, top, &serial) > 0)
			;
		close(top);
		unlinkat(parent, name, AT_REMOVEDIR);
	}
	if (parent != -1)
		close(parent);
}

void keeper_child_run(int sock)
{
	struct notes notes = {.data = NULL};
	settle(sock);
	listen_to_worker(sock, &notes);
	end_all(&notes);
	const char *note = NULL;
	while ((note = next_note(&notes, note, KEEPER_DIR)) != NULL)
		remove_noted((char *)(uintptr_t)note + 1);
	_exit(0);
}
