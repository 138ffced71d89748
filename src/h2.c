/* h2.c -- one HTTP/2 connection over a sock.  Floor 3.
 *
 * See worker/h2.h.  nghttp2 is a machine without I/O: what the sock reads is fed to it, which calls
 * back (h2_receive.c); what it wants to say is asked of it (h2_pump) and written.
 *
 * Frames are made as soon as there is room for them, but written once per turn of the loop: what
 * many tasks say in one turn, and what nghttp2 answers to what came in, leaves in one system call.
 * While a write is under way the next frames gather in a second buffer.  Only little is made ahead:
 * bytes of a body stay with their sender until the peer and the kernel have room, which is what
 * makes the sender wait.
 *
 * The connection ends (h2_end) only from a callback of the loop or from h2_close, never inside
 * another call: whoever notices that it is over notes why and asks for a flush.
 */
#include "worker/h2.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/clock.h"
#include "worker/h2_session.h"

#define H2_OUT_MOST	((size_t)1024 * 1024)
#define H2_PATIENCE	CLOCK_SECOND
#define H2_SHARE	((size_t)512 * 1024)
#define H2_READ		((size_t)64 * 1024)
#define H2_WINDOW_LEAST ((size_t)65535)
#define H2_SEND_HEADERS ((size_t)128 * 1024)
#define H2_CONNECTION	((int32_t)16 * 1024 * 1024)

/* --- the end --- */

/* The first word stays: what follows is only its consequence. */
static int h2_note(struct h2 *h2, const char *reason, const char *text)
{
	if (h2->reason != NULL)
		return -1;
	h2->reason = reason;
	return err_set(&h2->why, 0, "%s", text);
}

/* What can be said at once is said; nobody waits for a peer that does not listen. */
static void h2_last_words(struct h2 *h2)
{
	if (!h2->sock->open || h2->sock->writer.waiting || h2->mute)
		return;
	h2_pump(h2);
	if (buf_size(&h2->out) > 0 && sock_write(h2->sock, buf_head(&h2->out), buf_size(&h2->out),
						 -1, NULL, NULL) == SOCK_WAIT)
		sock_stop(h2->sock, &h2->sock->writer);
}

static void h2_end(struct h2 *h2)
{
	if (h2->session == NULL)
		return;
	sock_stop(h2->sock, &h2->sock->reader);
	h2_last_words(h2);
	sock_stop(h2->sock, &h2->sock->writer);
	loop_defer_cancel(&h2->flush);
	loop_defer_cancel(&h2->more);
	loop_timer_stop(h2->loop, &h2->patience);
	sock_close(h2->sock);
	nghttp2_session_del(h2->session);
	h2->session = NULL;
	h2->going_away = true;
	buf_free(&h2->out);
	buf_free(&h2->going);
	while (!list_empty(&h2->streams))
		h2_stream_over(container_of(h2->streams.next, struct h2_stream, link), H2_END_LOST,
			       0);
	if (h2->options.changed != NULL)
		h2->options.changed(h2->options.arg);
}

/* Both sides are through with it, or nghttp2 has given up on the peer. */
static void h2_conclude(struct h2 *h2)
{
	char text[256];
	if (h2->farewell[0] != '\0')
		snprintf(text, sizeof text, "the other side ended the connection (GOAWAY: %s)",
			 h2->farewell);
	else if (h2->trouble[0] != '\0')
		snprintf(text, sizeof text, "the other side does not keep to HTTP/2: %s",
			 h2->trouble);
	else
		snprintf(text, sizeof text, "the connection is closed");
	h2_note(h2, h2->farewell[0] == '\0' && h2->trouble[0] != '\0' ? "protocol" : "closed",
		text);
	h2_end(h2);
}

static void h2_lost(struct h2 *h2, enum sock_result result, const struct sock_op *op)
{
	struct err err;
	if (h2->farewell[0] != '\0') {
		h2_conclude(h2);
		return;
	}
	if (result == SOCK_END || op->code == EPIPE) {
		h2_note(h2, "closed", "the other side closed the connection");
	} else {
		sock_explain(h2->sock, op, &err);
		h2_note(h2, op->reason != NULL ? op->reason : "io", err.text);
	}
	h2_end(h2);
}

static void h2_read_out(void *arg)
{
	struct h2 *h2 = arg;
	h2_note(h2, "closed", "the other side takes nothing any more");
	h2_end(h2);
}

/* A peer that hangs up may have answered before: what it said still lies in the kernel, and reading
 * will find it, and then the end; if not, it is given up. */
static void h2_write_failed(struct h2 *h2)
{
	const struct sock_op *op = &h2->sock->writer;
	h2->mute = h2->going_away = true;
	if ((op->code != EPIPE && op->code != ECONNRESET) ||
	    loop_timer_start(h2->loop, &h2->patience, H2_PATIENCE, h2_read_out, h2) == -1)
		h2_lost(h2, SOCK_FAILED, op);
}

/* --- sending --- */

static void h2_flush(void *arg);

void h2_soon(struct h2 *h2)
{
	loop_defer(h2->loop, &h2->flush, h2_flush, h2);
}

void h2_pump(struct h2 *h2)
{
	const uint8_t *data;
	ssize_t n = 0;
	while (h2->session != NULL && buf_size(&h2->out) < H2_OUT &&
	       (n = nghttp2_session_mem_send(h2->session, &data)) > 0) {
		if (buf_append(&h2->out, data, (size_t)n) == -1)
			n = NGHTTP2_ERR_NOMEM;
		if (n < 0)
			break;
	}
	if (n < 0)
		h2_note(h2, "io", nghttp2_strerror((int)n));
	h2_soon(h2);
}

/* Unlike buf_consume it gives nothing back: the next frames need the same room. */
static void h2_empty(struct buf *buf)
{
	buf->head = buf->tail = 0;
}

static void h2_written(void *arg)
{
	struct h2 *h2 = arg;
	if (h2->sock->writer.result == SOCK_FAILED) {
		h2_write_failed(h2);
		return;
	}
	h2_empty(&h2->going);
	h2_flush(h2);
}

/* The bytes being written must not move, so they get a buffer of their own. */
static enum sock_result h2_write(struct h2 *h2)
{
	struct buf full = h2->out;
	h2->out = h2->going;
	h2->going = full;
	enum sock_result result =
		sock_write(h2->sock, buf_head(&full), buf_size(&full), -1, h2_written, h2);
	if (result == SOCK_DONE)
		h2_empty(&h2->going);
	return result;
}

static void h2_flush(void *arg)
{
	struct h2 *h2 = arg;
	if (h2->session == NULL)
		return;
	if (h2->sock->writer.waiting) {
		if (h2->reason != NULL)
			h2_end(h2); /* nothing can be said any more */
		return;
	}
	enum sock_result result = h2->mute ? SOCK_WAIT : SOCK_DONE;
	while (h2_pump(h2), result == SOCK_DONE && buf_size(&h2->out) > 0)
		result = h2_write(h2);
	loop_defer_cancel(&h2->flush); /* by the pump: there is nothing more to flush */
	if (h2->count == 0 && result == SOCK_DONE) {
		buf_free(&h2->out);
		buf_free(&h2->going);
	}
	if (result == SOCK_FAILED)
		h2_write_failed(h2);
	else if (h2->reason != NULL)
		h2_end(h2);
	else if (!nghttp2_session_want_read(h2->session) &&
		 !nghttp2_session_want_write(h2->session) && result == SOCK_DONE)
		h2_conclude(h2);
}

/* --- receiving --- */

/* A peer that asks for answers and does not read them would make us keep them all; so would one
 * that allows no streams, of which those that were given up stay in the queue. */
void h2_check_queue(struct h2 *h2)
{
	if (nghttp2_session_get_outbound_queue_size(h2->session) <= H2_QUEUE_MOST + 2 * h2->count)
		return;
	nghttp2_session_terminate_session(h2->session, NGHTTP2_ENHANCE_YOUR_CALM);
	h2_note(h2, "protocol", "the other side takes nothing of what waits for it");
}

static void h2_feed(struct h2 *h2, const char *bytes, size_t n)
{
	ssize_t used = nghttp2_session_mem_recv(h2->session, (const uint8_t *)bytes, n);
	char text[256];
	if (used < 0) {
		snprintf(text, sizeof text, "the other side does not keep to HTTP/2: %s%s%s",
			 nghttp2_strerror((int)used), h2->trouble[0] ? ": " : "", h2->trouble);
		h2_note(h2, "protocol", text);
	} else {
		h2_check_queue(h2);
	}
}

static void h2_readable(void *arg);
static void h2_more(void *arg);

static enum sock_result h2_read(struct h2 *h2)
{
	return sock_read(h2->sock, SOCK_SOME, H2_READ, -1, h2_readable, h2);
}

/* A peer that sends without end gets its share of a turn; small frames cost more than they weigh.
 */
static void h2_read_on(struct h2 *h2, enum sock_result result)
{
	struct sock *sock = h2->sock;
	size_t fed = 0;
	while (result == SOCK_DONE && h2->reason == NULL && fed < H2_SHARE) {
		fed += sock->reader.size;
		h2_feed(h2, sock_bytes(sock), sock->reader.size);
		sock_take(sock, sock->reader.size);
		result = h2_read(h2);
	}
	if (result == SOCK_DONE && h2->reason == NULL)
		loop_defer(h2->loop, &h2->more, h2_more, h2);
	if (result == SOCK_END || result == SOCK_FAILED)
		h2_lost(h2, result, &sock->reader);
	else
		h2_soon(h2);
}

static void h2_readable(void *arg)
{
	struct h2 *h2 = arg;
	h2_read_on(h2, h2->sock->reader.result);
}

static void h2_more(void *arg)
{
	struct h2 *h2 = arg;
	h2_read_on(h2, h2_read(h2));
}

/* --- birth --- */

static int h2_settings(struct h2 *h2)
{
	const struct h2_options *o = &h2->options;
	const nghttp2_settings_entry entries[] = {
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, (uint32_t)o->window},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)o->max_header},
		{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, o->max_streams},
		{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
	};
	size_t count = o->server ? 3 : 4; /* only a client says that it wants no pushes */
	int code = nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, entries, count);
	/* What lies unread is bounded by the windows of the streams; one slow reader must not
	 * stop the others. */
	return code != 0 ? code
			 : nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0,
								 H2_CONNECTION);
}

static int h2_session(struct h2 *h2)
{
	nghttp2_session_callbacks *callbacks = NULL;
	nghttp2_option *option = NULL;
	int code = nghttp2_session_callbacks_new(&callbacks);
	if (code == 0)
		code = nghttp2_option_new(&option);
	if (code == 0) {
		nghttp2_option_set_no_auto_window_update(option, 1);
		nghttp2_option_set_no_closed_streams(option, 1);
		nghttp2_option_set_max_send_header_block_length(option, H2_SEND_HEADERS);
		h2_receive_callbacks(callbacks);
		nghttp2_session_callbacks_set_send_data_callback(callbacks, h2_stream_copy);
		code = h2->options.server
			       ? nghttp2_session_server_new2(&h2->session, callbacks, h2, option)
			       : nghttp2_session_client_new2(&h2->session, callbacks, h2, option);
	}
	nghttp2_option_del(option);
	nghttp2_session_callbacks_del(callbacks);
	return code != 0 ? code : h2_settings(h2);
}

struct h2 *h2_open(struct loop *loop, struct sock *sock, const struct h2_options *options,
		   struct err *err)
{
	struct h2 *h2 = calloc(1, sizeof *h2);
	int code = h2 != NULL ? 0 : NGHTTP2_ERR_NOMEM;
	if (h2 != NULL) {
		h2->loop = loop;
		h2->sock = sock;
		h2->options = *options;
		if (h2->options.window < H2_WINDOW_LEAST)
			h2->options.window = H2_WINDOW_LEAST;
		list_init(&h2->streams);
		list_init(&h2->incoming);
		buf_init(&h2->out, H2_OUT_MOST);
		buf_init(&h2->going, H2_OUT_MOST);
		code = h2_session(h2);
	}
	if (code != 0) {
		err_set(err, code == NGHTTP2_ERR_NOMEM ? ENOMEM : 0, "beginning HTTP/2: %s",
			nghttp2_strerror(code));
		if (h2 != NULL)
			nghttp2_session_del(h2->session);
		free(h2);
		return NULL;
	}
	h2_pump(h2);
	/* From the loop, so that nobody is told anything before h2_open has returned. */
	loop_defer(loop, &h2->more, h2_more, h2);
	return h2;
}

void h2_close(struct h2 *h2)
{
	if (h2->session != NULL) {
		if (!h2->going_away)
			h2_goaway(h2, NGHTTP2_NO_ERROR, "");
		h2_note(h2, NULL, "the connection was closed here");
		h2_end(h2);
	}
	free(h2);
}

void h2_goaway(struct h2 *h2, uint32_t code, const char *text)
{
	if (h2->session == NULL)
		return;
	h2->going_away = true;
	nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE,
			      nghttp2_session_get_last_proc_stream_id(h2->session), code,
			      (const uint8_t *)text, strlen(text));
	h2_pump(h2);
}

static bool h2_going(const struct h2 *h2)
{
	if (h2->going_away || h2->reason != NULL || h2->session == NULL)
		return true;
	return !h2->options.server && !nghttp2_session_check_request_allowed(h2->session);
}

struct h2_state h2_state(const struct h2 *h2)
{
	return (struct h2_state){
		.open = h2->session != NULL,
		.going = h2_going(h2),
		.reason = h2->session == NULL ? h2->reason : NULL,
		.why = &h2->why,
	};
}

const char *h2_code_name(uint32_t code)
{
	return nghttp2_http2_strerror(code);
}
