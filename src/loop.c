/* loop.c -- waiting: file descriptors, timers, signals, deferred work.  Floor 2.
 *
 * See worker/loop.h for the order of one turn.  Fds are looked up in a table indexed by fd, and an
 * epoll event carries the fd with the generation of its registration: an event that was fetched
 * before its watch was removed, or before the number was given to another file, is recognised and
 * dropped.  There is no timerfd: the head of the heap is epoll's timeout.
 *
 * Two heaps, because virtual time may jump to the timers of the first and never to those of the
 * second (a library that keeps its own clock would just re-arm them and the loop would spin).
 */
#include "worker/loop.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "worker/clock.h"
#include "worker/log.h"

#define LOOP_EVENTS  128
#define LOOP_SIGNALS 65
#define LOOP_SOON    (20 * CLOCK_MS)

struct loop_slot {
	struct loop_fd *watch;
	uint32_t gen;
};

struct loop_catcher {
	void (*got)(void *arg, int signo);
	void *arg;
};

struct loop {
	int epoll;
	bool running, virtual, coarse;
	int outside;

	struct loop_slot *slots; /* by fd */
	size_t slot_room;
	size_t fd_count;

	struct heap timers;	 /* by the virtual clock */
	struct heap real_timers; /* by the real clock */
	struct list deferred;

	bool (*hook)(void *arg);
	void *hook_arg;

	sigset_t caught;
	struct loop_catcher fallback; /* for the signals in ${fallen} that nobody catches */
	sigset_t fallen;
	struct loop_fd signal_watch;
	struct loop_catcher catchers[LOOP_SIGNALS];

	uint64_t turns, waits;
};

struct loop *loop_new(struct err *err)
{
	struct loop *loop = calloc(1, sizeof *loop);
	if (loop == NULL) {
		err_set(err, ENOMEM, "out of memory for the event loop");
		return NULL;
	}
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll == -1) {
		err_errno(err, "epoll_create1");
		free(loop);
		return NULL;
	}
	list_init(&loop->deferred);
	sigemptyset(&loop->caught);
	sigemptyset(&loop->fallen);
	return loop;
}

void loop_free(struct loop *loop)
{
	if (loop->signal_watch.registered) {
		int fd = loop->signal_watch.fd;
		loop_fd_del(loop, &loop->signal_watch);
		close(fd);
	}
	close(loop->epoll);
	free(loop->slots);
	free(loop->timers.nodes);
	free(loop->real_timers.nodes);
	free(loop);
}

/* --- file descriptors --- */

static int loop_slots_reserve(struct loop *loop, int fd)
{
	if ((size_t)fd < loop->slot_room)
		return 0;
	size_t room = loop->slot_room ? loop->slot_room : 64;
	while (room <= (size_t)fd)
		room *= 2;
	struct loop_slot *slots = realloc(loop->slots, room * sizeof *slots);
	if (slots == NULL)
		return -1;
	memset(slots + loop->slot_room, 0, (room - loop->slot_room) * sizeof *slots);
	loop->slots = slots;
	loop->slot_room = room;
	return 0;
}

static struct epoll_event loop_event(const struct loop *loop, int fd, uint32_t events)
{
	struct epoll_event event = {.events = events};
	event.data.u64 = (uint64_t)loop->slots[fd].gen << 32 | (uint32_t)fd;
	return event;
}

int loop_fd_add(struct loop *loop, struct loop_fd *watch, int fd, uint32_t events,
		void (*ready)(void *arg, uint32_t events), void *arg, struct err *err)
{
	if (fd < 0)
		return err_set(err, EBADF, "no file descriptor to watch");
	if (loop_slots_reserve(loop, fd) == -1)
		return err_set(err, ENOMEM, "out of memory watching fd %d", fd);
	loop->slots[fd].gen++;
	struct epoll_event event = loop_event(loop, fd, events);
	if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) == -1)
		return err_errno(err, "watching fd %d", fd);
	loop->slots[fd].watch = watch;
	*watch = (struct loop_fd){.ready = ready, .arg = arg, .fd = fd, .registered = true};
	loop->fd_count++;
	return 0;
}

void loop_fd_set(struct loop *loop, struct loop_fd *watch, uint32_t events)
{
	if (!watch->registered)
		return;
	struct epoll_event event = loop_event(loop, watch->fd, events);
	epoll_ctl(loop->epoll, EPOLL_CTL_MOD, watch->fd, &event);
}

void loop_fd_del(struct loop *loop, struct loop_fd *watch)
{
	if (watch->registered)
		epoll_ctl(loop->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
	loop_fd_forget(loop, watch);
}

void loop_fd_forget(struct loop *loop, struct loop_fd *watch)
{
	if (!watch->registered)
		return;
	loop->slots[watch->fd].watch = NULL;
	watch->registered = false;
	if (!watch->standing)
		loop->fd_count--;
}

void loop_fd_standing(struct loop *loop, struct loop_fd *watch)
{
	if (watch->registered && !watch->standing)
		loop->fd_count--;
	watch->standing = true;
}

static void loop_dispatch(struct loop *loop, const struct epoll_event *event)
{
	uint32_t fd = (uint32_t)event->data.u64;
	struct loop_slot *slot = &loop->slots[fd];
	if (slot->watch != NULL && slot->gen == (uint32_t)(event->data.u64 >> 32))
		slot->watch->ready(slot->watch->arg, event->events);
}

/* --- timers --- */

static struct heap *loop_heap(struct loop *loop, bool real)
{
	return real ? &loop->real_timers : &loop->timers;
}

static int loop_timer_arm(struct loop *loop, struct loop_timer *timer, int64_t due, bool real)
{
	loop_timer_stop(loop, timer);
	if (heap_reserve(loop_heap(loop, real)) == -1)
		return -1;
	timer->real = real;
	timer->node.due = due;
	heap_add(loop_heap(loop, real), &timer->node);
	return 0;
}

int loop_timer_start(struct loop *loop, struct loop_timer *timer, int64_t ns,
		     void (*due)(void *arg), void *arg)
{
	if (loop_timer_arm(loop, timer, clock_mono() + ns, false) == -1)
		return -1;
	timer->due = due;
	timer->arg = arg;
	return 0;
}

int loop_timer_start_real(struct loop *loop, struct loop_timer *timer, int64_t ns,
			  void (*due)(void *arg), void *arg)
{
	if (loop_timer_arm(loop, timer, clock_real() + ns, true) == -1)
		return -1;
	timer->due = due;
	timer->arg = arg;
	return 0;
}

void loop_timer_stop(struct loop *loop, struct loop_timer *timer)
{
	heap_remove(loop_heap(loop, timer->real), &timer->node);
}

/* Timers started from now on are later than ${now}, so the walk ends even when every callback
 * starts its timer again. */
static void loop_fire(struct heap *heap, int64_t now)
{
	struct heap_node *top;
	while ((top = heap_top(heap)) != NULL && top->due <= now) {
		struct loop_timer *timer = container_of(top, struct loop_timer, node);
		heap_remove(heap, top);
		timer->due(timer->arg);
	}
}

/* --- deferred work --- */

void loop_defer(struct loop *loop, struct loop_work *work, void (*run)(void *arg), void *arg)
{
	if (list_linked(&work->link))
		return;
	work->run = run;
	work->arg = arg;
	list_append(&loop->deferred, &work->link);
}

void loop_defer_cancel(struct loop_work *work)
{
	list_remove(&work->link);
}

/* Returns whether anything ran: it may have woken a task, which must not wait for the next event.
 */
static bool loop_run_deferred(struct loop *loop)
{
	bool ran = !list_empty(&loop->deferred);
	struct list batch;
	list_init(&batch);
	list_splice(&batch, &loop->deferred);
	struct list *node;
	while ((node = list_shift(&batch)) != NULL) {
		struct loop_work *work = container_of(node, struct loop_work, link);
		work->run(work->arg);
	}
	return ran;
}

/* --- signals --- */

/* Nobody could ask us to end any more, and it would be ready again at once, for ever. */
static void loop_signals_lost(struct loop *loop)
{
	if (errno == EAGAIN || errno == EINTR)
		return;
	log_at(LOG_LEVEL_ERROR, "loop.signals",
	       "signals cannot be read any more: %s; the worker ends", strerror(errno));
	loop_fd_del(loop, &loop->signal_watch);
	close(loop->signal_watch.fd);
	loop_stop(loop);
}

static void loop_signals_ready(void *arg, uint32_t events)
{
	struct loop *loop = arg;
	struct signalfd_siginfo info[8];
	const size_t room = sizeof info / sizeof *info;
	size_t count = room;
	(void)events;
	while (count == room) {
		ssize_t n = read(loop->signal_watch.fd, info, sizeof info);
		if (n == -1)
			loop_signals_lost(loop);
		count = n > 0 ? (size_t)n / sizeof *info : 0;
		for (size_t i = 0; i < count; i++) {
			const struct loop_catcher *catcher = &loop->catchers[info[i].ssi_signo];
			if (catcher->got == NULL)
				catcher = &loop->fallback;
			if (catcher->got != NULL)
				catcher->got(catcher->arg, (int)info[i].ssi_signo);
		}
	}
}

static int loop_signals_wait(struct loop *loop, struct err *err)
{
	sigset_t wanted = loop->caught;
	sigorset(&wanted, &loop->caught, &loop->fallen);
	bool fresh = !loop->signal_watch.registered;
	int fd = signalfd(fresh ? -1 : loop->signal_watch.fd, &wanted, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd == -1)
		return err_errno(err, "signalfd");
	if (fresh && loop_fd_add(loop, &loop->signal_watch, fd, EPOLLIN, loop_signals_ready, loop,
				 err) == -1) {
		close(fd);
		return -1;
	}
	/* The loop's own watch is not one that a spec could leak. */
	loop_fd_standing(loop, &loop->signal_watch);
	return 0;
}

int loop_signal_fallback(struct loop *loop, const sigset_t *set, void (*got)(void *arg, int signo),
			 void *arg, struct err *err)
{
	loop->fallen = *set;
	loop->fallback = (struct loop_catcher){.got = got, .arg = arg};
	return loop_signals_wait(loop, err);
}

int loop_signal(struct loop *loop, int signo, void (*got)(void *arg, int signo), void *arg,
		struct err *err)
{
	if (signo < 1 || signo >= LOOP_SIGNALS)
		return err_set(err, EINVAL, "no signal has the number %d", signo);
	if (got != NULL)
		sigaddset(&loop->caught, signo);
	else
		sigdelset(&loop->caught, signo);
	loop->catchers[signo] = (struct loop_catcher){.got = got, .arg = arg};
	return loop_signals_wait(loop, err);
}

/* --- turns --- */

void loop_turn_hook(struct loop *loop, bool (*hook)(void *arg), void *arg)
{
	loop->hook = hook;
	loop->hook_arg = arg;
}

void loop_outside(struct loop *loop, int delta)
{
	loop->outside += delta;
}

void loop_virtual(struct loop *loop, bool on)
{
	loop->virtual = on;
}

/* Nanoseconds until the next timer: 0 when one is due, -1 when there is none. */
static int64_t loop_patience(const struct loop *loop)
{
	int64_t least = -1;
	const struct heap_node *top = heap_top(&loop->timers);
	if (top != NULL) {
		int64_t left = top->due - clock_mono();
		least = left > 0 ? left : 0;
	}
	top = heap_top(&loop->real_timers);
	if (top != NULL) {
		int64_t left = top->due - clock_real();
		left = left > 0 ? left : 0;
		if (least == -1 || left < least)
			least = left;
	}
	return least;
}

/* epoll_wait counts in milliseconds; rounding down would wake us early, again and again. */
static int loop_wait_coarse(struct loop *loop, struct epoll_event *events, int64_t ns)
{
	int64_t ms = ns < 0 ? -1 : (ns + CLOCK_MS - 1) / CLOCK_MS;
	return epoll_wait(loop->epoll, events, LOOP_EVENTS, ms > INT_MAX ? INT_MAX : (int)ms);
}

static int loop_wait(struct loop *loop, struct epoll_event *events, int64_t ns)
{
	struct timespec timeout = {.tv_sec = ns / CLOCK_SECOND, .tv_nsec = ns % CLOCK_SECOND};
	if (ns != 0)
		loop->waits++;
	if (loop->coarse)
		return loop_wait_coarse(loop, events, ns);
	int n = epoll_pwait2(loop->epoll, events, LOOP_EVENTS, ns < 0 ? NULL : &timeout, NULL);
	if (n == -1 && errno == ENOSYS) {
		loop->coarse = true; /* a kernel before 5.11, or valgrind */
		return loop_wait_coarse(loop, events, ns);
	}
	return n;
}

/* Virtual time: nothing is ready and nobody outside works for us, so the next thing to happen is
 * the next timer.  A library's own timer that is nearly due (curl's next step) goes first. */
static bool loop_jump(struct loop *loop)
{
	const struct heap_node *top = heap_top(&loop->timers);
	const struct heap_node *real = heap_top(&loop->real_timers);
	if (top == NULL || (real != NULL && real->due - clock_real() < LOOP_SOON))
		return false;
	int64_t ahead = top->due - clock_mono();
	if (ahead > 0)
		clock_jump(ahead);
	return true;
}

static void loop_poll(struct loop *loop, bool busy)
{
	struct epoll_event events[LOOP_EVENTS];
	int64_t patience = busy ? 0 : loop_patience(loop);
	int n = 0;
	if (patience != 0 && loop->virtual && loop->outside == 0) {
		/* What two ends inside this process say to each other arrives within this time. */
		n = loop_wait(loop, events, CLOCK_MS / 5);
		if (n == 0 && loop_jump(loop))
			patience = 0;
	}
	if (n == 0)
		n = loop_wait(loop, events, patience);
	for (int i = 0; i < n; i++)
		loop_dispatch(loop, &events[i]);
}

static bool loop_run_hook(struct loop *loop)
{
	return loop->hook != NULL && loop->hook(loop->hook_arg);
}

void loop_run(struct loop *loop)
{
	loop->running = true;
	while (loop->running) {
		loop->turns++;
		/* Tasks wake others, and so does deferred work, mostly: these run now, and not
		 * after a look at the fds. */
		bool busy = loop_run_hook(loop), deferred = loop_run_deferred(loop);
		if ((busy || deferred) && loop->running)
			busy = loop_run_hook(loop) || !list_empty(&loop->deferred);
		if (!loop->running)
			break;
		loop_poll(loop, busy);
		loop_fire(&loop->timers, clock_mono());
		loop_fire(&loop->real_timers, clock_real());
	}
}

void loop_stop(struct loop *loop)
{
	loop->running = false;
}

struct loop_counts loop_counts(const struct loop *loop)
{
	struct loop_counts counts = {.fds = loop->fd_count,
				     .timers = loop->timers.count + loop->real_timers.count,
				     .outside = (size_t)loop->outside,
				     .turns = loop->turns,
				     .waits = loop->waits};
	for (const struct list *node = loop->deferred.next; node != &loop->deferred;
	     node = node->next)
		counts.deferred++;
	return counts;
}
