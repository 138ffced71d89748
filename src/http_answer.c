/* http_answer.c -- what comes back: head and body of an answer.  Floor 3.
 *
 * See worker/http.h for the three ways of a body.  Whoever brings the bytes (http_plain.c, or
 * http_curl.c for libcurl) hands them in here, where they are counted and kept, and who waits is
 * woken.  What is refused is blamed; to end the transfer is for whoever brought it.
 *
 * A server is not to be believed: the head is bounded over all heads (1xx answers may come without
 * end), the body over what really came (the announced length is only a hint).  Where two readings
 * of a line are possible it is refused: somebody on the way may have chosen the other one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "worker/http_check.h"
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

static bool http_answer_refuse(struct http_transfer *transfer, const char *why)
{
	http_blame(transfer, HTTP_PROTOCOL, 0, why);
	return false;
}

bool http_answer_is_blank(const char *line, size_t n)
{
	return line[0] == '\n' || (n == 2 && line[0] == '\r');
}

const char *http_answer_value(const char *line, size_t n, const char *name, size_t *size)
{
	size_t length = strlen(name);
	if (n <= length || line[length] != ':' || strncasecmp(line, name, length) != 0)
		return NULL;
	const char *from = line + length + 1, *to = line + n;
	while (from < to && (*from == ' ' || *from == '\t'))
		from++;
	while (to > from && (to[-1] == ' ' || to[-1] == '\t' || to[-1] == '\r' || to[-1] == '\n'))
		to--;
	*size = (size_t)(to - from);
	return from;
}

/* Some believe the last of several lengths, others the first: such an answer is no answer. */
static bool http_answer_length(struct http_transfer *transfer, const char *value, size_t n)
{
	int64_t length = 0, before = transfer->announced;
	bool number = n > 0 && n <= 18;
	for (size_t i = 0; number && i < n; i++) {
		number = value[i] >= '0' && value[i] <= '9';
		length = length * 10 + (value[i] - '0');
	}
	if (!number)
		return http_answer_refuse(transfer, "the length of the answer is no number");
	transfer->announced = length;
	return before == -1 || before == length ||
	       http_answer_refuse(transfer, "the answer has two different lengths");
}

/* A name and a colon, or more of the line before. */
static bool http_answer_header(struct http_transfer *transfer, const char *line, size_t n)
{
	const char *colon = memchr(line, ':', n), *value;
	bool folded = (line[0] == ' ' || line[0] == '\t') && buf_size(&transfer->reply.head) > 0;
	bool named = colon != NULL && http_check_token(line, (size_t)(colon - line));
	size_t size;
	if (memchr(line, '\0', n) != NULL || (!folded && !named))
		return http_answer_refuse(transfer, "a line of the answer's head is no header");
	value = http_answer_value(line, n, "Content-Length", &size);
	return value == NULL || http_answer_length(transfer, value, size);
}

static bool http_answer_keep(struct http_transfer *transfer, const char *line, size_t n)
{
	if (!http_answer_header(transfer, line, n))
		return false;
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
	if (!http_answer_bounded(transfer, n))
		return false;
	if (reply->answered) /* trailers: nobody asks for them */
		return true;
	if (!transfer->in_head) {
		transfer->in_head = true;
		http_answer_status(transfer, line, n);
	} else if (http_answer_is_blank(line, n)) {
		transfer->in_head = false;
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
	if (!http_answer_announced(transfer, reply->received + n) ||
	    !http_answer_store(transfer, data, n))
		return false;
	reply->received += n;
	if (transfer->stream)
		http_changed(transfer);
	return true;
}
