/* lua_file.c -- worker.core.file: open files and locks.  Floor 5.
 *
 *	file.open(path, "r" | "w" | "a" [, mode]) -> handle, or nil and an error when there is none
 *	file.open_beneath(root, path, "r" | "w" | "a" [, mode [, walk]])    likewise
 *	file.read(path, most) -> text         likewise; more than ${most} bytes raise "limit"
 *	handle:read(n) -> text or nil         at most n bytes; nil at the end
 *	handle:write(text)                    all of it
 *	handle:size() -> bytes
 *	handle:sync()                         waits until what was written is on the disk
 *	handle:close()
 *	file.lock(path [, shared]) -> lock, or nil and an error when it is held; lock:close()
 *
 * Only regular files: reading and writing them does not wait for anybody else.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/door.h"
#include "worker/doors.h"
#include "worker/fs.h"
#include "worker/host.h"
#include "worker/lane.h"
#include "worker/lock.h"

#define FILE_READ_MOST (16 << 20)

struct file {
	struct host *host; /* NULL: closed */
	int fd;
};

/* A lock and an open file are the same thing to own. */
static void file_close(lua_State *L, void *arg)
{
	struct file *file = arg;
	(void)L;
	if (file->host == NULL)
		return;
	close(file->fd);
	host_count(file->host, "file", -1);
	file->host = NULL;
}

static const char *file_state(const void *arg)
{
	return ((const struct file *)arg)->host ? "open" : "closed";
}

static const struct door_type file_type, lock_type;

static struct file *to_file(lua_State *L)
{
	struct file *file = door_check(L, 1, &file_type);
	if (file->host == NULL)
		luaL_error(L, "this file is closed");
	return file;
}

static int file_close_method(lua_State *L)
{
	file_close(L, door_check(L, 1, &file_type));
	return 0;
}

static void file_own(lua_State *L, struct file *file, int fd)
{
	file->fd = fd;
	file->host = host_of(L);
	host_count(file->host, "file", +1);
}

/* Absence is an answer; everything else is raised. */
static int absent_or_raise(lua_State *L, const struct err *err)
{
	if (err->code != ENOENT && err->code != ENOTDIR && err->code != EBUSY)
		return door_raise(L, "file", err);
	lua_pushnil(L);
	door_push_error(L, "file", err);
	return 2;
}

/* --- opening --- */

/* O_TRUNC empties the file before we know that it is a regular one; on all others it does
 * nothing. */
static int to_flags(lua_State *L, int arg)
{
	static const char *const modes[] = {"r", "w", "a", NULL};
	static const int flags[] = {O_RDONLY, O_WRONLY | O_CREAT | O_TRUNC,
				    O_WRONLY | O_CREAT | O_APPEND};
	return flags[luaL_checkoption(L, arg, "r", modes)];
}

static int core_open(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1);
	int flags = to_flags(L, 2);
	mode_t mode = (mode_t)luaL_optinteger(L, 3, 0644);
	struct err err;
	struct file *file = door_box(L, &file_type, sizeof *file);
	int fd = fs_open(path, flags, mode, &err);
	if (fd == -1)
		return absent_or_raise(L, &err);
	file_own(L, file, fd);
	return 1;
}

static int core_open_beneath(lua_State *L)
{
	const char *root = luaL_checkstring(L, 1);
	const char *path = luaL_checkstring(L, 2);
	int flags = to_flags(L, 3);
	mode_t mode = (mode_t)luaL_optinteger(L, 4, 0644);
	bool walk = lua_toboolean(L, 5);
	struct err err;
	struct file *file = door_box(L, &file_type, sizeof *file);
	int fd = walk ? fs_open_walk(root, path, flags, mode, &err)
		      : fs_open_beneath(root, path, flags, mode, &err);
	if (fd == -1)
		return absent_or_raise(L, &err);
	file_own(L, file, fd);
	return 1;
}

/* --- reading and writing --- */

static ssize_t file_get(int fd, char *room, size_t n)
{
	ssize_t got;
	do
		got = read(fd, room, n);
	while (got == -1 && errno == EINTR);
	return got;
}

static int file_raise(lua_State *L, const char *what)
{
	struct err err;
	err_errno(&err, "%s a file", what);
	return door_raise(L, "file", &err);
}

static int file_read(lua_State *L)
{
	struct file *file = to_file(L);
	lua_Integer n = luaL_checkinteger(L, 2);
	luaL_argcheck(L, n > 0 && n <= FILE_READ_MOST, 2, "1 to 16777216 bytes at a time");
	luaL_Buffer buffer;
	char *room = luaL_buffinitsize(L, &buffer, (size_t)n);
	ssize_t got = file_get(file->fd, room, (size_t)n);
	if (got == -1)
		return file_raise(L, "reading");
	if (got == 0)
		return 0;
	luaL_pushresultsize(&buffer, (size_t)got);
	return 1;
}

static int file_write(lua_State *L)
{
	struct file *file = to_file(L);
	size_t n;
	const char *text = luaL_checklstring(L, 2, &n);
	return fs_write_whole(file->fd, text, n) == -1 ? file_raise(L, "writing to") : 0;
}

static int file_size(lua_State *L)
{
	struct stat st;
	if (fstat(to_file(L)->fd, &st) == -1)
		return file_raise(L, "asking about");
	lua_pushinteger(L, (lua_Integer)st.st_size);
	return 1;
}

/* Read what is left, one byte beyond ${most} at the farthest. Files of /proc tell no size. What
 * follows a short read, mostly nothing, fits into the rest of its room. */
static int file_read_all(lua_State *L, struct file *file, size_t most, const char *path)
{
	struct err err;
	struct stat st;
	size_t hint = fstat(file->fd, &st) == 0 && st.st_size > 0 ? (size_t)st.st_size + 1 : 4096;
	size_t total = 0;
	luaL_Buffer buffer;
	luaL_buffinit(L, &buffer);
	for (;;) {
		size_t want = most + 1 - total < hint ? most + 1 - total : hint;
		ssize_t got = file_get(file->fd, luaL_prepbuffsize(&buffer, want), want);
		if (got == -1)
			return file_raise(L, "reading");
		luaL_addsize(&buffer, (size_t)got);
		total += (size_t)got;
		if (total > most) {
			err_set(&err, EFBIG, "reading %s: it has more than %zu bytes", path, most);
			return door_raise(L, "limit", &err);
		}
		if (got == 0)
			break;
		hint = (size_t)got < want ? want - (size_t)got : 65536;
	}
	luaL_pushresult(&buffer);
	file_close(L, file);
	return 1;
}

static int core_read(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1);
	lua_Integer most = luaL_checkinteger(L, 2);
	luaL_argcheck(L, most >= 0 && most < INT32_MAX, 2, "0 bytes to 2 GiB");
	struct err err;
	struct file *file = door_box(L, &file_type, sizeof *file);
	int fd = fs_open(path, O_RDONLY, 0, &err);
	if (fd == -1)
		return absent_or_raise(L, &err);
	file_own(L, file, fd);
	return file_read_all(L, file, (size_t)most, path);
}

/* --- syncing --- */

struct sync_call {
	struct lane_call lane;
	int fd; /* our own: the handle may be closed meanwhile, and its number given away */
};

static bool sync_run(struct lane_call *lane)
{
	lane->result.failed = fdatasync(((struct sync_call *)lane)->fd) == -1;
	if (lane->result.failed)
		err_errno(&lane->result.err, "syncing a file");
	return false;
}

static void sync_end(struct lane_call *lane)
{
	int fd = ((struct sync_call *)lane)->fd;
	if (fd != -1)
		close(fd);
}

static const struct lane_type sync_calls = {.run = sync_run, .end = sync_end};

static int file_sync(lua_State *L)
{
	struct file *file = to_file(L);
	struct err err;
	struct sync_call *call = lane_new(L, sizeof *call, &sync_calls);
	call->fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 0);
	if (call->fd == -1) {
		err_errno(&err, "syncing a file");
		return lane_fail(L, &call->lane, &err);
	}
	return lane_go(L, &call->lane);
}

static const luaL_Reg file_methods[] = {
	{"read", file_read}, {"write", file_write},	   {"size", file_size},
	{"sync", file_sync}, {"close", file_close_method}, {NULL, NULL},
};

static const struct door_type file_type = {
	.name = "worker.file",
	.methods = file_methods,
	.close = file_close,
	.state = file_state,
};

/* --- locks --- */

static int lock_close_method(lua_State *L)
{
	file_close(L, door_check(L, 1, &lock_type));
	return 0;
}

static const luaL_Reg lock_methods[] = {
	{"close", lock_close_method},
	{NULL, NULL},
};

static const struct door_type lock_type = {
	.name = "worker.lock",
	.methods = lock_methods,
	.close = file_close,
	.state = file_state,
};

static int core_lock(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1);
	bool shared = lua_toboolean(L, 2);
	struct err err;
	struct file *lock = door_box(L, &lock_type, sizeof *lock);
	int fd = lock_take(AT_FDCWD, path, shared, &err);
	if (fd == -1)
		return absent_or_raise(L, &err);
	file_own(L, lock, fd);
	return 1;
}

static const luaL_Reg core_functions[] = {
	{"open", core_open}, {"open_beneath", core_open_beneath},
	{"read", core_read}, {"lock", core_lock},
	{NULL, NULL},
};

int luaopen_worker_core_file(lua_State *L)
{
	luaL_newlib(L, core_functions);
	return 1;
}
