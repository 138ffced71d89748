/* http.c -- a fuzzer of HTTP/1.1: what a hostile server says, and when.
 *
 * The first two bytes of the input choose how we ask; the rest is what the server says, over as
 * many connections as are made.  Four bytes mean something else: 0xff ends the connection, 0xfe
 * resets it, 0xfd is "not yet", 0xfc is as many "x" as are asked for.  Instead of being called
 * (dial_start and its kin are wrapped), the server stands behind the sock as a scripted wire.  It
 * wakes us only as an edge-triggered kernel has to: when something comes after we were told to
 * wait.
 *
 * Besides what the sanitizers find it is a failure when a request does not come to its end, when
 * one that may not be repeated goes out twice, and when one is said not to have gone out that has.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/clock.h"
#include "worker/dial.h"
#include "worker/http.h"
#include "worker/http_client.h"

#define ENDS	 4
#define REQUESTS 4
#define LARGE	 100000
#define IDLE	 100 /* turns in which nothing happens: it hangs */

enum { ENDS_HERE = 0xff, RESETS_HERE = 0xfe, NOT_YET = 0xfd, AS_MANY = 0xfc };
enum {
	SMALL_PIECES = 1,
	SLOW_TO_TAKE = 2,
	REFUSES = 4,
	NO_DIAL = 8,
	CANCELS = 16,
	LATE = 32,
	CLOSES = 64
};

struct end {
	int fd;
	struct sock *sock; /* NULL: free */
	bool waits;	   /* was told to */
	bool over;
};

struct dial {
	struct loop_timer soon;
	void (*done)(void *arg);
	void *arg;
	const char *reason;
};

static struct loop *loop;
static struct end ends[ENDS];
static int file, nowhere;
static char large[LARGE];

static struct {
	const uint8_t *bytes;
	size_t left;
	unsigned choice, kinds, sends, happened;
	size_t arrived; /* bytes of the current request */
	unsigned begun; /* how often its first byte has arrived */
	unsigned turns;
} play;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* --- the server --- */

__attribute__((no_sanitize("coverage"))) static ssize_t end_recv(void *arg, int fd, void *to,
								 size_t n)
{
	struct end *end = arg;
	size_t got = 0;
	(void)fd;
	if ((play.choice & SMALL_PIECES) != 0 && n > 3)
		n = 3;
	while (!end->over && got < n && play.left > 0 && *play.bytes < AS_MANY) {
		((uint8_t *)to)[got++] = *play.bytes++;
		play.left--;
		play.happened++;
	}
	if (got > 0)
		return (ssize_t)got;
	uint8_t mark = play.left > 0 ? *play.bytes : ENDS_HERE;
	if (end->over)
		return 0;
	if (mark == AS_MANY)
		memset(to, 'x', n);
	if (play.left > 0)
		play.bytes++, play.left--, play.happened++;
	if (mark == AS_MANY)
		return (ssize_t)n;
	end->over = mark != NOT_YET;
	end->waits = mark == NOT_YET;
	errno = mark == NOT_YET ? EAGAIN : ECONNRESET;
	return mark == ENDS_HERE ? 0 : -1;
}

static ssize_t end_send(void *arg, int fd, const void *from, size_t n)
{
	struct end *end = arg;
	(void)fd;
	play.sends++;
	if (end->over || ((play.choice & REFUSES) != 0 && play.sends % 5 == 4)) {
		errno = play.left % 2 == 0 ? EPIPE : ENOBUFS;
		return -1;
	}
	if ((play.choice & SLOW_TO_TAKE) != 0 && play.sends % 2 == 0) {
		end->waits = true;
		errno = EAGAIN;
		return -1;
	}
	if ((play.choice & SLOW_TO_TAKE) != 0 && n > 1)
		n = n / 2;
	play.happened++;
	play.arrived += n;
	play.begun += n >= 2 && memcmp(from, "PO", 2) == 0;
	return (ssize_t)n;
}

static int end_shutdown(void *arg, int fd)
{
	(void)arg;
	(void)fd;
	return 0;
}

static void end_close(void *arg, int fd)
{
	struct end *end = arg;
	(void)fd;
	end->sock = NULL;
}

static const struct sock_wire wire = {
	.recv = end_recv, .send = end_send, .shutdown = end_shutdown, .close = end_close};

/* Something has come for whoever was told to wait. */
static void wake(void)
{
	for (size_t i = 0; i < ENDS; i++) {
		if (ends[i].sock == NULL || !ends[i].waits)
			continue;
		ends[i].waits = false;
		loop_fd_set(loop, &ends[i].sock->watch, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
	}
}

/* --- calling it --- */

struct dial *__wrap_dial_start(struct loop *on, const struct dial_options *options,
			       void (*done)(void *arg), void *arg, struct err *err);
int __wrap_dial_finish(struct dial *dial, struct sock *s, struct err *err);
const char *__wrap_dial_reason(const struct dial *dial);
void __wrap_dial_cancel(struct dial *dial);

static void dial_told(void *arg)
{
	const struct dial *dial = arg;
	dial->done(dial->arg);
}

struct dial *__wrap_dial_start(struct loop *on, const struct dial_options *options,
			       void (*done)(void *arg), void *arg, struct err *err)
{
	static const char *const reasons[] = {NULL, "dns", "timeout"};
	size_t which = (play.choice & NO_DIAL) != 0 ? play.left % 4 : 0;
	struct dial *dial = calloc(1, sizeof *dial);
	(void)options;
	if (dial == NULL)
		abort();
	play.happened++;
	dial->done = done;
	dial->arg = arg;
	if (which == 3) {
		free(dial);
		err_set(err, EMFILE, "no dial");
		return NULL;
	}
	dial->reason = reasons[which];
	if (which != 2 || (play.choice & LATE) == 0) /* else it does not come about at all */
		loop_timer_start(on, &dial->soon, 0, dial_told, dial);
	return dial;
}

int __wrap_dial_finish(struct dial *dial, struct sock *s, struct err *err)
{
	struct end *end = ends;
	bool failed = dial->reason != NULL;
	free(dial);
	if (failed)
		return err_set(err, ECONNREFUSED, "nobody there");
	while (end->sock != NULL)
		end++;
	end->sock = s;
	end->over = end->waits = false;
	return sock_open(s, loop, end->fd, &wire, end, err);
}

const char *__wrap_dial_reason(const struct dial *dial)
{
	return dial->reason;
}

void __wrap_dial_cancel(struct dial *dial)
{
	loop_timer_stop(loop, &dial->soon);
	free(dial);
}

/* --- we ask --- */

static void no_change(void *arg)
{
	(void)arg;
}

/* The hook of the loop: so many turns, without ever waiting. */
static bool count_turns(void *arg)
{
	(void)arg;
	if (play.turns-- == 0)
		loop_stop(loop);
	return true;
}

static void turn(void)
{
	wake();
	play.turns = 2;
	loop_run(loop);
}

static struct http_transfer *ask(struct http_client *client, unsigned kind)
{
	static const struct http_header header = {"X-Y", "z", 3, 1};
	struct http_request request = {.method = "GET",
				       .url = "http://h/",
				       .headers = &header,
				       .header_count = 1,
				       .max_head = 2000,
				       .max_body = 3000,
				       .changed = no_change,
				       .body_length = -1,
				       .timeout = 10 * CLOCK_SECOND};
	enum http_reason reason;
	struct err err;
	static const char *const methods[] = {"GET",  "HEAD", "POST", "POST", "PUT",
					      "POST", "PUT",  "GET",  "POST"};
	request.method = methods[kind];
	if (play.left % 5 == 0)
		request.url = "http://[::1]:8?q";
	request.stream = request.patient = kind == 4 || kind == 7;
	if (request.stream)
		request.max_body = 0;
	if (kind == 2 || kind == 6) {
		request.upload = HTTP_BYTES;
		request.body = large;
		request.body_size = kind == 2 ? 5 : LARGE;
	} else if (kind == 3 || kind == 4) {
		request.upload = HTTP_FED;
		request.body_length = kind == 3 ? 1500 + (int64_t)(play.left % 3) * 500 : -1;
	} else if (kind == 5) {
		request.upload = HTTP_FROM_FILE;
		request.body_fd = file;
		request.body_length = LARGE + (play.left % 2 == 0);
	}
	play.arrived = play.begun = 0;
	struct http_transfer *transfer = http_start(client, &request, &reason, &err);
	if (transfer == NULL)
		abort();
	return transfer;
}

/* What a task at the door does between two turns. */
static void attend(struct http_transfer *transfer, unsigned kind, unsigned *pieces)
{
	const struct http_reply *reply = http_reply(transfer);
	if ((kind == 3 || kind == 4) && http_fed(transfer) && *pieces < 3) {
		play.happened++;
		if (++*pieces < 3)
			http_feed(transfer, large, 1000);
		else
			http_feed_end(transfer);
	}
	if (kind == 4 && reply->answered)
		http_take(transfer, buf_size(&reply->body) / 2 + 1);
	if (kind == 7 && reply->answered && !reply->over)
		http_save(transfer, nowhere);
}

static void judge(const struct http_transfer *transfer)
{
	const struct http_reply *reply = http_reply(transfer);
	if (!reply->over || play.begun > 1)
		abort();
	if (reply->reason != HTTP_FINE && !reply->sent && play.arrived > 0)
		abort();
	if (reply->reason == HTTP_FINE && (!reply->answered || reply->status < 200))
		abort();
}

/* False: the client is gone. */
static bool converse(struct http_client *client, unsigned n)
{
	unsigned kind = (play.kinds >> (2 * n) ^ n) % 9, pieces = 0, idle = 0;
	struct http_transfer *transfer = ask(client, kind);
	bool closed = false;
	for (unsigned round = 0; !http_reply(transfer)->over && idle < IDLE; round++) {
		unsigned before = play.happened;
		turn();
		attend(transfer, kind, &pieces);
		idle = play.happened == before ? idle + 1 : 0;
		if ((play.choice & CANCELS) != 0 && round == play.kinds % 16)
			break;
		if ((play.choice & LATE) != 0 && round % 8 == 7)
			clock_jump(6 * CLOCK_SECOND);
		if ((play.choice & CLOSES) != 0 && round == 3 && n == 1) {
			http_client_close(client);
			closed = true;
		}
	}
	if (idle >= IDLE || http_reply(transfer)->over)
		judge(transfer);
	http_free(transfer);
	return !closed;
}

static void prepare(void)
{
	struct err err;
	loop = loop_new(&err);
	loop_turn_hook(loop, count_turns, NULL);
	for (size_t i = 0; i < ENDS; i++) {
		int pair[2];
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == -1)
			abort();
		ends[i].fd = pair[0];
	}
	file = memfd_create("body", 0);
	nowhere = open("/dev/null", O_WRONLY);
	if (write(file, large, sizeof large) != sizeof large || nowhere == -1)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct http_config config = {.connect_timeout = 5 * CLOCK_SECOND,
					   .max_idle = 90 * CLOCK_SECOND};
	struct err err;
	if (size < 2)
		return 0;
	if (loop == NULL)
		prepare();
	memset(&play, 0, sizeof play);
	play.choice = data[0];
	play.kinds = data[1];
	play.bytes = data + 2;
	play.left = size - 2;
	struct http_client *client = http_client_open(loop, &config, &err);
	if (client == NULL)
		abort();
	bool open = true;
	for (unsigned n = 0; open && n < REQUESTS; n++)
		open = converse(client, n);
	if (open)
		http_client_close(client);
	turn();
	struct loop_counts left = loop_counts(loop);
	if (left.fds != 0 || left.timers != 0 || left.deferred != 0)
		abort();
	return 0;
}
