/* door.h -- what every door (F5) needs: handles, options, errors.  Floor 4.
 *
 * A handle is a full userdata that begins life closed and owns nothing: door_box() zeroes it, sets
 * its metatable and returns it; only then does the door open what it stands for.  So a raise in
 * between leaves something __gc can deal with.  __gc and __close are the same function.
 *
 *	static const struct door_type widget_type = {
 *		.name = "worker.widget", .methods = widget_methods, .close = widget_close };
 *
 *	struct widget *w = door_box(L, &widget_type, sizeof *w);
 *	if (widget_open(w, &err) == -1)
 *		return door_raise(L, "transport", &err);
 *
 * Errors of the world are tables {kind=, message=, code=, name=} with a common metatable (name is
 * the code's: "ENOENT"); mistakes in arguments are ordinary Lua errors (luaL_argerror).
 */
#ifndef WORKER_DOOR_H
#define WORKER_DOOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lauxlib.h>
#include <lua.h>

#include "worker/err.h"

struct door_type {
	const char *name;			/* in messages and as the metatable's key */
	const luaL_Reg *methods;		/* become __index */
	void (*close)(lua_State *L, void *box); /* idempotent; must not raise */
	const char *(*state)(const void *box);	/* for tostring; may be NULL */
};

/* door_box(L, type, size): push a zeroed, closed handle. */
void *door_box(lua_State *L, const struct door_type *type, size_t size);

/* door_box_with(L, type, size, values): the same with user values to anchor other objects. */
void *door_box_with(lua_State *L, const struct door_type *type, size_t size, int values);

/* door_check(L, index, type): the handle at ${index}, or an argument error. */
void *door_check(lua_State *L, int index, const struct door_type *type);

/* door_test(L, index, type): the same, NULL when it is something else. */
void *door_test(lua_State *L, int index, const struct door_type *type);

/* door_scratch(L, size): zeroed memory that lives as long as the task's stack holds it, also
 * across a raise. Pushes one value. */
void *door_scratch(lua_State *L, size_t size);

/* door_raise(L, kind, err): raise {kind=, message=, code=}.  Never returns. */
int door_raise(lua_State *L, const char *kind, const struct err *err);

/* door_push_error(L, kind, err): push the same object without raising it. */
void door_push_error(lua_State *L, const char *kind, const struct err *err);

/* door_is_error(L, index, kind): whether the value is such an object (NULL: of any kind); raises
 * nothing, whatever the value is. */
bool door_is_error(lua_State *L, int index, const char *kind);

/* Reading an option table at ${index}.  An absent key gives the default; a wrong type or a value
 * out of range raises "field 'x': expected ..., got ...".  Strings stay anchored by the table. */
const char *door_string(lua_State *L, int index, const char *key, size_t *length,
			const char *otherwise);
lua_Number door_number(lua_State *L, int index, const char *key, lua_Number least, lua_Number most,
		       lua_Number otherwise);
lua_Integer door_integer(lua_State *L, int index, const char *key, lua_Integer least,
			 lua_Integer most, lua_Integer otherwise);
bool door_bool(lua_State *L, int index, const char *key, bool otherwise);

/* door_seconds(L, index, key, otherwise): a number of seconds as nanoseconds; at most a year. */
int64_t door_seconds(lua_State *L, int index, const char *key, int64_t otherwise);

/* door_nanos(L, arg): the argument, a number of seconds >= 0, as nanoseconds. */
int64_t door_nanos(lua_State *L, int arg);

#endif
