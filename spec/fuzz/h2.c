/* h2.c -- a fuzzer of HTTP/2: what a hostile peer sends, as a server and as a client.
 *
 * The first byte of the input chooses who we are and in what pieces it arrives; the rest is what
 * the peer says, after the greetings (unless the byte says to leave those to the input, too).  A
 * scripted wire stands behind the sock, so nothing but memory is touched.  Whoever reads a stream
 * does what the doors do: waits for bytes, takes them, answers, resets.
 */
#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/h2.h"
#include "worker/loop.h"

#define STREAMS 8
#define TURNS	64

enum { AS_SERVER = 1, UNGREETED = 2, SMALL_PIECES = 4, SLOW_PEER = 8, READ_LARGE = 16 };

struct peer {
	const uint8_t *bytes;
	size_t left, greeting, piece;
	unsigned choice, refusals;
};

static struct loop *loop;
static unsigned turns;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t greeting_of_client[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
					    "\0\0\0\4\0\0\0\0\0"
					    "\0\0\0\4\1\0\0\0\0";
static const uint8_t greeting_of_server[] = "\0\0\0\4\0\0\0\0\0\0\0\0\4\1\0\0\0\0";

static size_t take(void *to, size_t n, const uint8_t **from, size_t *left)
{
	n = n < *left ? n : *left;
	memcpy(to, *from, n);
	*from += n;
	*left -= n;
	return n;
}

static ssize_t peer_recv(void *arg, int fd, void *to, size_t n)
{
	struct peer *peer = arg;
	(void)fd;
	if (n > peer->piece)
		n = peer->piece;
	if (peer->greeting > 0) {
		bool server = (peer->choice & AS_SERVER) != 0;
		size_t all = (server ? sizeof greeting_of_client : sizeof greeting_of_server) - 1;
		const uint8_t *from = server ? greeting_of_client : greeting_of_server;
		from += all - peer->greeting;
		return (ssize_t)take(to, n, &from, &peer->greeting);
	}
	return (ssize_t)take(to, n, &peer->bytes, &peer->left); /* 0: it hung up */
}

static ssize_t peer_send(void *arg, int fd, const void *from, size_t n)
{
	struct peer *peer = arg;
	(void)fd;
	(void)from;
	if ((peer->choice & SLOW_PEER) != 0 && ++peer->refusals % 4 != 0) {
		errno = EAGAIN;
		return -1;
	}
	return (ssize_t)n;
}

static int peer_shutdown(void *arg, int fd)
{
	(void)arg;
	(void)fd;
	return 0;
}

static void peer_close(void *arg, int fd)
{
	(void)arg;
	(void)fd;
}

static const struct sock_wire peer_wire = {
	.recv = peer_recv, .send = peer_send, .shutdown = peer_shutdown, .close = peer_close};

static void no_change(void *arg)
{
	(void)arg;
}

/* The hook of the loop: so many turns, without ever waiting. */
static bool count_turns(void *arg)
{
	(void)arg;
	if (++turns >= TURNS)
		loop_stop(loop);
	return true;
}

static void run(unsigned more)
{
	turns = TURNS - more;
	loop_run(loop);
}

static void walk(const struct buf *block)
{
	struct h2_header header;
	size_t at = 0, sum = 0;
	while (h2_header_next(block, &at, &header))
		sum += header.name_size + header.value_size + (unsigned char)header.name[0];
	(void)sum;
}

static void read_stream(struct h2_stream *stream, unsigned choice)
{
	walk(&stream->head);
	walk(&stream->trailers);
	h2_stream_want(stream, (choice & READ_LARGE) != 0 ? (size_t)1 << 20 : 5);
	size_t held = buf_size(&stream->in);
	h2_stream_take(stream, held > 7 ? held / 2 : held);
}

static struct h2_stream *ask(struct h2 *h2)
{
	static const struct h2_header headers[] = {
		{":method", "POST", 7, 4},  {":scheme", "http", 7, 4}, {":path", "/a.B/C", 5, 6},
		{":authority", "x", 10, 1}, {"te", "trailers", 2, 8},
	};
	struct err err;
	struct h2_stream *stream = h2_request(h2, headers, 5, false, no_change, NULL, &err);
	if (stream != NULL)
		h2_stream_send(stream, "\0\0\0\0\14", 5, "hello, world", 12, false);
	return stream;
}

static void answer(struct h2_stream *stream, unsigned which)
{
	static const struct h2_header head = {":status", "200", 7, 3};
	static const struct h2_header end = {"grpc-status", "0", 11, 1};
	struct err err;
	h2_stream_respond(stream, &head, 1, which % 4 == 3, &err);
	if (which % 4 == 2)
		h2_stream_reset(stream, NGHTTP2_CANCEL);
	else if (h2_stream_send(stream, "\0\0\0\0\14", 5, "hello, world", 12, false) == 0)
		h2_stream_finish(stream, &end, 1, &err);
}

static void converse(struct h2 *h2, unsigned choice)
{
	struct h2_stream *streams[STREAMS] = {NULL};
	size_t count = 0;
	for (unsigned i = 0; i < 3 && (choice & AS_SERVER) == 0; i++)
		streams[count++] = ask(h2);
	for (unsigned round = 0; round < 6; round++) {
		run(4);
		while (count < STREAMS && (streams[count] = h2_accept(h2)) != NULL)
			answer(streams[count++], round);
		for (size_t i = 0; i < count; i++)
			if (streams[i] != NULL)
				read_stream(streams[i], choice);
		if (round == 3 && count > 1 && streams[1] != NULL) {
			h2_stream_free(streams[1]);
			streams[1] = NULL;
		}
		if (round == 4)
			h2_goaway(h2, 0, "bye");
	}
	/* Some go before their connection, some after it. */
	for (size_t i = 0; i < count; i += 2)
		if (streams[i] != NULL)
			h2_stream_free(streams[i]);
	h2_close(h2);
	for (size_t i = 1; i < count; i += 2)
		if (streams[i] != NULL)
			h2_stream_free(streams[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int pair[2] = {-1, -1};
	struct err err;
	if (size == 0)
		return 0;
	if (loop == NULL) {
		loop = loop_new(&err);
		loop_turn_hook(loop, count_turns, NULL);
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == -1)
			abort();
	}
	unsigned choice = data[0];
	bool server = (choice & AS_SERVER) != 0;
	struct peer peer = {
		.bytes = data + 1,
		.left = size - 1,
		.piece = (choice & SMALL_PIECES) != 0 ? 1 + choice / 32 : 65536,
		.choice = choice,
		.greeting = (choice & UNGREETED) != 0 ? 0
			    : server		      ? sizeof greeting_of_client - 1
						      : sizeof greeting_of_server - 1,
	};
	struct sock sock;
	const struct h2_options options = {
		.server = server, .max_header = 4096, .window = 65535, .max_streams = 4};
	if (sock_open(&sock, loop, pair[0], &peer_wire, &peer, &err) == -1)
		abort();
	struct h2 *h2 = h2_open(loop, &sock, &options, &err);
	if (h2 == NULL)
		abort();
	converse(h2, choice);
	struct loop_counts left = loop_counts(loop);
	if (left.fds != 0 || left.timers != 0 || left.deferred != 0)
		abort();
	return 0;
}
