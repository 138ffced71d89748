/* http_plain.c -- requests on connections of our own: http://, straight to the server.  Floor 3.
 *
 * See worker/http_plain.h.  By hand, and not by libcurl, because this is most of what a worker
 * does all day: a request costs a third of what it costs there, and a worker that asks for no TLS
 * does not load libcurl and the thirty libraries it brings.
 *
 * A kept connection may have ended while it lay there.  It is looked at first: an end that has
 * arrived is seen, and another connection taken.  An end that crosses our request is not; then the
 * request is sent once more, on a new connection, if nothing of it can have arrived or its method
 * may be repeated.
 *
 * That the server takes no more is not the end: one that refuses a long body says so, and stops
 * reading.  Then only the answer, or its absence, ends the request.
 */
#include "worker/http_plain.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "worker/clock.h"
#include "worker/http_check.h"
#include "worker/json_write.h"

#define PLAIN_JOINED	 ((size_t)16 * 1024)  /* a body up to this goes out with the head */
#define PLAIN_PIECE	 ((size_t)64 * 1024)  /* of one that is read or fed at once */
#define PLAIN_SLICE	 ((size_t)256 * 1024) /* of one in memory: that it went is progress */
#define PLAIN_FRAMING	 64 /* the line that says how long the body is, and the empty one */
#define PLAIN_CHUNK_ROOM 20 /* "ffffffffffffffff\r\n" */
#define PLAIN_NEVER	 (365 * 24 * 3600 * CLOCK_SECOND)

static void plain_send(struct plain *plain);
static void plain_dial(struct plain *plain);

/* --- what is sent --- */

static bool plain_has(const struct http_request *request, const char *name)
{
	for (size_t i = 0; i < request->header_count; i++)
		if (strlen(name) == request->headers[i].name_size &&
		    strncasecmp(name, request->headers[i].name, request->headers[i].name_size) == 0)
			return true;
	return false;
}

static int plain_add(struct buf *out, const char *name, size_t name_size, const char *value,
		     size_t value_size)
{
	char *to = buf_reserve(out, name_size + value_size + 4);
	if (to == NULL)
		return -1;
	to = mempcpy(to, name, name_size);
	to = mempcpy(to, ": ", 2);
	to = mempcpy(to, value, value_size);
	memcpy(to, "\r\n", 2);
	buf_commit(out, name_size + value_size + 4);
	return 0;
}

static int plain_first_lines(struct buf *out, const struct http_client *client,
			     const struct http_request *request, const struct http_place *place)
{
	const char *agent = client->config.user_agent;
	if (buf_printf(out, "%s %s%.*s HTTP/1.1\r\n", request->method,
		       place->target[0] == '/' ? "" : "/", (int)place->target_size,
		       place->target) == -1)
		return -1;
	if (!plain_has(request, "Host") &&
	    plain_add(out, "Host", 4, place->authority, place->authority_size) == -1)
		return -1;
	if (agent != NULL && agent[0] != '\0' && !plain_has(request, "User-Agent") &&
	    plain_add(out, "User-Agent", 10, agent, strlen(agent)) == -1)
		return -1;
	return plain_has(request, "Accept") ? 0 : plain_add(out, "Accept", 6, "*/*", 3);
}

/* The head as far as it is the same for every body. */
static int plain_lay(struct http_plan *plan)
{
	const struct http_request *request = &plan->request;
	const struct http_place *place = &plan->place;
	struct buf *out = &plan->lines;
	plan->size += strlen(place->host) + 1;
	buf_init(out, SIZE_MAX / 2); /* all of it is the caller's, and in memory */
	if (plain_first_lines(out, plan->client, request, place) == -1)
		return -1;
	for (size_t i = 0; i < request->header_count; i++) {
		const struct http_header *header = &request->headers[i];
		if (plain_add(out, header->name, header->name_size, header->value,
			      header->value_size) == -1)
			return -1;
	}
	return 0;
}

/* How long the body will be; -1: it says so itself, chunk by chunk. */
static int64_t plain_length(const struct http_request *request)
{
	if (request->upload == HTTP_NO_BODY)
		return 0;
	return request->upload == HTTP_BYTES ? (int64_t)request->body_size : request->body_length;
}

static bool plain_says_length(const struct http_request *request)
{
	return request->upload != HTTP_NO_BODY || http_check_has_body(request->method);
}

/* The end of the head, in ${line}; its size. */
static size_t plain_framing(const struct http_request *request, char line[PLAIN_FRAMING])
{
	int64_t length = plain_length(request);
	char *to = line;
	if (plain_says_length(request) && length < 0) {
		to = stpcpy(to, "Transfer-Encoding: chunked\r\n");
	} else if (plain_says_length(request)) {
		to = stpcpy(to, "Content-Length: ");
		to += json_write_integer(to, length);
		to = stpcpy(to, "\r\n");
	}
	return (size_t)(stpcpy(to, "\r\n") - line);
}

static int plain_write(struct plain *plain, const struct http_plan *plan,
		       const struct http_request *request)
{
	char framing[PLAIN_FRAMING];
	size_t lines = buf_size(&plan->lines), end = plain_framing(request, framing);
	bool joined = request->upload == HTTP_BYTES && request->body_size <= PLAIN_JOINED;
	size_t body = joined ? request->body_size : 0;
	char *to = buf_reserve(&plain->out, lines + end + body);
	if (to == NULL)
		return -1;
	to = mempcpy(to, buf_head(&plan->lines), lines);
	to = mempcpy(to, framing, end);
	if (body > 0)
		memcpy(to, request->body, body);
	buf_commit(&plain->out, lines + end + body);
	plain->chunked_out = plain_says_length(request) && plain_length(request) < 0;
	if (request->upload == HTTP_BYTES && !joined) {
		plain->body = request->body;
		plain->body_size = request->body_size;
	}
	return 0;
}

/* --- sending --- */

/* A length that was announced has to be kept, or the server takes what follows for a request. */
static size_t plain_most(const struct plain *plain)
{
	const struct http_transfer *transfer = &plain->transfer;
	uint64_t left = (uint64_t)(transfer->body_length - transfer->body_at);
	return plain->chunked_out || left > PLAIN_PIECE ? PLAIN_PIECE : (size_t)left;
}

/* The frame around ${n} bytes that lie behind a room of PLAIN_CHUNK_ROOM; its size. */
static size_t plain_chunk(char *to, size_t n)
{
	char line[PLAIN_CHUNK_ROOM + 1];
	size_t size = (size_t)snprintf(line, sizeof line, "%zx\r\n", n);
	memmove(to + size, to + PLAIN_CHUNK_ROOM, n);
	memcpy(to, line, size);
	memcpy(to + size + n, "\r\n", 2);
	return size + n + 2;
}

/* The next piece of a body that is read or fed, framed, in ${piece}.  False: there is none now. */
static bool plain_fill(struct plain *plain)
{
	struct http_transfer *transfer = &plain->transfer;
	bool fed = transfer->upload == HTTP_FED;
	size_t before = plain->chunked_out ? PLAIN_CHUNK_ROOM : 0, most = plain_most(plain);
	buf_consume(&plain->piece, buf_size(&plain->piece));
	char *to = buf_reserve(&plain->piece, before + most + 2);
	if (to == NULL) {
		http_blame(transfer, HTTP_MEMORY, ENOMEM, "out of memory for the request");
		return false;
	}
	ssize_t n = fed ? (ssize_t)http_read_feed(transfer, to + before, most)
			: http_read_file(transfer, to + before, most);
	if (n <= 0)
		return false;
	buf_commit(&plain->piece, plain->chunked_out ? plain_chunk(to, (size_t)n) : (size_t)n);
	return true;
}

/* Nothing more to send of a body that is read or fed; false: or not now, or not at all. */
static bool plain_end_body(struct plain *plain)
{
	struct http_transfer *transfer = &plain->transfer;
	if (transfer->reply.reason != HTTP_FINE)
		return false;
	bool whole = plain->chunked_out || transfer->body_at == transfer->body_length;
	if (transfer->feed_left > 0) {
		http_blame(transfer, HTTP_FILE, 0, "the body is longer than its length");
		return false;
	}
	if (transfer->upload == HTTP_FED && !transfer->feed_ended) {
		transfer->send_paused = true;
		return false;
	}
	if (!whole)
		http_blame(transfer, HTTP_FILE, 0, "the body is shorter than its length");
	return plain->body_sent = whole;
}

/* The next piece of a body that lies in memory; false: that was all. */
static bool plain_slice(struct plain *plain, const char **data, size_t *n)
{
	int64_t *at = &plain->transfer.body_at;
	size_t left = plain->body_size - (size_t)*at;
	if (left == 0)
		return false;
	*data = plain->body + *at;
	*n = left < PLAIN_SLICE ? left : PLAIN_SLICE;
	*at += (int64_t)*n;
	return true;
}

static bool plain_streams(const struct plain *plain)
{
	enum http_upload upload = plain->transfer.upload;
	return upload == HTTP_FED || upload == HTTP_FROM_FILE;
}

/* What goes out next; false: nothing now. */
static bool plain_more(struct plain *plain, const char **data, size_t *n)
{
	enum http_upload upload = plain->transfer.upload;
	if (!plain->out_sent) {
		*data = buf_head(&plain->out);
		*n = buf_size(&plain->out);
		return true;
	}
	if (upload == HTTP_BYTES && plain_slice(plain, data, n))
		return true;
	if (!plain_streams(plain) || plain->end_sent)
		return false;
	if (!plain->body_sent && plain_fill(plain)) {
		*data = buf_head(&plain->piece);
		*n = buf_size(&plain->piece);
		return true;
	}
	if (!plain->body_sent && !plain_end_body(plain))
		return false;
	plain->end_sent = true;
	*data = "0\r\n\r\n";
	*n = plain->chunked_out ? 5 : 0;
	return plain->chunked_out;
}

/* What may have arrived is only known by the answer: see at the top. */
static void plain_look(void *arg)
{
	struct plain *plain = arg;
	if (plain->transfer.reply.reason != HTTP_FINE) {
		http_over(&plain->transfer);
		return;
	}
	if (plain->conn == NULL)
		return;
	sock_stop(&plain->conn->sock, &plain->conn->sock.reader);
	http_plain_reply_receive(plain);
}

static void plain_soon(struct plain *plain)
{
	loop_defer(plain->transfer.client->loop, &plain->soon, plain_look, plain);
}

/* Within a send: false when there is no more to be sent.  If it is not the server who refuses, no
 * answer will tell. */
static bool plain_went(struct plain *plain, enum sock_result result)
{
	plain->transfer.progress = clock_mono();
	if (result == SOCK_DONE) {
		plain->out_sent = true;
		return true;
	}
	int code = plain->conn->sock.writer.code;
	if (code != EPIPE && code != ECONNRESET)
		http_blame(&plain->transfer, http_lost_reason(code), code, strerror(code));
	plain->broken = true;
	plain_soon(plain);
	return false;
}

static void plain_written(void *arg)
{
	struct plain *plain = arg;
	plain->sending = false;
	if (plain_went(plain, plain->conn->sock.writer.result))
		plain_send(plain);
}

static void plain_send(struct plain *plain)
{
	const char *data;
	size_t n;
	while (!plain->sending && !plain->broken && plain_more(plain, &data, &n)) {
		enum sock_result result =
			sock_write(&plain->conn->sock, data, n, -1, plain_written, plain);
		if (result == SOCK_WAIT)
			plain->sending = true;
		else if (!plain_went(plain, result))
			return;
	}
	if (plain->transfer.reply.reason != HTTP_FINE)
		plain_soon(plain);
}

/* --- a connection --- */

static bool plain_has_sent(const struct plain *plain)
{
	return plain->conn != NULL && plain->conn->sock.sent > plain->sent_before;
}

/* From here on the request is on its way. */
static void plain_go(struct plain *plain)
{
	http_connected(&plain->transfer);
	plain_send(plain);
}

static void plain_attach(struct plain *plain, struct http_conn *conn)
{
	plain->conn = conn;
	plain->fresh = !conn->used;
	plain->sent_before = conn->sock.sent;
	plain->sending = plain->broken = false;
	plain->out_sent = plain->body_sent = plain->end_sent = false;
	http_plain_reply_begin(plain);
}

static enum http_reason plain_reason(const char *word)
{
	if (word != NULL && strcmp(word, "dns") == 0)
		return HTTP_DNS;
	return word != NULL && strcmp(word, "timeout") == 0 ? HTTP_TIMEOUT : HTTP_CONNECT;
}

static void plain_dialled(void *arg)
{
	struct plain *plain = arg;
	struct http_transfer *transfer = &plain->transfer;
	struct err err;
	struct http_conn *conn = http_pool_new(&transfer->client->pool, plain->host, plain->port);
	enum http_reason reason = plain_reason(dial_reason(plain->dial));
	if (conn == NULL) {
		err_set(&err, ENOMEM, "out of memory for a connection");
		reason = HTTP_MEMORY;
	} else if (dial_finish(plain->dial, &conn->sock, &err) == 0) {
		plain->dial = NULL;
		plain_attach(plain, conn);
		plain_go(plain);
		http_plain_reply_receive(plain);
		return;
	} else {
		plain->dial = NULL;
		http_pool_drop(conn);
	}
	http_blame(transfer, reason, err.code, err.text);
	http_over(transfer);
}

static void plain_dial(struct plain *plain)
{
	struct http_transfer *transfer = &plain->transfer;
	const struct http_config *config = &transfer->client->config;
	struct err err;
	const struct dial_options options = {
		.unix_path = config->unix_path,
		.unix_length = config->unix_path != NULL ? strlen(config->unix_path) : 0,
		.host = plain->host,
		.port = plain->port,
		.proxy = "",
		.timeout = PLAIN_NEVER, /* http.c keeps the time */
		.user_timeout_ms = (unsigned)(config->user_timeout / CLOCK_MS),
	};
	plain->dial = dial_start(transfer->client->loop, &options, plain_dialled, plain, &err);
	if (plain->dial == NULL)
		http_blame(transfer, HTTP_CONNECT, err.code, err.text);
	http_dials(transfer);
	if (transfer->reply.reason != HTTP_FINE)
		plain_soon(plain);
}

/* A kept connection whose first read has to wait is alive, as far as anybody can know. */
static bool plain_reuse(struct plain *plain)
{
	struct http_pool *pool = &plain->transfer.client->pool;
	struct http_conn *conn;
	while ((conn = http_pool_take(pool, plain->host, plain->port)) != NULL) {
		plain_attach(plain, conn);
		if (http_plain_reply_listen(plain))
			return true;
		plain->conn = NULL;
		http_pool_drop(conn);
	}
	return false;
}

/* --- losing it --- */

static bool plain_may_repeat(const struct plain *plain)
{
	const struct http_transfer *transfer = &plain->transfer;
	bool untouched = transfer->upload != HTTP_FED || transfer->body_at == 0;
	return !plain->fresh && untouched && (transfer->repeatable || !plain_has_sent(plain));
}

static void plain_again(struct plain *plain)
{
	plain->sent = plain->sent || plain_has_sent(plain);
	http_pool_drop(plain->conn);
	plain->conn = NULL;
	plain->transfer.body_at = 0;
	plain->transfer.send_paused = false;
	plain_dial(plain);
}

void http_plain_lost(struct plain *plain, int code)
{
	struct http_transfer *transfer = &plain->transfer;
	bool nothing = transfer->head_seen == 0 && buf_size(&plain->conn->sock.in) == 0;
	if (nothing && plain_may_repeat(plain)) {
		plain_again(plain);
		return;
	}
	if (code == 0 && plain->broken)
		code = plain->conn->sock.writer.code;
	if (code != 0)
		http_blame(transfer, http_lost_reason(code), code, strerror(code));
	else if (transfer->reply.answered)
		http_blame(transfer, HTTP_CLOSED, 0, "the connection ended before the answer did");
	else if (nothing && !plain->fresh)
		http_blame(transfer, HTTP_CLOSED, 0,
			   "the kept connection was closed before the answer came");
	else
		http_blame(transfer, HTTP_CLOSED, 0, "the connection ended without an answer");
	http_over(transfer);
}

/* --- the way --- */

static int plain_begin(struct http_transfer *transfer, const struct http_plan *plan,
		       const struct http_request *request, enum http_reason *reason,
		       struct err *err)
{
	struct plain *plain = (struct plain *)transfer;
	*reason = HTTP_MEMORY;
	buf_init(&plain->out, SIZE_MAX / 2); /* all of it is the caller's, and in memory */
	buf_init(&plain->piece, PLAIN_CHUNK_ROOM + PLAIN_PIECE + 2);
	if (plain_write(plain, plan, request) == -1)
		return err_set(err, errno, "out of memory for a request");
	strcpy(plain->host, plan->place.host);
	plain->port = plan->place.port;
	if (plain_reuse(plain))
		plain_go(plain);
	else
		plain_dial(plain);
	return 0;
}

static void plain_go_on(struct http_transfer *transfer)
{
	struct plain *plain = (struct plain *)transfer;
	if (plain->conn == NULL)
		return;
	plain_send(plain);
	if (!plain->conn->sock.reader.waiting)
		http_plain_reply_receive(plain);
}

/* Request and answer have gone whole, and nothing came that nobody asked for. */
static bool plain_is_clean(const struct plain *plain)
{
	const struct http_transfer *transfer = &plain->transfer;
	const struct sock *sock = &plain->conn->sock;
	bool body = plain_streams(plain) ? plain->end_sent
					 : (size_t)transfer->body_at == plain->body_size;
	bool sent = plain->out_sent && body && !plain->sending && !plain->broken;
	return plain->whole && plain->keep && sent && buf_size(&sock->in) == 0 && sock->open &&
	       !sock->ended && !sock->hung_up;
}

static void plain_stop(struct http_transfer *transfer)
{
	struct plain *plain = (struct plain *)transfer;
	transfer->reply.sent = plain->sent || plain_has_sent(plain);
	loop_defer_cancel(&plain->soon);
	if (plain->dial != NULL)
		dial_cancel(plain->dial);
	plain->dial = NULL;
	if (plain->conn != NULL && plain_is_clean(plain))
		http_pool_keep(plain->conn);
	else if (plain->conn != NULL)
		http_pool_drop(plain->conn);
	plain->conn = NULL;
	buf_free(&plain->out);
	buf_free(&plain->piece);
}

const struct http_way http_plain = {.size = sizeof(struct plain),
				    .lay = plain_lay,
				    .begin = plain_begin,
				    .go_on = plain_go_on,
				    .stop = plain_stop};
