/* lua_log.c -- worker.core.log: the log for Lua.  Floor 5.
 *
 *	log.write(level, event, message, fields)   level 0 (debug) .. 3 (error)
 *	log.setup{ level=, format=, color=, fd=, output= }   see log_output_set
 *	log.enabled(level) -> bool
 *	log.secret(text) -> bool
 *	log.overlay(erase) -> bool                 see log_overlay_set
 */
#include <math.h>
#include <string.h>

#include "worker/door.h"
#include "worker/doors.h"
#include "worker/log.h"

#define LOG_FIELDS 24

static const char *const format_names[] = {"text", "logfmt", "json", "journal", NULL};

static enum log_level check_level(lua_State *L, int arg)
{
	lua_Integer level = luaL_checkinteger(L, arg);
	luaL_argcheck(L, level >= LOG_LEVEL_DEBUG && level <= LOG_LEVEL_ERROR, arg,
		      "no such level");
	return (enum log_level)level;
}

/* Turns the table at ${index} into fields, in the order of a list of {key, value} pairs.  The
 * strings stay on the stack. */
static size_t read_fields(lua_State *L, int index, struct log_field *fields)
{
	size_t count = 0;
	lua_Integer n = luaL_len(L, index);
	luaL_checkstack(L, LOG_FIELDS * 2 + 4, "log fields");
	for (lua_Integer i = 1; i + 1 <= n && count < LOG_FIELDS; i += 2) {
		struct log_field *field = &fields[count++];
		lua_rawgeti(L, index, i);
		field->key = lua_tostring(L, -1);
		lua_rawgeti(L, index, i + 1);
		int type = lua_type(L, -1);
		/* JSON has no word for infinity, nor for what is no number. */
		field->bare = type == LUA_TBOOLEAN ||
			      (type == LUA_TNUMBER && isfinite(lua_tonumber(L, -1)));
		field->value = luaL_tolstring(L, -1, &field->length);
		lua_remove(L, -2);
		if (field->key == NULL)
			count--;
	}
	return count;
}

static int core_write(lua_State *L)
{
	enum log_level level = check_level(L, 1);
	const char *event = luaL_checkstring(L, 2);
	const char *message = luaL_checkstring(L, 3);
	struct log_field fields[LOG_FIELDS];
	size_t count = lua_istable(L, 4) ? read_fields(L, 4, fields) : 0;
	log_write(level, event, message, fields, count);
	return 0;
}

static int core_setup(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	lua_Integer level = door_integer(L, 1, "level", LOG_LEVEL_DEBUG, LOG_LEVEL_OFF, -1);
	if (level >= 0)
		log_level_set((enum log_level)level);
	const char *format = door_string(L, 1, "format", NULL, NULL);
	for (int i = 0; format != NULL && format_names[i] != NULL; i++)
		if (strcmp(format, format_names[i]) == 0)
			log_format_set((enum log_format)i);
	if (lua_getfield(L, 1, "color") == LUA_TBOOLEAN)
		log_color_set(lua_toboolean(L, -1));
	lua_pop(L, 1);
	lua_Integer fd = door_integer(L, 1, "fd", 0, 1 << 20, -1);
	if (fd >= 0)
		log_fd_set((int)fd);
	const char *output = door_string(L, 1, "output", NULL, NULL);
	struct err err;
	if (output != NULL && log_output_set(output, &err) == -1)
		return door_raise(L, "file", &err);
	return 0;
}

static int core_enabled(lua_State *L)
{
	lua_pushboolean(L, log_enabled(check_level(L, 1)));
	return 1;
}

static int core_secret(lua_State *L)
{
	size_t n;
	const char *text = luaL_checklstring(L, 1, &n);
	lua_pushboolean(L, log_secret(text, n));
	return 1;
}

static int core_overlay(lua_State *L)
{
	lua_pushboolean(L, log_overlay_set(luaL_checkstring(L, 1)));
	return 1;
}

static const luaL_Reg functions[] = {
	{"write", core_write},	 {"setup", core_setup},	    {"enabled", core_enabled},
	{"secret", core_secret}, {"overlay", core_overlay}, {NULL, NULL},
};

int luaopen_worker_core_log(lua_State *L)
{
	luaL_newlib(L, functions);
	return 1;
}
