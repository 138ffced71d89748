/* aside.h -- one helper thread for calls that would stall the loop.  Floor 2.
 *
 * Some system calls cannot be made non-blocking: fsync, unlink of a large file, copying.  An aside
 * is one thread with a queue.  A job has two functions: run() in the thread, then done() in the
 * loop.  run() touches nothing but what its argument owns; a job returning true has more to do and
 * goes to the end of the queue, so that a long one (removing a tree) does not keep the others
 * waiting.  While a job is under way the loop knows that something outside works (loop_outside).
 */
#ifndef WORKER_ASIDE_H
#define WORKER_ASIDE_H

#include <stdbool.h>

#include "worker/err.h"
#include "worker/list.h"

struct aside;
struct loop;

/* Embedded in the caller's struct, which must live until done() is called. */
struct aside_job {
	struct list link;
	bool (*run)(void *arg);
	void (*done)(void *arg);
	void *arg;
};

/* aside_open(loop, name, err): start the thread; ${name} (at most 15 bytes) is what ps shows. */
struct aside *aside_open(struct loop *loop, const char *name, struct err *err);

/* aside_standing(aside): it stays for the life of the process; see loop_fd_standing. */
void aside_standing(struct aside *aside);

/* aside_start(aside, job, run, done, arg): queue a job that is not under way; cannot fail. */
void aside_start(struct aside *aside, struct aside_job *job, bool (*run)(void *arg),
		 void (*done)(void *arg), void *arg);

/* aside_close(aside): wait for the jobs there are, call their done(), end the thread.  Not from
 * inside a done() of the same aside: loop_defer it. */
void aside_close(struct aside *aside);

#endif
