/* h2_session.h -- one HTTP/2 connection, as its files see it.  Floor 3, with h2.h.
 *
 * h2.c moves bytes between the sock and nghttp2 and ends the connection; h2_stream.c opens and ends
 * streams and sends on them; h2_receive.c takes in what nghttp2 hands out.
 */
#ifndef WORKER_H2_SESSION_H
#define WORKER_H2_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <nghttp2/nghttp2.h>

#include "worker/h2.h"

#define H2_OUT	      ((size_t)128 * 1024) /* made ahead of the kernel */
#define H2_FRAME_HEAD 9

struct h2 {
	struct loop *loop;
	struct sock *sock;
	struct h2_options options;
	nghttp2_session *session; /* NULL once closed */
	struct list streams;	  /* not over */
	struct list incoming;	  /* of those: not handed out yet */
	size_t count;
	struct buf out, going;	/* frames to send; frames being sent */
	struct loop_work more;	/* to be read: the beginning, or a fast peer's next share */
	struct loop_work flush; /* once per turn, so that the frames of many tasks go together */
	bool mute;		/* the peer takes nothing any more */
	struct loop_timer patience; /* with a mute one */
	bool going_away;
	const char *reason; /* once closed */
	struct err why;
	char trouble[160]; /* nghttp2's last complaint about the peer */
	char farewell[80]; /* what the peer's GOAWAY says */
};

/* h2_soon(h2): frames are made and written before the loop waits.  h2_pump(h2): they are made now,
 * as far as they have room. */
void h2_soon(struct h2 *h2);
void h2_pump(struct h2 *h2);

/* h2_check_queue(h2): a peer for whom too much waits loses the connection, which ends with the next
 * flush.  To be asked wherever something is queued that nobody waits for. */
void h2_check_queue(struct h2 *h2);

/* h2_receive_callbacks(callbacks): all that takes something in. */
void h2_receive_callbacks(nghttp2_session_callbacks *callbacks);

/* h2_stream_new(h2): in no list, without an id.  h2_stream_enter: into the list. */
struct h2_stream *h2_stream_new(struct h2 *h2);
void h2_stream_enter(struct h2_stream *stream, int32_t id);

/* h2_stream_over(stream, end, code): it leaves the connection; its owner is told, or it is freed.
 */
void h2_stream_over(struct h2_stream *stream, enum h2_end end, uint32_t code);
void h2_stream_changed(const struct h2_stream *stream);

/* h2_stream_settle(stream): give back window for what is not meant to lie here. */
void h2_stream_settle(struct h2_stream *stream);

/* h2_stream_copy: the send_data_callback of nghttp2. */
int h2_stream_copy(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t n,
		   nghttp2_data_source *source, void *user);

/* h2_header_put(block, header): append to a block. */
int h2_header_put(struct buf *block, const struct h2_header *header);

#endif
