/* spawn_thread.c -- the thread that clones.  Floor 3.  See worker/spawn_order.h.
 *
 * Two reasons for a thread.  A vfork suspends its caller until the child has exec'd, which takes a
 * scheduler's slice when other children keep the processors busy; here that suspends nobody who is
 * needed.  And the first thing the thread does is to leave the shared table of file descriptors:
 * from then on its table, which every child gets a copy of, holds 0, 1, 2, the socket, /dev/null
 * and the files that came with the order being worked on or were made for it.  So a file opened
 * elsewhere without close-on-exec, or at the wrong moment, cannot slip into a child.
 *
 * The thread lives as long as the spawner, because the death signal of a child is tied to the
 * thread that cloned it, not to the process.  Users are looked up here too: that may ask a
 * directory server.
 */
#include "worker/spawn_order.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/clock.h"
#include "worker/orphans.h"

#define THREAD_STACK  ((size_t)256 * 1024)
#define CHILD_STACK   ((size_t)64 * 1024)
#define CHILD_GUARD   ((size_t)4096)
#define THREAD_GROUPS 256

struct spawn_thread {
	pthread_t thread;
	int sock, null_fd;
	char *stack; /* the children's, one after the other; the guard is its first page */
	struct spawn_page *page;
	bool lift_oom;
	bool no_clone3; /* refused once: not tried again */
	pid_t parent;
	uint64_t signals; /* set long before the first child, and never again */
	gid_t groups[THREAD_GROUPS];
};

/* --- telling what failed --- */

static const char *const step_names[] = {
	[SPAWN_STEP_NONE] = "nothing",
	[SPAWN_STEP_LOOKUP] = "look up the user",
	[SPAWN_STEP_PIPE] = "make a pipe",
	[SPAWN_STEP_CLONE] = "clone",
	[SPAWN_STEP_SESSION] = "setsid",
	[SPAWN_STEP_CGROUP] = "enter the control group",
	[SPAWN_STEP_OOM] = "set oom_score_adj",
	[SPAWN_STEP_NICE] = "set nice",
	[SPAWN_STEP_LIMIT] = "set the limit",
	[SPAWN_STEP_FILES] = "place the files",
	[SPAWN_STEP_GROUPS] = "set the supplementary groups",
	[SPAWN_STEP_GROUP] = "set the group",
	[SPAWN_STEP_USER] = "set the user",
	[SPAWN_STEP_CHDIR] = "chdir",
	[SPAWN_STEP_DEATH] = "set the death signal",
	[SPAWN_STEP_PRIVILEGES] = "give up new privileges",
	[SPAWN_STEP_EXEC] = "exec",
};

static const char *limit_name(int resource)
{
	static const char *const names[] = {
		[RLIMIT_CPU] = "cpu",	      [RLIMIT_FSIZE] = "fsize",	  [RLIMIT_DATA] = "data",
		[RLIMIT_STACK] = "stack",     [RLIMIT_CORE] = "core",	  [RLIMIT_RSS] = "rss",
		[RLIMIT_NPROC] = "nproc",     [RLIMIT_NOFILE] = "nofile", [RLIMIT_AS] = "as",
		[RLIMIT_MEMLOCK] = "memlock",
	};
	size_t known = sizeof names / sizeof *names;
	if (resource < 0 || (size_t)resource >= known || names[resource] == NULL)
		return "?";
	return names[resource];
}

/* The step is worded here, where the order is at hand: the child can only leave a number. */
static void thread_failed(struct spawn_order *order, enum spawn_step step, int code, int detail)
{
	const struct spawn_request *request = &order->request;
	const char *what = NULL;
	if (step == SPAWN_STEP_LIMIT)
		what = limit_name(detail);
	else if (step == SPAWN_STEP_CHDIR)
		what = request->cwd;
	else if (step == SPAWN_STEP_EXEC)
		what = order->searched && code == ENOENT ? order->argv[0] : order->paths[detail];
	else if (step == SPAWN_STEP_USER)
		what = request->user;
	order->code = code;
	order->failed = step;
	snprintf(order->step, sizeof order->step, "%s%s%s", step_names[step], what ? " " : "",
		 what ? what : "");
}

/* --- who to become --- */

/* Only digits: a user called "1000x" is looked up by name. */
static bool thread_number(const char *text, unsigned *number)
{
	char *end;
	errno = 0;
	unsigned long value = strtoul(text, &end, 10);
	*number = (unsigned)value;
	return *text >= '0' && *text <= '9' && *end == '\0' && errno == 0 && value < UINT32_MAX;
}

static int thread_lookup_failed(struct spawn_order *order, const char *what, const char *name,
				int code)
{
	thread_failed(order, SPAWN_STEP_LOOKUP, code ? code : ENOENT, 0);
	snprintf(order->step, sizeof order->step, "look up the %s %s", what, name);
	return -1;
}

/* The _r functions, as other threads may look up names too.  The room is for one entry; a group
 * with more members than fit is refused with ERANGE and not cut. */
static int thread_find_group(struct spawn_order *order)
{
	const char *name = order->request.group;
	char room[8192];
	struct group entry, *found = NULL;
	unsigned number;
	if (name == NULL)
		return 0;
	order->set_gid = true;
	if (thread_number(name, &number)) {
		order->gid = number;
		return 0;
	}
	int code = getgrnam_r(name, &entry, room, sizeof room, &found);
	if (found == NULL)
		return thread_lookup_failed(order, "group", name, code);
	order->gid = found->gr_gid;
	return 0;
}

/* A number that nobody has a name for is a fine user, but then somebody has to say which group. */
static int thread_find_user(struct spawn_thread *self, struct spawn_order *order)
{
	const char *name = order->request.user;
	char room[8192];
	struct passwd entry, *found = NULL;
	unsigned number;
	if (name == NULL)
		return 0;
	bool by_number = thread_number(name, &number);
	int code = by_number ? getpwuid_r(number, &entry, room, sizeof room, &found)
			     : getpwnam_r(name, &entry, room, sizeof room, &found);
	if (found == NULL && !(by_number && order->set_gid))
		return thread_lookup_failed(order, "user", name, code);
	order->uid = found ? found->pw_uid : number;
	order->set_uid = true;
	if (!order->set_gid)
		order->gid = found->pw_gid;
	order->set_gid = true;
	if (found == NULL)
		return 0;
	int count = THREAD_GROUPS;
	if (getgrouplist(found->pw_name, order->gid, self->groups, &count) == -1)
		return thread_lookup_failed(order, "groups of", name, ERANGE);
	order->group_count = (size_t)count;
	return 0;
}

/* Becoming whom we are already needs no privilege, so it is not asked for: setgroups would fail. */
static void thread_spare_switch(struct spawn_order *order)
{
	if (!order->set_gid || geteuid() == 0)
		return;
	if ((!order->set_uid || order->uid == geteuid()) && order->gid == getegid())
		order->set_uid = order->set_gid = false;
}

/* --- one order --- */

/* Some errors are worth a second way: clone3 hides its flags from filters of system calls, which
 * therefore refuse it altogether.  The child then enters its v2 group by itself. */
static pid_t thread_clone(struct spawn_thread *self, struct spawn_birth *birth, int *pidfd)
{
	if (!birth->order->request.plain && !self->no_clone3) {
		pid_t pid = spawn_child_clone(birth, self->stack + CHILD_GUARD, CHILD_STACK, pidfd);
		/* What a filter of system calls says; docker's says ENOSYS. */
		if (pid != -1 || (errno != ENOSYS && errno != EPERM))
			return pid;
		self->no_clone3 = errno == ENOSYS;
	}
	return spawn_child_clone_plain(birth, pidfd);
}

/* A child that failed before its exec is nobody's business but ours. */
static void thread_bury(struct spawn_order *order, int pidfd)
{
	siginfo_t info;
	while (waitid(P_PID, (id_t)order->pid, &info, WEXITED) == -1 && errno == EINTR)
		continue;
	orphans_disown(order->pid);
	order->pid = 0;
	close(pidfd);
}

/* The pid is owned before anybody who reaps strangers can look at it. */
static int thread_birth(struct spawn_thread *self, struct spawn_order *order)
{
	int pidfd = -1;
	struct spawn_birth birth = {
		.order = order,
		.page = self->page,
		.null_fd = self->null_fd,
		.parent = self->parent,
		.signals = self->signals,
		.lift_oom = self->lift_oom,
	};
	*self->page = (struct spawn_page){.step = SPAWN_STEP_NONE};
	if (orphans_hold(NULL) == -1) {
		thread_failed(order, SPAWN_STEP_CLONE, ENOMEM, 0);
		return -1;
	}
	order->began = clock_real();
	pid_t pid = thread_clone(self, &birth, &pidfd);
	int code = errno;
	if (pid > 0)
		orphans_own(pid);
	orphans_release();
	if (pid == -1) {
		thread_failed(order, SPAWN_STEP_CLONE, code, 0);
		return -1;
	}
	order->pid = pid;
	if (self->page->step == SPAWN_STEP_NONE)
		return pidfd;
	thread_failed(order, self->page->step, self->page->code, self->page->detail);
	thread_bury(order, pidfd);
	return -1;
}

/* The groups' room is one for all orders: there is one at a time. */
static int thread_obey(struct spawn_thread *self, struct spawn_order *order)
{
	order->groups = self->groups;
	if (thread_find_group(order) == -1 || thread_find_user(self, order) == -1)
		return -1;
	thread_spare_switch(order);
	return thread_birth(self, order);
}

/* --- orders in, answers out --- */

/* What is open in this table for one order. */
struct desk {
	int fds[SPAWN_FILES + 2 * SPAWN_PIPES + 1];
	size_t count;
};

static int thread_make_pipe(struct spawn_order *order, struct desk *desk)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) == -1) {
		thread_failed(order, SPAWN_STEP_PIPE, errno, 0);
		return -1;
	}
	order->pipes[order->pipe_count++] = ends[0];
	desk->fds[desk->count++] = ends[0];
	desk->fds[desk->count++] = ends[1];
	return ends[1];
}

/* The files come in the order in which spawn.c sends them: the map, the places, the group. */
static void thread_file_files(struct spawn_order *order, struct desk *desk)
{
	const struct spawn_request *request = &order->request;
	const int *fds = desk->fds;
	size_t next = 0, count = desk->count;
	int wanted[SPAWN_FILES];
	order->cgroup = -1;
	if (count != spawn_order_files(request, wanted)) {
		thread_failed(order, SPAWN_STEP_FILES, EMFILE, 0);
		return;
	}
	for (size_t i = 0; i < request->fd_count; i++) {
		int from = request->fds[i].from;
		if (from == SPAWN_PIPE)
			order->fds[i] = thread_make_pipe(order, desk);
		else
			order->fds[i] = from == SPAWN_SAME ? order->fds[i - 1] : fds[next++];
	}
	for (size_t i = 0; i < request->place_count; i++)
		order->places[i] = fds[next++];
	if (request->cgroup_fd != -1)
		order->cgroup = fds[next];
}

/* What ends by itself.  An order that is not read, or an answer that is not given, would leave a
 * job waiting for ever, so it is tried again. */
static bool thread_passing(int code)
{
	if (code == ENOMEM || code == ENOBUFS || code == ETOOMANYREFS)
		usleep(1000);
	else if (code != EINTR)
		return false;
	return true;
}

static bool thread_receive(struct spawn_thread *self, struct spawn_order **order, struct desk *desk)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(SPAWN_FILES * sizeof(int))];
	} control;
	struct iovec part = {.iov_base = order, .iov_len = sizeof *order};
	struct msghdr message = {.msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof control};
	ssize_t n;
	do
		n = recvmsg(self->sock, &message, MSG_CMSG_CLOEXEC);
	while (n == -1 && thread_passing(errno));
	if (n != sizeof *order)
		return false;
	const struct cmsghdr *part_of = CMSG_FIRSTHDR(&message);
	desk->count = part_of != NULL ? (part_of->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
	if (desk->count > 0)
		memcpy(desk->fds, CMSG_DATA(part_of), desk->count * sizeof(int));
	return true;
}

/* The loop may have gone (EPIPE): then nobody waits for the answer. */
static void thread_answer(const struct spawn_thread *self, struct spawn_order *order, int pidfd)
{
	int fds[SPAWN_ANSWERS] = {pidfd};
	size_t size = (1 + order->pipe_count) * sizeof(int);
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof fds)];
	} control = {.room = {0}};
	struct iovec part = {.iov_base = &order, .iov_len = sizeof order};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
	if (pidfd != -1) {
		memcpy(fds + 1, order->pipes, order->pipe_count * sizeof(int));
		control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(size),
						  .cmsg_level = SOL_SOCKET,
						  .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&control.header), fds, size);
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(size);
	}
	while (sendmsg(self->sock, &message, MSG_NOSIGNAL) == -1 && thread_passing(errno))
		continue;
}

/* Leave the shared table.  close_range does it in one call; where it is missing or refused, unshare
 * and a walk do. */
static int thread_own_files(struct spawn_thread *self)
{
	unsigned sock = (unsigned)self->sock;
	if (close_range(sock + 1, ~0U, CLOSE_RANGE_UNSHARE) == 0) {
		if (sock > 3)
			close_range(3, sock - 1, 0);
	} else {
		if (unshare(CLONE_FILES) == -1)
			return -1;
		for (int fd = (int)sysconf(_SC_OPEN_MAX); fd > 2; fd--)
			if (fd != self->sock)
				close(fd);
	}
	self->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (self->null_fd == -1)
		return -1;
	/* Nobody else's pipe is to be held open by us; 2 stays for whoever aborts the process. */
	dup2(self->null_fd, 0);
	dup2(self->null_fd, 1);
	return 0;
}

/* What was opened for an order has numbers in a row, mostly.  Not all that is open can go with it:
 * whoever looks up users may keep a socket. */
static void thread_clear(const struct desk *desk)
{
	const int *fds = desk->fds;
	size_t count = desk->count;
	for (size_t i = 0, row; i < count; i += row) {
		row = 1;
		while (i + row < count && fds[i + row] == fds[i] + (int)row)
			row++;
		if (row > 1 && close_range((unsigned)fds[i], (unsigned)fds[i + row - 1], 0) == 0)
			continue;
		for (size_t k = i; k < i + row; k++)
			close(fds[k]);
	}
}

/* All that was opened for one order is closed at once, after its answer and before the next: the
 * table of a child holds nothing else. */
static void *thread_main(void *arg)
{
	struct spawn_thread *self = arg;
	struct spawn_order *order;
	struct desk desk;
	int code = thread_own_files(self) == -1 ? errno : 0;
	while (thread_receive(self, &order, &desk)) {
		int pidfd = -1;
		thread_file_files(order, &desk);
		if (code != 0)
			thread_failed(order, SPAWN_STEP_FILES, code, 0);
		if (order->failed == SPAWN_STEP_NONE)
			pidfd = thread_obey(self, order);
		thread_answer(self, order, pidfd);
		if (pidfd != -1)
			desk.fds[desk.count++] = pidfd;
		thread_clear(&desk);
	}
	return NULL; /* the table, and with it the files, ends with the thread */
}

/* --- beginning and end --- */

/* A service manager may have told the kernel to spare the worker when memory runs out; a job that
 * inherited this would make the kernel kill everybody else first. */
static bool thread_is_protected(void)
{
	char text[16] = "";
	int fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		return false;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	return n > 0 && text[0] == '-';
}

/* The children's stack has a guard: running into the worker's heap would go unnoticed. */
static int thread_map(struct spawn_thread *self)
{
	size_t size = CHILD_GUARD + CHILD_STACK;
	self->stack = mmap(NULL, size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	self->page = mmap(NULL, sizeof *self->page, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (self->stack == MAP_FAILED || self->page == MAP_FAILED)
		return -1;
	return mprotect(self->stack, CHILD_GUARD, PROT_NONE);
}

static void thread_free(struct spawn_thread *self)
{
	if (self->stack != MAP_FAILED)
		munmap(self->stack, CHILD_GUARD + CHILD_STACK);
	if (self->page != MAP_FAILED)
		munmap(self->page, sizeof *self->page);
	free(self);
}

struct spawn_thread *spawn_thread_start(int sock, struct err *err)
{
	struct spawn_thread *self = calloc(1, sizeof *self);
	if (self == NULL) {
		err_set(err, ENOMEM, "out of memory for the spawn thread");
		return NULL;
	}
	self->sock = sock;
	self->parent = getpid();
	self->signals = spawn_child_signals();
	self->lift_oom = thread_is_protected();
	if (thread_map(self) == -1) {
		err_errno(err, "memory for the spawn thread");
		thread_free(self);
		return NULL;
	}
	/* No signal is ever handled here, and a child is born with all of them blocked. */
	sigset_t all, before;
	pthread_attr_t attr;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK);
	int code = pthread_create(&self->thread, &attr, thread_main, self);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (code != 0) {
		err_set(err, code, "starting the spawn thread: %s", strerror(code));
		thread_free(self);
		return NULL;
	}
	pthread_setname_np(self->thread, "spawn");
	return self;
}

void spawn_thread_join(struct spawn_thread *self)
{
	pthread_join(self->thread, NULL);
	thread_free(self);
}
