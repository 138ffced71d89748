/* h2_stream.c -- the streams of an HTTP/2 connection: opening, sending, giving back window, ending.
 * Floor 3.
 *
 * See worker/h2.h.  nghttp2 knows a stream by its user data, which is taken away (h2_stream_forget)
 * before the struct may go; its callbacks meet NULL from then on.
 *
 * Bytes to send stay the sender's until nghttp2 asks for them (h2_stream_read), frame by frame, as
 * far as windows allow.  Trailers cannot be handed to nghttp2 before the last byte is gone, so they
 * wait in ${farewell}.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/h2.h"
#include "worker/h2_session.h"

#define H2_FAREWELL ((size_t)64 * 1024)

/* --- header blocks --- */

int h2_header_put(struct buf *block, const struct h2_header *header)
{
	uint32_t sizes[2] = {(uint32_t)header->name_size, (uint32_t)header->value_size};
	size_t n = sizeof sizes + header->name_size + header->value_size;
	char *place = buf_reserve(block, n);
	if (place == NULL)
		return -1;
	memcpy(place, sizes, sizeof sizes);
	memcpy(place + sizeof sizes, header->name, header->name_size);
	if (header->value_size > 0)
		memcpy(place + sizeof sizes + header->name_size, header->value, header->value_size);
	buf_commit(block, n);
	return 0;
}

bool h2_header_next(const struct buf *block, size_t *at, struct h2_header *header)
{
	uint32_t sizes[2];
	if (*at + sizeof sizes > buf_size(block))
		return false;
	memcpy(sizes, buf_head(block) + *at, sizeof sizes);
	header->name = buf_head(block) + *at + sizeof sizes;
	header->name_size = sizes[0];
	header->value = header->name + sizes[0];
	header->value_size = sizes[1];
	*at += sizeof sizes + sizes[0] + sizes[1];
	return true;
}

static nghttp2_nv h2_pair(const struct h2_header *header)
{
	return (nghttp2_nv){
		.name = (uint8_t *)(uintptr_t)header->name,
		.namelen = header->name_size,
		.value = (uint8_t *)(uintptr_t)header->value,
		.valuelen = header->value_size,
	};
}

static int h2_pairs(const struct h2_header *headers, size_t count, nghttp2_nv *out, struct err *err)
{
	if (count > H2_HEADERS_MOST)
		return err_set(err, E2BIG, "%zu headers are too many (%d)", count, H2_HEADERS_MOST);
	for (size_t i = 0; i < count; i++)
		out[i] = h2_pair(&headers[i]);
	return 0;
}

/* --- life --- */

struct h2_stream *h2_stream_new(struct h2 *h2)
{
	struct h2_stream *stream = calloc(1, sizeof *stream);
	if (stream == NULL)
		return NULL;
	stream->h2 = h2;
	/* The ceiling of a block is counted as HTTP/2 does; here each costs a little less. */
	buf_init(&stream->head, h2->options.max_header);
	buf_init(&stream->trailers, h2->options.max_header);
	buf_init(&stream->in, 2 * h2->options.window);
	buf_init(&stream->farewell, H2_FAREWELL);
	return stream;
}

void h2_stream_enter(struct h2_stream *stream, int32_t id)
{
	stream->id = id;
	list_append(&stream->h2->streams, &stream->link);
	stream->h2->count++;
}

void h2_stream_changed(const struct h2_stream *stream)
{
	if (stream->changed != NULL)
		stream->changed(stream->arg);
}

static void h2_stream_release(struct h2_stream *stream)
{
	buf_free(&stream->head);
	buf_free(&stream->trailers);
	buf_free(&stream->in);
	buf_free(&stream->farewell);
	free(stream);
}

static void h2_stream_explain(struct h2_stream *stream, const struct h2 *h2)
{
	struct err *why = &stream->why;
	const char *name = h2_code_name(stream->code);
	if (why->text[0] != '\0') /* said where it was seen */
		return;
	switch (stream->end) {
	case H2_END_RESET:
		err_set(why, 0, "the other side ended the stream with %s", name);
		break;
	case H2_END_REFUSED:
		err_set(why, 0, "the other side has not taken the request (%s)", name);
		break;
	case H2_END_BROKEN:
		err_set(why, 0, "the stream was ended with %s%s%s", name,
			h2->trouble[0] ? ": " : "", h2->trouble);
		break;
	case H2_END_LATE:
		err_set(why, ETIMEDOUT, "the time allowed is over");
		break;
	case H2_END_LOST:
		*why = h2->why;
		break;
	default:
		break;
	}
}

void h2_stream_over(struct h2_stream *stream, enum h2_end end, uint32_t code)
{
	struct h2 *h2 = stream->h2;
	if (h2 == NULL)
		return;
	stream->end = end;
	stream->code = code;
	if (end == H2_END_LOST)
		stream->reason = h2->reason;
	h2_stream_explain(stream, h2);
	loop_timer_stop(h2->loop, &stream->limit);
	list_remove(&stream->link);
	list_remove(&stream->queue);
	h2->count--;
	stream->h2 = NULL;
	stream->from = NULL;
	stream->left = stream->lead_left = 0;
	if (stream->owned)
		h2_stream_changed(stream);
	else
		h2_stream_release(stream);
}

/* From here on nghttp2 does not know the struct. */
static void h2_stream_forget(struct h2_stream *stream, uint32_t code)
{
	nghttp2_session *session = stream->h2->session;
	nghttp2_session_set_stream_user_data(session, stream->id, NULL);
	nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream->id, code);
}

static void h2_stream_abort(struct h2_stream *stream, enum h2_end end, uint32_t code)
{
	struct h2 *h2 = stream->h2;
	if (h2 == NULL)
		return;
	h2_stream_forget(stream, code);
	h2_stream_over(stream, end, code);
	h2_check_queue(h2);
	h2_pump(h2);
}

void h2_stream_reset(struct h2_stream *stream, uint32_t code)
{
	h2_stream_abort(stream, H2_END_BROKEN, code);
}

/* A server that has answered does not want the rest of the request: that is no failure. */
void h2_stream_free(struct h2_stream *stream)
{
	bool answered = stream->h2 != NULL && stream->h2->options.server && stream->finished;
	h2_stream_abort(stream, H2_END_BROKEN, answered ? NGHTTP2_NO_ERROR : NGHTTP2_CANCEL);
	h2_stream_release(stream);
}

static void h2_stream_late(void *arg)
{
	h2_stream_abort(arg, H2_END_LATE, NGHTTP2_CANCEL);
}

int h2_stream_limit(struct h2_stream *stream, int64_t ns)
{
	if (stream->h2 == NULL)
		return 0;
	return loop_timer_start(stream->h2->loop, &stream->limit, ns, h2_stream_late, stream);
}

/* --- sending --- */

bool h2_stream_idle(const struct h2_stream *stream)
{
	return stream->lead_left + stream->left == 0;
}

static void h2_stream_part(struct h2_stream *stream)
{
	nghttp2_nv pairs[H2_HEADERS_MOST];
	struct h2_header header;
	size_t at = 0, count = 0;
	while (count < H2_HEADERS_MOST && h2_header_next(&stream->farewell, &at, &header))
		pairs[count++] = h2_pair(&header);
	nghttp2_submit_trailer(stream->h2->session, stream->id, pairs, count);
}

/* nghttp2 has room for a piece of the body: how long is it, and is it the last? */
static ssize_t h2_stream_read(nghttp2_session *session, int32_t id, uint8_t *to, size_t room,
			      uint32_t *flags, nghttp2_data_source *source, void *user)
{
	const struct h2 *h2 = user;
	struct h2_stream *stream = nghttp2_session_get_stream_user_data(session, id);
	(void)to;
	(void)source;
	if (stream == NULL)
		return NGHTTP2_ERR_DEFERRED; /* its RST_STREAM is on the way */
	if (buf_size(&h2->out) >= H2_OUT)
		return NGHTTP2_ERR_PAUSE;
	size_t n = stream->lead_left + stream->left;
	if (n == 0 && !stream->ends) {
		stream->deferred = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	if (n > room)
		return (ssize_t)room;
	if (stream->ends) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		if (buf_size(&stream->farewell) > 0) {
			*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
			h2_stream_part(stream);
		}
	}
	return (ssize_t)n;
}

static size_t h2_stream_move(char *to, const char *from, size_t n, size_t *left)
{
	n = n < *left ? n : *left;
	if (n > 0)
		memcpy(to, from, n);
	*left -= n;
	return n;
}

/* The frame it goes into: copied once, from where the sender has it to where it is written from. */
int h2_stream_copy(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t n,
		   nghttp2_data_source *source, void *user)
{
	struct h2 *h2 = user;
	struct h2_stream *stream =
		nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	(void)source;
	if (stream == NULL)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	char *to = buf_reserve(&h2->out, H2_FRAME_HEAD + n);
	if (to == NULL)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	memcpy(to, head, H2_FRAME_HEAD);
	const char *lead = stream->lead + stream->lead_size - stream->lead_left;
	size_t led = h2_stream_move(to + H2_FRAME_HEAD, lead, n, &stream->lead_left);
	stream->from +=
		h2_stream_move(to + H2_FRAME_HEAD + led, stream->from, n - led, &stream->left);
	buf_commit(&h2->out, H2_FRAME_HEAD + n);
	if (h2_stream_idle(stream))
		h2_stream_changed(stream);
	return 0;
}

static void h2_stream_resume(struct h2_stream *stream)
{
	if (stream->deferred)
		nghttp2_session_resume_data(stream->h2->session, stream->id);
	stream->deferred = false;
	h2_pump(stream->h2);
}

int h2_stream_send(struct h2_stream *stream, const void *lead, size_t lead_size, const void *data,
		   size_t n, bool ends)
{
	if (stream->h2 == NULL || stream->ends || lead_size > H2_LEAD)
		return -1;
	if (lead_size > 0)
		memcpy(stream->lead, lead, lead_size);
	stream->lead_size = stream->lead_left = lead_size;
	stream->from = data;
	stream->left = n;
	stream->ends = ends;
	h2_stream_resume(stream);
	return 0;
}

int h2_stream_finish(struct h2_stream *stream, const struct h2_header *headers, size_t count,
		     struct err *err)
{
	if (stream->h2 == NULL || stream->ends)
		return err_set(err, EPIPE, "the stream has ended");
	if (count > H2_HEADERS_MOST)
		return err_set(err, E2BIG, "%zu trailers are too many (%d)", count,
			       H2_HEADERS_MOST);
	for (size_t i = 0; i < count; i++)
		if (h2_header_put(&stream->farewell, &headers[i]) == -1)
			return err_errno(err, "trailers");
	stream->ends = true;
	h2_stream_resume(stream);
	return 0;
}

/* --- opening --- */

static int h2_refuse(const struct h2 *h2, struct err *err)
{
	if (h2->session == NULL)
		return err_set(err, EPIPE, "%s", h2->why.text);
	return err_set(err, EPIPE, "the connection takes no new streams");
}

struct h2_stream *h2_request(struct h2 *h2, const struct h2_header *headers, size_t count,
			     bool ends, void (*changed)(void *arg), void *arg, struct err *err)
{
	static const nghttp2_data_provider body = {.read_callback = h2_stream_read};
	nghttp2_nv pairs[H2_HEADERS_MOST];
	if (h2_pairs(headers, count, pairs, err) == -1)
		return NULL;
	if (h2_state(h2).going) {
		h2_refuse(h2, err);
		return NULL;
	}
	struct h2_stream *stream = h2_stream_new(h2);
	if (stream == NULL) {
		err_set(err, ENOMEM, "out of memory for a stream");
		return NULL;
	}
	int32_t id = nghttp2_submit_request(h2->session, NULL, pairs, count, ends ? NULL : &body,
					    stream);
	if (id < 0) {
		err_set(err, 0, "opening a stream: %s", nghttp2_strerror(id));
		h2_stream_release(stream);
		return NULL;
	}
	stream->changed = changed;
	stream->arg = arg;
	stream->owned = true;
	stream->ends = ends;
	h2_stream_enter(stream, id);
	h2_soon(h2);
	return stream;
}

bool h2_waiting(const struct h2 *h2)
{
	return !list_empty(&h2->incoming);
}

struct h2_stream *h2_accept(struct h2 *h2)
{
	struct list *node = list_shift(&h2->incoming);
	if (node == NULL)
		return NULL;
	struct h2_stream *stream = container_of(node, struct h2_stream, queue);
	stream->owned = true;
	return stream;
}

int h2_stream_respond(struct h2_stream *stream, const struct h2_header *headers, size_t count,
		      bool ends, struct err *err)
{
	static const nghttp2_data_provider body = {.read_callback = h2_stream_read};
	nghttp2_nv pairs[H2_HEADERS_MOST];
	if (stream->h2 == NULL || stream->replied)
		return err_set(err, EPIPE, "the stream has %s",
			       stream->replied ? "been answered" : "ended");
	if (h2_pairs(headers, count, pairs, err) == -1)
		return -1;
	int code = nghttp2_submit_response(stream->h2->session, stream->id, pairs, count,
					   ends ? NULL : &body);
	if (code != 0)
		return err_set(err, 0, "answering: %s", nghttp2_strerror(code));
	stream->replied = true;
	stream->ends = ends;
	h2_soon(stream->h2);
	return 0;
}

/* --- window --- */

void h2_stream_settle(struct h2_stream *stream)
{
	size_t held = buf_size(&stream->in);
	size_t kept = held > stream->want ? held - stream->want : 0;
	if (stream->h2 == NULL || stream->owed <= kept)
		return;
	nghttp2_session_consume_stream(stream->h2->session, stream->id, stream->owed - kept);
	stream->owed = kept;
}

void h2_stream_want(struct h2_stream *stream, size_t n)
{
	stream->want = n;
	if (stream->h2 == NULL || n <= buf_size(&stream->in))
		return;
	size_t ceiling = n + 2 * stream->h2->options.window;
	if (stream->in.ceiling < ceiling)
		stream->in.ceiling = ceiling;
	h2_stream_settle(stream);
	h2_pump(stream->h2);
}

void h2_stream_take(struct h2_stream *stream, size_t n)
{
	buf_consume(&stream->in, n);
	stream->want = 0;
	if (stream->h2 == NULL)
		return;
	size_t owed = stream->owed;
	h2_stream_settle(stream);
	if (stream->owed != owed)
		h2_pump(stream->h2);
}
