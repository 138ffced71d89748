/* aside.c -- one helper thread for calls that would stall the loop.  Floor 2.
 *
 * Two lists under one mutex: what is to be done, and what is done and not yet told.  The thread
 * sleeps on a condition; the loop learns of finished jobs through an eventfd.  Either is woken when
 * the mutex is free again: who wakes up at once does not have to wait for it.  The thread blocks
 * all signals (they belong to the loop's signalfd) and needs no large stack: nothing of Lua and
 * nothing recursive runs here.
 */
#include "worker/aside.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "worker/loop.h"

#define ASIDE_STACK (256 * 1024)

struct aside {
	struct loop *loop;
	struct loop_fd watch;
	pthread_t thread;
	int event;

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t more;
	struct list todo, finished;
	bool closing;
};

static struct aside_job *aside_take(struct aside *aside)
{
	pthread_mutex_lock(&aside->lock);
	while (list_empty(&aside->todo) && !aside->closing)
		pthread_cond_wait(&aside->more, &aside->lock);
	/* Closing does not drop what is queued: somebody waits for its end. */
	struct list *node = list_shift(&aside->todo);
	pthread_mutex_unlock(&aside->lock);
	return node ? container_of(node, struct aside_job, link) : NULL;
}

/* Where others wait to be told, the loop has been woken already. */
static void aside_put(struct aside *aside, struct aside_job *job, bool again)
{
	pthread_mutex_lock(&aside->lock);
	bool wake = !again && list_empty(&aside->finished);
	list_append(again ? &aside->todo : &aside->finished, &job->link);
	pthread_mutex_unlock(&aside->lock);
	if (wake)
		(void)eventfd_write(aside->event, 1);
}

static void *aside_main(void *arg)
{
	struct aside *aside = arg;
	struct aside_job *job;
	while ((job = aside_take(aside)) != NULL)
		aside_put(aside, job, job->run(job->arg));
	return NULL;
}

/* done() runs without the lock: it may start the next job. */
static void aside_deliver(struct aside *aside)
{
	struct list batch, *node;
	list_init(&batch);
	pthread_mutex_lock(&aside->lock);
	list_splice(&batch, &aside->finished);
	pthread_mutex_unlock(&aside->lock);
	while ((node = list_shift(&batch)) != NULL) {
		struct aside_job *job = container_of(node, struct aside_job, link);
		loop_outside(aside->loop, -1);
		job->done(job->arg);
	}
}

/* Watched for changes: what has been counted is nothing to us, so it is not read. */
static void aside_ready(void *arg, uint32_t events)
{
	(void)events;
	aside_deliver(arg);
}

/* Blocked before the thread exists, since it inherits the mask: there is no moment in which a
 * signal could reach it. */
static int aside_thread(struct aside *aside, const char *name)
{
	sigset_t all, before;
	pthread_attr_t attr;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, ASIDE_STACK);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int failure = pthread_create(&aside->thread, &attr, aside_main, aside);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	if (failure == 0)
		pthread_setname_np(aside->thread, name);
	return failure;
}

/* Everything but the thread. */
static int aside_prepare(struct aside *aside, struct loop *loop, struct err *err)
{
	aside->loop = loop;
	pthread_mutex_init(&aside->lock, NULL);
	pthread_cond_init(&aside->more, NULL);
	list_init(&aside->todo);
	list_init(&aside->finished);
	aside->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (aside->event == -1)
		return err_errno(err, "eventfd");
	return loop_fd_add(loop, &aside->watch, aside->event, EPOLLIN | EPOLLET, aside_ready, aside,
			   err);
}

static void aside_free(struct aside *aside)
{
	loop_fd_del(aside->loop, &aside->watch);
	if (aside->event != -1)
		close(aside->event);
	pthread_cond_destroy(&aside->more);
	pthread_mutex_destroy(&aside->lock);
	free(aside);
}

struct aside *aside_open(struct loop *loop, const char *name, struct err *err)
{
	struct aside *aside = calloc(1, sizeof *aside);
	if (aside == NULL) {
		err_set(err, ENOMEM, "out of memory for a helper thread");
		return NULL;
	}
	if (aside_prepare(aside, loop, err) == -1) {
		aside_free(aside);
		return NULL;
	}
	int failure = aside_thread(aside, name);
	if (failure != 0) {
		errno = failure;
		err_errno(err, "starting a helper thread");
		aside_free(aside);
		return NULL;
	}
	return aside;
}

void aside_start(struct aside *aside, struct aside_job *job, bool (*run)(void *arg),
		 void (*done)(void *arg), void *arg)
{
	job->run = run;
	job->done = done;
	job->arg = arg;
	loop_outside(aside->loop, 1);
	pthread_mutex_lock(&aside->lock);
	list_append(&aside->todo, &job->link);
	pthread_mutex_unlock(&aside->lock);
	pthread_cond_signal(&aside->more);
}

void aside_standing(struct aside *aside)
{
	loop_fd_standing(aside->loop, &aside->watch);
}

void aside_close(struct aside *aside)
{
	pthread_mutex_lock(&aside->lock);
	aside->closing = true;
	pthread_mutex_unlock(&aside->lock);
	pthread_cond_signal(&aside->more);
	pthread_join(aside->thread, NULL);
	aside_deliver(aside);
	aside_free(aside);
}
