/* dial.c -- connecting to somebody: TCP, TLS, through a proxy, or a Unix socket.  Floor 3.
 *
 * See worker/dial.h, and worker/dial_way.h for who does what.
 *
 * A Unix connection is made here and now; the kernel answers EAGAIN only when the listener's
 * backlog is full, and offers nothing to wait for, so the dial asks again a little later.
 */
#include "worker/dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/address.h"
#include "worker/clock.h"
#include "worker/dial_way.h"

#define DIAL_AGAIN_FIRST (5 * CLOCK_MS)
#define DIAL_AGAIN_MOST	 (250 * CLOCK_MS)

/* --- the end of a dial --- */

static void dial_over(struct dial *dial, int code, const char *reason)
{
	dial->code = code;
	dial->reason = reason;
	if (!dial->working)
		return;
	dial->working = false;
	loop_outside(dial->loop, -1);
	loop_timer_stop(dial->loop, &dial->limit);
}

/* Once: what has been told about may lie for a moment before somebody finishes it. */
void dial_tell(struct dial *dial, int code, const char *reason)
{
	if (!dial->working)
		return;
	dial_over(dial, code, reason);
	dial->done(dial->arg);
}

static void dial_late(void *arg)
{
	struct dial *dial = arg;
	snprintf(dial->text, sizeof dial->text, "no connection within the time allowed");
	dial_tell(dial, ETIMEDOUT, "timeout");
}

void dial_free(struct dial *dial)
{
	dial_over(dial, dial->code, dial->reason);
	dial->way->stop(dial);
	free(dial);
}

void dial_cancel(struct dial *dial)
{
	dial_free(dial);
}

const char *dial_reason(const struct dial *dial)
{
	return dial->reason;
}

/* --- Unix --- */

struct unix_dial {
	struct dial dial;
	int fd;
	struct loop_timer again;
	int64_t pause;
	struct sockaddr_un address;
	socklen_t length;
};

static void unix_try(void *arg);

/* 1 it stands, 0 asked for again later, -1 it will not be. */
static int unix_connect(struct unix_dial *way)
{
	if (connect(way->fd, (struct sockaddr *)&way->address, way->length) == 0)
		return 1;
	if (errno != EAGAIN && errno != EINTR)
		return -1;
	if (loop_timer_start(way->dial.loop, &way->again, way->pause, unix_try, way) == -1) {
		errno = ENOMEM;
		return -1;
	}
	way->pause = way->pause * 2 < DIAL_AGAIN_MOST ? way->pause * 2 : DIAL_AGAIN_MOST;
	return 0;
}

static void unix_try(void *arg)
{
	struct unix_dial *way = arg;
	int stands = unix_connect(way);
	int code = errno;
	if (stands == 1)
		dial_tell(&way->dial, 0, NULL);
	else if (stands == -1)
		dial_tell(&way->dial, code, "connect");
}

static int unix_start(struct dial *dial, const struct dial_options *options, struct err *err)
{
	struct unix_dial *way = (struct unix_dial *)dial;
	way->fd = -1;
	if (options->tls)
		return err_set(err, EINVAL, "%s: TLS over a Unix socket is not offered",
			       dial->where);
	if (address_unix(options->unix_path, options->unix_length, &way->address, &way->length,
			 err) == -1)
		return -1;
	way->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (way->fd == -1)
		return err_errno(err, "%s", dial->where);
	/* Even what is known at once is told from the loop: one way for the caller. */
	way->pause = DIAL_AGAIN_FIRST;
	if (loop_timer_start(dial->loop, &way->again, 0, unix_try, way) == -1)
		return err_set(err, ENOMEM, "%s: out of memory", dial->where);
	return 0;
}

static int unix_open(struct dial *dial, struct sock *s, bool *keeps, struct err *err)
{
	struct unix_dial *way = (struct unix_dial *)dial;
	(void)keeps;
	if (sock_open(s, dial->loop, way->fd, NULL, NULL, err) == -1)
		return -1;
	way->fd = -1;
	return 0;
}

static void unix_stop(struct dial *dial)
{
	struct unix_dial *way = (struct unix_dial *)dial;
	loop_timer_stop(dial->loop, &way->again);
	if (way->fd != -1)
		close(way->fd);
}

static const struct dial_way dial_unix = {.size = sizeof(struct unix_dial),
					  .start = unix_start,
					  .open = unix_open,
					  .stop = unix_stop};

/* --- the two ends of the story --- */

bool dial_is_loopback(const char *host)
{
	struct in_addr v4;
	struct in6_addr v6;
	if (inet_pton(AF_INET, host, &v4) == 1)
		return ntohl(v4.s_addr) >> IN_CLASSA_NSHIFT == IN_LOOPBACKNET;
	if (inet_pton(AF_INET6, host, &v6) == 1)
		return IN6_IS_ADDR_LOOPBACK(&v6);
	return strcasecmp(host, "localhost") == 0;
}

/* What libcurl would ask the environment for, had it not been told. */
static bool dial_environment_proxy(void)
{
	static const char *const names[] = {"http_proxy", "all_proxy", "ALL_PROXY"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		const char *value = getenv(names[i]);
		if (value != NULL && value[0] != '\0')
			return true;
	}
	return false;
}

static const struct dial_way *dial_which(const struct dial_options *options)
{
	if (options->unix_path != NULL)
		return &dial_unix;
	if (options->tls)
		return &dial_curl;
	if (dial_is_loopback(options->host))
		return &dial_tcp;
	bool proxy = options->proxy != NULL ? options->proxy[0] != '\0' : dial_environment_proxy();
	return proxy ? &dial_curl : &dial_tcp;
}

static void dial_name(struct dial *dial, const struct dial_options *options)
{
	if (options->unix_path != NULL)
		snprintf(dial->where, sizeof dial->where, "%.*s", (int)options->unix_length,
			 options->unix_path);
	else
		snprintf(dial->where, sizeof dial->where, "%s:%d", options->host, options->port);
}

/* A host name may become part of a URL; whatever could end it early is refused. */
static int dial_check(const char *host, struct err *err)
{
	size_t good = strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				   "0123456789.-_:");
	if (host[0] == '\0' || host[good] != '\0' || good > 255)
		return err_set(err, EINVAL, "\"%.80s\" is not a host name", host);
	return 0;
}

struct dial *dial_start(struct loop *loop, const struct dial_options *options,
			void (*done)(void *arg), void *arg, struct err *err)
{
	if (options->unix_path == NULL &&
	    (dial_check(options->host, err) == -1 ||
	     (options->name != NULL && dial_check(options->name, err) == -1)))
		return NULL;
	const struct dial_way *way = dial_which(options);
	struct dial *dial = calloc(1, way->size);
	if (dial == NULL) {
		err_set(err, ENOMEM, "out of memory for a connection");
		return NULL;
	}
	*dial = (struct dial){.way = way, .loop = loop, .done = done, .arg = arg};
	dial->user_timeout_ms = options->user_timeout_ms;
	dial_name(dial, options);
	int started = way->start(dial, options, err);
	if (started == -1 ||
	    loop_timer_start(loop, &dial->limit, options->timeout, dial_late, dial) == -1) {
		if (started != -1)
			err_set(err, ENOMEM, "%s: out of memory", dial->where);
		dial_free(dial);
		return NULL;
	}
	dial->working = true;
	loop_outside(loop, 1);
	return dial;
}

static int dial_explain(const struct dial *dial, struct err *err)
{
	if (dial->text[0] != '\0')
		return err_set(err, dial->code, "connecting to %.120s: %.120s", dial->where,
			       dial->text);
	return err_set(err, dial->code, "connecting to %.120s: %s", dial->where,
		       strerror(dial->code));
}

int dial_finish(struct dial *dial, struct sock *s, struct err *err)
{
	bool keeps = false;
	int opened = dial->reason != NULL ? dial_explain(dial, err)
					  : dial->way->open(dial, s, &keeps, err);
	if (!keeps)
		dial_free(dial);
	return opened;
}
