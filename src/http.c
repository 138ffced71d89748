/* http.c -- HTTP/1.1 requests: bytes out, bytes in, giving up in time.  Floor 3.  See
 * worker/http.h.
 *
 * A transfer is over in exactly one place, http_end(), reached from libcurl (http_done), from our
 * timer (http_due), from the client's end or from http_free.  The callbacks that libcurl calls
 * never end it: they note why (http_blame) and answer "stop", and libcurl then comes to http_done.
 *
 * One timer serves both limits, connecting and answering.  It is ours and not libcurl's, so that
 * it runs on the replaceable clock, and it is not moved with every byte: when it is due it looks
 * at how long ago the last progress was, and goes back to sleep for the rest.
 */
#include "worker/http.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/clock.h"
#include "worker/http_easy.h"
#include "worker/http_transfer.h"
#include "worker/list.h"

#define HTTP_LOW      ((size_t)32 * 1024) /* streamed: read on below this */
#define HTTP_STREAMED ((size_t)1024 * 1024)
#define HTTP_NEVER    INT64_MAX

/* --- how a transfer ends --- */

void http_blame(struct http_transfer *transfer, enum http_reason reason, int code, const char *text)
{
	struct http_reply *reply = &transfer->reply;
	if (reply->reason != HTTP_FINE)
		return;
	reply->reason = reason;
	err_set(&reply->err, code, "%s", text);
}

/* Counts what was handed to the kernel, over all attempts; with nothing of this attempt gone out,
 * the server cannot have seen it. */
static long http_request_size(const struct http_transfer *transfer)
{
	long size = 0;
	curl_easy_getinfo(transfer->easy, CURLINFO_REQUEST_SIZE, &size);
	return size;
}

/* While a thread of libcurl looks up a name, somebody outside works for us. */
static void http_resolved(struct http_transfer *transfer)
{
	if (transfer->resolving)
		loop_outside(transfer->client->loop, -1);
	transfer->resolving = false;
}

/* Everything but the reply is given back.  The handle is asked before it is removed, and what
 * libcurl borrowed (headers) is freed after that.  Telling comes last: by then it is all true. */
static void http_end(struct http_transfer *transfer)
{
	struct http_client *client = transfer->client;
	transfer->reply.over = true;
	transfer->reply.sent =
		transfer->attempted && http_request_size(transfer) > transfer->sent_before;
	http_resolved(transfer);
	loop_timer_stop(client->loop, &transfer->timer);
	multi_remove(client->multi, transfer->easy);
	http_client_keep(client, transfer->easy);
	list_remove(&transfer->member.link);
	transfer->easy = NULL;
	transfer->client = NULL;
	transfer->feed = NULL;
	free(transfer->headers);
	transfer->headers = NULL;
	http_changed(transfer);
}

/* "Couldn't connect" is what every failed connect is called; the errno says which kind it was. */
static void http_explain(struct http_transfer *transfer, CURLcode code)
{
	const char *words = transfer->words[0] ? transfer->words : curl_easy_strerror(code);
	enum http_reason reason = http_easy_reason(transfer->easy, code, words);
	long number = 0;
	curl_easy_getinfo(transfer->easy, CURLINFO_OS_ERRNO, &number);
	if (reason == HTTP_CONNECT && number != 0) {
		struct err *err = &transfer->reply.err;
		transfer->reply.reason = reason;
		err_set(err, (int)number, "%s: %s", words, strerror((int)number));
	} else if (reason == HTTP_RESET) {
		http_blame(transfer, reason, (int)number, words);
	} else {
		http_blame(transfer, reason, 0, words);
	}
}

static void http_done(void *arg, CURLcode code)
{
	struct http_transfer *transfer = arg;
	if (code != CURLE_OK && transfer->reply.reason == HTTP_FINE)
		http_explain(transfer, code);
	else if (!transfer->reply.answered && transfer->reply.reason == HTTP_FINE)
		http_blame(transfer, HTTP_CLOSED, 0, "the connection ended without an answer");
	http_end(transfer);
}

/* --- time --- */

static void http_due(void *arg);

/* When it has taken too long.  A patient transfer (a stream in either direction) may take for ever,
 * as long as something moves: a fixed limit would be a limit on size. */
static int64_t http_limit(const struct http_transfer *transfer)
{
	int64_t limit = HTTP_NEVER;
	if (transfer->timeout > 0)
		limit = (transfer->patient ? transfer->progress : transfer->started) +
			transfer->timeout;
	int64_t connect = transfer->client->connect_timeout;
	if (!transfer->connected && connect > 0 && transfer->started + connect < limit)
		limit = transfer->started + connect;
	return limit;
}

static void http_watch_time(struct http_transfer *transfer)
{
	int64_t limit = http_limit(transfer);
	if (limit != HTTP_NEVER)
		loop_timer_start(transfer->client->loop, &transfer->timer, limit - clock_mono(),
				 http_due, transfer);
}

static void http_expire(struct http_transfer *transfer)
{
	struct err text;
	double limit = (double)transfer->timeout / (double)CLOCK_SECOND;
	if (!transfer->connected)
		err_set(&text, 0, "no connection within %.3g s",
			(double)(clock_mono() - transfer->started) / (double)CLOCK_SECOND);
	else if (!transfer->reply.answered)
		err_set(&text, 0, "no answer within %g s", limit);
	else if (transfer->patient)
		err_set(&text, 0, "the answer stopped coming for %g s", limit);
	else
		err_set(&text, 0, "the answer was not complete within %g s", limit);
	http_blame(transfer, HTTP_TIMEOUT, 0, text.text);
	http_end(transfer);
}

static void http_due(void *arg)
{
	struct http_transfer *transfer = arg;
	if (transfer->receive_paused || transfer->send_paused) /* we are slow, not the server */
		transfer->progress = clock_mono();
	if (clock_mono() >= http_limit(transfer))
		http_expire(transfer);
	else
		http_watch_time(transfer);
}

/* --- what libcurl calls: connection --- */

static int http_on_resolve(void *state, void *reserved, void *arg)
{
	(void)state;
	(void)reserved;
	struct http_transfer *transfer = arg;
	if (!transfer->resolving)
		loop_outside(transfer->client->loop, +1);
	transfer->resolving = true;
	return 0;
}

static int http_on_socket(void *arg, curl_socket_t fd, curlsocktype purpose)
{
	(void)purpose;
	struct http_transfer *transfer = arg;
	http_resolved(transfer);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	unsigned ms = transfer->client->user_timeout_ms;
	if (ms > 0) /* has no meaning for a Unix socket, which refuses it */
		setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
	return CURL_SOCKOPT_OK;
}

/* Called before each attempt to send the request; libcurl tries again by itself when a kept
 * connection turns out to be dead.  What may have arrived must not arrive twice. */
static int http_on_attempt(void *arg, char *ip, char *local_ip, int port, int local_port)
{
	(void)ip, (void)local_ip, (void)port, (void)local_port;
	struct http_transfer *transfer = arg;
	long size = http_request_size(transfer);
	if (transfer->attempted && size > transfer->sent_before && !transfer->repeatable) {
		http_blame(transfer, HTTP_CLOSED, 0,
			   "the kept connection was closed before the answer came");
		return CURL_PREREQFUNC_ABORT;
	}
	transfer->attempted = true;
	transfer->sent_before = size;
	transfer->connected = true;
	transfer->progress = clock_mono();
	return CURL_PREREQFUNC_OK;
}

/* --- what libcurl calls: the request's body --- */

static size_t http_send_file(struct http_transfer *transfer, char *to, size_t most)
{
	ssize_t n = pread(transfer->body_fd, to, most, transfer->body_at);
	bool early =
		n == 0 && transfer->body_length >= 0 && transfer->body_at < transfer->body_length;
	if (n == -1 || early) {
		struct err text;
		if (early)
			err_set(&text, 0, "the file became shorter while it was sent");
		else
			err_errno(&text, "reading the file to send");
		http_blame(transfer, HTTP_FILE, text.code, text.text);
		return CURL_READFUNC_ABORT;
	}
	transfer->body_at += n;
	return (size_t)n;
}

/* The task that feeds us waits until its piece is gone, so there is never more than one; without a
 * piece libcurl is told to pause, and http_feed wakes it. */
static size_t http_send_feed(struct http_transfer *transfer, char *to, size_t most)
{
	if (transfer->feed_left == 0) {
		if (transfer->feed_ended)
			return 0;
		transfer->send_paused = true;
		return CURL_READFUNC_PAUSE;
	}
	size_t n = transfer->feed_left < most ? transfer->feed_left : most;
	memcpy(to, transfer->feed, n);
	transfer->feed += n;
	transfer->feed_left -= n;
	transfer->body_at += (int64_t)n;
	if (transfer->feed_left == 0)
		http_changed(transfer);
	return n;
}

static size_t http_on_send(char *to, size_t size, size_t count, void *arg)
{
	struct http_transfer *transfer = arg;
	transfer->progress = clock_mono();
	if (transfer->upload == HTTP_FED)
		return http_send_feed(transfer, to, size * count);
	return http_send_file(transfer, to, size * count);
}

/* libcurl wants to send the body again from the start. A file can; what a task fed us is gone. */
static int http_on_rewind(void *arg, curl_off_t offset, int origin)
{
	(void)origin;
	struct http_transfer *transfer = arg;
	if (transfer->upload == HTTP_FED && transfer->body_at != offset)
		return CURL_SEEKFUNC_CANTSEEK;
	transfer->body_at = offset;
	return CURL_SEEKFUNC_OK;
}

/* --- beginning --- */

/* The client closes under us. */
static void http_cut(struct http_member *member)
{
	struct http_transfer *transfer = container_of(member, struct http_transfer, member);
	http_blame(transfer, HTTP_CLOSED, 0, "the client was closed");
	http_end(transfer);
}

static void http_set_callbacks(struct http_transfer *transfer)
{
	CURL *easy = transfer->easy;
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->words);
	curl_easy_setopt(easy, CURLOPT_RESOLVER_START_FUNCTION, http_on_resolve);
	curl_easy_setopt(easy, CURLOPT_RESOLVER_START_DATA, transfer);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, http_on_socket);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTDATA, transfer);
	curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, http_on_attempt);
	curl_easy_setopt(easy, CURLOPT_PREREQDATA, transfer);
	curl_easy_setopt(easy, CURLOPT_READFUNCTION, http_on_send);
	curl_easy_setopt(easy, CURLOPT_READDATA, transfer);
	curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, http_on_rewind);
	curl_easy_setopt(easy, CURLOPT_SEEKDATA, transfer);
}

static struct http_transfer *http_new(const struct http_request *request)
{
	struct http_transfer *transfer = calloc(1, sizeof *transfer);
	if (transfer == NULL)
		return NULL;
	transfer->member.cut = http_cut;
	transfer->job = (struct multi_job){.done = http_done, .arg = transfer};
	transfer->changed = request->changed;
	transfer->arg = request->arg;
	transfer->stream = request->stream;
	transfer->patient = request->patient;
	transfer->timeout = request->timeout;
	transfer->max_body = request->max_body;
	transfer->upload = request->upload;
	transfer->body_fd = request->body_fd;
	transfer->body_length = request->body_length;
	transfer->save_fd = -1;
	transfer->announced = -1;
	transfer->started = transfer->progress = clock_mono();
	transfer->repeatable = http_easy_repeatable(request->method);
	buf_init(&transfer->reply.head, request->max_head);
	buf_init(&transfer->reply.body, request->stream ? HTTP_STREAMED : request->max_body);
	http_easy_label(transfer->label, sizeof transfer->label, request->method, request->url);
	return transfer;
}

static int http_begin(struct http_transfer *transfer, struct http_client *client,
		      const struct http_request *request, struct err *err)
{
	transfer->easy = http_client_take(client);
	if (transfer->easy == NULL)
		return err_set(err, ENOMEM, "out of memory for a request");
	transfer->client = client;
	http_set_callbacks(transfer);
	http_answer_setup(transfer);
	http_easy_body(transfer->easy, request);
	curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER, transfer->headers);
	if (http_easy_target(transfer->easy, client, request, err) == -1 ||
	    multi_add(client->multi, transfer->easy, &transfer->job, err) == -1) {
		http_client_keep(client, transfer->easy);
		transfer->easy = NULL;
		transfer->client = NULL;
		return -1;
	}
	list_append(&client->members, &transfer->member.link);
	http_watch_time(transfer);
	return 0;
}

struct http_transfer *http_start(struct http_client *client, const struct http_request *request,
				 enum http_reason *reason, struct err *err)
{
	struct curl_slist *headers;
	*reason = HTTP_URL;
	if (http_easy_method(request->method, err) == -1 ||
	    http_easy_url(request->url, err) == -1 ||
	    http_easy_headers(request->headers, request->header_count, &headers, err) == -1)
		return NULL;
	*reason = HTTP_MEMORY;
	struct http_transfer *transfer = http_new(request);
	if (transfer == NULL) {
		free(headers);
		err_set(err, ENOMEM, "out of memory for a request");
		return NULL;
	}
	transfer->headers = headers;
	if (http_begin(transfer, client, request, err) == -1) {
		http_free(transfer);
		return NULL;
	}
	return transfer;
}

/* --- under way --- */

/* Going on may hand out what libcurl has kept back, within the call; a failure of that is told to
 * nobody else. */
static void http_resume(struct http_transfer *transfer)
{
	int bits = (transfer->receive_paused ? CURLPAUSE_RECV : 0) |
		   (transfer->send_paused ? CURLPAUSE_SEND : 0);
	CURLcode code = curl_easy_pause(transfer->easy, bits);
	if (code != CURLE_OK)
		http_done(transfer, code);
}

void http_take(struct http_transfer *transfer, size_t n)
{
	buf_consume(&transfer->reply.body, n);
	if (!transfer->receive_paused || transfer->easy == NULL ||
	    buf_size(&transfer->reply.body) > HTTP_LOW)
		return;
	transfer->receive_paused = false;
	transfer->progress = clock_mono();
	http_resume(transfer);
}

/* What came between the head and this call is written first. */
void http_save(struct http_transfer *transfer, int fd)
{
	struct buf *body = &transfer->reply.body;
	transfer->save_fd = fd;
	bool written = http_answer_write(transfer, buf_head(body), buf_size(body));
	if (written)
		http_take(transfer, buf_size(body));
	else if (transfer->easy != NULL)
		http_end(transfer);
}

void http_feed(struct http_transfer *transfer, const char *data, size_t n)
{
	if (transfer->easy == NULL)
		return;
	transfer->feed = data;
	transfer->feed_left = n;
	if (!transfer->send_paused)
		return;
	transfer->send_paused = false;
	http_resume(transfer);
}

void http_feed_end(struct http_transfer *transfer)
{
	transfer->feed_ended = true;
	http_feed(transfer, NULL, 0);
}

bool http_fed(const struct http_transfer *transfer)
{
	return transfer->easy == NULL || transfer->feed_left == 0;
}

const struct http_reply *http_reply(const struct http_transfer *transfer)
{
	return &transfer->reply;
}

const char *http_label(const struct http_transfer *transfer)
{
	return transfer->label;
}

/* Whoever frees a transfer does not want to hear of it any more. */
static void http_nobody(void *arg)
{
	(void)arg;
}

void http_free(struct http_transfer *transfer)
{
	transfer->changed = http_nobody;
	if (transfer->easy != NULL)
		http_end(transfer);
	free(transfer->headers);
	buf_free(&transfer->reply.head);
	buf_free(&transfer->reply.body);
	free(transfer);
}
