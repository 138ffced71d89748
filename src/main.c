/* main.c -- from exec to exit code.  Floor 6.
 *
 * The order matters: first nobody may get the numbers of the standard streams, nor those that
 * children take over (worker/spawn_stage.h); then every signal we mean to handle is blocked, before
 * any thread exists that could receive it; then loop and host are made; then one task runs
 * worker.main with the command line; when that task ends, so does the loop.  What a command line
 * means is decided in Lua.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "worker/clock.h"
#include "worker/doors.h"
#include "worker/embed.h"
#include "worker/host.h"
#include "worker/log.h"
#include "worker/loop.h"
#include "worker/orphans.h"
#include "worker/spawn_stage.h"
#include "worker/task.h"

#define MIB	      ((size_t)1024 * 1024)
#define EXIT_SOFTWARE 70

static void main_block_signals(void)
{
	static const int handled[] = {SIGHUP,  SIGINT,	SIGQUIT, SIGTERM,
				      SIGUSR1, SIGUSR2, SIGCHLD, SIGWINCH};
	sigset_t set;
	sigemptyset(&set);
	for (size_t i = 0; i < sizeof handled / sizeof *handled; i++)
		sigaddset(&set, handled[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error of the write */
}

/* Who is started without them would open others under their numbers: then what a job prints might
 * end up in the journal. */
static void main_fill_standard(void)
{
	int fd;
	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

/* A command that does not care about signals ends by them, as programs do. */
static void main_interrupted(void *arg, int signo)
{
	struct host *host = arg;
	host_exit_set(host, 128 + signo);
	loop_stop(host_loop(host_state(host)));
}

static int main_catch_signals(struct loop *loop, struct host *host, struct err *err)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGQUIT);
	sigaddset(&set, SIGTERM);
	return loop_signal_fallback(loop, &set, main_interrupted, host, err);
}

/* worker.boot is the function of the first task; its arguments are ours. */
static int main_start(lua_State *L)
{
	int argc = (int)lua_tointeger(L, 1);
	char **argv = lua_touserdata(L, 2);
	luaL_checkstack(L, argc + 4, "too many arguments");
	lua_getglobal(L, "require");
	lua_pushliteral(L, "worker.boot");
	lua_call(L, 1, 1);
	for (int i = 0; i < argc; i++)
		lua_pushstring(L, argv[i]);
	task_start(L, argc);
	return 0;
}

/* How long Lua may compute without waiting: WORKER_PATIENCE in seconds, for machines that are much
 * slower than others, and for specs that have no time. */
static int64_t main_patience(void)
{
	const char *text = getenv("WORKER_PATIENCE");
	double seconds = text != NULL ? strtod(text, NULL) : 0;
	if (!(seconds >= 0.1 && seconds <= 600))
		seconds = 5;
	return (int64_t)(seconds * (double)CLOCK_SECOND);
}

static int main_run(struct loop *loop, int argc, char **argv, struct err *err)
{
	const struct host_options options = {
		.loop = loop,
		.doors = doors_list,
		.files = embed_files,
		.lua_dir = getenv("WORKER_LUA"),
		.memory_ceiling = 256 * MIB,
		.burst_ceiling = 64 * MIB,
		.slow_ns = 200 * CLOCK_MS,
		.runaway_ns = main_patience(),
	};
	struct host *host = host_open(&options, err);
	if (host == NULL)
		return -1;
	lua_State *L = host_state(host);
	int code = main_catch_signals(loop, host, err);
	if (code == -1) {
		host_close(host);
		return -1;
	}
	code = -1;
	host_exit_set(host, EXIT_SOFTWARE); /* until the first task says better */
	lua_pushcfunction(L, main_start);
	lua_pushinteger(L, argc);
	lua_pushlightuserdata(L, argv);
	if (host_call(L, 2, 0) == LUA_OK) {
		loop_run(loop);
		code = host_exit(host);
	} else {
		err_set(err, 0, "%s", luaL_tolstring(L, -1, NULL));
	}
	host_close(host);
	return code;
}

int main(int argc, char **argv)
{
	struct err err = {.code = 0};
	main_fill_standard();
	spawn_stage_open();
	main_block_signals();
	struct loop *loop = loop_new(&err);
	int code = loop != NULL ? main_run(loop, argc, argv, &err) : -1;
	if (code == -1)
		fprintf(stderr, "worker: cannot start: %s\n", err.text);
	if (loop != NULL) {
		orphans_close();
		loop_free(loop);
	}
	log_free();
	return code == -1 ? EXIT_SOFTWARE : code;
}
