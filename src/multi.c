/* multi.c -- libcurl's multi interface, driven by our loop.  Floor 3.
 *
 * The two callbacks libcurl calls us with (socket, timer) only edit watches and one timer, since it
 * forbids being called back from them.  What comes up is handed to curl_multi_socket_action, and
 * after each such call the finished transfers are collected.
 *
 * libcurl's timer runs on libcurl's own clock, so it is one that virtual time never jumps to.  "At
 * once" (a timeout of 0, which begins every transfer) is deferred work instead: it runs in the
 * same turn in which a task started the request, without a wait in between.
 */
#include "worker/multi.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "worker/clock.h"
#include "worker/loop.h"

struct multi {
	struct loop *loop;
	CURLM *curlm;
	struct loop_timer timer;
	struct loop_work soon;
};

/* One socket libcurl waits for; belongs to it through curl_multi_assign. */
struct multi_socket {
	struct loop_fd watch;
	struct multi *multi;
};

static void multi_collect(struct multi *multi)
{
	int left;
	const CURLMsg *message;
	while ((message = curl_multi_info_read(multi->curlm, &left)) != NULL) {
		if (message->msg != CURLMSG_DONE)
			continue;
		/* ${message} dies with the handle's removal: take everything out first. */
		CURLcode code = message->data.result;
		struct multi_job *job = NULL;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &job);
		job->done(job->arg, code);
	}
}

static void multi_act(struct multi *multi, curl_socket_t fd, int bits)
{
	int running;
	curl_multi_socket_action(multi->curlm, fd, bits, &running);
	multi_collect(multi);
}

static void multi_due(void *arg)
{
	multi_act(arg, CURL_SOCKET_TIMEOUT, 0);
}

/* An error or a hangup is told as "readable and writable", not as CURL_CSELECT_ERR: libcurl then
 * finds the real errno, and reads what arrived before a reset. */
static void multi_ready(void *arg, uint32_t events)
{
	struct multi_socket *sock = arg;
	int bits = 0;
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		bits |= CURL_CSELECT_IN;
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		bits |= CURL_CSELECT_OUT;
	multi_act(sock->multi, sock->watch.fd, bits); /* may free ${sock} */
}

static uint32_t multi_events(int what)
{
	switch (what) {
	case CURL_POLL_IN:
		return EPOLLIN;
	case CURL_POLL_OUT:
		return EPOLLOUT;
	case CURL_POLL_INOUT:
		return EPOLLIN | EPOLLOUT;
	default:
		return 0;
	}
}

/* Answering -1 would declare the whole multi dead for good.  A socket that cannot be watched (out
 * of memory) is left alone instead, and its transfer runs into its timeout. */
static int multi_on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *assigned)
{
	(void)easy;
	struct multi *multi = arg;
	struct multi_socket *sock = assigned;
	if (what == CURL_POLL_REMOVE) {
		if (sock != NULL)
			loop_fd_del(multi->loop, &sock->watch);
		free(sock);
		return 0;
	}
	if (sock != NULL) {
		loop_fd_set(multi->loop, &sock->watch, multi_events(what));
		return 0;
	}
	sock = calloc(1, sizeof *sock);
	if (sock == NULL)
		return 0;
	sock->multi = multi;
	if (loop_fd_add(multi->loop, &sock->watch, fd, multi_events(what), multi_ready, sock,
			NULL) == -1) {
		free(sock);
		return 0;
	}
	curl_multi_assign(multi->curlm, fd, sock);
	return 0;
}

static int multi_on_timer(CURLM *curlm, long ms, void *arg)
{
	(void)curlm;
	struct multi *multi = arg;
	loop_defer_cancel(&multi->soon);
	loop_timer_stop(multi->loop, &multi->timer);
	if (ms == 0)
		loop_defer(multi->loop, &multi->soon, multi_due, multi);
	else if (ms > 0)
		loop_timer_start_real(multi->loop, &multi->timer, ms * CLOCK_MS, multi_due, multi);
	return 0;
}

struct multi *multi_open(struct loop *loop, struct err *err)
{
	if (libcurl_load(err) == -1)
		return NULL;
	struct multi *multi = calloc(1, sizeof *multi);
	if (multi == NULL || (multi->curlm = curl_multi_init()) == NULL) {
		free(multi);
		err_set(err, ENOMEM, "cannot start libcurl (out of memory or of file descriptors)");
		return NULL;
	}
	multi->loop = loop;
	curl_multi_setopt(multi->curlm, CURLMOPT_SOCKETFUNCTION, multi_on_socket);
	curl_multi_setopt(multi->curlm, CURLMOPT_SOCKETDATA, multi);
	curl_multi_setopt(multi->curlm, CURLMOPT_TIMERFUNCTION, multi_on_timer);
	curl_multi_setopt(multi->curlm, CURLMOPT_TIMERDATA, multi);
	return multi;
}

void multi_close(struct multi *multi)
{
	curl_multi_cleanup(multi->curlm);
	loop_defer_cancel(&multi->soon);
	loop_timer_stop(multi->loop, &multi->timer);
	free(multi);
}

int multi_add(struct multi *multi, CURL *easy, struct multi_job *job, struct err *err)
{
	curl_easy_setopt(easy, CURLOPT_PRIVATE, job);
	CURLMcode code = curl_multi_add_handle(multi->curlm, easy);
	if (code != CURLM_OK)
		return err_set(err, code == CURLM_OUT_OF_MEMORY ? ENOMEM : 0, "libcurl: %s",
			       curl_multi_strerror(code));
	return 0;
}

void multi_remove(struct multi *multi, CURL *easy)
{
	curl_multi_remove_handle(multi->curlm, easy);
}
