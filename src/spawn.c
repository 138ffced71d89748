/* spawn.c -- starting, signalling and reaping child processes.  Floor 3.  See worker/spawn.h.
 *
 * A child goes through these states, on the loop's side:
 *
 *	ORDERED		its order is with the thread, which owns it until it has answered
 *	RUNNING		exec succeeded; the pidfd is watched
 *	EXITED		its status is read, and it is left a zombie
 *	FAILED		never ran
 *
 * spawn_release is possible in each of them; what cannot end at once is marked and ends when the
 * answer or the exit comes.  Reaping never goes through SIGCHLD: the pidfd tells, waitid on it
 * reads the status, first without reaping.
 */
#include "worker/spawn.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/aside.h"
#include "worker/clock.h"
#include "worker/loop.h"
#include "worker/orphans.h"
#include "worker/spawn_order.h"

#define SPAWN_LAST_WAIT_MS 2000

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

enum child_state { CHILD_ORDERED, CHILD_RUNNING, CHILD_EXITED, CHILD_FAILED };

struct spawn {
	struct list link; /* among the children */
	struct spawner *spawner;
	struct aside_job job;
	struct spawn_order *order; /* until it is answered */
	void (*event)(void *arg, enum spawn_event what);
	void *arg;
	enum child_state state;
	atomic_bool released; /* the thread looks, too: what nobody waits for is not begun */
	pid_t pid;
	int pidfd;
	int pipes[SPAWN_PIPES]; /* our ends that nobody has taken yet */
	int64_t began;
	struct loop_fd watch;
	struct spawn_result result;
	struct err failure;
	char step[200];
};

struct spawner {
	struct loop *loop;
	struct aside *aside; /* the thread, from the first child on */
	struct spawn_thread *thread;
	struct list children;
};

/* --- the end of a child --- */

/* In every state but ORDERED, when the thread still writes to the order. */
static void spawn_free(struct spawn *child)
{
	list_remove(&child->link);
	for (size_t i = 0; i < SPAWN_PIPES; i++)
		if (child->pipes[i] != -1)
			close(child->pipes[i]);
	spawn_order_free(child->order);
	free(child);
}

/* May free ${child}: nobody touches it after this. */
static void spawn_failed(struct spawn *child, const char *step)
{
	child->state = CHILD_FAILED;
	loop_outside(child->spawner->loop, -1);
	snprintf(child->step, sizeof child->step, "%s", step);
	if (child->released)
		spawn_free(child);
	else
		child->event(child->arg, SPAWN_FAILED);
}

/* From here on the number may mean another process, so this is the last thing that happens; and it
 * is owned until it is reaped, lest the reaper of strangers takes it. */
static void spawn_reap(struct spawn *child)
{
	siginfo_t info;
	waitid((idtype_t)P_PIDFD, (id_t)child->pidfd, &info, WEXITED | WNOHANG);
	orphans_disown(child->pid);
	close(child->pidfd);
	spawn_free(child);
}

static int64_t spawn_ns(const struct timeval *time)
{
	return time->tv_sec * CLOCK_SECOND + time->tv_usec * (CLOCK_MS / 1000);
}

/* The wrapper of glibc has no place for the usage; the kernel fills it in also without reaping. */
static bool spawn_look(struct spawn *child)
{
	siginfo_t info = {.si_pid = 0};
	struct rusage usage = {.ru_maxrss = 0};
	long n = syscall(SYS_waitid, P_PIDFD, child->pidfd, &info, WEXITED | WNOWAIT | WNOHANG,
			 &usage);
	/* Any other failure would come again at once: it has ended, and how nobody can tell. */
	if (n == -1 ? errno == EINTR : info.si_pid == 0)
		return false;
	bool exited = info.si_code == CLD_EXITED;
	child->result = (struct spawn_result){
		.code = exited ? info.si_status : -1,
		.signal = exited ? 0 : info.si_status,
		.core = info.si_code == CLD_DUMPED,
		.user = spawn_ns(&usage.ru_utime),
		.system = spawn_ns(&usage.ru_stime),
		.wall = clock_real() - child->began,
		.peak_memory = usage.ru_maxrss * INT64_C(1024),
	};
	return true;
}

/* The pidfd stays readable while the zombie lies there; its watch tells only of changes.  There may
 * be another one to wait for: a leader that somebody traces is dead to us when the tracer has let
 * go. */
static void spawn_exited(void *arg, uint32_t events)
{
	struct spawn *child = arg;
	(void)events;
	if (!spawn_look(child))
		return;
	loop_fd_forget(child->spawner->loop, &child->watch);
	loop_outside(child->spawner->loop, -1);
	child->state = CHILD_EXITED;
	if (child->released)
		spawn_reap(child);
	else
		child->event(child->arg, SPAWN_EXITED);
}

/* The leader is named apart: one that is being traced, or that has changed its group (a shell can,
 * on behalf of a child), is not reached through the group. */
static void spawn_kill_group(const struct spawn *child)
{
	kill(-child->pid, SIGKILL);
	kill(child->pid, SIGKILL);
}

void spawn_release(struct spawn *child)
{
	child->released = true;
	switch (child->state) {
	case CHILD_ORDERED:
		spawn_thread_kill(child->spawner->thread, child->order);
		break;
	case CHILD_RUNNING:
		spawn_kill_group(child);
		break;
	case CHILD_EXITED:
		kill(-child->pid, SIGKILL);
		spawn_reap(child);
		break;
	case CHILD_FAILED:
		spawn_free(child);
		break;
	}
}

/* --- answers --- */

static void spawn_answer_failed(struct spawn *child, const struct spawn_order *order)
{
	spawn_order_explain(order, &child->failure);
	spawn_failed(child, order->step);
}

/* It runs, but without an fd we cannot follow it.  Waiting here is short: it has been killed. */
static void spawn_lost(struct spawn *child)
{
	siginfo_t info;
	kill(-child->pid, SIGKILL);
	kill(child->pid, SIGKILL);
	while (waitid(P_PID, (id_t)child->pid, &info, WEXITED) == -1 && errno == EINTR)
		continue;
	orphans_disown(child->pid);
	spawn_failed(child, "watch the child");
}

/* The order is ours again.  A caller who has gone meanwhile left it to us to end what came of it.
 */
static void spawn_answered(void *arg)
{
	struct spawn *child = arg;
	struct spawn_order *order = child->order;
	child->pid = order->pid;
	child->pidfd = order->pidfd;
	child->began = order->began;
	child->state = CHILD_RUNNING;
	if (child->pid == 0) {
		spawn_answer_failed(child, order);
		return; /* maybe freed, with its order */
	}
	memcpy(child->pipes, order->pipes, order->pipe_count * sizeof(int));
	child->order = NULL;
	spawn_order_free(order);
	if (loop_fd_add(child->spawner->loop, &child->watch, child->pidfd, EPOLLIN | EPOLLET,
			spawn_exited, child, &child->failure) == -1) {
		close(child->pidfd);
		spawn_lost(child);
		return;
	}
	if (child->released)
		spawn_kill_group(child);
	else
		child->event(child->arg, SPAWN_STARTED);
}

/* --- starting --- */

/* In the thread. */
static bool spawn_obey(void *arg)
{
	struct spawn *child = arg;
	if (!child->released)
		spawn_thread_obey(child->spawner->thread, child->order);
	return false;
}

static int spawner_start_thread(struct spawner *spawner, struct err *err)
{
	if (spawner->thread == NULL)
		spawner->thread = spawn_thread_new(err);
	if (spawner->thread == NULL)
		return -1;
	spawner->aside = aside_open(spawner->loop, "spawn", err);
	if (spawner->aside == NULL)
		return -1;
	aside_standing(spawner->aside);
	return 0;
}

struct spawn *spawn_start(struct spawner *spawner, const struct spawn_request *request,
			  void (*event)(void *arg, enum spawn_event what), void *arg,
			  struct err *err)
{
	if (spawner->aside == NULL && spawner_start_thread(spawner, err) == -1)
		return NULL;
	struct spawn_order *order = spawn_order_new(request, err);
	if (order == NULL)
		return NULL;
	struct spawn *child = calloc(1, sizeof *child);
	if (child == NULL) {
		spawn_order_free(order);
		err_set(err, ENOMEM, "out of memory for a child");
		return NULL;
	}
	child->spawner = spawner;
	child->order = order;
	child->event = event;
	child->arg = arg;
	child->pidfd = -1;
	memset(child->pipes, -1, sizeof child->pipes);
	loop_outside(spawner->loop, 1);
	list_append(&spawner->children, &child->link);
	aside_start(spawner->aside, &child->job, spawn_obey, spawn_answered, child);
	return child;
}

/* --- the spawner --- */

struct spawner *spawn_open(struct loop *loop, struct err *err)
{
	struct spawner *spawner = calloc(1, sizeof *spawner);
	if (spawner == NULL) {
		err_set(err, ENOMEM, "out of memory for the spawner");
		return NULL;
	}
	spawner->loop = loop;
	list_init(&spawner->children);
	return spawner;
}

/* Nothing more will be told to anybody; orders that are with the thread come back first. */
static void spawner_abandon(struct spawner *spawner)
{
	for (struct list *node = spawner->children.next, *next; node != &spawner->children;
	     node = next) {
		next = node->next;
		spawn_release(container_of(node, struct spawn, link));
	}
	if (spawner->aside != NULL)
		aside_close(spawner->aside);
}

/* Killed children are waited for, since their zombies would be our adopter's problem; but not for
 * ever: one may hang in a dead network file system. */
void spawn_shut(struct spawner *spawner)
{
	spawner_abandon(spawner);
	while (!list_empty(&spawner->children)) {
		struct spawn *child = container_of(spawner->children.next, struct spawn, link);
		struct pollfd wait = {.fd = child->pidfd, .events = POLLIN};
		if (child->state == CHILD_RUNNING && poll(&wait, 1, SPAWN_LAST_WAIT_MS) == 0) {
			loop_fd_forget(spawner->loop, &child->watch);
			loop_outside(spawner->loop, -1);
			child->state = CHILD_EXITED;
			spawn_reap(child);
			continue;
		}
		spawn_exited(child, 0);
	}
	spawn_thread_free(spawner->thread);
	free(spawner);
}

/* --- asking --- */

pid_t spawn_pid(const struct spawn *child)
{
	return child->pid;
}

const struct spawn_result *spawn_result(const struct spawn *child)
{
	return child->state == CHILD_EXITED ? &child->result : NULL;
}

const struct err *spawn_failure(const struct spawn *child, const char **step)
{
	if (step != NULL)
		*step = child->step;
	return &child->failure;
}

int spawn_pipe(struct spawn *child, size_t index)
{
	int fd = index < SPAWN_PIPES ? child->pipes[index] : -1;
	if (fd != -1)
		child->pipes[index] = -1;
	return fd;
}

/* By number, which is safe: it is not reaped before it is released, so the number is its own. */
int spawn_signal(struct spawn *child, int signo, bool group, struct err *err)
{
	bool there = child->state == CHILD_RUNNING || child->state == CHILD_EXITED;
	if (!there || (!group && child->state == CHILD_EXITED))
		return err_set(err, ESRCH, "signal %d: the process is not running", signo);
	if (kill(group ? -child->pid : child->pid, signo) == -1)
		return err_errno(err, "signal %d to process %d", signo, (int)child->pid);
	return 0;
}
