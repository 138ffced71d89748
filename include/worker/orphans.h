/* orphans.h -- adopted processes, and the kill of a tree without control groups.  Floor 3.
 *
 * The worker is a child subreaper: whatever a job leaves behind (double forks, daemons) becomes
 * its child, as it would be for PID 1, and has to be reaped.  Children of our own must not be:
 * their exit status belongs to whoever started them.  So every pid that somebody waits for is
 * owned:
 *
 *	orphans_hold(&err);		nobody is reaped while any hold is open
 *	pid = clone3(...);
 *	if (pid > 0) orphans_own(pid);
 *	orphans_release();
 *	...
 *	waitid(P_PIDFD, ...);
 *	orphans_disown(pid);
 *
 * These four may be called from any thread.  The table is one per process, not one per loop: the
 * kernel keeps one set of children and one subreaper bit per process, and so do we.
 */
#ifndef WORKER_ORPHANS_H
#define WORKER_ORPHANS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "worker/err.h"
#include "worker/list.h"
#include "worker/loop.h"

/* orphans_open(loop, err): become the subreaper and reap adopted children on SIGCHLD (which must be
 * blocked).  orphans_close() ends it, before the loop does. */
int orphans_open(struct loop *loop, struct err *err);
void orphans_close(void);

/* orphans_hold(err): 0, or -1 when out of memory: it makes room for one pid, so that owning cannot
 * fail. */
int orphans_hold(struct err *err);
void orphans_own(pid_t pid);
void orphans_release(void);
void orphans_disown(pid_t pid);

/* How many adopted children were reaped, how many pids are owned now. */
uint64_t orphans_reaped(void);
size_t orphans_owned(void);

/* orphans_adopted(): is there a child, living or dead, that nobody owns?  Where there is none, no
 * job whose leader has exited has left anything behind: a cheap answer to a dear question. */
bool orphans_adopted(void);

/* The tag: an environment entry "WORKER_JOB_TAG=worker.job" that every process of a job inherits,
 * with a random part that is the same for all jobs of this worker. */
#define ORPHANS_TAG	 "WORKER_JOB_TAG"
#define ORPHANS_TAG_SIZE 120

/* orphans_tag(out): a new entry for one job, to be put into its environment. */
void orphans_tag(char out[ORPHANS_TAG_SIZE]);

/* orphans_tag_all(out): the beginning all of this worker's entries share, for the keeper. */
void orphans_tag_all(char out[ORPHANS_TAG_SIZE]);

/* The processes of one job where there is no control group: those that descend from ${leader}, are
 * in its session (the leader did setsid), or carry the tag.  A process that left the session, its
 * parents and its environment all at once can be told from another job's only when there is no
 * other job: so the last tree also takes adopted children that nobody owns and that live in our own
 * control group. Not so where the worker had children before it began (exec'd by a script that
 * started something): those, and what they leave behind, are not ours to kill.
 * Zero the struct first; it must stay where it is while open. */
struct orphans_tree {
	struct list link;
	struct loop_timer timer;
	struct loop *loop;
	uint64_t start; /* the leader's, so that its number cannot mean another process */
	void (*gone)(void *arg);
	void *arg;
	pid_t leader;
	int64_t pause;
	bool waiting;
	char tag[ORPHANS_TAG_SIZE];
};

/* orphans_tree_open(tree, loop, leader, tag): begin to look after a job.  orphans_tree_close(tree):
 * stop; kills nothing. */
void orphans_tree_open(struct orphans_tree *tree, struct loop *loop, pid_t leader, const char *tag);
void orphans_tree_close(struct orphans_tree *tree);

/* orphans_tree_signal(tree, signo): one pass over /proc; returns how many living processes were
 * found.  Signal 0 only counts. */
size_t orphans_tree_signal(struct orphans_tree *tree, int signo);

/* orphans_tree_kill(tree, gone, arg): SIGKILL, pass after pass, until nothing is left; then call
 * ${gone} from the loop. Zombies count as gone.  orphans_tree_stop(tree): no more passes, no
 * callback. */
void orphans_tree_kill(struct orphans_tree *tree, void (*gone)(void *arg), void *arg);
void orphans_tree_stop(struct orphans_tree *tree);

#endif
