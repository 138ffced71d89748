/* keeper.c -- no job outlives its worker, not even after kill -9.  Floor 3.
 *
 * The worker's side: start the keeper, tell it, start another when it dies.  All notes are kept
 * here as well, since a new keeper has to be told everything.
 *
 * The clone is the system call itself, not fork(): with no exit signal the keeper never shows
 * among the children that wait(2) reports, the pidfd comes with it, and no library's fork handlers
 * run.  It is owned all the same (worker/orphans.h), or it would look like something a job left.
 */
#include "worker/keeper.h"

#include <errno.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/clock.h"
#include "worker/keeper_child.h"
#include "worker/list.h"
#include "worker/log.h"
#include "worker/orphans.h"

#define PATIENCE_MS   200		  /* for a full socket */
#define RESTART_PAUSE (5 * CLOCK_SECOND)  /* when keepers die one after the other */
#define SHORT_LIFE    (10 * CLOCK_SECOND) /* ... each of them younger than this */

struct note {
	struct list link;
	char message[]; /* '+', kind, text */
};

struct keeper {
	struct loop *loop;
	struct list notes;
	struct loop_fd death; /* the pidfd */
	struct loop_timer restart;
	int64_t born;
	int sock;
	pid_t pid;
};

struct keeper *keeper_open(struct loop *loop, struct err *err)
{
	struct keeper *keeper = calloc(1, sizeof *keeper);
	if (keeper == NULL) {
		err_set(err, ENOMEM, "out of memory for the keeper");
		return NULL;
	}
	keeper->loop = loop;
	keeper->sock = -1;
	list_init(&keeper->notes);
	return keeper;
}

pid_t keeper_pid(const struct keeper *keeper)
{
	return keeper->pid;
}

/* --- its process --- */

/* A fork without handlers; ${*pidfd} is close-on-exec.  Not clone3, which sandboxes refuse and
 * valgrind does not know. */
static pid_t bare_fork(int *pidfd)
{
	return (pid_t)syscall(SYS_clone, CLONE_PIDFD, NULL, pidfd, NULL, NULL);
}

static void bury(struct keeper *keeper)
{
	int pidfd = keeper->death.fd;
	if (keeper->pid == 0)
		return;
	loop_fd_del(keeper->loop, &keeper->death);
	pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
	while (waitid(P_PIDFD, (id_t)pidfd, &(siginfo_t){.si_pid = 0}, WEXITED | __WALL) == -1 &&
	       errno == EINTR)
		;
	orphans_disown(keeper->pid);
	close(pidfd);
	close(keeper->sock);
	keeper->sock = -1;
	keeper->pid = 0;
}

static int start(struct keeper *keeper, struct err *err);

static void restart(void *arg)
{
	struct err err;
	struct keeper *keeper = arg;
	if (keeper->pid != 0 || start(keeper, &err) == 0)
		return;
	log_at(LOG_LEVEL_WARN, "keeper.missing", "%s; jobs outlive a kill -9 of this worker",
	       err.text);
	loop_timer_start_real(keeper->loop, &keeper->restart, RESTART_PAUSE, restart, keeper);
}

static void died(void *arg, uint32_t events)
{
	struct keeper *keeper = arg;
	bool young = clock_real() - keeper->born < SHORT_LIFE;
	(void)events;
	log_at(LOG_LEVEL_WARN, "keeper.died", "the keeper (pid %d) was killed; starting another",
	       (int)keeper->pid);
	bury(keeper);
	if (list_empty(&keeper->notes))
		return;
	if (!young)
		restart(keeper);
	else /* not a fork per millisecond against whoever kills them */
		loop_timer_start_real(keeper->loop, &keeper->restart, RESTART_PAUSE / 100, restart,
				      keeper);
}

static void tell(struct keeper *keeper, const char *message)
{
	size_t n = strlen(message);
	for (int tries = 0; keeper->sock != -1 && tries < 2; tries++) {
		if (send(keeper->sock, message, n, MSG_DONTWAIT | MSG_NOSIGNAL) != -1)
			return;
		if (errno != EAGAIN)
			break;
		struct pollfd full = {.fd = keeper->sock, .events = POLLOUT};
		poll(&full, 1, PATIENCE_MS);
	}
	/* It does not listen: stopped, or dying.  Its successor is told everything. */
	if (keeper->pid != 0)
		pidfd_send_signal(keeper->death.fd, SIGKILL, NULL, 0);
}

static int start(struct keeper *keeper, struct err *err)
{
	int ends[2], pidfd = -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == -1)
		return err_errno(err, "a socket for the keeper");
	if (orphans_hold(err) == -1) {
		close(ends[0]);
		close(ends[1]);
		return -1;
	}
	pid_t pid = bare_fork(&pidfd);
	if (pid == 0) {
		close(ends[0]); /* or the worker's death would never be heard */
		keeper_child_run(ends[1]);
	}
	int why = errno;
	if (pid > 0)
		orphans_own(pid);
	orphans_release();
	close(ends[1]);
	if (pid == -1) {
		close(ends[0]);
		errno = why;
		return err_errno(err, "starting the keeper");
	}
	keeper->pid = pid;
	keeper->sock = ends[0];
	keeper->born = clock_real();
	keeper->death.fd = pidfd;
	if (loop_fd_add(keeper->loop, &keeper->death, pidfd, EPOLLIN, died, keeper, err) == -1) {
		bury(keeper);
		return -1;
	}
	loop_fd_standing(keeper->loop, &keeper->death);
	for (const struct list *at = keeper->notes.next; at != &keeper->notes; at = at->next)
		tell(keeper, container_of(at, struct note, link)->message);
	return 0;
}

void keeper_close(struct keeper *keeper)
{
	struct list *at;
	tell(keeper, ".");
	bury(keeper);
	loop_timer_stop(keeper->loop, &keeper->restart);
	while ((at = list_shift(&keeper->notes)) != NULL)
		free(container_of(at, struct note, link));
	free(keeper);
}

/* --- notes --- */

static struct note *find_note(struct keeper *keeper, enum keeper_kind kind, const char *text)
{
	for (struct list *at = keeper->notes.next; at != &keeper->notes; at = at->next) {
		struct note *note = container_of(at, struct note, link);
		if (note->message[1] == (char)kind && strcmp(note->message + 2, text) == 0)
			return note;
	}
	return NULL;
}

int keeper_note(struct keeper *keeper, enum keeper_kind kind, const char *text, struct err *err)
{
	size_t n = strlen(text);
	if (n == 0 || n + 2 > KEEPER_CHILD_MESSAGE)
		return err_set(err, ENAMETOOLONG, "nothing the keeper could note: %zu bytes", n);
	if (find_note(keeper, kind, text) != NULL)
		return 0;
	struct note *note = calloc(1, sizeof *note + n + 3);
	if (note == NULL)
		return err_set(err, ENOMEM, "out of memory for the keeper");
	note->message[0] = '+';
	note->message[1] = (char)kind;
	memcpy(note->message + 2, text, n);
	list_append(&keeper->notes, &note->link);
	if (keeper->pid != 0) {
		tell(keeper, note->message);
		return 0;
	}
	if (start(keeper, err) == 0)
		return 0;
	list_remove(&note->link);
	free(note);
	return -1;
}

void keeper_forget(struct keeper *keeper, enum keeper_kind kind, const char *text)
{
	struct note *note = find_note(keeper, kind, text);
	if (note == NULL)
		return;
	note->message[0] = '-';
	tell(keeper, note->message);
	list_remove(&note->link);
	free(note);
}
