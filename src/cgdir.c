/* cgdir.c -- one control group directory, v1 or v2: read, write, kill, remove.  Floor 3.
 *
 * The files of a control group are short and are read whole, except cgroup.procs, which is read in
 * pieces and parsed across their borders.  Groups below are found with getdents64 itself, because
 * opendir() allocates and the keeper may not.
 *
 * Killing without cgroup.kill is a race against fork(): between reading the list and sending the
 * signals a process may have a child that is not in the list.  So forking is stopped first where
 * the kernel lets us: a frozen v2 group cannot fork, a v1 group with pids.max 0 neither.  Where it
 * does not, the caller repeats the pass until nothing is left.
 */
#include "worker/cgdir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DEPTH_CEILING 32 /* of groups below groups: the stack's bound, not the kernel's */

/* What getdents64 fills in; glibc has no such struct. */
struct entry {
	uint64_t inode;
	int64_t offset;
	unsigned short size;
	unsigned char type;
	char name[];
};

int cgdir_open(int parent, const char *name)
{
	return openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
}

int cgdir_hold(int dir, const char *file)
{
	return openat(dir, file, O_PATH | O_CLOEXEC);
}

int cgdir_write(int dir, const char *file, const char *text)
{
	int fd = openat(dir, file, O_WRONLY | O_CLOEXEC);
	if (fd == -1)
		return -1;
	ssize_t n = write(fd, text, strlen(text));
	int why = errno;
	close(fd);
	errno = why;
	return n == -1 ? -1 : 0;
}

/* snprintf is not async-signal-safe. */
static const char *decimal(int64_t number, char out[24])
{
	char *at = out + 23;
	*at = 0;
	do
		*--at = (char)('0' + number % 10);
	while (number /= 10);
	return at;
}

int cgdir_write_number(int dir, const char *file, int64_t number)
{
	char text[24];
	return cgdir_write(dir, file, decimal(number, text));
}

ssize_t cgdir_read(int dir, const char *file, char *out, size_t room)
{
	int fd = openat(dir, file, O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		return -1;
	size_t have = 0;
	ssize_t n;
	while (have + 1 < room && (n = read(fd, out + have, room - 1 - have)) != 0) {
		if (n == -1 && errno != EINTR)
			break;
		have += n > 0 ? (size_t)n : 0;
	}
	out[have] = 0;
	close(fd);
	return (ssize_t)have;
}

static int64_t parse(const char *text)
{
	if (*text < '0' || *text > '9')
		return -1;
	int64_t number = 0;
	for (; *text >= '0' && *text <= '9' && number < INT64_MAX / 10 - 9; text++)
		number = number * 10 + (*text - '0');
	return number;
}

int64_t cgdir_number(int dir, const char *file)
{
	char text[32];
	return cgdir_read(dir, file, text, sizeof text) == -1 ? -1 : parse(text);
}

/* What follows ${key} and a space at ${at}, or NULL when that is not there. */
static const char *behind(const char *at, const char *key)
{
	for (; *key != 0; at++, key++)
		if (*at != *key)
			return NULL;
	return *at == ' ' ? at + 1 : NULL;
}

int64_t cgdir_find(const char *text, const char *key)
{
	for (const char *at = text; *at != 0;) {
		const char *value = behind(at, key);
		if (value != NULL)
			return parse(value);
		const char *end = strchr(at, '\n');
		if (end == NULL)
			break;
		at = end + 1;
	}
	return -1;
}

int64_t cgdir_field(int dir, const char *file, const char *key)
{
	char text[4096];
	return cgdir_read(dir, file, text, sizeof text) == -1 ? -1 : cgdir_find(text, key);
}

bool cgdir_word(int dir, const char *file, const char *word)
{
	char text[1024];
	size_t length = strlen(word);
	if (cgdir_read(dir, file, text, sizeof text) == -1)
		return false;
	for (const char *at = text; (at = strstr(at, word)) != NULL; at += length) {
		bool starts = at == text || at[-1] == ' ' || at[-1] == '\n';
		if (starts && strchr(" \n", at[length]) != NULL)
			return true;
	}
	return false;
}

void cgdir_each(int dir, void (*visit)(int dir, const char *name, void *arg), void *arg)
{
	/* An fd of its own: reading moves an offset that all copies of an fd share. */
	int fd = cgdir_open(dir, ".");
	if (fd == -1)
		return;
	_Alignas(struct entry) char room[2048];
	long n;
	while ((n = syscall(SYS_getdents64, fd, room, sizeof room)) > 0) {
		for (long at = 0; at < n;) {
			struct entry *entry = (struct entry *)(void *)(room + at);
			at += entry->size;
			if (entry->type == DT_DIR && entry->name[0] != '.')
				visit(dir, entry->name, arg);
		}
	}
	close(fd);
}

/* Visit the processes of this group alone. */
static size_t processes_here(int dir, void (*visit)(pid_t pid, void *arg), void *arg)
{
	int fd = openat(dir, "cgroup.procs", O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		return 0;
	char text[1024];
	size_t found = 0;
	pid_t pid = 0, self = getpid();
	ssize_t n;
	while ((n = read(fd, text, sizeof text)) > 0) {
		for (ssize_t i = 0; i < n; i++) {
			if (text[i] != '\n') {
				pid = pid * 10 + (text[i] - '0');
				continue;
			}
			/* 0 would mean our own process group */
			if (pid > 0 && pid != self) {
				found++;
				visit(pid, arg);
			}
			pid = 0;
		}
	}
	close(fd);
	return found;
}

struct walk {
	void (*visit)(pid_t pid, void *arg);
	void *arg;
	int depth;
	size_t found;
};

static void processes_below(int dir, const char *name, void *arg)
{
	struct walk *walk = arg;
	int fd = walk->depth < DEPTH_CEILING ? cgdir_open(dir, name) : -1;
	if (fd == -1)
		return;
	walk->depth++;
	walk->found += processes_here(fd, walk->visit, walk->arg);
	cgdir_each(fd, processes_below, walk);
	walk->depth--;
	close(fd);
}

size_t cgdir_processes(int dir, void (*visit)(pid_t pid, void *arg), void *arg)
{
	struct walk walk = {.visit = visit, .arg = arg};
	walk.found = processes_here(dir, visit, arg);
	cgdir_each(dir, processes_below, &walk);
	return walk.found;
}

static void signal_one(pid_t pid, void *arg)
{
	const int *signo = arg;
	if (*signo != 0)
		kill(pid, *signo);
}

static size_t signal_here(int dir, int signo)
{
	return processes_here(dir, signal_one, &signo);
}

size_t cgdir_signal(int dir, int signo)
{
	return cgdir_processes(dir, signal_one, &signo);
}

bool cgdir_populated(int dir)
{
	int64_t populated = cgdir_field(dir, "cgroup.events", "populated");
	return populated == -1 ? cgdir_signal(dir, 0) > 0 : populated > 0;
}

bool cgdir_kill(int dir)
{
	if (cgdir_write(dir, "cgroup.kill", "1") == 0)
		return true;
	bool still = cgdir_write(dir, "cgroup.freeze", "1") == 0 ||
		     cgdir_write(dir, "pids.max", "0") == 0;
	cgdir_signal(dir, SIGKILL);
	return still;
}

static void remove_below(int dir, const char *name, void *arg)
{
	struct walk *walk = arg;
	int fd = walk->depth < DEPTH_CEILING ? cgdir_open(dir, name) : -1;
	if (fd == -1)
		return;
	walk->depth++;
	cgdir_each(fd, remove_below, walk);
	walk->depth--;
	close(fd);
	unlinkat(dir, name, AT_REMOVEDIR);
}

int cgdir_remove(int parent, const char *name)
{
	if (unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
		return 0;
	/* Not empty: a job that was root may have made groups of its own inside. */
	struct walk walk = {.depth = 0};
	int fd = cgdir_open(parent, name);
	if (fd != -1) {
		cgdir_each(fd, remove_below, &walk);
		close(fd);
	}
	return unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT ? 0 : -1;
}

static void end_below(int dir, const char *name, void *arg)
{
	size_t *jobs = arg;
	if (strcmp(name, CGDIR_SPARE) == 0)
		return;
	++*jobs;
	int fd = cgdir_open(dir, name);
	if (fd != -1) {
		cgdir_kill(fd);
		close(fd);
	}
}

int cgdir_end(int parent, const char *name, int patience)
{
	int dir = cgdir_open(parent, name);
	if (dir == -1)
		return errno == ENOENT ? 0 : -1;
	int failed;
	for (int left = patience;; left--) {
		size_t jobs = 0;
		signal_here(dir, SIGKILL);
		cgdir_each(dir, end_below, &jobs);
		failed = cgdir_remove(parent, name);
		if (failed == 0 || left <= 0)
			break;
		if (jobs == 0 && signal_here(dir, 0) == 0) {
			failed = 0; /* nothing but the spare leaf */
			break;
		}
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
	close(dir);
	return failed;
}

static void controllers_off(int dir)
{
	static const char *const all[] = {"-memory", "-pids", "-cpu"};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		(void)cgdir_write(dir, "cgroup.subtree_control", all[i]);
}

/* One write moves one process, so the list is read and written word by word. */
void cgdir_move(int from, int to)
{
	char text[4096];
	if (cgdir_read(from, "cgroup.procs", text, sizeof text) == -1)
		return;
	for (char *at = text, *end; (end = strchr(at, '\n')) != NULL; at = end + 1) {
		*end = 0;
		(void)cgdir_write(to, "cgroup.procs", at);
	}
}

int cgdir_leave(int parent, const char *name)
{
	int dir = cgdir_open(parent, name);
	int spare = dir == -1 ? -1 : cgdir_open(dir, CGDIR_SPARE);
	if (dir != -1) {
		controllers_off(dir);
		controllers_off(parent);
	}
	if (spare != -1) {
		cgdir_move(spare, parent);
		close(spare);
		(void)unlinkat(dir, CGDIR_SPARE, AT_REMOVEDIR);
	}
	if (dir != -1)
		close(dir);
	return cgdir_remove(parent, name);
}
