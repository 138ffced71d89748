/* lua_child.h -- the life of a child that Lua holds.  Floor 5, for lua_process.c.
 *
 * A struct process lives on the heap, not in the handle, because it may have to go on after the
 * handle is collected: killing what a job has left behind takes a few turns.  The leader stays a
 * zombie (see worker/spawn.h) until that is done.
 *
 * Whatever wakes a task hands it the handle (struct box), which the task's stack anchors, never the
 * process: that may be gone by the time the task runs.
 */
#ifndef WORKER_LUA_CHILD_H
#define WORKER_LUA_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lua.h>

#include "worker/err.h"
#include "worker/list.h"
#include "worker/loop.h"
#include "worker/orphans.h"
#include "worker/spawn.h"
#include "worker/stream.h"
#include "worker/task.h"

enum { OUT, ERR, STREAMS };

struct host;
struct process;

/* The handle; user value 1 is the control group's. */
struct box {
	struct process *process;
};

/* One per Lua state, in the registry. */
struct nursery {
	struct spawner *spawner;
	struct list processes;
	char chunk[STREAM_CHUNK]; /* one read at a time, on its way into a Lua string */
};

/* A task in wait() or end_tree(); in its scratch memory. */
struct waiter {
	struct list link;
	struct task_token token;
	struct box *box;
};

struct process {
	struct list link;
	struct nursery *nursery;
	struct host *host;
	struct loop *loop;
	struct spawn *spawn;
	struct box *box; /* NULL once the handle is gone */
	bool started, exited, leaked;

	int theirs;	  /* the child's end of its stdin, until it has that */
	uint64_t ceiling; /* of each stream */
	struct stream_reader out[STREAMS];
	struct stream_writer in;
	int turn;	      /* the stream that is looked at first */
	bool drained;	      /* somebody else kept a pipe open for too long: */
	size_t rest[STREAMS]; /* what was in it then is still handed out */

	struct task_token reader, writer, starter;
	bool reading, writing;
	int write_code;
	struct list waiters, enders;

	struct loop_timer drain;
	struct loop_work again;
	int64_t drain_ns, exited_at;

	struct orphans_tree tree;
	bool tree_open, tree_ending, tree_empty; /* empty once is empty for ever */
};

/* lua_child_new(L, nursery, box): attached to its handle; raises when out of memory. */
struct process *lua_child_new(lua_State *L, struct nursery *nursery, struct box *box);

/* lua_child_pipes(request, merge): pipes for its output.  lua_child_input: its stdin: ${text} when
 * that is not NULL, a pipe when ${piped}, else /dev/null.  Both add to ${request}. */
void lua_child_pipes(struct spawn_request *request, bool merge);
int lua_child_input(struct process *process, struct spawn_request *request, const char *text,
		    size_t length, bool piped, struct err *err);

/* lua_child_event: for spawn_start.  Wakes the starter, which gets the handle (at index 2 of its
 * stack) and the pid, or the error; wakes the waiters, who get the result. */
void lua_child_event(void *process, enum spawn_event what);

/* lua_child_push_result(L, result): what wait() returns.  lua_child_push_end(L, process): what
 * read() returns at the end of the output. */
int lua_child_push_result(lua_State *L, const struct spawn_result *result);
int lua_child_push_end(lua_State *L, const struct process *process);

/* lua_child_arm(process, drain_ns, err): wake the reader when there is output, an end, or
 * ${drain_ns} after the leader's exit.  lua_child_disarm: the reader goes. */
int lua_child_arm(struct process *process, int64_t drain_ns, struct err *err);
void lua_child_disarm(struct process *process);

/* lua_child_empty(process): nothing can be left of its tree.  lua_child_end(process): KILL for the
 * tree, pass after pass; wakes the enders. */
bool lua_child_empty(struct process *process);
void lua_child_end(struct process *process);

/* lua_child_abandon(process): the handle goes.  Who waits is told; what lives is killed; the
 * process is freed now or later.  lua_child_free(process): now. */
void lua_child_abandon(struct process *process);
void lua_child_free(struct process *process);

/* lua_child_closed(L): raise: the child was closed while somebody waited. */
int lua_child_closed(lua_State *L, void *op);

#endif
