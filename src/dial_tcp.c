/* dial_tcp.c -- connecting by TCP, straight to the host.  Floor 3.  See worker/dial_way.h.
 *
 * A name may have several addresses, some of which lead nowhere.  They are tried in the order the
 * system prefers, the two families in turn; the next one when one has failed, or has said nothing
 * for a moment.  The first that stands wins (RFC 8305).
 *
 * "localhost" is this machine, whatever a name server says (RFC 6761), and a written address needs
 * nobody to look it up.
 */
#include "worker/dial_way.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/address.h"
#include "worker/clock.h"
#include "worker/dial_lookup.h"

#define TCP_TRIES  8
#define TCP_MOMENT (200 * CLOCK_MS)

union tcp_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

struct tcp_try {
	struct tcp_dial *tcp;
	struct loop_fd watch;
	int fd; /* plus one: 0 is none */
};

struct tcp_dial {
	struct dial dial;
	struct dial_lookup *lookup;
	union tcp_address addresses[TCP_TRIES];
	struct tcp_try tries[TCP_TRIES];
	size_t count, next, running;
	struct loop_timer moment;
	int fd; /* the one that stands, or -1 */
};

static void tcp_end_try(struct tcp_try *try)
{
	if (try->fd == 0)
		return;
	loop_fd_del(try->tcp->dial.loop, &try->watch);
	close(try->fd - 1);
	try->fd = 0;
	try->tcp->running--;
}

static void tcp_end_tries(struct tcp_dial *tcp)
{
	loop_timer_stop(tcp->dial.loop, &tcp->moment);
	for (size_t i = 0; i < tcp->next; i++)
		tcp_end_try(&tcp->tries[i]);
}

/* --- trying --- */

static void tcp_next(void *arg);

static void tcp_won(struct tcp_try *try)
{
	struct tcp_dial *tcp = try->tcp;
	loop_fd_del(tcp->dial.loop, &try->watch);
	tcp->fd = try->fd - 1;
	try->fd = 0;
	tcp->running--;
	tcp_end_tries(tcp);
	dial_tell(&tcp->dial, 0, NULL);
}

static void tcp_ready(void *arg, uint32_t events)
{
	struct tcp_try *try = arg;
	struct tcp_dial *tcp = try->tcp;
	int code = 0;
	socklen_t size = sizeof code;
	(void)events;
	if (getsockopt(try->fd - 1, SOL_SOCKET, SO_ERROR, &code, &size) == -1)
		code = errno;
	if (code == 0) {
		tcp_won(try);
		return;
	}
	tcp_end_try(try);
	tcp->dial.code = code;
	tcp_next(tcp);
}

/* 0 it is under way, or an errno. */
static int tcp_try(struct tcp_try *try, const union tcp_address *to)
{
	struct loop *loop = try->tcp->dial.loop;
	struct err ignored;
	bool v6 = to->any.sa_family == AF_INET6;
	int fd = socket(to->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return errno;
	address_tune(fd, try->tcp->dial.user_timeout_ms);
	bool going = connect(fd, &to->any, v6 ? sizeof to->v6 : sizeof to->v4) == 0 ||
		     errno == EINPROGRESS;
	int code = errno;
	if (going && loop_fd_add(loop, &try->watch, fd, EPOLLOUT, tcp_ready, try, &ignored) == 0) {
		try->fd = fd + 1;
		try->tcp->running++;
		return 0;
	}
	close(fd);
	return going ? ENOMEM : code;
}

static void tcp_next(void *arg)
{
	struct tcp_dial *tcp = arg;
	while (tcp->next < tcp->count) {
		struct tcp_try *try = &tcp->tries[tcp->next];
		const union tcp_address *to = &tcp->addresses[tcp->next++];
		try->tcp = tcp;
		int code = tcp_try(try, to);
		if (code != 0) {
			tcp->dial.code = code;
			continue;
		}
		if (tcp->next < tcp->count)
			(void)loop_timer_start(tcp->dial.loop, &tcp->moment, TCP_MOMENT, tcp_next,
					       tcp);
		return;
	}
	if (tcp->running == 0)
		dial_tell(&tcp->dial, tcp->dial.code, "connect");
}

/* --- where to --- */

static void tcp_add(struct tcp_dial *tcp, const void *address, size_t size)
{
	if (tcp->count < TCP_TRIES && size <= sizeof *tcp->addresses)
		memcpy(&tcp->addresses[tcp->count++], address, size);
}

/* Is the host written as an address, or known without asking? */
static bool tcp_written(struct tcp_dial *tcp, const char *host, int port)
{
	union tcp_address v4 = {.v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)}};
	union tcp_address v6 = {
		.v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)}};
	bool local = strcasecmp(host, "localhost") == 0;
	bool is_v6 = inet_pton(AF_INET6, local ? "::1" : host, &v6.v6.sin6_addr) == 1;
	bool is_v4 = inet_pton(AF_INET, local ? "127.0.0.1" : host, &v4.v4.sin_addr) == 1;
	if (is_v6)
		tcp_add(tcp, &v6, sizeof v6.v6);
	if (is_v4)
		tcp_add(tcp, &v4, sizeof v4.v4);
	return is_v4 || is_v6;
}

static const struct addrinfo *tcp_of_family(const struct addrinfo *at, int family)
{
	while (at != NULL && at->ai_family != family)
		at = at->ai_next;
	return at;
}

static void tcp_found(void *arg)
{
	struct tcp_dial *tcp = arg;
	const struct addrinfo *first = dial_lookup_found(tcp->lookup);
	if (first == NULL) {
		snprintf(tcp->dial.text, sizeof tcp->dial.text, "%s", dial_lookup_why(tcp->lookup));
		dial_tell(&tcp->dial, 0, "dns");
		return;
	}
	int other = first->ai_family == AF_INET6 ? AF_INET : AF_INET6;
	const struct addrinfo *one = first, *two = tcp_of_family(first, other);
	while (one != NULL || two != NULL) {
		if (one != NULL) {
			tcp_add(tcp, one->ai_addr, one->ai_addrlen);
			one = tcp_of_family(one->ai_next, first->ai_family);
		}
		if (two != NULL) {
			tcp_add(tcp, two->ai_addr, two->ai_addrlen);
			two = tcp_of_family(two->ai_next, other);
		}
	}
	tcp_next(tcp);
}

/* --- the way --- */

static int tcp_start(struct dial *dial, const struct dial_options *options, struct err *err)
{
	struct tcp_dial *tcp = (struct tcp_dial *)dial;
	tcp->fd = -1;
	if (tcp_written(tcp, options->host, options->port)) {
		/* Even what is known at once is told from the loop: one way for the caller. */
		if (loop_timer_start(dial->loop, &tcp->moment, 0, tcp_next, tcp) == -1)
			return err_set(err, ENOMEM, "%s: out of memory", dial->where);
		return 0;
	}
	tcp->lookup =
		dial_lookup_start(dial->loop, options->host, options->port, tcp_found, tcp, err);
	return tcp->lookup != NULL ? 0 : -1;
}

static int tcp_open(struct dial *dial, struct sock *s, bool *keeps, struct err *err)
{
	struct tcp_dial *tcp = (struct tcp_dial *)dial;
	(void)keeps;
	if (sock_open(s, dial->loop, tcp->fd, NULL, NULL, err) == -1)
		return -1;
	tcp->fd = -1;
	return 0;
}

static void tcp_stop(struct dial *dial)
{
	struct tcp_dial *tcp = (struct tcp_dial *)dial;
	tcp_end_tries(tcp);
	if (tcp->lookup != NULL)
		dial_lookup_free(tcp->lookup);
	if (tcp->fd != -1)
		close(tcp->fd);
}

const struct dial_way dial_tcp = {
	.size = sizeof(struct tcp_dial), .start = tcp_start, .open = tcp_open, .stop = tcp_stop};
