/* dial_lookup.c -- the addresses behind a host's name.  Floor 3.  See worker/dial_lookup.h.
 *
 * The question belongs to two, the loop and the thread; the second of them to let go frees it.
 */
#include "worker/dial_lookup.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LOOKUP_STACK ((size_t)512 * 1024) /* what is configured may bring libraries of its own */

struct question {
	atomic_int owners;
	int event;
	char host[256], port[8];
	int code, error; /* of getaddrinfo; errno */
	struct addrinfo *found;
};

struct dial_lookup {
	struct loop *loop;
	struct loop_fd watch;
	struct question *question;
	void (*done)(void *arg);
	void *arg;
};

static void question_leave(struct question *question)
{
	if (atomic_fetch_sub(&question->owners, 1) > 1)
		return;
	if (question->found != NULL)
		freeaddrinfo(question->found);
	if (question->event != -1)
		close(question->event);
	free(question);
}

static void *question_answer(void *arg)
{
	struct question *question = arg;
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	question->code = getaddrinfo(question->host, question->port, &hints, &question->found);
	question->error = errno;
	(void)eventfd_write(question->event, 1);
	question_leave(question);
	return NULL;
}

static struct question *question_new(const char *host, int port)
{
	struct question *question = calloc(1, sizeof *question);
	if (question == NULL)
		return NULL;
	question->owners = 1;
	snprintf(question->host, sizeof question->host, "%s", host);
	snprintf(question->port, sizeof question->port, "%d", port);
	question->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return question;
}

/* Signals are blocked before the thread exists, since it inherits the mask. */
static int question_ask(struct question *question)
{
	sigset_t all, before;
	pthread_attr_t attr;
	pthread_t thread;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, LOOKUP_STACK);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	atomic_fetch_add(&question->owners, 1);
	int failure = pthread_create(&thread, &attr, question_answer, question);
	if (failure != 0)
		atomic_fetch_sub(&question->owners, 1);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return failure;
}

static void lookup_ready(void *arg, uint32_t events)
{
	struct dial_lookup *lookup = arg;
	(void)events;
	loop_fd_del(lookup->loop, &lookup->watch);
	lookup->done(lookup->arg);
}

static int lookup_begin(struct dial_lookup *lookup, struct err *err)
{
	int event = lookup->question->event;
	if (event == -1)
		return err_errno(err, "looking up %s", lookup->question->host);
	if (loop_fd_add(lookup->loop, &lookup->watch, event, EPOLLIN, lookup_ready, lookup, err) ==
	    -1)
		return -1;
	errno = question_ask(lookup->question);
	if (errno != 0)
		return err_errno(err, "a thread to look up %s", lookup->question->host);
	return 0;
}

struct dial_lookup *dial_lookup_start(struct loop *loop, const char *host, int port,
				      void (*done)(void *arg), void *arg, struct err *err)
{
	struct dial_lookup *lookup = calloc(1, sizeof *lookup);
	struct question *question = question_new(host, port);
	if (lookup == NULL || question == NULL) {
		free(lookup);
		if (question != NULL)
			question_leave(question);
		err_set(err, ENOMEM, "looking up %s: out of memory", host);
		return NULL;
	}
	*lookup =
		(struct dial_lookup){.loop = loop, .question = question, .done = done, .arg = arg};
	if (lookup_begin(lookup, err) == -1) {
		dial_lookup_free(lookup);
		return NULL;
	}
	return lookup;
}

const struct addrinfo *dial_lookup_found(const struct dial_lookup *lookup)
{
	return lookup->question->found;
}

const char *dial_lookup_why(const struct dial_lookup *lookup)
{
	const struct question *question = lookup->question;
	if (question->code == EAI_SYSTEM)
		return strerror(question->error);
	return question->code != 0 ? gai_strerror(question->code) : "it has no address";
}

void dial_lookup_free(struct dial_lookup *lookup)
{
	loop_fd_del(lookup->loop, &lookup->watch);
	question_leave(lookup->question);
	free(lookup);
}
