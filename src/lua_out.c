/* lua_out.c -- worker.core.out: writing to stdout or stderr without stalling the loop.  Floor 5.
 *
 *	out.open(fd) -> handle          fd is 1 or 2
 *	handle:write(text)              parks while the reader is slow; raises when there is none
 *	handle:close()
 *
 * The files behind fd 1 and 2 are shared with whoever started us, so they must not be made
 * non-blocking: that would change them for everybody.  A pipe or a terminal is opened again through
 * /proc, which gives a file of our own; a socket is written to with MSG_DONTWAIT; a regular file
 * never blocks for long and is written to as it is.  The fd is watched only while a write waits: a
 * reader that has gone would otherwise wake the loop for ever.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/door.h"
#include "worker/doors.h"
#include "worker/host.h"
#include "worker/loop.h"
#include "worker/task.h"

struct out {
	struct loop *loop;
	struct host *host;
	struct loop_fd watch;
	struct task_token token;
	int fd;
	bool open, socket, waiting;
	const char *text; /* of the write that waits; on its task's stack */
	size_t left;
	int code; /* errno of the write that failed */
};

static const struct door_type out_type;

static void out_close(lua_State *L, void *box)
{
	struct out *out = box;
	(void)L;
	if (!out->open)
		return;
	out->open = false;
	loop_fd_del(out->loop, &out->watch);
	close(out->fd);
}

/* Writes what goes at once; 0 when all is written, -1 with errno. */
static int out_push(struct out *out)
{
	while (out->left > 0) {
		ssize_t n = out->socket ? send(out->fd, out->text, out->left,
					       MSG_DONTWAIT | MSG_NOSIGNAL)
					: write(out->fd, out->text, out->left);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return -1;
		out->text += n;
		out->left -= (size_t)n;
	}
	return 0;
}

static void out_abort(void *op)
{
	struct out *out = op;
	out->waiting = false;
	loop_fd_del(out->loop, &out->watch);
}

static int out_fail(lua_State *L, int code)
{
	struct err err;
	errno = code;
	err_errno(&err, "writing output");
	return door_raise(L, "transport", &err);
}

static int out_push_result(lua_State *co, void *op)
{
	const struct out *out = op;
	return out->code != 0 ? out_fail(co, out->code) : 0;
}

static void out_ready(void *arg, uint32_t events)
{
	struct out *out = arg;
	(void)events;
	if (!out->waiting)
		return;
	int done = out_push(out);
	if (done == -1 && errno == EAGAIN)
		return;
	out->code = done == -1 ? errno : 0;
	out_abort(out);
	task_wake(out->host, out->token, out_push_result, out);
}

static int out_write(lua_State *L)
{
	struct out *out = door_check(L, 1, &out_type);
	size_t length;
	const char *text = luaL_checklstring(L, 2, &length);
	if (!out->open || out->waiting)
		return luaL_error(L,
				  out->open ? "another task writes here" : "this output is closed");
	out->text = text;
	out->left = length;
	if (out_push(out) == 0)
		return 0;
	if (errno != EAGAIN)
		return out_fail(L, errno);
	struct task_token token = task_token(L);
	struct err err;
	out->token = token;
	if (loop_fd_add(out->loop, &out->watch, out->fd, EPOLLOUT, out_ready, out, &err) == -1)
		return door_raise(L, "transport", &err);
	out->waiting = true;
	return task_park(L, token, out_abort, out);
}

static int out_close_method(lua_State *L)
{
	out_close(L, door_check(L, 1, &out_type));
	return 0;
}

static const luaL_Reg out_methods[] = {
	{"write", out_write},
	{"close", out_close_method},
	{NULL, NULL},
};

static const struct door_type out_type = {
	.name = "worker.out",
	.methods = out_methods,
	.close = out_close,
};

/* A file description of our own where that is possible, else a duplicate. */
static int out_reopen(int fd, mode_t mode)
{
	char path[32];
	if (!S_ISFIFO(mode) && !S_ISCHR(mode))
		return fcntl(fd, F_DUPFD_CLOEXEC, 3);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	int own = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	return own != -1 ? own : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static int core_open(lua_State *L)
{
	int fd = (int)luaL_checkinteger(L, 1);
	luaL_argcheck(L, fd == STDOUT_FILENO || fd == STDERR_FILENO, 1, "expected 1 or 2");
	struct out *out = door_box(L, &out_type, sizeof *out);
	struct stat about;
	struct err err;
	out->loop = host_loop(L);
	out->host = host_of(L);
	if (fstat(fd, &about) == -1 || (out->fd = out_reopen(fd, about.st_mode)) == -1) {
		err_errno(&err, "fd %d", fd);
		return door_raise(L, "transport", &err);
	}
	out->open = true;
	out->socket = S_ISSOCK(about.st_mode);
	return 1;
}

static const luaL_Reg functions[] = {
	{"open", core_open},
	{NULL, NULL},
};

int luaopen_worker_core_out(lua_State *L)
{
	luaL_newlib(L, functions);
	return 1;
}
