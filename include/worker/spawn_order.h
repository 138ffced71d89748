/* spawn_order.h -- one spawn as seen by its three rooms.  Floor 3, for src/spawn*.c alone.
 *
 * spawn.c (the loop) writes an order, spawn_thread.c carries it out and writes the answer into it,
 * spawn_child.c is what runs between clone and exec.  Between the loop and the thread an order is a
 * job of an aside (worker/aside.h); it has copies of everything, the files included, as whoever
 * asked may be gone before the thread comes to it.
 *
 * How a failure travels: the child writes its step and errno into a page that is shared whether or
 * not the child shares our memory, then exits; since the clone is always a vfork, the thread reads
 * the page once the child has exec'd or died.  No pipe, no read.
 */
#ifndef WORKER_SPAWN_ORDER_H
#define WORKER_SPAWN_ORDER_H

#include <stdint.h>
#include <sys/resource.h>

#include "worker/cgroup.h"
#include "worker/spawn.h"

/* Each is named in step_names, spawn_thread.c. */
enum spawn_step {
	SPAWN_STEP_NONE,
	SPAWN_STEP_LOOKUP,
	SPAWN_STEP_PIPE,
	SPAWN_STEP_CLONE,
	SPAWN_STEP_SESSION,
	SPAWN_STEP_CGROUP,
	SPAWN_STEP_OOM,
	SPAWN_STEP_NICE,
	SPAWN_STEP_LIMIT,
	SPAWN_STEP_FILES,
	SPAWN_STEP_GROUPS,
	SPAWN_STEP_GROUP,
	SPAWN_STEP_USER,
	SPAWN_STEP_CHDIR,
	SPAWN_STEP_DEATH,
	SPAWN_STEP_PRIVILEGES,
	SPAWN_STEP_EXEC,
};

struct spawn_order {
	struct spawn_request request; /* the strings and the files are the order's own */
	char *const *argv, *const *envp;
	const char *const *paths; /* what is tried with execve, in turn; ends with NULL */
	bool searched;		  /* paths come from a search */

	const struct cgroup_entry *entry; /* the way into its control group, or NULL */

	/* By the thread: the files under their numbers on the stage, who to become. */
	int fds[SPAWN_FDS];
	uid_t uid;
	gid_t gid;
	gid_t *groups;
	size_t group_count;
	bool set_uid, set_gid;

	/* The answer.  Its files are open when there is a child, and are then its reader's. */
	pid_t pid; /* 0: there is no child */
	int pidfd, pipes[SPAWN_PIPES];
	size_t pipe_count;
	int code; /* errno, or 0 */
	enum spawn_step failed;
	char step[200];
	int64_t began; /* clock_real() */
};

/* What the child tells; in a shared page. */
struct spawn_page {
	int code;
	enum spawn_step step;
	int detail; /* which limit, which place */
};

/* What a child needs to know besides its order. */
struct spawn_birth {
	const struct spawn_order *order;
	struct spawn_page *page;
	int null_fd, table_end; /* see worker/spawn_stage.h */
	rlim_t files;
	pid_t parent;
	pid_t *born;	  /* where the kernel writes its pid before it runs, by clone3 */
	uint64_t signals; /* those whose disposition is not the default: bit 0 is signal 1 */
	bool placed;	  /* born in its cgroup: no need to write itself into it */
	bool shared;	  /* born into our table of files, not into a copy */
	bool lift_oom;	  /* the worker is protected, the child shall not be */
};

/* spawn_order_new(request, err): a copy of everything; NULL with EINVAL, ENOMEM, EMFILE.
 * spawn_order_free(order).  spawn_order_explain(order, err): what failed, for a person. */
struct spawn_order *spawn_order_new(const struct spawn_request *request, struct err *err);
void spawn_order_free(struct spawn_order *order);
void spawn_order_explain(const struct spawn_order *order, struct err *err);

/* spawn_child_run(birth): from here to exec; never returns. */
_Noreturn void spawn_child_run(void *birth);

/* spawn_child_signals(): the signals that a child of this process has to reset. */
uint64_t spawn_child_signals(void);

/* spawn_child_clone(birth, stack, size, pidfd): clone3 with our memory, our files and vfork, on a
 * stack of its own; the pid, or -1 with errno.  spawn_child_clone_plain: the same with copies of
 * our memory and files, by the old clone. */
pid_t spawn_child_clone(struct spawn_birth *birth, void *stack, size_t size, int *pidfd);
pid_t spawn_child_clone_plain(struct spawn_birth *birth, int *pidfd);

/* What the thread needs for its work.  spawn_thread_new: made by the loop, before the first child.
 * spawn_thread_obey(thread, order): in the thread, carry it out. */
struct spawn_thread;
struct spawn_thread *spawn_thread_new(struct err *err);
void spawn_thread_free(struct spawn_thread *thread);
void spawn_thread_obey(struct spawn_thread *thread, struct spawn_order *order);

/* spawn_thread_kill(thread, order): by the loop: nobody waits for this one any more.  Is its child
 * on its way to its exec, it is killed: it may hang there, in a dead network file system or a
 * frozen group, and with it all who come after. */
void spawn_thread_kill(struct spawn_thread *thread, const struct spawn_order *order);

#endif
