/* http.h -- HTTP/1.1 requests: bytes out, bytes in, giving up in time.  Floor 3.
 *
 * A client (http_client.h) is a pool of kept connections.  A transfer is one request with its
 * reply.  Nothing here retries, follows a redirect or has an opinion about a status: floors above
 * decide.
 *
 *	transfer = http_start(client, &request, &err);
 *	...	request.changed(arg) comes whenever the reply below has news; look at
 *	reply = http_reply(transfer)
 *	...	reply->answered: status and head are there; reply->over: nothing more will come
 *	http_free(transfer);	at any time; a transfer under way is cut off and leaves nothing
 *
 * ${changed} may be called from anywhere in here, and from inside libcurl: record and wake, do not
 * call back.
 *
 * The body goes one of three ways:
 *	buffered	(default) kept whole in reply->body, up to max_body
 *	streamed	(request.stream) taken piece by piece with http_take; a slow taker makes us
 *			stop reading, which the server feels
 *	saved		(request.stream, then http_save) written to a file as it comes
 *
 * A request is never silently sent twice.  When a kept connection dies before the first byte of an
 * answer, it is repeated, once, on a new one: but only when the method is one that may be repeated
 * (GET, HEAD, PUT, DELETE, OPTIONS), or not a byte of the request had gone out, and never when its
 * body was fed and some of it is gone.
 */
#ifndef WORKER_HTTP_H
#define WORKER_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/buf.h"
#include "worker/err.h"

struct http_client;
struct http_transfer;

/* Why a transfer failed, as a word: http_easy_word.  HTTP_URL and HTTP_FILE are about our own
 * side: an address that is none, a local file that cannot be read or written. */
enum http_reason {
	HTTP_FINE,
	HTTP_DNS,
	HTTP_CONNECT,
	HTTP_TLS,
	HTTP_TIMEOUT,
	HTTP_RESET,
	HTTP_CLOSED,
	HTTP_TOO_BIG,
	HTTP_PROTOCOL,
	HTTP_MEMORY,
	HTTP_URL,
	HTTP_FILE,
};

struct http_header {
	const char *name, *value;
	size_t name_size, value_size;
};

/* What is sent as the body. */
enum http_upload { HTTP_NO_BODY, HTTP_BYTES, HTTP_FROM_FILE, HTTP_FED };

struct http_request {
	const char *method, *url;
	const struct http_header *headers; /* checked for injection; copied */
	size_t header_count;
	enum http_upload upload;
	const char *body; /* HTTP_BYTES: must stay until the transfer is over */
	size_t body_size;
	int body_fd;	     /* HTTP_FROM_FILE: read by offset, stays the caller's */
	int64_t body_length; /* HTTP_FROM_FILE, HTTP_FED: -1 when not known (sent chunked) */
	int64_t timeout;     /* ns for everything; patient: longest silence.  0 is none */
	uint64_t max_body;   /* most bytes of a reply's body; 0 is no limit (not for buffered) */
	size_t max_head;     /* most bytes of its head */
	bool stream, patient;
	void (*changed)(void *arg);
	void *arg;
};

struct http_reply {
	bool answered, over;
	int status;
	struct buf head; /* "Name: value" lines as they came, without status line */
	struct buf body;
	uint64_t received; /* body bytes so far */
	enum http_reason reason;
	bool sent; /* over with a failure: some of the request may have reached the server */
	struct err err;
};

/* http_start(client, request, reason, err): NULL with ${reason} and ${err} set when the request
 * itself is wrong.  The first byte goes out in the loop's next step. */
struct http_transfer *http_start(struct http_client *client, const struct http_request *request,
				 enum http_reason *reason, struct err *err);
const struct http_reply *http_reply(const struct http_transfer *transfer);

/* http_label(transfer): "POST http://host/path" for messages: no credentials, no query. */
const char *http_label(const struct http_transfer *transfer);

/* http_take(transfer, n): ${n} bytes of reply->body have been used. */
void http_take(struct http_transfer *transfer, size_t n);

/* http_save(transfer, fd): once answered, write the body to ${fd}, which stays the caller's. */
void http_save(struct http_transfer *transfer, int fd);

/* http_feed(transfer, data, n): the next piece of a HTTP_FED body, borrowed until http_fed() (or
 * until the transfer is over).  http_feed_end: that was all. */
void http_feed(struct http_transfer *transfer, const char *data, size_t n);
void http_feed_end(struct http_transfer *transfer);
bool http_fed(const struct http_transfer *transfer);

void http_free(struct http_transfer *transfer);

#endif
