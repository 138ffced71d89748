/* proctree.c -- one look at all processes: who descends from whom.  Floor 3.
 *
 * /proc lists processes by ascending number, so a snapshot is sorted as it is read and parents are
 * found by bisection.  A parent has a lower number than its children except where numbers have
 * wrapped, so marking descendants takes one pass over the list, rarely two.
 *
 * A signal goes through a pidfd: open it, see that the start time is still the one of the
 * snapshot, send.  Between kill(2) and a look at the start time another process could have taken
 * the number; not so here.
 */
#include "worker/proctree.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FIRST_BYTES 65536

/* What getdents64 fills in; glibc has no such struct. */
struct entry {
	uint64_t inode;
	int64_t offset;
	unsigned short size;
	unsigned char type;
	char name[];
};

/* "/proc/PID/file", without snprintf: it is not async-signal-safe. */
static const char *proc_path(char out[64], pid_t pid, const char *file)
{
	char digits[16];
	size_t n = sizeof digits;
	do
		digits[--n] = (char)('0' + pid % 10);
	while (pid /= 10);
	memcpy(out, "/proc/", 6);
	memcpy(out + 6, digits + n, sizeof digits - n);
	strcpy(out + 6 + sizeof digits - n, file);
	return out;
}

static uint64_t number(const char **at)
{
	uint64_t value = 0;
	while (**at == ' ')
		++*at;
	for (; **at >= '0' && **at <= '9'; ++*at)
		value = value * 10 + (uint64_t)(**at - '0');
	return value;
}

static void skip_words(const char **at, int count)
{
	while (count-- > 0) {
		while (**at == ' ')
			++*at;
		while (**at != ' ' && **at != 0)
			++*at;
	}
}

static bool read_process(pid_t pid, struct proctree_process *out)
{
	char path[64], text[1024];
	int fd = open(proc_path(path, pid, "/stat"), O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		return false;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	if (n <= 0)
		return false;
	text[n] = 0;
	const char *at = strrchr(text, ')'); /* the name before it may hold anything */
	if (at == NULL || at[1] == 0)
		return false;
	at += 2;
	*out = (struct proctree_process){.pid = pid, .state = *at++};
	out->parent = (pid_t)number(&at);
	skip_words(&at, 1); /* process group */
	out->session = (pid_t)number(&at);
	skip_words(&at, 15);
	out->start = number(&at);
	return true;
}

uint64_t proctree_start(pid_t pid)
{
	struct proctree_process process;
	return pid > 0 && read_process(pid, &process) ? process.start : 0;
}

static int reserve(struct proctree *tree)
{
	if ((tree->count + 1) * sizeof *tree->list <= tree->bytes)
		return 0;
	size_t bytes = tree->bytes ? tree->bytes * 2 : FIRST_BYTES;
	void *list = tree->bytes ? mremap(tree->list, tree->bytes, bytes, MREMAP_MAYMOVE)
				 : mmap(NULL, bytes, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (list == MAP_FAILED)
		return -1;
	tree->list = list;
	tree->bytes = bytes;
	return 0;
}

void proctree_free(struct proctree *tree)
{
	if (tree->bytes > 0)
		munmap(tree->list, tree->bytes);
	*tree = (struct proctree){.list = NULL};
}

static int take(struct proctree *tree, const char *name)
{
	const char *at = name;
	pid_t pid = (pid_t)number(&at);
	if (pid <= 0 || *at != 0)
		return 0;
	if (reserve(tree) == -1)
		return -1;
	if (read_process(pid, &tree->list[tree->count]))
		tree->count++;
	return 0;
}

int proctree_read(struct proctree *tree)
{
	_Alignas(struct entry) char room[4096];
	tree->count = 0;
	int fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd == -1)
		return -1;
	long n;
	int failed = 0;
	while (failed == 0 && (n = syscall(SYS_getdents64, fd, room, sizeof room)) > 0) {
		for (long at = 0; at < n && failed == 0;) {
			struct entry *entry = (struct entry *)(void *)(room + at);
			at += entry->size;
			failed = take(tree, entry->name);
		}
	}
	int why = errno;
	close(fd);
	errno = why;
	return failed;
}

struct proctree_process *proctree_find(const struct proctree *tree, pid_t pid)
{
	size_t low = 0, high = tree->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (tree->list[middle].pid < pid)
			low = middle + 1;
		else
			high = middle;
	}
	return low < tree->count && tree->list[low].pid == pid ? &tree->list[low] : NULL;
}

void proctree_spread(struct proctree *tree, unsigned char mark)
{
	bool again = true;
	while (again) {
		again = false;
		for (size_t i = 0; i < tree->count; i++) {
			struct proctree_process *process = &tree->list[i];
			const struct proctree_process *parent;
			if (process->marks & mark)
				continue;
			parent = proctree_find(tree, process->parent);
			if (parent == NULL || !(parent->marks & mark))
				continue;
			process->marks |= mark;
			again = true;
		}
	}
}

void proctree_mark_session(struct proctree *tree, pid_t leader, uint64_t start, unsigned char among,
			   unsigned char mark)
{
	/* A session that still has members keeps its number, so only a leader that is there and
	 * is another one can mislead. */
	const struct proctree_process *now = proctree_find(tree, leader);
	if (leader <= 0 || (now != NULL && now->start != start))
		return;
	for (size_t i = 0; i < tree->count; i++)
		if (tree->list[i].session == leader && (tree->list[i].marks & among) == among)
			tree->list[i].marks |= mark;
}

/* Environments may be megabytes long: read in pieces, the last bytes of one piece are kept in
 * front of the next.  An imagined NUL before the first entry makes all entries alike. */
static bool has_tag(pid_t pid, const char *tag)
{
	char path[64], text[4096 + 128];
	size_t length = strlen(tag), have = 1;
	int fd = open(proc_path(path, pid, "/environ"), O_RDONLY | O_CLOEXEC);
	if (fd == -1 || length == 0 || length > 120) {
		if (fd != -1)
			close(fd);
		return false;
	}
	bool found = false;
	ssize_t n;
	text[0] = 0;
	while (!found && (n = read(fd, text + have, 4096)) > 0) {
		size_t end = have + (size_t)n;
		for (size_t i = 0; i + length < end && !found; i++)
			found = text[i] == 0 && memcmp(text + i + 1, tag, length) == 0;
		have = end < length ? end : length;
		memmove(text, text + end - have, have);
	}
	close(fd);
	return found;
}

void proctree_mark_tag(struct proctree *tree, const char *tag, unsigned char among,
		       unsigned char mark)
{
	for (size_t i = 0; i < tree->count; i++) {
		struct proctree_process *process = &tree->list[i];
		if (!(process->marks & mark) && (process->marks & among) == among &&
		    has_tag(process->pid, tag))
			process->marks |= mark;
	}
}

static void send_signal(const struct proctree_process *process, int signo)
{
	int fd = pidfd_open(process->pid, 0);
	if (fd == -1) {
		/* No pidfds (before Linux 5.3, or filtered away): the plain way. */
		if (errno == ENOSYS || errno == EPERM)
			kill(process->pid, signo);
		return;
	}
	if (proctree_start(process->pid) == process->start)
		pidfd_send_signal(fd, signo, NULL, 0);
	close(fd);
}

size_t proctree_signal(const struct proctree *tree, unsigned char mark, int signo)
{
	size_t found = 0;
	pid_t self = getpid();
	for (size_t i = 0; i < tree->count; i++) {
		const struct proctree_process *process = &tree->list[i];
		if (!(process->marks & mark) || process->pid == self ||
		    strchr("ZX", process->state) != NULL)
			continue;
		found++;
		if (signo != 0)
			send_signal(process, signo);
	}
	return found;
}
