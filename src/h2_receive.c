/* h2_receive.c -- what nghttp2 hands out: header blocks, bodies, ends.  Floor 3.
 *
 * See worker/h2.h.  All of these run inside nghttp2_session_mem_recv or _mem_send; they take note
 * and queue frames, nothing else.  nghttp2 has checked what it hands out against RFC 9113 (names,
 * pseudo headers, content-length, windows); what is counted here is how much of it there is.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "worker/h2.h"
#include "worker/h2_session.h"

#define H2_HEADER_COST 32 /* of each header, by RFC 9113 */

static struct h2_stream *h2_stream_of(nghttp2_session *session, int32_t id)
{
	return nghttp2_session_get_stream_user_data(session, id);
}

/* What a peer says is put into one line of text that cannot harm a terminal. */
static void h2_quote(char *out, size_t room, const uint8_t *text, size_t n)
{
	size_t at = 0;
	for (size_t i = 0; i < n && at + 1 < room; i++)
		out[at++] = text[i] >= 0x20 && text[i] < 0x7f ? (char)text[i] : '?';
	out[at] = '\0';
}

/* --- header blocks --- */

static int h2_on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct h2 *h2 = user;
	struct h2_stream *stream = h2_stream_of(session, frame->hd.stream_id);
	if (frame->hd.type != NGHTTP2_HEADERS)
		return 0;
	if (stream == NULL && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
		stream = h2_stream_new(h2);
		if (stream == NULL)
			return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
		h2_stream_enter(stream, frame->hd.stream_id);
		nghttp2_session_set_stream_user_data(session, stream->id, stream);
	}
	if (stream != NULL)
		stream->header_room = h2->options.max_header;
	return 0;
}

static int h2_on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
			size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
			void *user)
{
	struct h2 *h2 = user;
	struct h2_stream *stream = h2_stream_of(session, frame->hd.stream_id);
	(void)flags;
	if (stream == NULL || frame->hd.type != NGHTTP2_HEADERS)
		return 0;
	const struct h2_header header = {.name = (const char *)name,
					 .name_size = name_size,
					 .value = (const char *)value,
					 .value_size = value_size};
	size_t cost = name_size + value_size + H2_HEADER_COST;
	struct buf *block = stream->headed ? &stream->trailers : &stream->head;
	if (cost <= stream->header_room && h2_header_put(block, &header) == 0) {
		stream->header_room -= cost;
		return 0;
	}
	err_set(&stream->why, EMSGSIZE, "the other side sent more than %zu bytes of headers",
		h2->options.max_header);
	stream->too_much = true;
	return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* An answer that only says that there will be one (1xx). */
static bool h2_is_interim(const struct h2_stream *stream)
{
	struct h2_header header;
	size_t at = 0;
	return h2_header_next(&stream->head, &at, &header) && header.name_size == 7 &&
	       memcmp(header.name, ":status", 7) == 0 && header.value_size == 3 &&
	       header.value[0] == '1';
}

static void h2_headers_complete(struct h2 *h2, struct h2_stream *stream)
{
	if (stream->headed)
		return;
	if (!h2->options.server && h2_is_interim(stream)) {
		buf_free(&stream->head);
		return;
	}
	stream->headed = true;
	if (!h2->options.server)
		return;
	list_append(&h2->incoming, &stream->queue);
	if (h2->options.changed != NULL)
		h2->options.changed(h2->options.arg);
}

/* --- frames --- */

static void h2_on_goaway(struct h2 *h2, const nghttp2_goaway *goaway)
{
	char text[48];
	h2->going_away = true;
	h2_quote(text, sizeof text, goaway->opaque_data, goaway->opaque_data_len);
	snprintf(h2->farewell, sizeof h2->farewell, "%s%s%s", h2_code_name(goaway->error_code),
		 text[0] != '\0' ? ", " : "", text);
	if (h2->options.changed != NULL)
		h2->options.changed(h2->options.arg);
}

static int h2_on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct h2 *h2 = user;
	if (frame->hd.type == NGHTTP2_GOAWAY)
		h2_on_goaway(h2, &frame->goaway);
	struct h2_stream *stream = h2_stream_of(session, frame->hd.stream_id);
	if (stream == NULL)
		return 0;
	if (frame->hd.type == NGHTTP2_RST_STREAM)
		stream->by_peer = true;
	if (frame->hd.type == NGHTTP2_HEADERS)
		h2_headers_complete(h2, stream);
	if ((frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
	    (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0)
		stream->ended = !stream->too_much; /* what has a gap has no end */
	h2_stream_changed(stream);
	return 0;
}

static int h2_on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
		      size_t n, void *user)
{
	struct h2_stream *stream = h2_stream_of(session, id);
	(void)flags;
	(void)user;
	nghttp2_session_consume_connection(session, n);
	if (stream == NULL || stream->too_much)
		return 0;
	if (buf_append(&stream->in, data, n) == -1) {
		stream->too_much = true;
		err_errno(&stream->why, "taking in the body");
		nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, NGHTTP2_INTERNAL_ERROR);
		return 0;
	}
	stream->owed += n;
	h2_stream_settle(stream);
	h2_stream_changed(stream);
	return 0;
}

/* --- ends --- */

static int h2_on_close(nghttp2_session *session, int32_t id, uint32_t code, void *user)
{
	const struct h2 *h2 = user;
	struct h2_stream *stream = h2_stream_of(session, id);
	if (stream == NULL)
		return 0;
	/* Who asked and has the whole answer does not mind how it goes on. */
	bool fine = stream->ended && !stream->too_much &&
		    (!h2->options.server || (code == NGHTTP2_NO_ERROR && stream->finished));
	enum h2_end end = fine				   ? H2_END_FINE
			  : code == NGHTTP2_REFUSED_STREAM ? H2_END_REFUSED
			  : stream->by_peer		   ? H2_END_RESET
							   : H2_END_BROKEN;
	h2_stream_over(stream, end, code);
	return 0;
}

/* Once our last frame is made, a RST_STREAM may follow it; before, it would overtake it. */
static int h2_on_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct h2 *h2 = user;
	struct h2_stream *stream = h2_stream_of(session, frame->hd.stream_id);
	bool headers = frame->hd.type == NGHTTP2_HEADERS;
	if (stream != NULL && headers)
		stream->sent = true;
	if (stream != NULL && (headers || frame->hd.type == NGHTTP2_DATA) &&
	    (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
		stream->finished = true;
		h2_stream_changed(stream);
	}
	if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR &&
	    h2->trouble[0] == '\0')
		h2_quote(h2->trouble, sizeof h2->trouble, frame->goaway.opaque_data,
			 frame->goaway.opaque_data_len);
	return 0;
}

static int h2_on_complaint(nghttp2_session *session, int code, const char *text, size_t n,
			   void *user)
{
	struct h2 *h2 = user;
	(void)session;
	(void)code;
	h2_quote(h2->trouble, sizeof h2->trouble, (const uint8_t *)text, n);
	return 0;
}

void h2_receive_callbacks(nghttp2_session_callbacks *callbacks)
{
	nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, h2_on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, h2_on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, h2_on_frame);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, h2_on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, h2_on_close);
	nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, h2_on_sent);
	nghttp2_session_callbacks_set_error_callback2(callbacks, h2_on_complaint);
}
