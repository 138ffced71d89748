/* spawn.c -- starting, signalling and reaping child processes.  Floor 3.  See worker/spawn.h.
 *
 * A child goes through these states, on the loop's side:
 *
 *	WAITING		its order is in the queue: only a few are with the thread at a time, so that
 *			the socket never fills and the files in flight stay below the kernel's limit
 *	SENT		its order is with the thread, which owns it until it answers
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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/clock.h"
#include "worker/loop.h"
#include "worker/orphans.h"
#include "worker/spawn_order.h"

#define SPAWN_FLIGHT	   8
#define SPAWN_LAST_WAIT_MS 2000

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

enum child_state { CHILD_WAITING, CHILD_SENT, CHILD_RUNNING, CHILD_EXITED, CHILD_FAILED };

struct spawn {
	struct list link; /* in the queue while WAITING, else among the children */
	struct spawner *spawner;
	struct spawn_order *order; /* until it is answered */
	void (*event)(void *arg, enum spawn_event what);
	void *arg;
	enum child_state state;
	bool released;
	pid_t pid;
	int pidfd;
	int pipes[SPAWN_PIPES]; /* our ends that nobody has taken yet */
	int64_t began;
	struct loop_fd watch;
	struct loop_work late; /* a failure found while the caller is still in spawn_start */
	struct spawn_result result;
	struct err failure;
	char step[200];
};

struct spawner {
	struct loop *loop;
	struct spawn_thread *thread;
	int sock, thread_sock;
	struct loop_fd watch;
	struct list queue, children;
	unsigned in_flight;
	size_t count;
};

static void spawn_pump(struct spawner *spawner);

/* --- the end of a child --- */

/* In every state but SENT, when the thread still writes to the order. */
static void spawn_free(struct spawn *child)
{
	list_remove(&child->link);
	loop_defer_cancel(&child->late);
	for (size_t i = 0; i < SPAWN_PIPES; i++)
		if (child->pipes[i] != -1)
			close(child->pipes[i]);
	child->spawner->count--;
	free(child->order);
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
	case CHILD_WAITING:
		loop_outside(child->spawner->loop, -1);
		spawn_free(child);
		break;
	case CHILD_SENT:
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

/* What the thread has sent back: the order, and the files of one that succeeded. */
struct answer {
	struct spawn_order *order;
	int fds[SPAWN_ANSWERS];
	size_t count;
};

/* Some are missing when our own table of files was full as they came: then they are no use. */
static int answer_files(struct spawn *child, const struct answer *answer)
{
	size_t pipes = answer->order->pipe_count;
	if (answer->count < 1 + pipes) {
		for (size_t i = 0; i < answer->count; i++)
			close(answer->fds[i]);
		return -1;
	}
	memcpy(child->pipes, answer->fds + 1, pipes * sizeof(int));
	return answer->fds[0];
}

/* The order is ours again.  A caller who has gone meanwhile left it to us to end what came of it.
 */
static void spawn_answered(const struct answer *answer)
{
	struct spawn_order *order = answer->order;
	struct spawn *child = order->owner;
	child->spawner->in_flight--;
	child->pid = order->pid;
	child->began = order->began;
	child->state = CHILD_RUNNING;
	if (order->failed != SPAWN_STEP_NONE) {
		spawn_answer_failed(child, order);
		return; /* maybe freed, with its order */
	}
	int pidfd = child->pidfd = answer_files(child, answer);
	free(order);
	child->order = NULL;
	if (pidfd == -1) {
		err_set(&child->failure, EMFILE, "watch the child: no file descriptor is free");
		spawn_lost(child);
		return;
	}
	if (loop_fd_add(child->spawner->loop, &child->watch, pidfd, EPOLLIN | EPOLLET, spawn_exited,
			child, &child->failure) == -1) {
		close(pidfd);
		spawn_lost(child);
		return;
	}
	if (child->released)
		spawn_kill_group(child);
	else
		child->event(child->arg, SPAWN_STARTED);
}

static bool spawner_receive(const struct spawner *spawner, struct answer *answer)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof answer->fds)];
	} control;
	struct iovec part = {.iov_base = &answer->order, .iov_len = sizeof answer->order};
	struct msghdr message = {.msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof control};
	if (recvmsg(spawner->sock, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) !=
	    sizeof answer->order)
		return false;
	const struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
	answer->count = rights != NULL ? (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
	if (answer->count > 0)
		memcpy(answer->fds, CMSG_DATA(rights), answer->count * sizeof(int));
	return true;
}

/* One at a time: mostly there is no other, and if there is, the socket says so in the next turn. */
static void spawner_answers(void *arg, uint32_t events)
{
	struct spawner *spawner = arg;
	struct answer answer;
	(void)events;
	if (spawner->in_flight > 0 && spawner_receive(spawner, &answer))
		spawn_answered(&answer);
	spawn_pump(spawner);
}

/* --- sending --- */

static int spawner_send(const struct spawner *spawner, struct spawn_order *order)
{
	int fds[SPAWN_FILES];
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof fds)];
	} control = {.room = {0}}; /* what fills it up is sent, too */
	size_t count = spawn_order_files(&order->request, fds);
	struct iovec part = {.iov_base = &order, .iov_len = sizeof order};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
	if (count > 0) {
		control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(count * sizeof(int)),
						  .cmsg_level = SOL_SOCKET,
						  .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&control.header), fds, count * sizeof(int));
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
	}
	ssize_t n;
	do
		n = sendmsg(spawner->sock, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n == -1 && errno == EINTR);
	return n == -1 ? -1 : 0;
}

static void spawn_failed_late(void *arg)
{
	spawn_failed(arg, "pass the files");
}

/* What is passed is the address: both sides live in the same memory.  The files travel as copies,
 * so the caller may close its own as soon as this has returned. */
static int spawner_hand_over(struct spawner *spawner, struct spawn *child)
{
	if (spawner_send(spawner, child->order) == -1)
		return err_errno(&child->failure, "pass the files to the spawn thread");
	spawner->in_flight++;
	return 0;
}

/* Fill the thread's queue.  A full socket is no failure as long as an answer will make room. */
static void spawn_pump(struct spawner *spawner)
{
	while (spawner->in_flight < SPAWN_FLIGHT && !list_empty(&spawner->queue)) {
		struct spawn *child = container_of(spawner->queue.next, struct spawn, link);
		int n = spawner_hand_over(spawner, child), code = child->failure.code;
		if (n == -1 && spawner->in_flight > 0 && (code == EAGAIN || code == ETOOMANYREFS))
			return;
		list_remove(&child->link);
		list_append(&spawner->children, &child->link);
		child->state = CHILD_SENT;
		if (n == -1)
			loop_defer(spawner->loop, &child->late, spawn_failed_late, child);
	}
}

struct spawn *spawn_start(struct spawner *spawner, const struct spawn_request *request,
			  void (*event)(void *arg, enum spawn_event what), void *arg,
			  struct err *err)
{
	if (spawner->thread == NULL) {
		spawner->thread = spawn_thread_start(spawner->thread_sock, err);
		if (spawner->thread == NULL)
			return NULL;
	}
	struct spawn_order *order = spawn_order_new(request, err);
	if (order == NULL)
		return NULL;
	struct spawn *child = calloc(1, sizeof *child);
	if (child == NULL) {
		free(order);
		err_set(err, ENOMEM, "out of memory for a child");
		return NULL;
	}
	child->spawner = spawner;
	child->order = order;
	order->owner = child;
	child->event = event;
	child->arg = arg;
	child->pidfd = -1;
	memset(child->pipes, -1, sizeof child->pipes);
	spawner->count++;
	loop_outside(spawner->loop, 1);
	list_append(&spawner->queue, &child->link);
	spawn_pump(spawner);
	return child;
}

/* --- the spawner --- */

struct spawner *spawn_open(struct loop *loop, struct err *err)
{
	struct spawner *spawner = calloc(1, sizeof *spawner);
	int socks[2];
	if (spawner == NULL) {
		err_set(err, ENOMEM, "out of memory for the spawner");
		return NULL;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks) == -1) {
		err_errno(err, "socketpair");
		free(spawner);
		return NULL;
	}
	spawner->loop = loop;
	spawner->sock = socks[0];
	spawner->thread_sock = socks[1];
	list_init(&spawner->queue);
	list_init(&spawner->children);
	if (loop_fd_add(loop, &spawner->watch, spawner->sock, EPOLLIN, spawner_answers, spawner,
			err) == -1) {
		close(socks[0]);
		close(socks[1]);
		free(spawner);
		return NULL;
	}
	loop_fd_standing(loop, &spawner->watch);
	return spawner;
}

/* Nothing more will be told to anybody; orders that are with the thread come back first. */
static void spawner_abandon(struct spawner *spawner)
{
	struct list *lists[] = {&spawner->queue, &spawner->children};
	for (int i = 0; i < 2; i++) {
		for (struct list *node = lists[i]->next, *next; node != lists[i]; node = next) {
			next = node->next;
			spawn_release(container_of(node, struct spawn, link));
		}
	}
	while (spawner->in_flight > 0) {
		struct pollfd wait = {.fd = spawner->sock, .events = POLLIN};
		poll(&wait, 1, -1);
		spawner_answers(spawner, 0);
	}
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
	loop_fd_del(spawner->loop, &spawner->watch);
	shutdown(spawner->sock, SHUT_RDWR);
	if (spawner->thread != NULL)
		spawn_thread_join(spawner->thread);
	close(spawner->sock);
	close(spawner->thread_sock);
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

size_t spawn_count(const struct spawner *spawner)
{
	return spawner->count;
}
