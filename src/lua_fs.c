/* lua_fs.c -- worker.core.fs: names, directories, attributes.  Floor 5.
 *
 *	fs.rename(from, to [, noreplace]) fs.link(from, to) fs.unlink(path)    true, or nil and an
 *	fs.mkdir(path [, mode]) fs.rmdir(path) fs.symlink(target, path)        error for the answers
 *	fs.chmod(path, mode) fs.chown(path, uid, gid)                          that are normal
 *	fs.mkdirs(path [, mode]) fs.temp_dir(prefix) -> path
 *	fs.mark(path) -> mark    fs.found(path, mark) -> "same", "full" or "other", next mark
 *	fs.stat(path [, nofollow]) -> {type=, size=, mode=, ...}
 *	fs.readlink(path) fs.realpath(path) -> path
 *	fs.list(path, most [, type]) -> names, more
 *	fs.space(path) -> {bytes_free=, bytes_total=, inodes_free=, inodes_total=}
 *
 * Normal answers are: there is none, there is one already, it is not empty.  Everything else is
 * raised.  None of these waits.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/door.h"
#include "worker/doors.h"
#include "worker/fs.h"
#include "worker/slate.h"

static bool is_normal(int code)
{
	return code == ENOENT || code == ENOTDIR || code == EEXIST || code == ENOTEMPTY;
}

static int nil_or_raise(lua_State *L, const struct err *err)
{
	if (!is_normal(err->code))
		return door_raise(L, "file", err);
	lua_pushnil(L);
	door_push_error(L, "file", err);
	return 2;
}

/* What a call on one path answers. */
static int answer(lua_State *L, int result, const char *doing, const char *path)
{
	struct err err;
	if (result == -1) {
		err_errno(&err, "%s %s", doing, path);
		return nil_or_raise(L, &err);
	}
	lua_pushboolean(L, 1);
	return 1;
}

/* What a call on two paths answers. */
static int answer_both(lua_State *L, int result, const char *doing)
{
	struct err err;
	if (result == -1) {
		err_errno(&err, "%s %s to %s", doing, lua_tostring(L, 1), lua_tostring(L, 2));
		return nil_or_raise(L, &err);
	}
	lua_pushboolean(L, 1);
	return 1;
}

/* --- names --- */

static int core_rename(lua_State *L)
{
	const char *from = luaL_checkstring(L, 1);
	const char *to = luaL_checkstring(L, 2);
	unsigned flags = lua_toboolean(L, 3) ? RENAME_NOREPLACE : 0;
	return answer_both(L, renameat2(AT_FDCWD, from, AT_FDCWD, to, flags), "renaming");
}

static int core_link(lua_State *L)
{
	return answer_both(L, link(luaL_checkstring(L, 1), luaL_checkstring(L, 2)), "linking");
}

static int core_symlink(lua_State *L)
{
	return answer_both(L, symlink(luaL_checkstring(L, 1), luaL_checkstring(L, 2)),
			   "symlinking");
}

static int core_unlink(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1);
	return answer(L, unlink(path), "removing", path);
}

static int core_readlink(lua_State *L)
{
	char target[PATH_MAX];
	const char *path = luaL_checkstring(L, 1);
	ssize_t n = readlink(path, target, sizeof target);
	if (n == -1)
		return answer(L, -1, "reading the link", path);
	lua_pushlstring(L, target, (size_t)n);
	return 1;
}

static int core_realpath(lua_State *L)
{
	char real[PATH_MAX];
	const char *path = luaL_checkstring(L, 1);
	if (realpath(path, real) == NULL)
		return answer(L, -1, "resolving", path);
	lua_pushstring(L, real);
	return 1;
}

/* --- directories --- */

static int core_mkdir(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1);
	mode_t mode = (mode_t)luaL_optinteger(L, 2, 0777);
	return answer(L, mkdir(path, mode), "making directory", path);
}

static int core_mkdirs(lua_State *L)
{
	struct err err;
	const char *path = luaL_checkstring(L, 1);
	if (fs_make_dirs(path, (mode_t)luaL_optinteger(L, 2, 0777), &err) == -1)
		return door_raise(L, "file", &err);
	lua_pushboolean(L, 1);
	return 1;
}

static int core_rmdir(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1);
	return answer(L, rmdir(path), "removing directory", path);
}

/* The mark is a string that means something to core_found alone. */
static int core_mark(lua_State *L)
{
	struct err err;
	struct slate slate;
	memset(&slate, 0, sizeof slate);
	if (slate_mark(luaL_checkstring(L, 1), &slate, &err) == -1)
		return door_raise(L, "file", &err);
	lua_pushlstring(L, (const char *)&slate, sizeof slate);
	return 1;
}

static int core_found(lua_State *L)
{
	static const char *const words[] = {"same", "full", "other"};
	size_t n;
	struct slate slate;
	const char *path = luaL_checkstring(L, 1), *text = luaL_checklstring(L, 2, &n);
	luaL_argcheck(L, n == sizeof slate, 2, "no mark of a directory");
	memcpy(&slate, text, sizeof slate);
	int64_t changed = slate.was.changed;
	lua_pushstring(L, words[slate_found(path, &slate)]);
	if (slate.was.changed == changed)
		lua_pushvalue(L, 2);
	else
		lua_pushlstring(L, (const char *)&slate, sizeof slate);
	return 2;
}

static int core_temp_dir(lua_State *L)
{
	char name[PATH_MAX];
	struct err err;
	const char *prefix = luaL_checkstring(L, 1);
	if (snprintf(name, sizeof name, "%sXXXXXX", prefix) >= (int)sizeof name)
		return luaL_argerror(L, 1, "too long");
	if (mkdtemp(name) == NULL) {
		err_errno(&err, "making directory %sXXXXXX", prefix);
		return door_raise(L, "file", &err);
	}
	lua_pushstring(L, name);
	return 1;
}

/* The directory is owned by a handle, since building the list may raise. */
struct listing {
	DIR *dir;
};

static void listing_close(lua_State *L, void *arg)
{
	struct listing *listing = arg;
	(void)L;
	if (listing->dir != NULL)
		closedir(listing->dir);
	listing->dir = NULL;
}

static const struct door_type listing_type = {.name = "worker.listing", .close = listing_close};

static mode_t entry_type(DIR *dir, const struct dirent *entry)
{
	struct stat st;
	if (entry->d_type != DT_UNKNOWN)
		return DTTOIF(entry->d_type);
	return fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? st.st_mode : 0;
}

static bool entry_wanted(DIR *dir, const struct dirent *entry, const char *type)
{
	if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
		return false;
	return type == NULL || strcmp(fs_type(entry_type(dir, entry)), type) == 0;
}

static int core_list(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1);
	lua_Integer most = luaL_checkinteger(L, 2), n = 0;
	const char *type = luaL_optstring(L, 3, NULL);
	const struct dirent *entry = NULL;
	struct listing *listing = door_box(L, &listing_type, sizeof *listing);
	lua_newtable(L);
	listing->dir = opendir(path);
	if (listing->dir == NULL)
		return answer(L, -1, "reading directory", path);
	bool more = false;
	while (!more && (errno = 0, entry = readdir(listing->dir)) != NULL) {
		if (!entry_wanted(listing->dir, entry, type))
			continue;
		more = n == most;
		if (more)
			break;
		lua_pushstring(L, entry->d_name);
		lua_rawseti(L, -2, ++n);
	}
	if (entry == NULL && errno != 0)
		return answer(L, -1, "reading directory", path);
	listing_close(L, listing);
	lua_pushboolean(L, more);
	return 2;
}

/* --- attributes --- */

static void set_integer(lua_State *L, const char *key, int64_t value)
{
	lua_pushinteger(L, value);
	lua_setfield(L, -2, key);
}

static void set_time(lua_State *L, const char *key, struct timespec at)
{
	lua_pushnumber(L, (lua_Number)at.tv_sec + (lua_Number)at.tv_nsec / 1e9);
	lua_setfield(L, -2, key);
}

static int core_stat(lua_State *L)
{
	struct stat st;
	const char *path = luaL_checkstring(L, 1);
	int flags = lua_toboolean(L, 2) ? AT_SYMLINK_NOFOLLOW : 0;
	if (fstatat(AT_FDCWD, path, &st, flags) == -1)
		return answer(L, -1, "asking about", path);
	lua_createtable(L, 0, 12);
	lua_pushstring(L, fs_type(st.st_mode));
	lua_setfield(L, -2, "type");
	set_integer(L, "size", st.st_size);
	set_integer(L, "mode", st.st_mode & 07777);
	set_integer(L, "uid", st.st_uid);
	set_integer(L, "gid", st.st_gid);
	set_integer(L, "inode", (int64_t)st.st_ino);
	set_integer(L, "device", (int64_t)st.st_dev);
	set_integer(L, "links", (int64_t)st.st_nlink);
	set_integer(L, "disk", (int64_t)st.st_blocks * 512);
	set_time(L, "mtime", st.st_mtim);
	set_time(L, "ctime", st.st_ctim);
	set_time(L, "atime", st.st_atim);
	return 1;
}

static int core_chmod(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1);
	return answer(L, chmod(path, (mode_t)luaL_checkinteger(L, 2)), "chmod", path);
}

/* A link is given away itself, not what it points to. */
static int core_chown(lua_State *L)
{
	const char *path = luaL_checkstring(L, 1);
	uid_t uid = (uid_t)luaL_checkinteger(L, 2);
	gid_t gid = (gid_t)luaL_checkinteger(L, 3);
	return answer(L, lchown(path, uid, gid), "chown", path);
}

static int core_space(lua_State *L)
{
	struct fs_space space;
	struct err err;
	if (fs_space(luaL_checkstring(L, 1), &space, &err) == -1)
		return nil_or_raise(L, &err);
	lua_createtable(L, 0, 4);
	set_integer(L, "bytes_free", (int64_t)space.bytes_free);
	set_integer(L, "bytes_total", (int64_t)space.bytes_total);
	set_integer(L, "inodes_free", (int64_t)space.inodes_free);
	set_integer(L, "inodes_total", (int64_t)space.inodes_total);
	return 1;
}

static const luaL_Reg core_functions[] = {
	{"rename", core_rename}, {"link", core_link},	      {"symlink", core_symlink},
	{"unlink", core_unlink}, {"readlink", core_readlink}, {"realpath", core_realpath},
	{"mark", core_mark},	 {"found", core_found},	      {"mkdir", core_mkdir},
	{"mkdirs", core_mkdirs}, {"rmdir", core_rmdir},	      {"temp_dir", core_temp_dir},
	{"list", core_list},	 {"stat", core_stat},	      {"chmod", core_chmod},
	{"chown", core_chown},	 {"space", core_space},	      {NULL, NULL},
};

int luaopen_worker_core_fs(lua_State *L)
{
	luaL_newlib(L, core_functions);
	return 1;
}
