/* faults.c -- the n-th thing that can fail does.  Floor 1.
 *
 * Empty unless built with -DWORKER_FAULTS (`make faults`).  Then the linker (--wrap) sends the
 * allocations and system calls named below through here, those of the linked-in Lua included:
 *
 *	WORKER_FAULT=N		the call of the N-th place fails, once
 *	WORKER_FAULT=N+		and from then on every call of the same function; of syscall() those
 *				with the same number
 *	WORKER_FAULT_TO=FILE	tells what failed and from where; no such file: N was too large
 *
 * A place is a short chain of return addresses.  A run allocates a hundred thousand times from some
 * hundred places; counting places visits every path of the code without making that many runs.
 *
 * Interruptions end: EINTR says that a signal came, and asks to call again.  No kernel says so for
 * ever, and who calls again for ever is right.
 *
 * Nothing here may lock: children share our memory until they exec.
 */
#ifdef WORKER_FAULTS
#include <dirent.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FAULTS_PLACES	  (1u << 14)
#define FAULTS_DEPTH	  10
#define FAULTS_INTERRUPTS 1000

static struct {
	long due;		      /* which place fails; 0 for none */
	bool sticky;		      /* and then every call of that function */
	const char *_Atomic function; /* what failed, once it has */
	_Atomic long number;	      /* of the system call, where that was syscall() */
	_Atomic int interrupts;	      /* how often it has failed so after the first time */
	_Atomic int again;	      /* allocations that fail after the first one */
	_Atomic long places;
	_Atomic uintptr_t seen[FAULTS_PLACES];
} faults;

__attribute__((constructor)) static void faults_start(void)
{
	const char *text = getenv("WORKER_FAULT");
	void *frames[FAULTS_DEPTH];
	backtrace(frames, FAULTS_DEPTH); /* loads its library now, not in a child */
	faults.due = text != NULL ? atol(text) : 0;
	faults.sticky = text != NULL && strchr(text, '+') != NULL;
}

static void faults_tell(const char *function, void **frames, int count)
{
	const char *path = getenv("WORKER_FAULT_TO");
	int fd = path != NULL ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
	if (fd == -1)
		return;
	dprintf(fd, "%s\n", function);
	backtrace_symbols_fd(frames, count, fd);
	close(fd);
}

/* Whether this place was never seen before. */
static bool faults_fresh(void **frames, int count)
{
	uintptr_t key = 5381;
	for (int i = 0; i < count; i++)
		key = key * 1099511628211u + (uintptr_t)frames[i];
	for (size_t i = key % FAULTS_PLACES;; i = (i + 1) % FAULTS_PLACES) {
		uintptr_t found = 0;
		if (atomic_compare_exchange_strong(&faults.seen[i], &found, key))
			return true;
		if (found == key)
			return false;
	}
}

static bool faults_again(const char *function, long number, int code)
{
	if (!faults.sticky || faults.function != function || faults.number != number)
		return false;
	return code != EINTR || atomic_fetch_add(&faults.interrupts, 1) < FAULTS_INTERRUPTS;
}

static bool faults_due(const char *function, long number, int code, void **frames, int count)
{
	if (faults.function != NULL)
		return faults_again(function, number, code);
	if (faults.due == 0 || faults.places >= FAULTS_PLACES / 2)
		return false;
	if (!faults_fresh(frames, count) || atomic_fetch_add(&faults.places, 1) + 1 != faults.due)
		return false;
	faults_tell(function, frames, count);
	faults.number = number;
	faults.function = function;
	return true;
}

/* Lua collects garbage and asks again, so an allocation has to fail twice. */
static bool faults_memory(void)
{
	void *frames[FAULTS_DEPTH];
	if (faults.again > 0 && atomic_fetch_sub(&faults.again, 1) > 0)
		return true;
	if (faults.due == 0 || (faults.function != NULL && !faults.sticky))
		return false;
	if (!faults_due("memory", 0, ENOMEM, frames, backtrace(frames, FAULTS_DEPTH)))
		return false;
	faults.again = 1;
	return true;
}

/* ${frame} is the wrapper's: its caller and that one's caller are ours and keep frame pointers.
 * backtrace() would not end on the borrowed stack of a child. */
static bool faults_call(const char *function, long number, int code, void **frame)
{
	void *frames[] = {frame[1], ((void **)frame[0])[1]};
	return faults_due(function, number, code, frames, 2);
}

/* WRAP(function, type, parameters, arguments, failure, errno): config/faults.sh makes the linker's
 * options from the names.  IF_ is what decides. */
#define FAULTS_WRAP(IF_, name, type, parameters, arguments, failure, code)                         \
	type __real_##name parameters;                                                             \
	type __wrap_##name parameters;                                                             \
	type __wrap_##name parameters                                                              \
	{                                                                                          \
		if (IF_) {                                                                         \
			errno = code;                                                              \
			return failure;                                                            \
		}                                                                                  \
		return __real_##name arguments;                                                    \
	}
#define MEMORY(name, parameters, arguments)                                                        \
	FAULTS_WRAP(faults_memory(), name, void *, parameters, arguments, NULL, ENOMEM)
#define CALL(name, type, parameters, arguments, code)                                              \
	FAULTS_WRAP(faults_call(#name, 0, code, __builtin_frame_address(0)), name, type,           \
		    parameters, arguments, (type)-1, code)
#define OTHER(name, type, parameters, arguments, failure, code)                                    \
	FAULTS_WRAP(faults_call(#name, 0, code, __builtin_frame_address(0)), name, type,           \
		    parameters, arguments, failure, code)
#define NUMBERED(name, type, parameters, arguments, code)                                          \
	FAULTS_WRAP(faults_call(#name, n, code, __builtin_frame_address(0)), name, type,           \
		    parameters, arguments, (type)-1, code)

/* clang-format off */
MEMORY(malloc, (size_t n), (n))
MEMORY(calloc, (size_t n, size_t size), (n, size))
MEMORY(realloc, (void *ptr, size_t n), (ptr, n))
MEMORY(strdup, (const char *text), (text))
MEMORY(strndup, (const char *text, size_t n), (text, n))

CALL(open, int, (const char *path, int flags, mode_t mode), (path, flags, mode), EMFILE)
CALL(openat, int, (int dir, const char *path, int flags, mode_t mode),
     (dir, path, flags, mode), EMFILE)
CALL(read, ssize_t, (int fd, void *to, size_t n), (fd, to, n), EIO)
CALL(pread, ssize_t, (int fd, void *to, size_t n, off_t at), (fd, to, n, at), EIO)
CALL(recv, ssize_t, (int fd, void *to, size_t n, int flags), (fd, to, n, flags), ECONNRESET)
CALL(recvmsg, ssize_t, (int fd, struct msghdr *to, int flags), (fd, to, flags), ENOMEM)
CALL(write, ssize_t, (int fd, const void *from, size_t n), (fd, from, n), ENOSPC)
CALL(pwrite, ssize_t, (int fd, const void *from, size_t n, off_t at), (fd, from, n, at), ENOSPC)
CALL(pwritev, ssize_t, (int fd, const struct iovec *v, int n, off_t at), (fd, v, n, at), ENOSPC)
CALL(send, ssize_t, (int fd, const void *from, size_t n, int flags),
     (fd, from, n, flags), ECONNRESET)
CALL(sendmsg, ssize_t, (int fd, const struct msghdr *from, int flags),
     (fd, from, flags), ENOBUFS)
CALL(fsync, int, (int fd), (fd), EIO)
CALL(fdatasync, int, (int fd), (fd), EIO)
CALL(ftruncate, int, (int fd, off_t size), (fd, size), EIO)
CALL(fallocate, int, (int fd, int mode, off_t at, off_t n), (fd, mode, at, n), ENOSPC)
CALL(lseek, off_t, (int fd, off_t at, int whence), (fd, at, whence), EINVAL)
CALL(fstat, int, (int fd, struct stat *about), (fd, about), EIO)
CALL(stat, int, (const char *path, struct stat *about), (path, about), EACCES)
CALL(lstat, int, (const char *path, struct stat *about), (path, about), EACCES)
CALL(fstatat, int, (int d, const char *p, struct stat *s, int flags), (d, p, s, flags), EACCES)
CALL(statfs, int, (const char *path, struct statfs *about), (path, about), EACCES)
CALL(flock, int, (int fd, int operation), (fd, operation), ENOLCK)
CALL(fcntl, int, (int fd, int command, long arg), (fd, command, arg), EMFILE)
CALL(rename, int, (const char *from, const char *to), (from, to), ENOSPC)
CALL(renameat, int, (int d, const char *from, int e, const char *to), (d, from, e, to), ENOSPC)
CALL(renameat2, int, (int d, const char *from, int e, const char *to, unsigned flags),
     (d, from, e, to, flags), ENOSPC)
CALL(link, int, (const char *from, const char *to), (from, to), EMLINK)
CALL(linkat, int, (int d, const char *from, int e, const char *to, int flags),
     (d, from, e, to, flags), EMLINK)
CALL(mkdir, int, (const char *path, mode_t mode), (path, mode), ENOSPC)
CALL(mkdirat, int, (int dir, const char *path, mode_t mode), (dir, path, mode), ENOSPC)
CALL(unlink, int, (const char *path), (path), EROFS)
CALL(unlinkat, int, (int dir, const char *path, int flags), (dir, path, flags), EROFS)
CALL(rmdir, int, (const char *path), (path), EBUSY)
CALL(chmod, int, (const char *path, mode_t mode), (path, mode), EPERM)
CALL(fchmod, int, (int fd, mode_t mode), (fd, mode), EPERM)
CALL(dup2, int, (int from, int to), (from, to), EMFILE)
CALL(dup3, int, (int from, int to, int flags), (from, to, flags), EMFILE)
CALL(pipe2, int, (int *ends, int flags), (ends, flags), EMFILE)
CALL(socket, int, (int family, int type, int protocol), (family, type, protocol), EMFILE)
CALL(socketpair, int, (int f, int type, int protocol, int *ends), (f, type, protocol, ends), EMFILE)
CALL(setsockopt, int, (int fd, int l, int o, const void *v, socklen_t n), (fd, l, o, v, n), ENOMEM)
CALL(getsockopt, int, (int fd, int l, int o, void *v, socklen_t *n), (fd, l, o, v, n), ENOBUFS)
CALL(getsockname, int, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n), ENOBUFS)
CALL(connect, int, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n), ECONNREFUSED)
CALL(bind, int, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n), EADDRINUSE)
CALL(listen, int, (int fd, int backlog), (fd, backlog), EADDRINUSE)
CALL(accept4, int, (int fd, struct sockaddr *a, socklen_t *n, int flags), (fd, a, n, flags), EMFILE)
CALL(epoll_create1, int, (int flags), (flags), EMFILE)
CALL(epoll_ctl, int, (int fd, int op, int what, struct epoll_event *e), (fd, op, what, e), ENOSPC)
CALL(eventfd, int, (unsigned n, int flags), (n, flags), EMFILE)
CALL(signalfd, int, (int fd, const sigset_t *set, int flags), (fd, set, flags), EMFILE)
CALL(inotify_init1, int, (int flags), (flags), EMFILE)
CALL(inotify_add_watch, int, (int fd, const char *path, uint32_t mask), (fd, path, mask), ENOSPC)
CALL(memfd_create, int, (const char *name, unsigned flags), (name, flags), EMFILE)
CALL(pidfd_open, int, (pid_t pid, unsigned flags), (pid, flags), EMFILE)
CALL(spawn_child_clone, pid_t, (void *b, void *s, size_t n, int *fd), (b, s, n, fd), EAGAIN)
CALL(spawn_child_clone_plain, pid_t, (void *birth, int *fd), (birth, fd), EAGAIN)
CALL(_Fork, pid_t, (void), (), EAGAIN)
NUMBERED(syscall, long, (long n, long a, long b, long c, long d, long e, long f),
     (n, a, b, c, d, e, f), ENOSYS)
CALL(setsid, pid_t, (void), (), EPERM)
CALL(chdir, int, (const char *path), (path), EACCES)
CALL(prctl, int, (int what, long a, long b, long c, long d), (what, a, b, c, d), EINVAL)
CALL(poll, int, (struct pollfd *fds, nfds_t n, int ms), (fds, n, ms), EINTR)
CALL(epoll_pwait2, int, (int fd, struct epoll_event *e, int n, const struct timespec *t,
     const sigset_t *set), (fd, e, n, t, set), EINTR)
CALL(epoll_wait, int, (int fd, struct epoll_event *e, int n, int ms), (fd, e, n, ms), EINTR)
CALL(timer_create, int, (clockid_t clock, struct sigevent *e, timer_t *t), (clock, e, t), EAGAIN)
CALL(copy_file_range, ssize_t, (int fd, off_t *at, int to, off_t *there, size_t n, unsigned flags),
     (fd, at, to, there, n, flags), EIO)
CALL(mmap, void *, (void *at, size_t n, int may, int how, int fd, off_t off),
     (at, n, may, how, fd, off), ENOMEM)
CALL(mremap, void *, (void *at, size_t old, size_t n, int flags), (at, old, n, flags), ENOMEM)
CALL(getrandom, ssize_t, (void *to, size_t n, unsigned flags), (to, n, flags), ENOSYS)

OTHER(opendir, DIR *, (const char *path), (path), NULL, EMFILE)
OTHER(fdopendir, DIR *, (int fd), (fd), NULL, EMFILE)
OTHER(pthread_create, int, (pthread_t *t, const pthread_attr_t *a, void *(*run)(void *), void *arg),
      (t, a, run, arg), EAGAIN, EAGAIN)
/* clang-format on */
#endif
