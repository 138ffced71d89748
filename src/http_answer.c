/* http_answer.c -- what comes back: head and body of an answer.  Floor 3.
 *
 * See worker/http.h for the three ways of a body.  Whoever brings the bytes (http_plain.c, or
 * http_curl.c for libcurl) hands them in here, where they are counted and kept, and who waits is
 * woken.  What is refused is blamed; to end the transfer is for whoever brought it.
 *
 * A server is not to be believed: the head is bounded over all heads (1xx answers may come without
 * end), the body over what really came (the announced length is only a hint).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "worker/clock.h"
#include "worker/http_transfer.h"

#define HTTP_HIGH ((size_t)128 * 1024) /* streamed: stop reading above this */

static void http_answer_status(struct http_transfer *transfer, const char *line, size_t n)
{
	const char *space = memchr(line, ' ', n);
	transfer->reply.status = 0;
	for (const char *c = space ? space + 1 : line + n; c < line + n; c++) {
		if (*c < '0' || *c > '9' || transfer->reply.status > 99)
			break;
		transfer->reply.status = transfer->reply.status * 10 + (*c - '0');
	}
	buf_consume(&transfer->reply.head, buf_size(&transfer->reply.head));
	transfer->announced = -1;
}

/* Some believe the last of several lengths, others the first: such an answer is no answer.  ${line}
 * is not terminated, but it ends in a newline. */
static bool http_answer_agrees(struct http_transfer *transfer, const char *line, size_t n)
{
	if (n < 16 || strncasecmp(line, "Content-Length:", 15) != 0)
		return true;
	long long before = transfer->announced;
	transfer->announced = strtoll(line + 15, NULL, 10);
	return before == -1 || before == transfer->announced;
}

static bool http_answer_keep(struct http_transfer *transfer, const char *line, size_t n)
{
	if (!http_answer_agrees(transfer, line, n)) {
		http_blame(transfer, HTTP_PROTOCOL, 0, "the answer has two different lengths");
		return false;
	}
	if (buf_append(&transfer->reply.head, line, n) == -1) {
		http_blame(transfer, HTTP_MEMORY, errno, "out of memory for the answer");
		return false;
	}
	return true;
}

static bool http_answer_bounded(struct http_transfer *transfer, size_t n)
{
	transfer->head_seen += n;
	if (transfer->head_seen <= transfer->reply.head.ceiling)
		return true;
	struct err text;
	err_set(&text, 0, "the head of the answer is longer than %zu bytes",
		transfer->reply.head.ceiling);
	http_blame(transfer, HTTP_TOO_BIG, 0, text.text);
	return false;
}

bool http_answer_line(struct http_transfer *transfer, const char *line, size_t n)
{
	struct http_reply *reply = &transfer->reply;
	transfer->progress = clock_mono();
	if (!http_answer_bounded(transfer, n))
		return false;
	if (reply->answered) /* trailers: nobody asks for them */
		return true;
	if (n >= 5 && memcmp(line, "HTTP/", 5) == 0) {
		http_answer_status(transfer, line, n);
	} else if (line[0] == '\r' || line[0] == '\n') {
		reply->answered = reply->status >= 200; /* 100 and 103 come before the answer */
		if (reply->answered)
			http_changed(transfer);
	} else {
		return http_answer_keep(transfer, line, n);
	}
	return true;
}

bool http_answer_write(struct http_transfer *transfer, const char *data, size_t n)
{
	while (n > 0) {
		ssize_t done = write(transfer->save_fd, data, n);
		if (done == -1 && errno == EINTR)
			continue;
		if (done == -1) {
			struct err text;
			err_errno(&text, "writing the answer to a file");
			http_blame(transfer, HTTP_FILE, text.code, text.text);
			return false;
		}
		data += done;
		n -= (size_t)done;
	}
	return true;
}

static bool http_answer_store(struct http_transfer *transfer, const char *data, size_t n)
{
	if (transfer->save_fd != -1)
		return http_answer_write(transfer, data, n);
	if (buf_append(&transfer->reply.body, data, n) == -1) {
		http_blame(transfer, HTTP_MEMORY, errno, "out of memory for the answer");
		return false;
	}
	return true;
}

bool http_answer_full(const struct http_transfer *transfer)
{
	return transfer->stream && transfer->save_fd == -1 &&
	       buf_size(&transfer->reply.body) >= HTTP_HIGH;
}

bool http_answer_announced(struct http_transfer *transfer, uint64_t n)
{
	if (transfer->max_body == 0 || n <= transfer->max_body)
		return true;
	struct err text;
	err_set(&text, 0, "the body of the answer is longer than %llu bytes",
		(unsigned long long)transfer->max_body);
	http_blame(transfer, HTTP_TOO_BIG, 0, text.text);
	return false;
}

bool http_answer_body(struct http_transfer *transfer, const char *data, size_t n)
{
	struct http_reply *reply = &transfer->reply;
	transfer->progress = clock_mono();
	if (!http_answer_announced(transfer, reply->received + n) ||
	    !http_answer_store(transfer, data, n))
		return false;
	reply->received += n;
	if (transfer->stream)
		http_changed(transfer);
	return true;
}
