/* http_plain.h -- one request on a connection of our own, as its files see it.  Floor 3.
 *
 * http_plain.c finds a connection, sends the request on it, and begins again where that is right;
 * http_plain_reply.c takes the answer apart.
 */
#ifndef WORKER_HTTP_PLAIN_H
#define WORKER_HTTP_PLAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/buf.h"
#include "worker/dial.h"
#include "worker/http_pool.h"
#include "worker/http_transfer.h"

/* What the next bytes of the answer are. */
enum plain_next {
	PLAIN_STATUS,	  /* the status line */
	PLAIN_HEAD,	  /* a line of the head */
	PLAIN_LENGTH,	  /* the body, ${left} bytes of it */
	PLAIN_END,	  /* the body, until the connection ends */
	PLAIN_CHUNK,	  /* the line before a chunk */
	PLAIN_CHUNK_DATA, /* ${left} bytes of a chunk */
	PLAIN_CHUNK_END,  /* the line after it */
	PLAIN_TRAILER,	  /* a line after the last chunk */
};

struct plain {
	struct http_transfer transfer;
	struct http_conn *conn; /* once it stands */
	struct dial *dial;	/* until then */
	struct loop_work soon;	/* what may not be done within the caller's call */
	int port;

	struct buf out;	  /* the request's head, and a small body */
	const char *body; /* HTTP_BYTES: what does not lie in ${out} */
	size_t body_size;
	struct buf piece; /* of a body that is read or fed: what goes out next */
	bool chunked_out;
	bool out_sent, body_sent, end_sent; /* how far sending is */
	bool sending;			    /* a write is under way */
	bool broken;			    /* nothing more can be sent */
	bool fresh;			    /* this connection carries its first request */
	uint64_t sent_before;		    /* what the connection had sent before this request */
	bool sent;			    /* an earlier connection may have carried it */

	enum plain_next next;
	uint64_t left;
	bool keep, closes, old; /* the connection goes on; the server says it does not; HTTP/1.0 */
	bool framing;		/* the line before says where the body ends */
	bool chunked, whole;
	char host[];
};

/* http_plain_reply_begin(plain): what comes next is an answer's first line. */
void http_plain_reply_begin(struct plain *plain);

/* http_plain_reply_listen(plain): wait for what comes next; false: some of it is there already, or
 * the connection has ended. */
bool http_plain_reply_listen(struct plain *plain);

/* http_plain_reply_receive(plain): read on, as far as there is something and somebody who takes it.
 */
void http_plain_reply_receive(struct plain *plain);

/* http_plain_lost(plain, code): the connection ended (0) or broke (errno) before the answer was
 * whole. */
void http_plain_lost(struct plain *plain, int code);

#endif
