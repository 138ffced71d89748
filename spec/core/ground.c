/* ground.c -- checks of the floors that have no Lua above them yet: err, buf, list, clock, loop.
 *
 * Prints "ok SENTENCE" or "not ok SENTENCE (file:line)" per check; spec/core/ground_spec.lua runs
 * it.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "worker/buf.h"
#include "worker/clock.h"
#include "worker/err.h"
#include "worker/list.h"
#include "worker/loop.h"

static int failures;

#define CHECK(sentence, truth) check(sentence, truth, __LINE__)

static void check(const char *sentence, bool truth, int line)
{
	if (truth)
		printf("ok %s\n", sentence);
	else
		printf("not ok %s (spec/core/ground.c:%d)\n", sentence, line);
	failures += !truth;
}

/* --- err --- */

static void check_err(void)
{
	struct err err;
	CHECK("err_set returns -1", err_set(&err, EIO, "reading %s", "x") == -1);
	CHECK("err_wrap puts context in front",
	      err_wrap(&err, "at %d", 7) == -1 && strcmp(err.text, "at 7: reading x") == 0);
	CHECK("wrapping keeps the code", err.code == EIO);
	errno = ENOENT;
	err_errno(&err, "open %s", "y");
	CHECK("err_errno appends what errno means",
	      strcmp(err.text, "open y: No such file or directory") == 0 && err.code == ENOENT);
	char big[1000];
	memset(big, 'z', sizeof big - 1);
	big[sizeof big - 1] = '\0';
	err_set(&err, 0, "%s", big);
	CHECK("a text that is too long is cut", strlen(err.text) == sizeof err.text - 1);
	CHECK("nobody needs to want the error", err_set(NULL, 0, "x") == -1);
}

/* --- buf --- */

static void check_buf(void)
{
	struct buf buf;
	buf_init(&buf, 10);
	CHECK("an empty buffer has a head", strcmp(buf_head(&buf), "") == 0);
	CHECK("a buffer takes bytes up to its ceiling", buf_append(&buf, "0123456789", 10) == 0);
	errno = 0;
	CHECK("and not one more", buf_append(&buf, "x", 1) == -1 && errno == EMSGSIZE);
	CHECK("a refused append changes nothing", buf_size(&buf) == 10);
	buf_consume(&buf, 4);
	CHECK("consuming makes room", buf_append(&buf, "abcd", 4) == 0);
	CHECK("the content stays in order", memcmp(buf_head(&buf), "456789abcd", 10) == 0);
	CHECK("text past the ceiling is refused whole", buf_printf(&buf, "%d", 12345) == -1);
	buf_free(&buf);
	buf_free(&buf);

	buf_init(&buf, 1 << 20);
	char block[1000];
	size_t most = 0;
	memset(block, 'b', sizeof block);
	for (int i = 0; i < 10000; i++) {
		buf_append(&buf, block, sizeof block);
		buf_consume(&buf, sizeof block);
		most = buf.room > most ? buf.room : most;
	}
	CHECK("a long stream through a buffer costs no more than its content", most <= 4096);
	char *place = buf_reserve(&buf, 500000);
	CHECK("room can be reserved and written in place", place != NULL);
	buf_commit(&buf, 500000);
	buf_consume(&buf, 500000);
	CHECK("an emptied buffer gives a large allocation back", buf.room == 0);
	buf_free(&buf);
}

/* --- list --- */

struct item {
	struct list link;
	int value;
};

static void check_list(void)
{
	struct list list, other;
	struct item items[3] = {{.value = 1}, {.value = 2}, {.value = 3}};
	list_init(&list);
	list_init(&other);
	for (int i = 0; i < 3; i++)
		list_append(&list, &items[i].link);
	list_remove(&items[1].link);
	list_remove(&items[1].link);
	CHECK("removing twice does nothing", !list_linked(&items[1].link));
	list_splice(&other, &list);
	CHECK("splicing empties the list it takes from", list_empty(&list));
	struct list *node = list_shift(&other);
	CHECK("nodes come out in the order they went in",
	      container_of(node, struct item, link)->value == 1);
	CHECK("to the last", container_of(list_shift(&other), struct item, link)->value == 3);
	CHECK("and then there is none", list_shift(&other) == NULL);
}

static void check_heap(void)
{
	enum { MANY = 1000 };
	static struct heap_node nodes[MANY];
	struct heap heap = {.nodes = NULL};
	unsigned seed = 7;
	bool grew = true;
	for (int i = 0; i < MANY; i++) {
		seed = seed * 1103515245 + 12345;
		nodes[i].due = seed >> 8;
		grew = grew && heap_reserve(&heap) == 0;
		heap_add(&heap, &nodes[i]);
	}
	CHECK("a heap grows", grew);
	for (int i = 0; i < MANY; i += 3)
		heap_remove(&heap, &nodes[i]);
	heap_remove(&heap, &nodes[0]);
	int64_t last = -1;
	size_t left = heap.count;
	bool sorted = true;
	while (heap_top(&heap) != NULL) {
		struct heap_node *top = heap_top(&heap);
		sorted = sorted && top->due >= last;
		last = top->due;
		heap_remove(&heap, top);
		left--;
	}
	CHECK("a heap gives the smallest first, also after removals in the middle", sorted);
	CHECK("and loses none", left == 0);
	free(heap.nodes);
}

/* --- clock --- */

static void check_clock(void)
{
	char text[CLOCK_ISO_SIZE];
	clock_iso(text, INT64_C(1789000000) * CLOCK_SECOND + 7 * CLOCK_MS, 3);
	CHECK("a time is written in RFC 3339", strcmp(text, "2026-09-10T00:26:40.007Z") == 0);
	clock_iso(text, -1, 9);
	CHECK("also one before 1970", strcmp(text, "1969-12-31T23:59:59.999999999Z") == 0);
	int64_t before = clock_mono(), wall = clock_wall();
	clock_jump(3600 * CLOCK_SECOND);
	CHECK("a jump moves the clock", clock_mono() - before >= 3600 * CLOCK_SECOND);
	CHECK("and the calendar", clock_wall() - wall >= 3600 * CLOCK_SECOND);
	CHECK("but not the real clock", clock_real() - before < 3600 * CLOCK_SECOND);
}

/* --- loop --- */

struct probe {
	struct loop *loop;
	struct loop_timer timer, other;
	struct loop_fd first, second;
	struct loop_work work;
	int fired, order[8];
	int pipes[4];
};

static void probe_stop(void *arg)
{
	loop_stop(((struct probe *)arg)->loop);
}

static void probe_one(void *arg)
{
	struct probe *probe = arg;
	probe->order[probe->fired++] = 1;
}

static void probe_two(void *arg)
{
	struct probe *probe = arg;
	probe->order[probe->fired++] = 2;
	loop_stop(probe->loop);
}

static void check_timers(struct loop *loop)
{
	struct probe probe = {.loop = loop};
	loop_timer_start(loop, &probe.other, 20 * CLOCK_MS, probe_two, &probe);
	loop_timer_start(loop, &probe.timer, 10 * CLOCK_MS, probe_one, &probe);
	loop_run(loop);
	CHECK("timers fire in the order they are due",
	      probe.fired == 2 && probe.order[0] == 1 && probe.order[1] == 2);

	probe.fired = 0;
	loop_timer_start(loop, &probe.timer, 0, probe_one, &probe);
	loop_timer_stop(loop, &probe.timer);
	loop_timer_start(loop, &probe.other, CLOCK_MS, probe_two, &probe);
	loop_run(loop);
	CHECK("a stopped timer does not fire", probe.fired == 1 && probe.order[0] == 2);

	loop_virtual(loop, true);
	int64_t real = clock_real();
	loop_timer_start(loop, &probe.other, 86400 * CLOCK_SECOND, probe_two, &probe);
	loop_run(loop);
	loop_virtual(loop, false);
	CHECK("virtual time jumps over a day", clock_real() - real < 60 * CLOCK_SECOND);
}

static void probe_remove_other(void *arg, uint32_t events)
{
	struct probe *probe = arg;
	(void)events;
	probe->fired++;
	loop_fd_del(probe->loop, &probe->first);
	loop_fd_del(probe->loop, &probe->second);
	loop_defer(probe->loop, &probe->work, probe_stop, probe);
}

static void check_fds(struct loop *loop)
{
	struct probe probe = {.loop = loop};
	struct err err;
	if (pipe(probe.pipes) == -1 || pipe(probe.pipes + 2) == -1)
		return;
	loop_fd_add(loop, &probe.first, probe.pipes[0], EPOLLIN, probe_remove_other, &probe, &err);
	loop_fd_add(loop, &probe.second, probe.pipes[2], EPOLLIN, probe_remove_other, &probe, &err);
	CHECK("both pipes are written",
	      write(probe.pipes[1], "x", 1) == 1 && write(probe.pipes[3], "x", 1) == 1);
	loop_run(loop);
	CHECK("a watch that an earlier callback removed is not called", probe.fired == 1);
	CHECK("nothing is left registered", loop_counts(loop).fds == 0);
	CHECK("a bad fd is refused", loop_fd_add(loop, &probe.first, 9999, EPOLLIN,
						 probe_remove_other, &probe, &err) == -1);
	CHECK("no fd is refused, too",
	      loop_fd_add(loop, &probe.first, -1, EPOLLIN, probe_remove_other, &probe, &err) == -1);
	for (int i = 0; i < 4; i++)
		close(probe.pipes[i]);
}

static void probe_signal(void *arg, int signo)
{
	struct probe *probe = arg;
	probe->fired = signo;
	loop_stop(probe->loop);
}

static void check_signals(struct loop *loop)
{
	struct probe probe = {.loop = loop};
	struct err err;
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	CHECK("a signal can be waited for",
	      loop_signal(loop, SIGUSR1, probe_signal, &probe, &err) == 0);
	kill(getpid(), SIGUSR1);
	loop_run(loop);
	CHECK("and comes through the loop", probe.fired == SIGUSR1);
	loop_signal(loop, SIGUSR1, NULL, NULL, &err);
}

/* The hook notes that it ran, and goes on as long as deferred work gives it something to do. */
static bool probe_hook(void *arg)
{
	struct probe *probe = arg;
	probe->order[probe->fired++] = 3;
	if (probe->fired == 1)
		loop_defer(probe->loop, &probe->work, probe_one, probe);
	else if (probe->fired == 3)
		loop_defer(probe->loop, &probe->work, probe_stop, probe);
	return false;
}

static void check_hook(struct loop *loop)
{
	struct probe probe = {.loop = loop};
	uint64_t before = loop_counts(loop).turns;
	loop_turn_hook(loop, probe_hook, &probe);
	loop_run(loop);
	loop_turn_hook(loop, NULL, NULL);
	CHECK("deferred work runs after the hook, which then runs once more in the same turn",
	      probe.fired == 4 && probe.order[0] == 3 && probe.order[1] == 1 &&
		      probe.order[2] == 3 && probe.order[3] == 3);
	CHECK("and no more than that", loop_counts(loop).turns - before == 2);
}

static void check_idle(struct loop *loop)
{
	struct probe probe = {.loop = loop};
	uint64_t before = loop_counts(loop).turns;
	loop_timer_start(loop, &probe.timer, 200 * CLOCK_MS, probe_stop, &probe);
	loop_run(loop);
	CHECK("an idle loop makes no wake-ups beyond its timers",
	      loop_counts(loop).turns - before <= 2);
}

int main(void)
{
	struct err err;
	check_err();
	check_buf();
	check_list();
	check_heap();
	check_clock();
	struct loop *loop = loop_new(&err);
	if (loop == NULL) {
		printf("not ok a loop can be made: %s\n", err.text);
		return 1;
	}
	check_timers(loop);
	check_fds(loop);
	check_signals(loop);
	check_hook(loop);
	check_idle(loop);
	loop_free(loop);
	return failures != 0;
}
