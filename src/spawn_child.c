/* spawn_child.c -- what runs between clone and exec.  Floor 3.  See worker/spawn_order.h.
 *
 * The child usually shares the worker's memory while the thread that cloned it is suspended, so
 * this file may only make system calls and write to its own stack and to the shared page.  glibc's
 * setuid and its relatives are poison here: they make every thread of the *worker* change its user;
 * the raw calls change the caller alone.  No malloc, no locks, no stdio, no errno text.
 *
 * Order matters, and this is the order:
 *
 *	dispositions, session	before anything can be signalled as part of a group
 *	cgroup			before anything is used that it should limit
 *	a table of files	before anything is opened, as it would be in the worker's
 *	oom, nice, limits	while we still may raise them
 *	files, owner of pipes	while we still may give them away
 *	groups, group, user
 *	chdir			as the user: what they cannot enter must fail
 *	death signal		after the user, since a change of user clears it
 *	mask, exec
 */
#include "worker/spawn_order.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The child's frames are never left but by exec, which would leave the sanitizer's marks of them
 * behind in the memory that we share. */
#define CHILD __attribute__((no_sanitize("address", "undefined")))

#define CHILD_DIED 127
#define CHILD_WALK 16384

_Noreturn CHILD static void child_fail(const struct spawn_birth *birth, enum spawn_step step,
				       int detail)
{
	birth->page->code = errno;
	birth->page->detail = detail;
	birth->page->step = step;
	_exit(CHILD_DIED);
}

struct child_action {
	uintptr_t handler, flags, restorer;
	uint64_t mask;
};

/* exec resets caught signals by itself, but it keeps ignored ones ignored: a job that inherits an
 * ignored SIGPIPE never ends in "yes | head".  And what is caught must not run the worker's handler
 * in the worker's memory once the signals are unblocked.  Raw, since glibc hides two of them. */
CHILD static void child_reset_signals(uint64_t changed)
{
	struct child_action action = {0};
	for (int signo = 1; signo < _NSIG; signo++)
		if (changed & UINT64_C(1) << (signo - 1))
			syscall(SYS_rt_sigaction, signo, &action, NULL, sizeof action.mask);
}

uint64_t spawn_child_signals(void)
{
	uint64_t changed = 0;
	for (int signo = 1; signo < _NSIG; signo++) {
		struct child_action action = {0};
		syscall(SYS_rt_sigaction, signo, NULL, &action, sizeof action.mask);
		if (action.handler != (uintptr_t)SIG_DFL)
			changed |= UINT64_C(1) << (signo - 1);
	}
	return changed;
}

/* What has come before the child had a session of its own was meant for the worker's process group,
 * as Ctrl-C is: nobody knows the child yet.  Ignoring a signal forgets a pending one. */
CHILD static void child_forget_signals(void)
{
	struct {
		uintptr_t handler, flags, restorer;
		uint64_t mask;
	} ignore = {.handler = (uintptr_t)SIG_IGN}, usual = {0};
	uint64_t pending = 0;
	syscall(SYS_rt_sigpending, &pending, sizeof pending);
	for (int signo = 1; pending != 0 && signo < _NSIG; signo++) {
		if ((pending >> (signo - 1) & 1) == 0)
			continue;
		syscall(SYS_rt_sigaction, signo, &ignore, NULL, sizeof ignore.mask);
		syscall(SYS_rt_sigaction, signo, &usual, NULL, sizeof usual.mask);
	}
}

/* All were blocked since before the clone, so that no handler of the worker's ever ran in here. */
CHILD static void child_unblock_signals(void)
{
	uint64_t none = 0;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none);
}

/* A file of the kernel takes a value whole or not at all. */
CHILD static int child_write(int fd, const char *text, size_t n)
{
	return write(fd, text, n) == (ssize_t)n ? 0 : -1;
}

/* "0" is whoever writes it: no pid is passed, so there is no moment in which the child runs outside
 * its groups.  Whoever was not born in its v2 group has a table of its own to open a file in. */
CHILD static void child_enter_cgroups(const struct spawn_birth *birth)
{
	const struct cgroup_entry *entry = birth->order->entry;
	if (entry == NULL)
		return;
	for (size_t i = 0; i < entry->procs_count; i++)
		if (child_write(entry->procs_fd[i], "0", 1) == -1)
			child_fail(birth, SPAWN_STEP_CGROUP, (int)i);
	if (birth->placed || entry->dir_fd == -1)
		return;
	int fd = openat(entry->dir_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
	if (fd == -1 || child_write(fd, "0", 1) == -1)
		child_fail(birth, SPAWN_STEP_CGROUP, (int)entry->procs_count);
}

/* Until here the table may be the worker's: what is opened or closed would be so in the worker,
 * too. Where the one call for it is missing or refused, unshare and a walk do: not over a thousand
 * million numbers, which may be the limit; what lies higher is close-on-exec, as all of ours is. */
CHILD static void child_leave_table(const struct spawn_birth *birth)
{
	int end = birth->table_end;
	if (syscall(SYS_close_range, end, ~0U, CLOSE_RANGE_UNSHARE) == 0)
		return;
	if (birth->shared && unshare(CLONE_FILES) == -1)
		child_fail(birth, SPAWN_STEP_FILES, 0);
	long most = sysconf(_SC_OPEN_MAX);
	for (int fd = most < CHILD_WALK ? (int)most : CHILD_WALK; fd >= end; fd--)
		close(fd);
}

/* snprintf may allocate and takes locks. */
CHILD static size_t child_decimal(char *out, int value)
{
	char digits[12];
	size_t n = 0, length = 0;
	unsigned rest = value < 0 ? -(unsigned)value : (unsigned)value;
	do
		digits[n++] = (char)('0' + rest % 10);
	while (rest /= 10);
	if (value < 0)
		out[length++] = '-';
	while (n > 0)
		out[length++] = digits[--n];
	return length;
}

/* "self" is the child: the kernel leaves a worker that shares its memory by vfork alone. */
CHILD static void child_set_oom(const struct spawn_birth *birth)
{
	int wanted = birth->order->request.oom_score_adj;
	if (wanted == SPAWN_OOM_KEEP && !birth->lift_oom)
		return;
	char text[12];
	size_t n = child_decimal(text, wanted == SPAWN_OOM_KEEP ? 0 : wanted);
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd == -1 || child_write(fd, text, n) == -1)
		child_fail(birth, SPAWN_STEP_OOM, 0);
	close(fd);
}

/* The hard limit is nobody's to give back, and may have been changed from outside. */
CHILD static void child_lower_files(const struct spawn_birth *birth)
{
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) == -1 || files.rlim_cur <= birth->files)
		return;
	files.rlim_cur = birth->files;
	if (setrlimit(RLIMIT_NOFILE, &files) == -1)
		child_fail(birth, SPAWN_STEP_LIMIT, RLIMIT_NOFILE);
}

/* A limit is what may be had at most: a lower one that is not ours to raise keeps it, too. */
CHILD static int child_limit(const struct spawn_limit *limit)
{
	__rlimit_resource_t resource = (__rlimit_resource_t)limit->resource;
	struct rlimit both = {.rlim_cur = limit->soft, .rlim_max = limit->hard}, now;
	int n = setrlimit(resource, &both);
	if (n == 0 || errno != EPERM || getrlimit(resource, &now) == -1)
		return n;
	both.rlim_max = now.rlim_max;
	if (both.rlim_cur > both.rlim_max)
		both.rlim_cur = both.rlim_max;
	return setrlimit(resource, &both);
}

CHILD static void child_set_limits(const struct spawn_birth *birth)
{
	const struct spawn_request *request = &birth->order->request;
	if (request->nice != 0) {
		errno = 0;
		int now = getpriority(PRIO_PROCESS, 0);
		if (errno != 0 || setpriority(PRIO_PROCESS, 0, now + request->nice) == -1)
			child_fail(birth, SPAWN_STEP_NICE, 0);
	}
	for (size_t i = 0; i < request->limit_count; i++)
		if (child_limit(&request->limits[i]) == -1)
			child_fail(birth, SPAWN_STEP_LIMIT, request->limits[i].resource);
	if (request->umask != -1)
		umask((mode_t)request->umask);
}

/* Sources are first moved above every target, so that no dup2 overwrites one that is still needed.
 * Everything but the targets is close-on-exec. */
CHILD static void child_place_files(const struct spawn_birth *birth)
{
	const struct spawn_order *order = birth->order;
	size_t count = order->request.fd_count;
	int from[SPAWN_FDS], top = 2, null_fd = birth->null_fd;
	bool named[3] = {false, false, false};
	for (size_t i = 0; i < count; i++) {
		int to = order->request.fds[i].to;
		if (to > top)
			top = to;
		if (to >= 0 && to <= 2)
			named[to] = true;
	}
	if (null_fd <= top && (null_fd = fcntl(null_fd, F_DUPFD_CLOEXEC, top + 1)) == -1)
		child_fail(birth, SPAWN_STEP_FILES, 0);
	for (size_t i = 0; i < count; i++) {
		from[i] = order->fds[i];
		if (from[i] <= top && (from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, top + 1)) == -1)
			child_fail(birth, SPAWN_STEP_FILES, 0);
	}
	for (int fd = 0; fd <= 2; fd++)
		if (!named[fd] && dup2(null_fd, fd) == -1)
			child_fail(birth, SPAWN_STEP_FILES, fd);
	for (size_t i = 0; i < count; i++) {
		const struct spawn_fd *wanted = &order->request.fds[i];
		if (dup2(from[i], wanted->to) == -1)
			child_fail(birth, SPAWN_STEP_FILES, wanted->to);
		if (wanted->give && order->set_uid && fchown(wanted->to, order->uid, (gid_t)-1))
			child_fail(birth, SPAWN_STEP_FILES, wanted->to);
	}
}

/* Groups first, user last: each step gives up the right to make the one before. */
CHILD static void child_become(const struct spawn_birth *birth)
{
	const struct spawn_order *order = birth->order;
	if (order->set_gid && syscall(SYS_setgroups, order->group_count, order->groups) == -1)
		child_fail(birth, SPAWN_STEP_GROUPS, 0);
	if (order->set_gid && syscall(SYS_setresgid, order->gid, order->gid, order->gid) == -1)
		child_fail(birth, SPAWN_STEP_GROUP, 0);
	if (order->set_uid && syscall(SYS_setresuid, order->uid, order->uid, order->uid) == -1)
		child_fail(birth, SPAWN_STEP_USER, 0);
}

/* A worker that died before prctl would never send the signal; its children have another parent
 * by then. */
CHILD static void child_bind_to_parent(const struct spawn_birth *birth)
{
	if (birth->order->request.outlive)
		return;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1)
		child_fail(birth, SPAWN_STEP_DEATH, 0);
	if (getppid() != birth->parent)
		_exit(CHILD_DIED);
}

/* Like a shell: a name that is not there is looked for further on, one that may not be executed is
 * remembered, anything else is the answer. */
_Noreturn CHILD static void child_exec(const struct spawn_birth *birth)
{
	const struct spawn_order *order = birth->order;
	int code = ENOENT, detail = 0;
	for (int i = 0; order->paths[i] != NULL; i++) {
		execve(order->paths[i], order->argv, order->envp);
		if (errno == ENOENT || errno == ENOTDIR)
			continue;
		code = errno;
		detail = i;
		if (errno != EACCES)
			break;
	}
	errno = code;
	child_fail(birth, SPAWN_STEP_EXEC, detail);
}

_Noreturn CHILD void spawn_child_run(void *arg)
{
	const struct spawn_birth *birth = arg;
	const struct spawn_request *request = &birth->order->request;

	child_reset_signals(birth->signals);
	if (setsid() == -1)
		child_fail(birth, SPAWN_STEP_SESSION, 0);
	child_forget_signals();
	child_enter_cgroups(birth);
	child_leave_table(birth);
	child_set_oom(birth);
	child_lower_files(birth);
	child_set_limits(birth);
	child_place_files(birth);
	child_become(birth);
	if (request->cwd != NULL && chdir(request->cwd) == -1)
		child_fail(birth, SPAWN_STEP_CHDIR, 0);
	child_bind_to_parent(birth);
	if (request->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
		child_fail(birth, SPAWN_STEP_PRIVILEGES, 0);
	child_unblock_signals();
	child_exec(birth);
}

/* --- the two ways to clone --- */

/* clone3 onto another stack cannot return twice from a C function: the child has no frame to return
 * into.  So the call is made here, and the child goes straight into ${run}. */
static long child_clone3(struct clone_args *args, void (*run)(void *), void *arg)
{
#if defined(__x86_64__)
	long result;
	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "mov %[arg], %%rdi\n\t"
			 "call *%[run]\n\t"
			 "ud2\n"
			 "1:"
			 : "=a"(result)
			 : "0"((long)SYS_clone3), "D"(args),
			   "S"(sizeof *args), [run] "r"(run), [arg] "r"(arg)
			 : "rcx", "r11", "memory", "cc");
	return result;
#elif defined(__aarch64__)
	register long number __asm__("x8") = SYS_clone3;
	register long result __asm__("x0") = (long)(intptr_t)args;
	register long size __asm__("x1") = (long)sizeof *args;
	__asm__ volatile("svc 0\n\t"
			 "cbnz x0, 1f\n\t"
			 "mov x0, %[arg]\n\t"
			 "blr %[run]\n\t"
			 "brk 1\n"
			 "1:"
			 : "+r"(result)
			 : "r"(number), "r"(size), [run] "r"(run), [arg] "r"(arg)
			 : "memory", "cc", "x30");
	return result;
#else
	(void)args, (void)run, (void)arg;
	return -ENOSYS;
#endif
}

pid_t spawn_child_clone(struct spawn_birth *birth, void *stack, size_t size, int *pidfd)
{
	const struct cgroup_entry *entry = birth->order->entry;
	struct clone_args args = {
		.flags = CLONE_VM | CLONE_FILES | CLONE_VFORK | CLONE_PIDFD | CLONE_PARENT_SETTID,
		.exit_signal = SIGCHLD,
		.pidfd = (uintptr_t)pidfd,
		.parent_tid = (uintptr_t)birth->born,
		.stack = (uintptr_t)stack,
		.stack_size = size,
	};
	birth->shared = true;
	birth->placed = entry != NULL && entry->dir_fd != -1;
	if (birth->placed) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)entry->dir_fd;
	}
	long pid = child_clone3(&args, spawn_child_run, birth);
	if (pid >= 0)
		return (pid_t)pid;
	errno = (int)-pid;
	return -1;
}

/* CLONE_VFORK without CLONE_VM: a fork that suspends us all the same, so that the page can be read
 * as soon as it returns. */
pid_t spawn_child_clone_plain(struct spawn_birth *birth, int *pidfd)
{
	birth->shared = birth->placed = false;
	long pid = syscall(SYS_clone, CLONE_VFORK | CLONE_PIDFD | SIGCHLD, NULL, pidfd, NULL, NULL);
	if (pid == 0)
		spawn_child_run(birth);
	return (pid_t)pid;
}
