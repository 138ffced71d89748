/* lua_child.c -- the life of a child that Lua holds.  Floor 5.  See worker/lua_child.h.
 *
 * Born by lua_child_new, with pipes; started or failed by the spawner's event; then it may be read
 * from, written to and waited for at the same time by different tasks; then abandoned by its
 * handle.  What is abandoned while something of its tree may still live stays in the nursery's list
 * until that is gone.
 *
 * The tree of a child with a control group is that group, which has its own handle; for the others
 * it is what worker/orphans.h finds.
 */
#include "worker/lua_child.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/clock.h"
#include "worker/door.h"
#include "worker/host.h"

/* --- the end --- */

/* As soon as the child has it: a copy kept here would hide that it has closed its own. */
static void process_close_theirs(struct process *process)
{
	if (process->theirs != -1)
		close(process->theirs);
	process->theirs = -1;
}

/* Releasing the spawn comes after the tree's end: until then the leader's number must stay taken.
 */
void lua_child_free(struct process *process)
{
	process_close_theirs(process);
	for (int i = 0; i < STREAMS; i++)
		stream_reader_close(&process->out[i]);
	stream_writer_close(&process->in);
	loop_timer_stop(process->loop, &process->drain);
	loop_defer_cancel(&process->again);
	if (process->tree_open)
		orphans_tree_close(&process->tree);
	if (process->spawn != NULL)
		spawn_release(process->spawn);
	list_remove(&process->link);
	host_count(process->host, "process", -1);
	free(process);
}

int lua_child_closed(lua_State *co, void *op)
{
	struct err err = {.code = 0, .text = "the child was closed while this task waited for it"};
	(void)op;
	return door_raise(co, "gone", &err);
}

static void wake_all(struct host *host, struct list *waiters, task_push_fn *push)
{
	struct list *node;
	while ((node = list_shift(waiters)) != NULL) {
		struct waiter *waiter = container_of(node, struct waiter, link);
		task_wake(host, waiter->token, push, waiter);
	}
}

static void tree_is_gone(void *arg)
{
	struct process *process = arg;
	process->tree_ending = false;
	wake_all(process->host, &process->enders, NULL);
	if (process->box == NULL)
		lua_child_free(process);
}

void lua_child_end(struct process *process)
{
	if (process->tree_ending)
		return;
	process->tree_ending = true;
	orphans_tree_kill(&process->tree, tree_is_gone, process);
}

/* Nothing can be left of a tree whose root is dead when nothing was adopted by us: the kernel gives
 * us the children of the dead.  One short file instead of a walk through /proc, which matters to a
 * worker that runs thousands of short jobs. */
bool lua_child_empty(struct process *process)
{
	if (!process->tree_empty)
		process->tree_empty = process->exited && !orphans_adopted();
	return process->tree_empty;
}

/* The handle goes; whoever still waits is told. */
void lua_child_abandon(struct process *process)
{
	process->box->process = NULL;
	process->box = NULL;
	if (process->reading)
		task_wake(process->host, process->reader, lua_child_closed, NULL);
	if (process->writing)
		task_wake(process->host, process->writer, lua_child_closed, NULL);
	process->reading = process->writing = false;
	wake_all(process->host, &process->waiters, lua_child_closed);
	wake_all(process->host, &process->enders, lua_child_closed);
	for (int i = 0; i < STREAMS; i++)
		stream_reader_close(&process->out[i]);
	stream_writer_close(&process->in);
	loop_timer_stop(process->loop, &process->drain);
	loop_defer_cancel(&process->again);
	if (process->tree_open && !lua_child_empty(process))
		lua_child_end(process);
	else
		lua_child_free(process);
}

/* --- output --- */

/* Output that could not be read is lost: nobody may take the rest for all of it. */
static int read_failed(lua_State *co, const char *name, int code)
{
	struct err err;
	err_set(&err, code, "reading the %s of a child", name);
	return door_raise(co, "file", &err);
}

int lua_child_push_end(lua_State *L, const struct process *process)
{
	lua_pushnil(L);
	lua_pushboolean(L, process->leaked);
	lua_pushinteger(L, (lua_Integer)(process->out[OUT].dropped + process->out[ERR].dropped));
	return 3;
}

/* The bytes are read here, when the task runs, straight into the one buffer there is: a thousand
 * children with output waiting cost no memory but their pipes.  The streams take turns. */
static int read_push(lua_State *co, void *op)
{
	static const char *const names[] = {"stdout", "stderr"};
	struct process *process = ((struct box *)op)->process;
	if (process == NULL)
		return lua_child_closed(co, NULL);
	if (!process->out[OUT].open && !process->out[ERR].open)
		return lua_child_push_end(co, process);
	for (int i = 0; i < STREAMS; i++) {
		int which = (process->turn + i) % STREAMS;
		struct stream_reader *reader = &process->out[which];
		size_t room = process->drained ? process->rest[which] : STREAM_CHUNK;
		if (!reader->open || reader->armed)
			continue;
		size_t n = stream_reader_read(reader, process->nursery->chunk,
					      room < STREAM_CHUNK ? room : STREAM_CHUNK);
		process->rest[which] -= process->drained ? n : 0;
		if (process->drained && (n == 0 || process->rest[which] == 0))
			stream_reader_close(reader);
		if (reader->error != 0)
			return read_failed(co, names[which], reader->error);
		if (n == 0)
			continue;
		process->turn = which + 1;
		lua_pushstring(co, names[which]);
		lua_pushlstring(co, process->nursery->chunk, n);
		return 2;
	}
	/* Nothing but an end of one stream: the caller asks again, until both are. */
	lua_pushstring(co, names[OUT]);
	lua_pushliteral(co, "");
	return 2;
}

/* Whether there is something to be told: bytes, or the end of all.  The end of one stream alone is
 * nothing that anybody waits for. */
static bool reader_has_news(struct process *process)
{
	bool waits = false;
	for (int i = 0; i < STREAMS; i++) {
		struct stream_reader *reader = &process->out[i];
		if (stream_reader_is_over(reader))
			stream_reader_close(reader);
		if (reader->open && !reader->armed)
			return true;
		waits = waits || reader->open;
	}
	return !waits;
}

/* The first of the streams wakes the reader; the other one stays as it is, ready or armed. */
static void reader_ready(void *arg)
{
	struct process *process = arg;
	if (!process->reading || !reader_has_news(process))
		return;
	process->reading = false;
	loop_timer_stop(process->loop, &process->drain);
	task_wake(process->host, process->reader, read_push, process->box);
}

static bool process_is_held(const struct process *process)
{
	return stream_reader_has_writer(&process->out[OUT]) ||
	       stream_reader_has_writer(&process->out[ERR]);
}

/* The leader is dead, and somebody else has held a pipe open for long enough.  What the leader
 * wrote is in the pipe already, so what is there now is handed out and nothing after it.  With
 * nobody else there it is only read slowly, and its end will come. */
static void drain_due(void *arg)
{
	struct process *process = arg;
	if (!process_is_held(process))
		return;
	process->drained = true;
	process->leaked = true;
	for (int i = 0; i < STREAMS; i++) {
		struct stream_reader *reader = &process->out[i];
		if (!reader->open)
			continue;
		process->rest[i] = stream_reader_held(reader);
		stream_reader_disarm(reader);
		if (process->rest[i] == 0)
			stream_reader_close(reader);
	}
	reader_ready(process);
}

/* Counted from the exit, not from now: asking again does not win time. */
static int start_drain(struct process *process)
{
	int64_t left = process->exited_at + process->drain_ns - clock_mono();
	return loop_timer_start(process->loop, &process->drain, left > 0 ? left : 0, drain_due,
				process);
}

int lua_child_arm(struct process *process, int64_t drain, struct err *err)
{
	if (process->drained) {
		loop_defer(process->loop, &process->again, reader_ready, process);
		return 0;
	}
	for (int i = 0; i < STREAMS; i++)
		if (process->out[i].open && stream_reader_arm(&process->out[i], err) == -1)
			return -1;
	process->drain_ns = drain;
	if (process->exited && start_drain(process) == -1)
		return err_set(err, ENOMEM, "out of memory for a timer");
	return 0;
}

void lua_child_disarm(struct process *process)
{
	process->reading = false;
	loop_timer_stop(process->loop, &process->drain);
	loop_defer_cancel(&process->again);
	for (int i = 0; i < STREAMS; i++)
		stream_reader_disarm(&process->out[i]);
}

/* --- the leader's beginning and end --- */

static int started_push(lua_State *co, void *op)
{
	struct box *box = op;
	const char *step;
	if (box->process == NULL)
		return lua_child_closed(co, NULL);
	if (box->process->started) {
		lua_pushvalue(co, 2);
		lua_pushinteger(co, spawn_pid(box->process->spawn));
		return 2;
	}
	door_push_error(co, "spawn", spawn_failure(box->process->spawn, &step));
	lua_pushstring(co, step);
	lua_setfield(co, -2, "step");
	lua_child_abandon(box->process);
	return lua_error(co);
}

static lua_Number seconds(int64_t ns)
{
	return (lua_Number)ns / (lua_Number)CLOCK_SECOND;
}

/* Values, of which worker.process makes tables: a name that Lua code knows costs it nothing. */
int lua_child_push_result(lua_State *L, const struct spawn_result *result)
{
	if (result->signal == 0)
		lua_pushinteger(L, result->code);
	else
		lua_pushnil(L);
	if (result->signal != 0)
		lua_pushinteger(L, result->signal);
	else
		lua_pushnil(L);
	lua_pushboolean(L, result->core);
	lua_pushnumber(L, seconds(result->user + result->system));
	lua_pushnumber(L, seconds(result->user));
	lua_pushnumber(L, seconds(result->system));
	lua_pushnumber(L, seconds(result->wall));
	lua_pushinteger(L, (lua_Integer)result->peak_memory);
	return 8;
}

static int result_push(lua_State *co, void *op)
{
	const struct process *process = ((struct waiter *)op)->box->process;
	return process ? lua_child_push_result(co, spawn_result(process->spawn))
		       : lua_child_closed(co, NULL);
}

static void process_exited(struct process *process)
{
	process->exited = true;
	process->exited_at = clock_mono();
	for (int i = 0; i < STREAMS; i++)
		stream_reader_hurry(&process->out[i]);
	/* Out of memory for a timer: do not drain at all rather than for ever. */
	if (process->reading && start_drain(process) == -1)
		drain_due(process);
	wake_all(process->host, &process->waiters, result_push);
}

static void process_open_output(struct process *process)
{
	for (size_t i = 0; i < STREAMS; i++) {
		int fd = spawn_pipe(process->spawn, i);
		if (fd == -1)
			continue;
		stream_reader_open(&process->out[i], process->loop, fd, reader_ready, process);
		process->out[i].ceiling = process->ceiling;
	}
}

/* Trees are opened at once, not when they have to be killed: whether an adopted process can be
 * another job's depends on what other trees there are. */
void lua_child_event(void *arg, enum spawn_event what)
{
	struct process *process = arg;
	if (what == SPAWN_EXITED) {
		process_exited(process);
		return;
	}
	process_close_theirs(process);
	process->started = what == SPAWN_STARTED;
	if (process->started)
		process_open_output(process);
	if (process->started && process->tree.tag[0] != '\0') {
		char tag[ORPHANS_TAG_SIZE];
		memcpy(tag, process->tree.tag, sizeof tag);
		orphans_tree_open(&process->tree, process->loop, spawn_pid(process->spawn), tag);
		process->tree_open = true;
	}
	task_wake(process->host, process->starter, started_push, process->box);
}

struct process *lua_child_new(lua_State *L, struct nursery *nursery, struct box *box)
{
	struct process *process = calloc(1, sizeof *process);
	if (process == NULL)
		luaL_error(L, "out of memory for a child");
	process->nursery = nursery;
	process->host = host_of(L);
	process->loop = host_loop(L);
	process->box = box;
	box->process = process;
	process->theirs = -1;
	list_init(&process->waiters);
	list_init(&process->enders);
	list_append(&nursery->processes, &process->link);
	host_count(process->host, "process", 1);
	return process;
}

/* Merged, both of the child's numbers are the same pipe, so the order of writes is kept. */
void lua_child_pipes(struct spawn_request *request, bool merge)
{
	request->fds[request->fd_count++] =
		(struct spawn_fd){.from = SPAWN_PIPE, .to = 1, .give = true};
	request->fds[request->fd_count++] =
		(struct spawn_fd){.from = merge ? SPAWN_SAME : SPAWN_PIPE, .to = 2, .give = !merge};
}

/* Bytes that are known beforehand go into a file in memory: nobody has to feed them. */
int lua_child_input(struct process *process, struct spawn_request *request, const char *text,
		    size_t length, bool piped, struct err *err)
{
	int fds[2] = {-1, -1};
	if (piped) {
		if (stream_pipe(fds, err) == -1)
			return -1;
		stream_writer_open(&process->in, process->loop, fds[1]);
	} else if (text == NULL || (fds[0] = stream_memory(text, length, err)) == -1) {
		return text == NULL ? 0 : -1;
	}
	process->theirs = fds[0];
	request->fds[request->fd_count++] =
		(struct spawn_fd){.from = fds[0], .to = 0, .give = piped};
	return 0;
}
