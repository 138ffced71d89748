/* listen.c -- being called: listening sockets and a limit on open connections.  Floor 3.
 *
 * See worker/listen.h.  The listening fd is level-triggered and watched only while somebody waits
 * and there is room, so whatever we cannot take stays in the kernel's backlog and costs nothing.
 *
 * Connections outlive their listener, so the count they share is a small allocation of its own that
 * the last of them frees.
 *
 * Taking over a stale socket file is a race between starting workers: both find nobody listening,
 * the faster one binds, the slower one removes the fresh file.  A lock on the directory, held only
 * between the probe and the bind, closes it without leaving a lock file behind.
 */
#include "worker/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/address.h"
#include "worker/clock.h"
#include "worker/log.h"

/* How long to leave the backlog alone when there are no file descriptors left. */
#define LISTEN_PAUSE	  (100 * CLOCK_MS)
#define LISTEN_LOCK_TRIES 50
#define LISTEN_EAGER	  64

struct listen_tally {
	struct listen *owner; /* NULL once it is closed */
	size_t open, most;
};

/* --- the count of open connections --- */

static void listen_watch(struct listen *l);

static void listen_tally_leave(struct listen_tally *tally)
{
	if (tally->owner == NULL && tally->open == 0)
		free(tally);
}

static void listen_gone(void *arg)
{
	struct listen_tally *tally = arg;
	tally->open--;
	if (tally->owner != NULL)
		listen_watch(tally->owner);
	listen_tally_leave(tally);
}

size_t listen_connections(const struct listen *l)
{
	return l->tally != NULL ? l->tally->open : 0;
}

static bool listen_has_room(const struct listen *l)
{
	return l->tally->most == 0 || l->tally->open < l->tally->most;
}

/* --- accepting --- */

static void listen_finish(struct listen *l)
{
	listen_stop(l);
	l->done(l->arg);
}

static void listen_late(void *arg)
{
	struct listen *l = arg;
	l->late = true;
	listen_finish(l);
}

static void listen_resume(void *arg)
{
	listen_watch(arg);
}

static void listen_rest(struct listen *l, int code)
{
	l->pauses++;
	log_at(LOG_LEVEL_WARN, "sock.accept_paused", "not accepting connections for %d ms: %s",
	       (int)(LISTEN_PAUSE / CLOCK_MS), strerror(code));
	/* Not watched from here on, even if there were no memory for the timer: a listener that
	 * sleeps too long is better than one that spins. */
	loop_fd_del(l->loop, &l->watch);
	loop_timer_start(l->loop, &l->pause, LISTEN_PAUSE, listen_resume, l);
}

/* True when a connection was taken. */
static bool listen_take(struct listen *l)
{
	for (int tries = 0; tries < 16; tries++) {
		int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd != -1) {
			l->taken = fd;
			l->accepted++;
			return true;
		}
		switch (errno) {
		case EAGAIN:
			return false;
		case EMFILE:
		case ENFILE:
		case ENOBUFS:
		case ENOMEM:
		case ENOSPC:
			listen_rest(l, errno);
			return false;
		default: /* that one died in the queue; the next may live */
			break;
		}
	}
	return false;
}

static void listen_ready(void *arg, uint32_t events)
{
	struct listen *l = arg;
	(void)events;
	if (l->waiting && listen_has_room(l) && listen_take(l))
		listen_finish(l);
}

/* Watched exactly while a connection could be taken. */
static void listen_watch(struct listen *l)
{
	bool wanted = l->open && l->waiting && listen_has_room(l) && !loop_timer_running(&l->pause);
	if (wanted && !l->watch.registered) {
		if (loop_fd_add(l->loop, &l->watch, l->fd, EPOLLIN, listen_ready, l, NULL) == -1 &&
		    !loop_timer_running(&l->pause))
			listen_rest(l, ENOSPC);
	} else if (!wanted) {
		loop_fd_del(l->loop, &l->watch);
	}
}

enum sock_result listen_accept(struct listen *l, int64_t timeout, void (*done)(void *arg),
			       void *arg)
{
	l->code = !l->open ? EBADF : l->waiting ? EBUSY : 0;
	if (l->code != 0)
		return SOCK_FAILED;
	if (l->taken != -1)
		return SOCK_DONE;
	/* A flood of connections must not keep the loop from turning. */
	if (++l->eager <= LISTEN_EAGER && listen_has_room(l) && !loop_timer_running(&l->pause) &&
	    listen_take(l))
		return SOCK_DONE;
	l->eager = 0;
	l->late = false;
	if (timeout >= 0 && loop_timer_start(l->loop, &l->limit, timeout, listen_late, l) == -1) {
		l->code = ENOMEM;
		return SOCK_FAILED;
	}
	l->done = done;
	l->arg = arg;
	l->waiting = true;
	listen_watch(l);
	return SOCK_WAIT;
}

void listen_stop(struct listen *l)
{
	if (!l->waiting)
		return;
	l->waiting = false;
	loop_timer_stop(l->loop, &l->limit);
	listen_watch(l);
}

int listen_pick(struct listen *l, struct sock *s, struct err *err)
{
	int fd = l->taken;
	if (fd == -1)
		return 0;
	l->taken = -1;
	if (sock_open(s, l->loop, fd, NULL, NULL, err) == -1) {
		close(fd);
		return -1;
	}
	l->tally->open++;
	s->closed = listen_gone;
	s->closed_arg = l->tally;
	return 1;
}

/* --- opening --- */

static int listen_socket(int family, struct err *err)
{
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd == -1)
		err_errno(err, "socket");
	return fd;
}

static int listen_bind_tcp(int fd, const struct addrinfo *at, const struct listen_options *options,
			   struct err *err)
{
	int on = 1, off = 0;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (at->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
	address_tune(fd, options->user_timeout_ms);
	if (options->send_buffer > 0) /* connections inherit it */
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &options->send_buffer,
			   sizeof options->send_buffer);
	if (bind(fd, at->ai_addr, at->ai_addrlen) == -1 || listen(fd, options->backlog) == -1)
		return err_errno(err, "listening on %s:%d", options->host, options->port);
	return 0;
}

/* Numbers only: a name server has no say in where we listen. */
static int listen_open_tcp(const struct listen_options *options, struct err *err)
{
	bool any = options->host[0] == '\0' || strcmp(options->host, "*") == 0;
	const char *host = any					     ? "::"
			   : strcmp(options->host, "localhost") == 0 ? "127.0.0.1"
								     : options->host;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
	struct addrinfo *at = NULL;
	char port[16];
	snprintf(port, sizeof port, "%d", options->port);
	if (getaddrinfo(host, port, &hints, &at) != 0)
		return err_set(err, EINVAL,
			       "listening on \"%.80s\": expected a numeric address, "
			       "localhost or *",
			       host);
	int fd = listen_socket(at->ai_family, err);
	if (fd != -1 && listen_bind_tcp(fd, at, options, err) == -1) {
		close(fd);
		fd = -1;
	}
	freeaddrinfo(at);
	if (fd == -1 && any && err->code == EAFNOSUPPORT) { /* a kernel without version 6 */
		struct listen_options v4 = *options;
		v4.host = "0.0.0.0";
		return listen_open_tcp(&v4, err);
	}
	return fd;
}

/* Nobody listens when the kernel refuses; any other answer leaves the file alone. */
static bool listen_is_stale(const struct sockaddr_un *address, socklen_t length)
{
	struct stat file;
	if (lstat(address->sun_path, &file) == -1 || !S_ISSOCK(file.st_mode))
		return false;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return false;
	bool refused = connect(fd, (const struct sockaddr *)address, length) == -1 &&
		       errno == ECONNREFUSED;
	close(fd);
	return refused;
}

static int listen_lock_dir(const char *path, struct err *err)
{
	char dir[sizeof(struct sockaddr_un)];
	snprintf(dir, sizeof dir, "%s", path);
	char *slash = strrchr(dir, '/');
	if (slash != NULL)
		slash[slash == dir] = '\0';
	int fd = open(slash != NULL ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd == -1)
		return err_errno(err, "listening on %s", path);
	for (int tries = 0; tries < LISTEN_LOCK_TRIES; tries++) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return fd;
		usleep(2000);
	}
	close(fd);
	return err_set(err, EBUSY, "listening on %s: somebody holds a lock on its directory", path);
}

static int listen_bind_file(int fd, const struct sockaddr_un *address, socklen_t length,
			    const struct listen_options *options, struct err *err)
{
	const char *path = address->sun_path;
	int lock = listen_lock_dir(path, err);
	if (lock == -1)
		return -1;
	/* The mode of the socket itself bounds that of the file, so it is never wider than asked;
	 * the chmod then undoes what the umask took away. */
	fchmod(fd, options->mode);
	int bound = bind(fd, (const struct sockaddr *)address, length);
	if (bound == -1 && errno == EADDRINUSE) {
		if (listen_is_stale(address, length)) {
			unlink(path);
			bound = bind(fd, (const struct sockaddr *)address, length);
		} else {
			errno = EADDRINUSE;
		}
	}
	if (bound == -1 || chmod(path, options->mode) == -1 || listen(fd, options->backlog) == -1)
		bound = err_errno(err, "listening on %s", path);
	close(lock);
	return bound;
}

static int listen_open_unix(struct listen *l, const struct listen_options *options, struct err *err)
{
	struct sockaddr_un address;
	socklen_t length;
	if (address_unix(options->unix_path, options->unix_length, &address, &length, err) == -1)
		return -1;
	int fd = listen_socket(AF_UNIX, err);
	if (fd == -1)
		return -1;
	bool abstract = address.sun_path[0] == '\0';
	int bound;
	if (!abstract)
		bound = listen_bind_file(fd, &address, length, options, err);
	else if ((bound = bind(fd, (struct sockaddr *)&address, length)) == -1 ||
		 (bound = listen(fd, options->backlog)) == -1)
		err_errno(err, "listening on %.*s", (int)options->unix_length, options->unix_path);
	struct stat file;
	if (bound == 0 && !abstract && stat(address.sun_path, &file) == 0) {
		snprintf(l->path, sizeof l->path, "%s", address.sun_path);
		l->device = file.st_dev;
		l->inode = file.st_ino;
	}
	if (bound == -1)
		close(fd);
	return bound == -1 ? -1 : fd;
}

int listen_open(struct listen *l, struct loop *loop, const struct listen_options *options,
		struct err *err)
{
	memset(l, 0, sizeof *l);
	l->fd = l->taken = -1;
	l->tally = calloc(1, sizeof *l->tally);
	if (l->tally == NULL)
		return err_set(err, ENOMEM, "out of memory for a listener");
	*l->tally = (struct listen_tally){.owner = l, .most = options->most};
	l->fd = options->unix_path != NULL ? listen_open_unix(l, options, err)
					   : listen_open_tcp(options, err);
	if (l->fd == -1) {
		free(l->tally);
		l->tally = NULL;
		return -1;
	}
	l->loop = loop;
	l->open = true;
	return 0;
}

static void listen_remove_file(const struct listen *l)
{
	struct stat file;
	if (l->path[0] != '\0' && lstat(l->path, &file) == 0 && file.st_dev == l->device &&
	    file.st_ino == l->inode)
		unlink(l->path);
}

void listen_close(struct listen *l)
{
	if (!l->open)
		return;
	l->open = false;
	bool told = l->waiting;
	l->code = EBADF;
	listen_remove_file(l); /* before the close: nobody may be refused at a path that is ours */
	listen_stop(l);
	loop_fd_del(l->loop, &l->watch);
	loop_timer_stop(l->loop, &l->pause);
	close(l->fd);
	if (l->taken != -1)
		close(l->taken);
	l->fd = l->taken = -1;
	l->tally->owner = NULL;
	listen_tally_leave(l->tally);
	l->tally = NULL;
	if (told)
		l->done(l->arg);
}
