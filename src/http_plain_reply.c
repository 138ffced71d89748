/* http_plain_reply.c -- an answer taken apart: HTTP/1.1 and 1.0.  Floor 3.
 *
 * See worker/http_plain.h.  Strict where two readings are possible: chunked is the only coding, and
 * neither it nor a length goes on in a second line (http_answer.c has more of that).  What comes
 * after an answer is nobody's, and ends the connection.
 */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "worker/clock.h"
#include "worker/http_plain.h"

#define REPLY_PIECE ((size_t)64 * 1024) /* of a body at once */
#define REPLY_LINE  1024		/* the line before a chunk, and its extensions */

void http_plain_reply_begin(struct plain *plain)
{
	plain->next = PLAIN_STATUS;
	plain->keep = true;
	plain->closes = plain->old = plain->chunked = plain->framing = plain->whole = false;
	plain->transfer.head_seen = 0;
	plain->transfer.announced = -1;
}

static bool reply_refuse(struct plain *plain, const char *why)
{
	http_blame(&plain->transfer, HTTP_PROTOCOL, 0, why);
	return false;
}

/* --- lines --- */

/* "HTTP/1.1 200 OK"; the words may be missing. */
static bool reply_status(struct plain *plain, const char *line, size_t n)
{
	static const char digits[] = "0123456789";
	bool good = n >= 13 && memcmp(line, "HTTP/1.", 7) == 0 &&
		    (line[7] == '0' || line[7] == '1') && line[8] == ' ' && line[9] >= '1' &&
		    line[9] <= '9' && memchr(digits, line[10], 10) != NULL &&
		    memchr(digits, line[11], 10) != NULL &&
		    (line[12] == ' ' || line[12] == '\r' || line[12] == '\n');
	if (!good)
		return reply_refuse(plain, "the answer is not HTTP/1.1");
	plain->old = line[7] == '0';
	plain->keep = !plain->old;
	plain->closes = plain->chunked = plain->framing = false;
	plain->next = PLAIN_HEAD;
	return true;
}

static bool reply_is(const char *value, size_t n, const char *word)
{
	return n == strlen(word) && strncasecmp(value, word, n) == 0;
}

/* A list of words; "close" wins, wherever it stands. */
static void reply_connection(struct plain *plain, const char *value, size_t n)
{
	while (n > 0) {
		const char *comma = memchr(value, ',', n);
		size_t size = comma != NULL ? (size_t)(comma - value) : n, word = size;
		while (word > 0 && (value[word - 1] == ' ' || value[word - 1] == '\t'))
			word--;
		if (reply_is(value, word, "close"))
			plain->closes = true;
		else if (reply_is(value, word, "keep-alive"))
			plain->keep = true;
		size_t step = comma != NULL ? size + 1 : size;
		while (step < n && (value[step] == ' ' || value[step] == '\t'))
			step++;
		value += step;
		n -= step;
	}
}

/* What decides where the answer ends, and whether the connection does. */
static bool reply_header(struct plain *plain, const char *line, size_t n)
{
	size_t size;
	const char *value;
	if (line[0] == ' ' || line[0] == '\t')
		return !plain->framing ||
		       reply_refuse(plain, "what says where the answer ends is folded");
	plain->framing = http_answer_value(line, n, "Content-Length", &size) != NULL;
	if ((value = http_answer_value(line, n, "Connection", &size)) != NULL)
		reply_connection(plain, value, size);
	if ((value = http_answer_value(line, n, "Transfer-Encoding", &size)) == NULL)
		return true;
	if (plain->chunked || !reply_is(value, size, "chunked"))
		return reply_refuse(plain, "the answer has a coding that was not asked for");
	return plain->framing = plain->chunked = true;
}

/* The head is complete: is there a body, and where does it end? */
static bool reply_body(struct plain *plain)
{
	struct http_transfer *transfer = &plain->transfer;
	int status = transfer->reply.status;
	if (status == 101)
		return reply_refuse(plain, "the server changes to a protocol nobody asked for");
	if (!transfer->reply.answered) { /* 100 and 103: the answer is still to come */
		plain->next = PLAIN_STATUS;
		return true;
	}
	bool none = transfer->head || status == 204 || status == 304;
	/* Two ways to say it, or one that is too new for it: who forwarded this? */
	if (plain->closes || (plain->chunked && (transfer->announced >= 0 || plain->old)))
		plain->keep = false;
	plain->left = 0;
	if (!none && plain->chunked) {
		plain->next = PLAIN_CHUNK;
		return true;
	}
	if (!none && transfer->announced < 0) {
		plain->keep = false;
		plain->next = PLAIN_END;
		return true;
	}
	plain->next = PLAIN_LENGTH;
	plain->left = none ? 0 : (uint64_t)transfer->announced;
	return http_answer_announced(transfer, plain->left);
}

static bool reply_line(struct plain *plain, const char *line, size_t n)
{
	bool first = plain->next == PLAIN_STATUS, end = !first && http_answer_is_blank(line, n);
	bool good = end || (first ? reply_status(plain, line, n) : reply_header(plain, line, n));
	return good && http_answer_line(&plain->transfer, line, n) && (!end || reply_body(plain));
}

/* --- chunks --- */

static int reply_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "1a2b", "1a2b;name=value"; the last one is 0.  The line ends in a newline. */
static bool reply_chunk(struct plain *plain, const char *line, size_t n)
{
	size_t digits = 0;
	plain->left = 0;
	for (; digits < 15 && reply_digit(line[digits]) >= 0; digits++)
		plain->left = plain->left * 16 + (uint64_t)reply_digit(line[digits]);
	size_t at = digits + strspn(line + digits, " \t");
	if (digits == 0 || (line[at] != ';' && !http_answer_is_blank(line + at, n - at)))
		return reply_refuse(plain, "a chunk of the answer has no sensible size");
	plain->next = plain->left > 0 ? PLAIN_CHUNK_DATA : PLAIN_TRAILER;
	return true;
}

static bool reply_chunk_end(struct plain *plain, const char *line, size_t n)
{
	plain->next = PLAIN_CHUNK;
	return http_answer_is_blank(line, n) ||
	       reply_refuse(plain, "a chunk of the answer is longer than it says");
}

/* --- one step --- */

static bool reply_data(struct plain *plain, const char *data, size_t n)
{
	if (plain->next != PLAIN_END)
		plain->left -= n;
	if (!http_answer_body(&plain->transfer, data, n))
		return false;
	if (plain->next == PLAIN_CHUNK_DATA && plain->left == 0)
		plain->next = PLAIN_CHUNK_END;
	return true;
}

/* Takes what has come; false: the transfer is over. */
static bool reply_take(struct plain *plain)
{
	struct sock *sock = &plain->conn->sock;
	const char *bytes = sock_bytes(sock);
	size_t n = sock->reader.size;
	bool end = plain->next == PLAIN_TRAILER && http_answer_is_blank(bytes, n), good = false;
	switch (plain->next) {
	case PLAIN_STATUS:
	case PLAIN_HEAD:
		good = reply_line(plain, bytes, n);
		break;
	case PLAIN_TRAILER:
		good = http_answer_line(&plain->transfer, bytes, n);
		break;
	case PLAIN_CHUNK:
		good = reply_chunk(plain, bytes, n);
		break;
	case PLAIN_CHUNK_END:
		good = reply_chunk_end(plain, bytes, n);
		break;
	default:
		good = reply_data(plain, bytes, n);
	}
	sock_take(sock, n);
	plain->whole = good && (end || (plain->next == PLAIN_LENGTH && plain->left == 0));
	if (good && !plain->whole)
		return true;
	http_over(&plain->transfer);
	return false;
}

/* --- reading --- */

static void reply_received(void *arg);

static enum sock_result reply_read(struct plain *plain)
{
	struct sock *sock = &plain->conn->sock;
	size_t most = plain->transfer.reply.head.ceiling;
	enum sock_want want = SOCK_LINE;
	switch (plain->next) {
	case PLAIN_LENGTH:
	case PLAIN_CHUNK_DATA:
		want = SOCK_SOME;
		most = plain->left < REPLY_PIECE ? (size_t)plain->left : REPLY_PIECE;
		break;
	case PLAIN_END:
		want = SOCK_SOME;
		most = REPLY_PIECE;
		break;
	case PLAIN_CHUNK:
		most = REPLY_LINE;
		break;
	case PLAIN_CHUNK_END:
		most = 2;
		break;
	default:
		break;
	}
	return sock_read(sock, want, most, -1, reply_received, plain);
}

/* A line without end; of a head that is its length, of a chunk nonsense. */
static void reply_too_long(struct plain *plain)
{
	struct http_transfer *transfer = &plain->transfer;
	struct err text;
	err_set(&text, 0, "the head of the answer is longer than %zu bytes",
		transfer->reply.head.ceiling);
	if (plain->next == PLAIN_CHUNK)
		reply_refuse(plain, "a chunk of the answer has no sensible size");
	else if (plain->next == PLAIN_CHUNK_END)
		reply_refuse(plain, "a chunk of the answer is longer than it says");
	else
		http_blame(transfer, HTTP_TOO_BIG, 0, text.text);
	http_over(transfer);
}

/* False: the transfer is over. */
static bool reply_step(struct plain *plain, enum sock_result result)
{
	if (result == SOCK_DONE)
		return reply_take(plain);
	int code = result == SOCK_FAILED ? plain->conn->sock.reader.code : 0;
	if (code == 0 && plain->next == PLAIN_END) {
		http_over(&plain->transfer);
	} else if (code == EMSGSIZE) {
		reply_too_long(plain);
	} else if (code == ENOMEM) {
		http_blame(&plain->transfer, HTTP_MEMORY, code, "out of memory for the answer");
		http_over(&plain->transfer);
	} else {
		http_plain_lost(plain,
				code == EPIPE ? 0 : code); /* EPIPE: in the middle of a line */
	}
	return false;
}

static void reply_go(struct plain *plain, enum sock_result result)
{
	if (result != SOCK_WAIT)
		plain->transfer.progress = clock_mono();
	while (result != SOCK_WAIT && reply_step(plain, result)) {
		if (http_answer_full(&plain->transfer)) {
			plain->transfer.receive_paused = true;
			return;
		}
		result = reply_read(plain);
	}
}

static void reply_received(void *arg)
{
	struct plain *plain = arg;
	reply_go(plain, plain->conn->sock.reader.result);
}

bool http_plain_reply_listen(struct plain *plain)
{
	return reply_read(plain) == SOCK_WAIT && buf_size(&plain->conn->sock.in) == 0;
}

void http_plain_reply_receive(struct plain *plain)
{
	if (!plain->transfer.receive_paused)
		reply_go(plain, reply_read(plain));
}
