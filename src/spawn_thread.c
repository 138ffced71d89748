/* spawn_thread.c -- the thread that clones.  Floor 3.  See worker/spawn_order.h.
 *
 * A vfork suspends its caller until the child has exec'd, which takes a scheduler's slice when
 * other children keep the processors busy; in a thread of its own that suspends nobody who is
 * needed.
 *
 * The child is born into our table of files and leaves it at once (see worker/spawn_stage.h): so a
 * file opened elsewhere without close-on-exec, or at the wrong moment, cannot slip into it, and no
 * file of ours stays open because a child has not come to its exec yet.
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
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/clock.h"
#include "worker/orphans.h"
#include "worker/spawn_stage.h"

#define CHILD_STACK   ((size_t)64 * 1024)
#define CHILD_GUARD   ((size_t)4096)
#define THREAD_GROUPS 256

struct spawn_thread {
	pthread_mutex_t lock; /* guards the next two, lest a number be killed that is free again */
	const struct spawn_order *now; /* whose child is on its way to its exec */
	pid_t born;		       /* that child, from the kernel; 0: not yet, or not told */
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

/* --- a birth --- */

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
static void thread_bury(struct spawn_order *order)
{
	siginfo_t info;
	while (waitid(P_PID, (id_t)order->pid, &info, WEXITED) == -1 && errno == EINTR)
		continue;
	orphans_disown(order->pid);
	order->pid = 0;
	close(order->pidfd);
}

static void thread_point(struct spawn_thread *self, const struct spawn_order *order)
{
	pthread_mutex_lock(&self->lock);
	self->now = order;
	self->born = 0;
	pthread_mutex_unlock(&self->lock);
}

void spawn_thread_kill(struct spawn_thread *self, const struct spawn_order *order)
{
	pthread_mutex_lock(&self->lock);
	if (self->now == order && self->born > 0)
		kill(self->born, SIGKILL);
	pthread_mutex_unlock(&self->lock);
}

/* The pid is owned before anybody who reaps strangers can look at it. */
static pid_t thread_clone_owned(struct spawn_thread *self, struct spawn_birth *birth, int *pidfd)
{
	if (orphans_hold(NULL) == -1) {
		errno = ENOMEM;
		return -1;
	}
	thread_point(self, birth->order);
	pid_t pid = thread_clone(self, birth, pidfd);
	int code = errno;
	thread_point(self, NULL);
	if (pid > 0)
		orphans_own(pid);
	orphans_release();
	errno = code;
	return pid;
}

static int thread_birth(struct spawn_thread *self, struct spawn_order *order)
{
	struct spawn_page *page = self->page;
	struct spawn_birth birth = {
		.order = order,
		.page = page,
		.null_fd = spawn_stage_null(),
		.table_end = spawn_stage_end(),
		.files = spawn_stage_limit(),
		.parent = self->parent,
		.born = &self->born,
		.signals = self->signals,
		.lift_oom = self->lift_oom,
	};
	*page = (struct spawn_page){.step = SPAWN_STEP_NONE};
	order->began = clock_real();
	pid_t pid = thread_clone_owned(self, &birth, &order->pidfd);
	if (pid == -1 && page->step == SPAWN_STEP_NONE)
		*page = (struct spawn_page){.step = SPAWN_STEP_CLONE, .code = errno};
	order->pid = pid > 0 ? pid : 0;
	if (page->step == SPAWN_STEP_NONE)
		return 0;
	thread_failed(order, page->step, page->code, page->detail);
	if (pid > 0)
		thread_bury(order);
	return -1;
}

/* --- the files --- */

/* Its other end has no number but the one on the stage: so it is the child's alone, once that is
 * clear. */
static int thread_put_pipe(struct spawn_order *order, size_t i)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) == -1) {
		thread_failed(order, SPAWN_STEP_PIPE, errno, 0);
		return -1;
	}
	order->pipes[order->pipe_count++] = ends[0];
	int fd = spawn_stage_put(i, ends[1]), code = errno;
	close(ends[1]);
	errno = code;
	return fd;
}

static int thread_put_file(struct spawn_order *order, size_t i)
{
	int from = order->request.fds[i].from;
	if (from == SPAWN_PIPE)
		return thread_put_pipe(order, i);
	return spawn_stage_put(i, from == SPAWN_SAME ? order->fds[i - 1] : from);
}

static int thread_put_files(struct spawn_order *order)
{
	for (size_t i = 0; i < order->request.fd_count; i++) {
		order->fds[i] = thread_put_file(order, i);
		if (order->fds[i] != -1)
			continue;
		if (order->failed == SPAWN_STEP_NONE)
			thread_failed(order, SPAWN_STEP_FILES, errno, 0);
		return -1;
	}
	return 0;
}

/* --- one order --- */

/* The stage is clear before anybody is told: nobody but the child holds what it writes to.
 * The groups' room is one for all orders: there is one at a time. */
void spawn_thread_obey(struct spawn_thread *self, struct spawn_order *order)
{
	order->groups = self->groups;
	if (thread_find_group(order) == -1 || thread_find_user(self, order) == -1)
		return;
	thread_spare_switch(order);
	int n = thread_put_files(order) == 0 ? thread_birth(self, order) : -1;
	spawn_stage_clear(order->request.fd_count);
	for (; n == -1 && order->pipe_count > 0; order->pipe_count--)
		close(order->pipes[order->pipe_count - 1]);
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

void spawn_thread_free(struct spawn_thread *self)
{
	if (self == NULL)
		return;
	if (self->stack != MAP_FAILED)
		munmap(self->stack, CHILD_GUARD + CHILD_STACK);
	if (self->page != MAP_FAILED)
		munmap(self->page, sizeof *self->page);
	pthread_mutex_destroy(&self->lock);
	free(self);
}

struct spawn_thread *spawn_thread_new(struct err *err)
{
	struct spawn_thread *self = calloc(1, sizeof *self);
	if (self == NULL) {
		err_set(err, ENOMEM, "out of memory for the spawn thread");
		return NULL;
	}
	pthread_mutex_init(&self->lock, NULL);
	self->parent = getpid();
	self->signals = spawn_child_signals();
	self->lift_oom = thread_is_protected();
	if (thread_map(self) == -1) {
		err_errno(err, "memory for the spawn thread");
		spawn_thread_free(self);
		return NULL;
	}
	return self;
}
