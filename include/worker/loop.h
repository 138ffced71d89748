/* loop.h -- waiting: file descriptors, timers, signals, deferred work.  Floor 2.
 *
 * One turn of the loop, always in this order:
 *
 *	1  the turn hook: the tasks that were ready when the turn began (floor 4 sets it)
 *	2  deferred work, and the hook once more, for the tasks that all this woke
 *	3  wait for fds until the next timer is due (not at all while there is more to do)
 *	4  fd callbacks; each is checked again to be still wanted, since an earlier one may have
 *	   removed it
 *	5  timers that are due; one started by a callback of this turn waits for the next turn
 *
 * Callbacks move bytes and wake tasks; they never run Lua.  The structs below are embedded in the
 * caller's own (zeroed before first use) and are private to loop.c.  Removing or stopping what is
 * not registered does nothing.
 *
 * Virtual time (specs only): with nothing ready and nobody outside at work, the loop does not wait
 * for the next timer but jumps the clock to it.  Whoever waits for something outside this process
 * (a child, a thread) says so with loop_outside, and time then flows at its real speed.
 */
#ifndef WORKER_LOOP_H
#define WORKER_LOOP_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/err.h"
#include "worker/list.h"

struct loop;

struct loop_fd {
	void (*ready)(void *arg, uint32_t events);
	void *arg;
	int fd; /* valid while registered */
	bool registered;
	bool standing; /* not counted */
};

struct loop_timer {
	struct heap_node node;
	void (*due)(void *arg);
	void *arg;
	bool real; /* in the heap of timers that never jump */
};

struct loop_work {
	struct list link;
	void (*run)(void *arg);
	void *arg;
};

/* loop_new(err) / loop_free(loop): a loop with nothing registered.  Freeing closes nothing of the
 * callers'. */
struct loop *loop_new(struct err *err);
void loop_free(struct loop *loop);

/* loop_fd_add(loop, watch, fd, events, ready, arg, err): call ${ready} with the EPOLL* bits that
 * came up.  ${ready} must not wait: whoever reads there needs an fd that does not block.  0 or -1.
 */
int loop_fd_add(struct loop *loop, struct loop_fd *watch, int fd, uint32_t events,
		void (*ready)(void *arg, uint32_t events), void *arg, struct err *err);

/* loop_fd_set(loop, watch, events): wait for other events; 0 for none. */
void loop_fd_set(struct loop *loop, struct loop_fd *watch, uint32_t events);

/* loop_fd_del(loop, watch): stop watching.  Always before close(): a child between fork and exec
 * may still hold the file open. */
void loop_fd_del(struct loop *loop, struct loop_fd *watch);

/* loop_fd_forget(loop, watch): the same for nothing, where the file is closed next: what nobody
 * holds open any more the kernel forgets by itself.  Should somebody hold it a moment longer, what
 * still comes of it is dropped; so that this is one event and not one after the other, only for
 * watches with EPOLLONESHOT or EPOLLET. */
void loop_fd_forget(struct loop *loop, struct loop_fd *watch);

/* loop_fd_standing(loop, watch): this one stays for the life of the process: the counts of open
 * watches, by which specs find leaks, leave it out. */
void loop_fd_standing(struct loop *loop, struct loop_fd *watch);

/* loop_timer_start(loop, timer, ns, due, arg): call ${due} once, ${ns} from now.  A running timer
 * is moved.  0, or -1 when out of memory. */
int loop_timer_start(struct loop *loop, struct loop_timer *timer, int64_t ns,
		     void (*due)(void *arg), void *arg);

/* loop_timer_start_real(...): the same for a library that has a clock of its own (curl): virtual
 * time does not jump to it. */
int loop_timer_start_real(struct loop *loop, struct loop_timer *timer, int64_t ns,
			  void (*due)(void *arg), void *arg);
void loop_timer_stop(struct loop *loop, struct loop_timer *timer);
static inline bool loop_timer_running(const struct loop_timer *timer)
{
	return heap_linked(&timer->node);
}

/* loop_defer(loop, work, run, arg): call ${run} once, in step 2 of this or the next turn.
 * Already deferred: nothing changes. */
void loop_defer(struct loop *loop, struct loop_work *work, void (*run)(void *arg), void *arg);
void loop_defer_cancel(struct loop_work *work);

/* loop_signal(loop, signo, got, arg, err): call ${got} from step 4 whenever the signal has come.
 * The signal must be blocked in every thread (main does that first of all). NULL ${got} ends it. */
int loop_signal(struct loop *loop, int signo, void (*got)(void *arg, int signo), void *arg,
		struct err *err);

/* loop_signal_fallback(loop, set, got, arg, err): what happens on these signals while nobody
 * catches them. */
int loop_signal_fallback(struct loop *loop, const sigset_t *set, void (*got)(void *arg, int signo),
			 void *arg, struct err *err);

/* loop_turn_hook(loop, hook, arg): step 1.  Returns whether there is more to do at once. */
void loop_turn_hook(struct loop *loop, bool (*hook)(void *arg), void *arg);

/* loop_outside(loop, delta): +1 when something outside begins to work for us, -1 when it ended. */
void loop_outside(struct loop *loop, int delta);

/* loop_virtual(loop, on): switch the jumping of time on or off. */
void loop_virtual(struct loop *loop, bool on);

/* loop_run(loop): turns until loop_stop(). */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* What is registered now, for the leak check of the specs. */
struct loop_counts {
	size_t fds, timers, deferred, outside;
	uint64_t turns, waits; /* since the start: turns taken, times really waited */
};
struct loop_counts loop_counts(const struct loop *loop);

#endif
