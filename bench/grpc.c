/* grpc.c -- the least C that makes gRPC calls: nghttp2, one connection, no loop of its own.
 *
 *	grpc serve PATH			answers every call when it has ended; for both sides of a
 *pair grpc unary PATH N CALLS		N calls in flight until there were CALLS grpc stream PATH
 *MIB		one call that sends messages of 32 KiB
 *
 * The clients print calls a second (or MB/s) and their own CPU time for each (or ns for each KiB).
 */
#include <errno.h>
#include <fcntl.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CHUNK	(32 * 1024)
#define MESSAGE 64
#define WINDOW	(1024 * 1024)
#define HEADER(n, v)                                                                               \
	{                                                                                          \
		(uint8_t *)(uintptr_t)(n), (uint8_t *)(uintptr_t)(v), sizeof(n) - 1,               \
			sizeof(v) - 1, NGHTTP2_NV_FLAG_NONE                                        \
	}

struct peer {
	int fd;
	nghttp2_session *session;
	long left, over;      /* calls to begin, calls that ended */
	size_t at, end;	      /* bytes of the body that is being sent */
	uint8_t out[1 << 17]; /* what the kernel has not taken yet */
	size_t out_size;
};

static uint8_t framed[5 + CHUNK];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static double cpu(void)
{
	struct rusage use;
	getrusage(RUSAGE_SELF, &use);
	return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
	       (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static void frame(uint32_t n)
{
	memset(framed, 'x', sizeof framed);
	framed[0] = 0;
	for (int i = 0; i < 4; i++)
		framed[1 + i] = (uint8_t)(n >> (24 - 8 * i));
}

/* --- bytes --- */

static void flush(struct peer *peer)
{
	while (peer->out_size > 0) {
		ssize_t n = send(peer->fd, peer->out, peer->out_size, MSG_NOSIGNAL);
		if (n == -1 && errno == EAGAIN)
			return;
		if (n == -1)
			exit(0); /* the other side is through */
		memmove(peer->out, peer->out + n, peer->out_size - (size_t)n);
		peer->out_size -= (size_t)n;
	}
}

static void say(struct peer *peer)
{
	const uint8_t *bytes;
	ssize_t n;
	do {
		while (peer->out_size < sizeof peer->out - 65536 &&
		       (n = nghttp2_session_mem_send(peer->session, &bytes)) > 0) {
			memcpy(peer->out + peer->out_size, bytes, (size_t)n);
			peer->out_size += (size_t)n;
		}
		n = (ssize_t)peer->out_size;
		flush(peer);
	} while (n > 0 && peer->out_size == 0);
}

static int hear(struct peer *peer)
{
	static uint8_t in[65536];
	ssize_t n = recv(peer->fd, in, sizeof in, 0);
	if (n == -1 && errno == EAGAIN)
		return 1;
	if (n <= 0 || nghttp2_session_mem_recv(peer->session, in, (size_t)n) < 0)
		return 0;
	return 1;
}

static int turn(struct peer *peer)
{
	struct pollfd wait = {.fd = peer->fd, .events = POLLIN};
	say(peer);
	if (peer->out_size > 0)
		wait.events |= POLLOUT;
	if (poll(&wait, 1, -1) == -1)
		die("poll");
	return (wait.revents & (POLLIN | POLLHUP)) != 0 ? hear(peer) : 1;
}

/* --- calls --- */

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *to, size_t room,
			 uint32_t *flags, nghttp2_data_source *source, void *user)
{
	struct peer *peer = user;
	size_t size = 5 + MESSAGE;
	(void)session;
	(void)id;
	if (source->ptr == NULL) { /* a unary call */
		memcpy(to, framed, size);
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		return (ssize_t)size;
	}
	size = 5 + CHUNK - peer->at % (5 + CHUNK);
	size = size < room ? size : room;
	memcpy(to, framed + peer->at % (5 + CHUNK), size);
	peer->at += size;
	if (peer->at >= peer->end)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)size;
}

static ssize_t read_answer(nghttp2_session *session, int32_t id, uint8_t *to, size_t room,
			   uint32_t *flags, nghttp2_data_source *source, void *user)
{
	static const nghttp2_nv end = HEADER("grpc-status", "0");
	(void)room;
	(void)source;
	(void)user;
	memcpy(to, framed, 5 + MESSAGE);
	*flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
	nghttp2_submit_trailer(session, id, &end, 1);
	return 5 + MESSAGE;
}

static void begin(struct peer *peer, int stream)
{
	static const nghttp2_nv headers[] = {
		HEADER(":method", "POST"),
		HEADER(":scheme", "http"),
		HEADER(":path", "/bench.Bench/Call"),
		HEADER(":authority", "localhost"),
		HEADER("content-type", "application/grpc"),
		HEADER("te", "trailers"),
		HEADER("user-agent", "peer"),
		HEADER("grpc-timeout", "30S"),
	};
	nghttp2_data_provider body = {.read_callback = read_body};
	body.source.ptr = stream ? peer : NULL;
	peer->left--;
	nghttp2_submit_request(peer->session, NULL, headers, 8, &body, NULL);
}

static int closed(nghttp2_session *session, int32_t id, uint32_t code, void *user)
{
	struct peer *peer = user;
	(void)session;
	(void)id;
	if (code != 0)
		fprintf(stderr, "grpc: a call ended with %u\n", code);
	peer->over++;
	if (peer->left > 0)
		begin(peer, 0);
	return 0;
}

static int asked(nghttp2_session *session, const nghttp2_frame *got, void *user)
{
	static const nghttp2_nv head[] = {HEADER(":status", "200"),
					  HEADER("content-type", "application/grpc")};
	static const nghttp2_data_provider body = {.read_callback = read_answer};
	(void)user;
	if ((got->hd.type == NGHTTP2_DATA || got->hd.type == NGHTTP2_HEADERS) &&
	    (got->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0)
		nghttp2_submit_response(session, got->hd.stream_id, head, 2, &body);
	return 0;
}

/* --- sides --- */

static void greet(struct peer *peer, int server)
{
	static const nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW},
		{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1000}};
	nghttp2_session_callbacks *callbacks;
	nghttp2_session_callbacks_new(&callbacks);
	if (server) {
		nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, asked);
		nghttp2_session_server_new(&peer->session, callbacks, peer);
	} else {
		nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, closed);
		nghttp2_session_client_new(&peer->session, callbacks, peer);
	}
	nghttp2_session_callbacks_del(callbacks);
	nghttp2_submit_settings(peer->session, 0, settings, 2);
	nghttp2_session_set_local_window_size(peer->session, 0, 0, 16 * WINDOW);
}

static int unix_socket(const char *path, struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd == -1)
		die("socket");
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(address->sun_path, sizeof address->sun_path, "%s", path);
	return fd;
}

__attribute__((noreturn)) static void serve(const char *path)
{
	struct sockaddr_un address;
	static struct peer peer;
	int fd = unix_socket(path, &address);
	if (bind(fd, (struct sockaddr *)&address, sizeof address) == -1 || listen(fd, 8) == -1)
		die(path);
	frame(MESSAGE);
	for (;;) { /* one client after the other: that is all a bench needs */
		int one = accept4(fd, NULL, NULL, SOCK_NONBLOCK);
		peer.out_size = 0;
		peer.fd = one;
		greet(&peer, 1);
		while (nghttp2_session_want_read(peer.session) && turn(&peer))
			;
		nghttp2_session_del(peer.session);
		close(one);
	}
}

static void join(struct peer *peer, const char *path)
{
	struct sockaddr_un address;
	peer->fd = unix_socket(path, &address);
	if (connect(peer->fd, (struct sockaddr *)&address, sizeof address) == -1)
		die(path);
	fcntl(peer->fd, F_SETFL, O_NONBLOCK);
	greet(peer, 0);
}

int main(int argc, char **argv)
{
	static struct peer peer;
	if (argc == 3 && strcmp(argv[1], "serve") == 0)
		serve(argv[2]);
	int stream = argc == 4 && strcmp(argv[1], "stream") == 0;
	if (!stream && argc != 5) {
		fprintf(stderr, "usage: grpc serve PATH | unary PATH N CALLS | stream PATH MIB\n");
		return 64;
	}
	join(&peer, argv[2]);
	frame(stream ? CHUNK : MESSAGE);
	long calls = stream ? 1 : atol(argv[4]);
	double mib = stream ? atof(argv[3]) : 0, began = now();
	peer.left = calls;
	peer.end = (size_t)(mib * 32) * (5 + CHUNK);
	for (long i = stream ? 1 : atol(argv[3]); i > 0; i--)
		begin(&peer, stream);
	while (peer.over < calls && turn(&peer))
		;
	double took = now() - began;
	if (stream)
		printf("%.0f %.0f\n", mib * 1.048576 / took, cpu() * 1e9 / (mib * 1024));
	else
		printf("%.0f %.2f\n", (double)calls / took, cpu() * 1e6 / (double)calls);
	return 0;
}
