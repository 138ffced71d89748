/* lua_disk.c -- worker.core.disk: what takes the disk its time.  Floor 5.
 *
 *	disk.write(path, text [, {mode=, sync=}])    replace a file as a whole
 *	disk.copy(from, to [, {mode=, sync=}]) -> bytes
 *	disk.remove_tree(path [, keep_root]) -> entries
 *	disk.sync_dir(path)
 *
 * All of them wait in the helper thread, except disk.write without sync and removing an empty
 * directory: those are over before a thread would have noticed.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/door.h"
#include "worker/doors.h"
#include "worker/fs.h"
#include "worker/lane.h"
#include "worker/tree.h"

#define FILE_MODE 0644

static void options_at(lua_State *L, int index)
{
	if (lua_isnoneornil(L, index)) {
		lua_settop(L, index - 1);
		lua_newtable(L);
	}
	luaL_checktype(L, index, LUA_TTABLE);
}

static bool call_settle(struct lane_call *call, int result)
{
	call->result.failed = result == -1;
	return false;
}

/* --- writing --- */

struct write_call {
	struct lane_call lane;
	int fd;
	char *temp, *path;
};

static bool write_run(struct lane_call *lane)
{
	struct write_call *call = (struct write_call *)lane;
	int result = fs_replace(call->fd, call->temp, call->path, true, &lane->result.err);
	if (result == 0) {
		free(call->temp);
		call->temp = NULL;
	}
	return call_settle(lane, result);
}

static void write_end(struct lane_call *lane)
{
	struct write_call *call = (struct write_call *)lane;
	if (call->temp != NULL)
		unlink(call->temp);
	if (call->fd != -1)
		close(call->fd);
	free(call->temp);
	free(call->path);
}

static const struct lane_type write_calls = {.run = write_run, .end = write_end};

/* The content into a new file beside ${path}; a descriptor and its name, or -1. */
static int write_temp(const char *path, const char *text, size_t n, int mode, char **temp,
		      struct err *err)
{
	int fd = fs_temp_beside(path, mode == -1 ? FILE_MODE : 0600, temp, err);
	if (fd == -1)
		return -1;
	if (mode != -1 && fchmod(fd, (mode_t)mode) == -1)
		err_errno(err, "chmod %s", *temp);
	else if (fs_write_all(fd, text, n) == -1)
		err_errno(err, "writing %s", *temp);
	else
		return fd;
	close(fd);
	unlink(*temp);
	free(*temp);
	*temp = NULL;
	return -1;
}

static int write_now(lua_State *L, const char *path, const char *text, size_t n, int mode)
{
	struct err err;
	char *temp = NULL;
	int fd = write_temp(path, text, n, mode, &temp, &err);
	int result = fd == -1 ? -1 : fs_replace(fd, temp, path, false, &err);
	if (fd != -1)
		close(fd);
	if (fd != -1 && result == -1)
		unlink(temp);
	free(temp);
	return result == -1 ? door_raise(L, "file", &err) : 0;
}

static int disk_write(lua_State *L)
{
	size_t n;
	const char *path = luaL_checkstring(L, 1);
	const char *text = luaL_checklstring(L, 2, &n);
	options_at(L, 3);
	int mode = (int)door_integer(L, 3, "mode", 0, 07777, -1);
	if (!door_bool(L, 3, "sync", false))
		return write_now(L, path, text, n, mode);
	struct err err;
	struct write_call *call = lane_new(L, sizeof *call, &write_calls);
	call->fd = -1;
	call->path = strdup(path);
	if (call->path == NULL) {
		err_set(&err, 0, "out of memory");
		return lane_fail(L, &call->lane, &err);
	}
	call->fd = write_temp(path, text, n, mode, &call->temp, &err);
	if (call->fd == -1)
		return lane_fail(L, &call->lane, &err);
	return lane_go(L, &call->lane);
}

/* --- copying --- */

struct copy_call {
	struct lane_call lane;
	struct fs_copy copy;
};

static bool copy_run(struct lane_call *lane)
{
	struct copy_call *call = (struct copy_call *)lane;
	int result = fs_copy_step(&call->copy, &lane->result.err);
	lane->result.value = call->copy.copied;
	if (result == 1)
		return true;
	return call_settle(lane, result);
}

static void copy_end(struct lane_call *lane)
{
	fs_copy_end(&((struct copy_call *)lane)->copy);
}

static const struct lane_type copy_calls = {.run = copy_run, .end = copy_end};

static int disk_copy(lua_State *L)
{
	const char *from = luaL_checkstring(L, 1);
	const char *to = luaL_checkstring(L, 2);
	options_at(L, 3);
	int mode = (int)door_integer(L, 3, "mode", 0, 07777, -1);
	bool sync = door_bool(L, 3, "sync", false);
	struct err err;
	struct copy_call *call = lane_new(L, sizeof *call, &copy_calls);
	call->copy.sync = sync;
	if (fs_copy_begin(&call->copy, from, to, mode, &err) == -1)
		return lane_fail(L, &call->lane, &err);
	return lane_go(L, &call->lane);
}

/* --- removing --- */

struct tree_call {
	struct lane_call lane;
	struct tree *tree;
};

static bool tree_run(struct lane_call *lane)
{
	struct tree_call *call = (struct tree_call *)lane;
	if (tree_step(call->tree))
		return true;
	lane->result.value = tree_end(call->tree, &lane->result.err);
	call->tree = NULL;
	return call_settle(lane, lane->result.value == -1 ? -1 : 0);
}

static void tree_call_end(struct lane_call *lane)
{
	struct tree_call *call = (struct tree_call *)lane;
	if (call->tree != NULL)
		tree_end(call->tree, NULL);
}

static const struct lane_type tree_calls = {.run = tree_run, .end = tree_call_end};

static int disk_remove_tree(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1);
	bool keep_root = lua_toboolean(L, 2);
	struct err err;
	/* The folder of a small job mostly is: no thread need be woken for it. */
	if (!keep_root && rmdir(path) == 0) {
		lua_pushinteger(L, 1);
		return 1;
	}
	struct tree_call *call = lane_new(L, sizeof *call, &tree_calls);
	call->tree = tree_new(path, keep_root, &err);
	if (call->tree == NULL)
		return lane_fail(L, &call->lane, &err);
	return lane_go(L, &call->lane);
}

/* --- syncing --- */

struct sync_call {
	struct lane_call lane;
	char *path;
};

static bool sync_run(struct lane_call *lane)
{
	struct sync_call *call = (struct sync_call *)lane;
	return call_settle(lane, fs_sync_dir(call->path, &lane->result.err));
}

static void sync_end(struct lane_call *lane)
{
	free(((struct sync_call *)lane)->path);
}

static const struct lane_type sync_calls = {.run = sync_run, .end = sync_end};

static int disk_sync_dir(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1);
	struct err err;
	struct sync_call *call = lane_new(L, sizeof *call, &sync_calls);
	call->path = strdup(path);
	if (call->path == NULL) {
		err_set(&err, 0, "out of memory");
		return lane_fail(L, &call->lane, &err);
	}
	return lane_go(L, &call->lane);
}

static const luaL_Reg core_functions[] = {
	{"write", disk_write},	     {"copy", disk_copy}, {"remove_tree", disk_remove_tree},
	{"sync_dir", disk_sync_dir}, {NULL, NULL},
};

int luaopen_worker_core_disk(lua_State *L)
{
	luaL_newlib(L, core_functions);
	return 1;
}
