/* spawn.h -- starting, signalling and reaping child processes.  Floor 3.
 *
 * One helper thread does all the cloning.  A child takes over a few file descriptors and no other
 * (see worker/spawn_stage.h): so a spawn costs the same beside ten thousand open files, a child can
 * only ever see the files it was given, and no child holds another file of ours open between clone
 * and exec.  The loop never waits for a child to be scheduled: it hands over an order and is told
 * when exec has succeeded or what failed.
 *
 *	spawner = spawn_open(loop, &err);
 *	child = spawn_start(spawner, &request, event, arg, &err);
 *	... event(arg, SPAWN_STARTED), later event(arg, SPAWN_EXITED); or SPAWN_FAILED alone ...
 *	spawn_release(child);
 *
 * Every child is owned in the sense of worker/orphans.h from before it can have exited until it is
 * reaped.  A child is the leader of its own session and process group.  Once it has exited it stays
 * a zombie until spawn_release: so its pid, which is also the number of its session and group,
 * belongs to nobody else while something in that group may still have to be killed.
 *
 * Limit of what can be measured: the kernel carries the peak memory of the process that cloned
 * over to the child, so spawn_result.peak_memory is never less than the worker's own peak.
 */
#ifndef WORKER_SPAWN_H
#define WORKER_SPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "worker/err.h"

#define SPAWN_FDS    16 /* most files a child is given, 0, 1 and 2 included */
#define SPAWN_LIMITS 16
#define SPAWN_PIPES  2 /* most pipes that are made for it */

struct cgroup;
struct loop;
struct spawner;
struct spawn;

/* The file ${from} of ours becomes ${to} in the child.  SPAWN_PIPE: a pipe is made, which the child
 * writes to; from SPAWN_STARTED on its other end is ours (see spawn_pipe).  SPAWN_SAME: the file of
 * the entry before.  ${give}: a pipe made for this child, whose owner becomes the child's user, so
 * that it can open /dev/stdout. */
#define SPAWN_PIPE (-1)
#define SPAWN_SAME (-2)
struct spawn_fd {
	int from, to;
	bool give;
};

struct spawn_limit {
	int resource; /* RLIMIT_* */
	rlim_t soft, hard;
};

/* Everything is copied by spawn_start, the files included; the control group may be freed as soon
 * as it has returned.  Start from SPAWN_REQUEST. */
struct spawn_request {
	const char *const *argv; /* argv[0] without a slash is looked for in ${path} */
	const char *const *envp; /* exactly this: nothing is inherited */
	const char *path;	 /* directories, with colons; NULL for the usual ones */
	const char *cwd;	 /* NULL: the worker's */

	struct spawn_fd fds[SPAWN_FDS]; /* 0, 1 and 2 are /dev/null where not named */
	size_t fd_count;

	struct cgroup *cgroup; /* the control group it is born into, or NULL */

	struct spawn_limit limits[SPAWN_LIMITS];
	size_t limit_count;

	const char *user, *group; /* names or numbers; NULL: the worker's */
	int umask;		  /* -1: the worker's */
	int nice;		  /* added to the worker's */
	int oom_score_adj;	  /* SPAWN_OOM_KEEP: the worker's, but never its protection */
	bool outlive;		  /* not killed when the worker dies */
	bool no_new_privileges;	  /* a set-uid program gains nothing */
	bool plain;		  /* clone without clone3, as where a sandbox refuses it */
};
#define SPAWN_OOM_KEEP INT32_MIN
#define SPAWN_REQUEST  ((struct spawn_request){.umask = -1, .oom_score_adj = SPAWN_OOM_KEEP})

enum spawn_event { SPAWN_STARTED, SPAWN_FAILED, SPAWN_EXITED };

struct spawn_result {
	int code;   /* exit code, or -1 when a signal ended it */
	int signal; /* or 0 */
	bool core;
	int64_t user, system, wall; /* nanoseconds; with those of descendants it waited for */
	int64_t peak_memory;	    /* bytes, of the largest single process */
};

/* spawn_open(loop, err): nothing runs yet: the thread starts with the first child.
 * spawn_shut(spawner): kills and reaps every child that is left, released or not. */
struct spawner *spawn_open(struct loop *loop, struct err *err);
void spawn_shut(struct spawner *spawner);

/* spawn_start(spawner, request, event, arg, err): ${event} is called from the loop, never from
 * here, and not any more after spawn_release.  NULL on bad requests and out of memory. */
struct spawn *spawn_start(struct spawner *spawner, const struct spawn_request *request,
			  void (*event)(void *arg, enum spawn_event what), void *arg,
			  struct err *err);

/* spawn_pid: 0 before SPAWN_STARTED.  spawn_result: NULL before SPAWN_EXITED.  spawn_failure: why
 * after SPAWN_FAILED; ${*step} becomes what was being done, such as "chdir /x". */
pid_t spawn_pid(const struct spawn *child);
const struct spawn_result *spawn_result(const struct spawn *child);
const struct err *spawn_failure(const struct spawn *child, const char **step);

/* spawn_pipe(child, index): what the child writes into the pipe that was asked for first, or
 * second, can be read there; close-on-exec, and the caller's to close from now on.  -1: there is
 * none, or it was taken already. */
int spawn_pipe(struct spawn *child, size_t index);

/* spawn_signal(child, signo, group, err): signal the leader, or the whole process group (also
 * after the leader has exited).  -1 with ESRCH before SPAWN_STARTED and for a leader that has
 * exited. */
int spawn_signal(struct spawn *child, int signo, bool group, struct err *err);

/* spawn_release(child): the caller's last word.  What still runs of its group is killed, and
 * reaped later by the loop. */
void spawn_release(struct spawn *child);

#endif
