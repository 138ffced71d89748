/* h2.h -- one HTTP/2 connection, calling or called, and its streams.  Floor 3.
 *
 * HTTP/2 itself (frames, header compression, windows, the answers to PING and SETTINGS) is
 * nghttp2's; this file lays it over a sock (worker/sock.h), so it is the same for TCP, TLS and Unix
 * sockets, and gives it the manners of the house: everything has a ceiling, nothing calls up.
 *
 *	h2 = h2_open(loop, sock, &options, &err)	the sock is h2's to read and write from here
 *	stream = h2_request(h2, headers, n, ...)	calling
 *	stream = h2_accept(h2)				being called; NULL: nothing new
 *	h2_close(h2)					says GOAWAY if that can be said at once
 *
 * A stream is one exchange.  It belongs to whoever opened or accepted it, outlives its connection,
 * and is given back with h2_stream_free.  ${changed} of a stream or a connection is called from the
 * loop or from inside a call of this file, whenever something below may have become true; it only
 * takes note (wakes a task) and calls nothing here.
 *
 * What a peer may cost: max_header bytes of each header block (the first, the trailers), window
 * bytes of body for each open stream (the peer gets a new window as they are taken), max_streams
 * streams at a time; beyond that what it does not read or does not let begin: answers,
 * acknowledgements, requests that were given up (H2_QUEUE_MOST frames).  A peer that goes beyond
 * loses the stream, or the connection.
 *
 * No PING is ever sent: some servers take those for an attack.  Whoever wants to know whether the
 * other side lives asks it something, with a deadline.
 */
#ifndef WORKER_H2_H
#define WORKER_H2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/buf.h"
#include "worker/err.h"
#include "worker/list.h"
#include "worker/loop.h"
#include "worker/sock.h"

#define H2_HEADERS_MOST 128 /* headers of a block that we send */
#define H2_LEAD		16
#define H2_QUEUE_MOST	2048 /* frames that wait for a peer that does not read */

struct h2;

struct h2_options {
	bool server;
	size_t max_header;    /* as HTTP/2 counts: names, values and 32 bytes for each */
	size_t window;	      /* per stream: body bytes that may lie here untaken */
	uint32_t max_streams; /* that the peer may have open at once */
	void (*changed)(void *arg);
	void *arg;
};

struct h2_header {
	const char *name, *value;
	size_t name_size, value_size;
};

/* How a connection stands. */
struct h2_state {
	bool open;	    /* the sock is there */
	bool going;	    /* no new streams: a GOAWAY was sent or received, or it is closed */
	const char *reason; /* once closed: closed reset timeout tls io protocol, or NULL: by us */
	const struct err *why;
};

enum h2_end {
	H2_END_NONE,	/* not over */
	H2_END_FINE,	/* both sides have said everything */
	H2_END_RESET,	/* the peer's RST_STREAM; see code */
	H2_END_REFUSED, /* the peer has not begun with it: safe to repeat */
	H2_END_BROKEN,	/* what the peer sent was wrong, or too much: we reset it */
	H2_END_LATE,	/* its time was up: we reset it */
	H2_END_LOST,	/* the connection ended; see reason */
};

/* One exchange.  The first part is for its owner to read. */
struct h2_stream {
	int32_t id;
	bool headed;	     /* the first header block is there */
	bool ended;	     /* the peer has said everything: ${in} and ${trailers} are complete */
	bool sent;	     /* the peer may have seen the request */
	enum h2_end end;     /* over: nothing more comes or goes */
	uint32_t code;	     /* H2_END_RESET, _REFUSED, _BROKEN: the code of HTTP/2 */
	const char *reason;  /* H2_END_LOST: like that of the connection */
	struct err why;	     /* not NONE, not FINE: for a person */
	struct buf head;     /* header blocks, for h2_header_next */
	struct buf trailers; /* empty when there were none */
	struct buf in;	     /* body bytes that nobody has taken yet */

	/* private */
	struct h2 *h2; /* NULL once over */
	struct list link, queue;
	void (*changed)(void *arg);
	void *arg;
	size_t header_room; /* of the block that is being received */
	bool too_much;	    /* for us: part of it was not kept, and the stream is being reset */
	bool owned;	    /* handed out */
	size_t want, owed;  /* bytes a reader waits for; bytes not yet given back as window */
	const char *from;   /* bytes to send, behind those of ${lead} */
	size_t left;
	char lead[H2_LEAD];
	size_t lead_size, lead_left;
	bool ends;     /* nothing follows ${from} but ${farewell} */
	bool finished; /* our last frame is made */
	bool deferred, replied, by_peer;
	struct buf farewell; /* trailers to send */
	struct loop_timer limit;
};

/* h2_open(loop, sock, options, err): begin.  The connection may end at any time later; it is the
 * caller's until h2_close.  NULL with ${err} set. */
struct h2 *h2_open(struct loop *loop, struct sock *sock, const struct h2_options *options,
		   struct err *err);

/* h2_close(h2): streams that are not over are lost; the sock is closed; frees ${h2}. */
void h2_close(struct h2 *h2);

/* h2_goaway(h2, code, text): tell the peer to open no more streams.  Those that are open go on. */
void h2_goaway(struct h2 *h2, uint32_t code, const char *text);

struct h2_state h2_state(const struct h2 *h2);

/* h2_request(h2, headers, count, ends, changed, arg, err): open a stream, which may have to wait
 * its turn until the peer allows one more.  ${ends}: there is no body. */
struct h2_stream *h2_request(struct h2 *h2, const struct h2_header *headers, size_t count,
			     bool ends, void (*changed)(void *arg), void *arg, struct err *err);

/* h2_accept(h2): the next stream of the peer, its first header block complete; set changed and
 * arg.  h2_waiting(h2): there is one. */
struct h2_stream *h2_accept(struct h2 *h2);
bool h2_waiting(const struct h2 *h2);

/* h2_stream_respond(stream, headers, count, ends, err): the answer's header block. */
int h2_stream_respond(struct h2_stream *stream, const struct h2_header *headers, size_t count,
		      bool ends, struct err *err);

/* h2_stream_idle(stream): all that was given to h2_stream_send has been taken (or never will be).
 * h2_stream_send(stream, lead, lead_size, data, n, ends): only when idle.  The ${data} must stay
 * until it is idle again; the few bytes of ${lead} (H2_LEAD at most) go in front of it and are
 * copied.  -1 when the stream takes no more: it is over, or has been ended. */
bool h2_stream_idle(const struct h2_stream *stream);
int h2_stream_send(struct h2_stream *stream, const void *lead, size_t lead_size, const void *data,
		   size_t n, bool ends);

/* h2_stream_finish(stream, headers, count, err): end our direction with trailers, behind what is
 * still being sent. */
int h2_stream_finish(struct h2_stream *stream, const struct h2_header *headers, size_t count,
		     struct err *err);

/* h2_stream_want(stream, n): the reader waits for ${n} bytes, which may be more than the window.
 * h2_stream_take(stream, n): the bytes of ${in} have been used. */
void h2_stream_want(struct h2_stream *stream, size_t n);
void h2_stream_take(struct h2_stream *stream, size_t n);

/* h2_stream_reset(stream, code): end it with RST_STREAM; it is over at once, as H2_END_BROKEN. */
void h2_stream_reset(struct h2_stream *stream, uint32_t code);

/* h2_stream_limit(stream, ns): in so much time from now it is reset, as H2_END_LATE.  0 or -1. */
int h2_stream_limit(struct h2_stream *stream, int64_t ns);

/* h2_stream_free(stream): with a RST_STREAM(CANCEL) when it is not over. */
void h2_stream_free(struct h2_stream *stream);

/* h2_header_next(block, at, header): walks a block: ${at} begins at 0; false at its end. */
bool h2_header_next(const struct buf *block, size_t *at, struct h2_header *header);

/* h2_code_name(code): "CANCEL", "REFUSED_STREAM" ... */
const char *h2_code_name(uint32_t code);

#endif
