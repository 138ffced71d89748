/* http.c -- HTTP/1.1 requests: bytes out, bytes in, giving up in time.  Floor 3.  See
 * worker/http.h.
 *
 * A transfer is over in exactly one place, http_over(), reached from its way, from our timer
 * (http_due), from the client's end or from http_free.
 *
 * One timer serves both limits, connecting and answering.  It is not moved with every byte: when it
 * is due it looks at how long ago the last progress was, and goes back to sleep for the rest.
 */
#include "worker/http.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/clock.h"
#include "worker/http_plan.h"
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

enum http_reason http_lost_reason(int code)
{
	if (code == ETIMEDOUT)
		return HTTP_TIMEOUT;
	return code == ECONNRESET || code == EPIPE ? HTTP_RESET : HTTP_CLOSED;
}

/* Telling comes last: by then it is all true. */
void http_over(struct http_transfer *transfer)
{
	struct http_client *client = transfer->client;
	transfer->reply.over = true;
	transfer->way->stop(transfer);
	loop_timer_stop(client->loop, &transfer->timer);
	list_remove(&transfer->member.link);
	transfer->client = NULL;
	transfer->feed = NULL;
	http_changed(transfer);
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
	int64_t connect = transfer->client->config.connect_timeout;
	if (!transfer->connected && connect > 0 && transfer->dialled + connect < limit)
		limit = transfer->dialled + connect;
	return limit;
}

/* 0, or -1 when there is no memory; moving the timer needs none. */
static int http_watch_time(struct http_transfer *transfer)
{
	int64_t limit = http_limit(transfer);
	if (limit == HTTP_NEVER)
		return 0;
	return loop_timer_start(transfer->client->loop, &transfer->timer, limit - clock_mono(),
				http_due, transfer);
}

void http_dials(struct http_transfer *transfer)
{
	bool again = transfer->connected;
	transfer->connected = false;
	transfer->dialled = clock_mono();
	if (again && http_watch_time(transfer) == -1)
		http_blame(transfer, HTTP_MEMORY, ENOMEM, "out of memory for a request");
}

void http_connected(struct http_transfer *transfer)
{
	transfer->connected = true;
	transfer->progress = clock_mono();
}

static void http_expire(struct http_transfer *transfer)
{
	struct err text;
	double limit = (double)transfer->timeout / (double)CLOCK_SECOND;
	if (!transfer->connected)
		err_set(&text, 0, "no connection within %.3g s",
			(double)(clock_mono() - transfer->dialled) / (double)CLOCK_SECOND);
	else if (!transfer->reply.answered)
		err_set(&text, 0, "no answer within %g s", limit);
	else if (transfer->patient)
		err_set(&text, 0, "the answer stopped coming for %g s", limit);
	else
		err_set(&text, 0, "the answer was not complete within %g s", limit);
	http_blame(transfer, HTTP_TIMEOUT, 0, text.text);
	http_over(transfer);
}

static void http_due(void *arg)
{
	struct http_transfer *transfer = arg;
	if (transfer->receive_paused || transfer->send_paused) /* we are slow, not the server */
		transfer->progress = clock_mono();
	if (clock_mono() >= http_limit(transfer))
		http_expire(transfer);
	else
		(void)http_watch_time(transfer);
}

/* --- the request's body --- */

ssize_t http_read_file(struct http_transfer *transfer, char *to, size_t most)
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
		return -1;
	}
	transfer->body_at += n;
	return n;
}

/* The task that feeds us waits until its piece is gone, so there is never more than one. */
size_t http_read_feed(struct http_transfer *transfer, char *to, size_t most)
{
	size_t n = transfer->feed_left < most ? transfer->feed_left : most;
	if (n == 0)
		return 0;
	memcpy(to, transfer->feed, n);
	transfer->feed += n;
	transfer->feed_left -= n;
	transfer->body_at += (int64_t)n;
	if (transfer->feed_left == 0)
		http_changed(transfer);
	return n;
}

/* --- beginning --- */

/* The client closes under us. */
static void http_cut(struct http_member *member)
{
	struct http_transfer *transfer = container_of(member, struct http_transfer, member);
	http_blame(transfer, HTTP_CLOSED, 0, "the client was closed");
	http_over(transfer);
}

static struct http_transfer *http_new(const struct http_plan *plan,
				      const struct http_request *request)
{
	struct http_transfer *transfer = malloc(plan->size); /* cheaper than calloc, if small */
	if (transfer == NULL)
		return NULL;
	memset(transfer, 0, plan->size);
	transfer->way = plan->way;
	transfer->member.cut = http_cut;
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
	transfer->started = transfer->dialled = transfer->progress = clock_mono();
	transfer->head = plan->head;
	transfer->repeatable = plan->repeatable;
	buf_init(&transfer->reply.head, request->max_head);
	buf_init(&transfer->reply.body, request->stream ? HTTP_STREAMED : request->max_body);
	memcpy(transfer->label, plan->label, sizeof transfer->label);
	return transfer;
}

/* The timer is there before the first byte can be gone.  A transfer that could not begin is not
 * told about: its way gives back what it has, and that is all. */
static int http_begin(struct http_transfer *transfer, const struct http_plan *plan,
		      const struct http_request *request, enum http_reason *reason, struct err *err)
{
	struct http_client *client = plan->client;
	transfer->client = client;
	if (http_watch_time(transfer) == -1) {
		transfer->client = NULL;
		return err_set(err, ENOMEM, "out of memory for a request");
	}
	if (transfer->way->begin(transfer, plan, request, reason, err) == -1) {
		transfer->way->stop(transfer);
		loop_timer_stop(client->loop, &transfer->timer);
		transfer->client = NULL;
		return -1;
	}
	list_append(&client->members, &transfer->member.link);
	return 0;
}

struct http_transfer *http_transfer_start(const struct http_plan *plan,
					  const struct http_request *request,
					  enum http_reason *reason, struct err *err)
{
	*reason = HTTP_MEMORY;
	struct http_transfer *transfer = http_new(plan, request);
	if (transfer == NULL) {
		err_set(err, ENOMEM, "out of memory for a request");
		return NULL;
	}
	if (http_begin(transfer, plan, request, reason, err) == 0)
		return transfer;
	http_free(transfer);
	return NULL;
}

struct http_transfer *http_start(struct http_client *client, const struct http_request *request,
				 enum http_reason *reason, struct err *err)
{
	struct http_plan plan;
	if (http_plan_lay(&plan, client, request, reason, err) == -1)
		return NULL;
	struct http_transfer *transfer = http_transfer_start(&plan, request, reason, err);
	http_plan_clear(&plan);
	return transfer;
}

/* --- under way --- */

void http_take(struct http_transfer *transfer, size_t n)
{
	buf_consume(&transfer->reply.body, n);
	if (!transfer->receive_paused || transfer->client == NULL ||
	    buf_size(&transfer->reply.body) > HTTP_LOW)
		return;
	transfer->receive_paused = false;
	transfer->progress = clock_mono();
	transfer->way->go_on(transfer);
}

/* What came between the head and this call is written first. */
void http_save(struct http_transfer *transfer, int fd)
{
	struct buf *body = &transfer->reply.body;
	transfer->save_fd = fd;
	bool written = http_answer_write(transfer, buf_head(body), buf_size(body));
	if (written)
		http_take(transfer, buf_size(body));
	else if (transfer->client != NULL)
		http_over(transfer);
}

void http_feed(struct http_transfer *transfer, const char *data, size_t n)
{
	if (transfer->client == NULL)
		return;
	transfer->feed = data;
	transfer->feed_left = n;
	if (!transfer->send_paused)
		return;
	transfer->send_paused = false;
	transfer->progress = clock_mono();
	transfer->way->go_on(transfer);
}

void http_feed_end(struct http_transfer *transfer)
{
	transfer->feed_ended = true;
	http_feed(transfer, NULL, 0);
}

bool http_fed(const struct http_transfer *transfer)
{
	return transfer->client == NULL || transfer->feed_left == 0;
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
	if (transfer->client != NULL)
		http_over(transfer);
	buf_free(&transfer->reply.head);
	buf_free(&transfer->reply.body);
	free(transfer);
}
