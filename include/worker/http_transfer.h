/* http_transfer.h -- one request under way, as the files of http.h see it.  Floor 3, with http.h.
 *
 * http.c begins and ends a transfer and keeps its time; http_answer.c takes in what comes back.
 * How the bytes travel is its way:
 *
 *	http_plain	http://, straight to the server, on sockets of our own
 *	http_curl	https://, and whatever goes through a proxy or needs more than the other can
 */
#ifndef WORKER_HTTP_TRANSFER_H
#define WORKER_HTTP_TRANSFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "worker/http.h"
#include "worker/http_client.h"
#include "worker/http_plan.h"
#include "worker/loop.h"

struct http_transfer;

struct http_way {
	size_t size; /* of its own struct, which begins with the transfer */
	/* lay: what can be written down before there is a transfer, and how much larger that is to
	 * be; -1 without memory.  Or NULL. */
	int (*lay)(struct http_plan *plan);
	/* begin: 0, or -1 with ${reason} and ${err}; nothing is told before it has returned. */
	int (*begin)(struct http_transfer *transfer, const struct http_plan *plan,
		     const struct http_request *request, enum http_reason *reason, struct err *err);
	/* go_on: receive_paused or send_paused has been lifted. */
	void (*go_on)(struct http_transfer *transfer);
	/* stop: give everything back, and say in reply.sent what may have arrived. */
	void (*stop)(struct http_transfer *transfer);
};

extern const struct http_way http_plain, http_curl;

struct http_transfer {
	const struct http_way *way;
	struct http_member member;
	struct http_client *client; /* NULL when over */
	struct http_reply reply;
	char label[HTTP_LABEL];

	struct loop_timer timer;
	int64_t started, dialled, progress, timeout; /* when it began; the last try to connect */
	bool connected, stream, patient;
	uint64_t max_body;

	bool receive_paused, send_paused;
	bool head, repeatable; /* of the method: its answer has no body; it may be sent again */
	bool in_head;	       /* the answer's first line has been seen, its empty one not */
	size_t head_seen;      /* bytes, of all heads: 1xx answers may come without end */
	int64_t announced;     /* Content-Length, -1 before there was one */

	enum http_upload upload;
	const char *feed; /* HTTP_FED: what is left of the current piece */
	size_t feed_left;
	bool feed_ended;
	int body_fd, save_fd;
	int64_t body_at, body_length;

	void (*changed)(void *arg);
	void *arg;
};

/* http_transfer_start(plan, request, reason, err): begin ${request}, which is the plan's with a
 * body and somebody to tell. */
struct http_transfer *http_transfer_start(const struct http_plan *plan,
					  const struct http_request *request,
					  enum http_reason *reason, struct err *err);

/* http_blame(transfer, reason, code, text): note why it fails.  The first reason is the true one;
 * what follows from it is noise. */
void http_blame(struct http_transfer *transfer, enum http_reason reason, int code,
		const char *text);

/* http_lost_reason(code): why a connection ended, from its errno. */
enum http_reason http_lost_reason(int code);

/* http_dials, http_connected(transfer): it waits for a connection (of its own, at most so long as
 * connecting may take), and has one. */
void http_dials(struct http_transfer *transfer);
void http_connected(struct http_transfer *transfer);

/* http_over(transfer): it has come to its end, good or bad. */
void http_over(struct http_transfer *transfer);

/* http_changed(transfer): tell whoever waits that there is news. */
static inline void http_changed(struct http_transfer *transfer)
{
	transfer->changed(transfer->arg);
}

/* http_read_file, http_read_feed(transfer, to, most): the next bytes of such a body; 0 when there
 * are none (a feed: none now), -1 when it is blamed. */
ssize_t http_read_file(struct http_transfer *transfer, char *to, size_t most);
size_t http_read_feed(struct http_transfer *transfer, char *to, size_t most);

/* --- http_answer.c --- */

/* http_answer_line(transfer, line, n): one line of a head or of trailers, with its end.  False: it
 * is blamed. */
bool http_answer_line(struct http_transfer *transfer, const char *line, size_t n);

/* http_answer_is_blank(line, n): the end of a head. */
bool http_answer_is_blank(const char *line, size_t n);

/* http_answer_value(line, n, name, size): the value of the header ${name}, without the blanks
 * around it; NULL when the line is another one. */
const char *http_answer_value(const char *line, size_t n, const char *name, size_t *size);

/* http_answer_full(transfer): streamed, and nobody has taken what is there: read no further. */
bool http_answer_full(const struct http_transfer *transfer);

/* http_answer_body(transfer, data, n): bytes of the body.  False: it is blamed. */
bool http_answer_body(struct http_transfer *transfer, const char *data, size_t n);

/* http_answer_announced(transfer, n): so long will the body be.  False: too long, and blamed. */
bool http_answer_announced(struct http_transfer *transfer, uint64_t n);

/* http_answer_write(transfer, data, n): into the file of http_save; false when that failed. */
bool http_answer_write(struct http_transfer *transfer, const char *data, size_t n);

#endif
