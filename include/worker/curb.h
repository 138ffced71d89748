/* curb.h -- functions of Lua's library that would loop in C without end.  Floor 4.
 *
 * The limit of time (see host.h) reaches Lua code only.  Some library functions loop in C for as
 * long as an argument says: string.rep of nothing counts to n, table.insert shifts as many entries
 * as __len claims.  One such call would stop the worker for ever, so they refuse it.
 *
 * Not curbed: a pattern that backtracks without end, such as ("a"):rep(40):find(("a*"):rep(40) ..
 * "b").
 */
#ifndef WORKER_CURB_H
#define WORKER_CURB_H

#include <lua.h>

/* curb_install(L): replace the functions in the open libraries of ${L}. */
void curb_install(lua_State *L);

#endif
