/* sock.c -- a stream of bytes to another program: reading, writing, giving up in time.  Floor 3.
 *
 * See worker/sock.h.  The fd is registered once, edge-triggered, for both directions and for life:
 * an operation first tries, and only waits after the kernel has said EAGAIN, so no edge can be
 * missed, and a peer that hangs up while nobody reads costs one event instead of a busy loop.
 *
 * The input buffer exists only while it holds something.  What is asked of the kernel starts small,
 * doubles while it comes back full and halves while it comes back nearly empty, so a thousand
 * connections that drip cost little and one that streams costs few calls.
 *
 * A peer as fast as we are could keep one callback busy for ever.  After SOCK_SHARE bytes the rest
 * is deferred to the next turn; since the kernel was not drained, no edge would announce it.  For
 * the same reason, after SOCK_EAGER operations that were answered at once the next one waits for a
 * turn even if it need not: a task that reads in a loop would otherwise never let others run.
 */
#include "worker/sock.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define SOCK_CHUNK_LEAST ((size_t)2 * 1024)
#define SOCK_CHUNK_MOST	 ((size_t)64 * 1024)
#define SOCK_EAGER	 64
#define SOCK_SHARE	 ((size_t)512 * 1024)

/* --- the plain wire --- */

static ssize_t sock_plain_recv(void *arg, int fd, void *to, size_t n)
{
	(void)arg;
	return recv(fd, to, n, 0);
}

static ssize_t sock_plain_send(void *arg, int fd, const void *from, size_t n)
{
	(void)arg;
	return send(fd, from, n, MSG_NOSIGNAL);
}

static int sock_plain_shutdown(void *arg, int fd)
{
	(void)arg;
	return shutdown(fd, SHUT_WR);
}

static void sock_plain_close(void *arg, int fd)
{
	(void)arg;
	close(fd);
}

static const struct sock_wire sock_plain = {.recv = sock_plain_recv,
					    .send = sock_plain_send,
					    .shutdown = sock_plain_shutdown,
					    .close = sock_plain_close};

/* --- how an operation ends --- */

static enum sock_result sock_fail(struct sock_op *op, int code, const char *reason)
{
	op->code = code;
	op->reason = reason;
	return op->result = SOCK_FAILED;
}

static const char *sock_reason(int code)
{
	switch (code) {
	case ECONNRESET:
		return "reset";
	case EPIPE:
		return "closed";
	case ETIMEDOUT:
		return "timeout";
	case EPROTO:
		return "tls";
	default:
		return "io";
	}
}

void sock_stop(struct sock *s, struct sock_op *op)
{
	if (!op->waiting)
		return;
	op->waiting = false;
	loop_timer_stop(s->loop, &op->timer);
	if (op == &s->writer && op->begun)
		s->torn = true;
}

static void sock_finish(struct sock *s, struct sock_op *op, enum sock_result result)
{
	op->result = result;
	bool torn = s->torn;
	sock_stop(s, op);
	/* Stopping a write that has begun tears the stream; this one has come to its end. */
	if (result == SOCK_DONE)
		s->torn = torn;
	op->done(op->arg);
}

static void sock_late(struct sock *s, struct sock_op *op)
{
	sock_finish(s, op, sock_fail(op, ETIMEDOUT, "timeout"));
}

static void sock_read_late(void *arg)
{
	struct sock *s = arg;
	sock_late(s, &s->reader);
}

static void sock_write_late(void *arg)
{
	struct sock *s = arg;
	sock_late(s, &s->writer);
}

/* --- reading --- */

static enum sock_result sock_got(struct sock_op *op, size_t n)
{
	op->size = n;
	return op->result = SOCK_DONE;
}

/* Looks at each byte once, however many pieces the head arrives in. */
static enum sock_result sock_find(struct sock *s)
{
	struct sock_op *op = &s->reader;
	const char *bytes = sock_bytes(s);
	size_t size = buf_size(&s->in), seen = size < op->most ? size : op->most;
	const char *at;
	while (op->scanned < seen &&
	       (at = memchr(bytes + op->scanned, '\n', seen - op->scanned)) != NULL) {
		size_t begin = op->line, end = (size_t)(at - bytes);
		op->scanned = op->line = end + 1;
		if (op->want == SOCK_LINE || end == begin ||
		    (end == begin + 1 && bytes[begin] == '\r'))
			return sock_got(op, end + 1);
	}
	op->scanned = seen;
	return size >= op->most ? sock_fail(op, EMSGSIZE, "too_big") : SOCK_WAIT;
}

/* Is what the buffer holds enough? */
static enum sock_result sock_enough(struct sock *s)
{
	struct sock_op *op = &s->reader;
	size_t size = buf_size(&s->in);
	switch (op->want) {
	case SOCK_ANY:
		return size > 0 ? sock_got(op, 0) : SOCK_WAIT;
	case SOCK_SOME:
		return size > 0 ? sock_got(op, size < op->most ? size : op->most) : SOCK_WAIT;
	case SOCK_EXACTLY:
		return size >= op->most ? sock_got(op, op->most) : SOCK_WAIT;
	default:
		return sock_find(s);
	}
}

static enum sock_result sock_no_room(struct sock *s)
{
	return sock_fail(&s->reader, errno, errno == EMSGSIZE ? "too_big" : "io");
}

static enum sock_result sock_got_none(struct sock *s, ssize_t n)
{
	if (n == 0)
		return SOCK_END;
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return SOCK_WAIT;
	return sock_fail(&s->reader, errno, sock_reason(errno));
}

/* One call to the kernel: SOCK_DONE when there is more in the buffer now.  Mostly there is nothing,
 * or little: that comes by way of the stack, and takes no more memory than it is long. */
static enum sock_result sock_fill(struct sock *s)
{
	char little[SOCK_CHUNK_LEAST], *place = little;
	size_t size = buf_size(&s->in), chunk = s->chunk;
	if (s->reader.want == SOCK_EXACTLY && s->reader.most - size < chunk)
		chunk = s->reader.most - size;
	if ((chunk > sizeof little || buf_left(&s->in) < chunk) &&
	    (place = buf_reserve(&s->in, chunk)) == NULL)
		return sock_no_room(s);
	ssize_t n;
	do
		n = s->wire->recv(s->wire_arg, s->fd, place, chunk);
	while (n == -1 && errno == EINTR);
	if (n <= 0)
		return sock_got_none(s, n);
	if (place != little)
		buf_commit(&s->in, (size_t)n);
	else if (buf_append(&s->in, little, (size_t)n) == -1)
		return sock_no_room(s);
	s->received += (size_t)n;
	if ((size_t)n == s->chunk && s->chunk < SOCK_CHUNK_MOST)
		s->chunk *= 2;
	else if ((size_t)n < chunk / 4 && s->chunk > SOCK_CHUNK_LEAST)
		s->chunk /= 2;
	return SOCK_DONE;
}

static enum sock_result sock_at_end(struct sock *s)
{
	s->ended = true;
	if (buf_size(&s->in) == 0)
		return s->reader.result = SOCK_END;
	return sock_fail(&s->reader, EPIPE, "closed");
}

static void sock_more(void *arg);

static enum sock_result sock_pull(struct sock *s)
{
	uint64_t until = s->received + SOCK_SHARE;
	for (;;) {
		enum sock_result result = sock_enough(s);
		if (result != SOCK_WAIT)
			return result;
		if (s->ended)
			return sock_at_end(s);
		if (s->received >= until) {
			loop_defer(s->loop, &s->more, sock_more, s);
			return SOCK_WAIT;
		}
		result = sock_fill(s);
		if (buf_size(&s->in) == 0)
			buf_free(&s->in);
		if (result == SOCK_END)
			return sock_at_end(s);
		if (result != SOCK_DONE)
			return result;
	}
}

/* --- writing --- */

static enum sock_result sock_push(struct sock *s)
{
	struct sock_op *op = &s->writer;
	uint64_t until = s->sent + SOCK_SHARE;
	while (op->left > 0) {
		if (s->sent >= until) {
			loop_defer(s->loop, &s->more, sock_more, s);
			return SOCK_WAIT;
		}
		ssize_t n = s->wire->send(s->wire_arg, s->fd, op->from, op->left);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return SOCK_WAIT;
		if (n == -1) {
			s->torn = true;
			return sock_fail(op, errno, sock_reason(errno));
		}
		op->begun = true;
		op->from += n;
		op->left -= (size_t)n;
		s->sent += (size_t)n;
	}
	return op->result = SOCK_DONE;
}

/* --- waiting --- */

static void sock_progress(struct sock *s, struct sock_op *op,
			  enum sock_result (*step)(struct sock *s))
{
	if (!op->waiting)
		return;
	enum sock_result result = step(s);
	if (result != SOCK_WAIT)
		sock_finish(s, op, result);
}

static void sock_more(void *arg)
{
	struct sock *s = arg;
	sock_progress(s, &s->reader, sock_pull);
	sock_progress(s, &s->writer, sock_push);
}

static void sock_ready(void *arg, uint32_t events)
{
	struct sock *s = arg;
	if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0)
		s->hung_up = true;
	sock_more(s); /* either may be what the other direction of TLS waits for */
}

static void sock_wait(struct sock_op *op, void (*done)(void *arg), void *arg)
{
	op->done = done;
	op->arg = arg;
	op->waiting = true;
}

/* An operation starts: first a try, then waiting for as long as it may take. */
static enum sock_result sock_begin(struct sock *s, struct sock_op *op, int64_t timeout,
				   enum sock_result (*step)(struct sock *s),
				   void (*late)(void *arg), void (*done)(void *arg), void *arg)
{
	bool patient = ++s->eager > SOCK_EAGER;
	enum sock_result result = patient ? SOCK_WAIT : step(s);
	if (result != SOCK_WAIT)
		return result;
	s->eager = 0;
	if (timeout >= 0 && loop_timer_start(s->loop, &op->timer, timeout, late, s) == -1)
		return sock_fail(op, ENOMEM, "io");
	if (patient)
		loop_defer(s->loop, &s->more, sock_more, s);
	sock_wait(op, done, arg);
	return SOCK_WAIT;
}

enum sock_result sock_read(struct sock *s, enum sock_want want, size_t most, int64_t timeout,
			   void (*done)(void *arg), void *arg)
{
	struct sock_op *op = &s->reader;
	if (op->waiting)
		return sock_fail(op, EBUSY, "busy");
	op->want = want;
	op->most = most;
	op->size = op->scanned = op->line = 0;
	if (!s->open)
		return sock_fail(op, EBADF, "closed");
	/* What was read ahead for an earlier operation may already be more than this one wants. */
	size_t ahead = buf_size(&s->in);
	s->in.ceiling = (most > ahead ? most : ahead) + SOCK_CHUNK_MOST;
	return sock_begin(s, op, timeout, sock_pull, sock_read_late, done, arg);
}

void sock_await(struct sock *s, void (*done)(void *arg), void *arg)
{
	s->reader.want = SOCK_ANY;
	s->eager = 0;
	sock_wait(&s->reader, done, arg);
}

enum sock_result sock_write(struct sock *s, const void *data, size_t n, int64_t timeout,
			    void (*done)(void *arg), void *arg)
{
	struct sock_op *op = &s->writer;
	if (op->waiting)
		return sock_fail(op, EBUSY, "busy");
	if (!s->open)
		return sock_fail(op, EBADF, "closed");
	if (s->torn)
		return sock_fail(op, EPIPE, "closed");
	op->from = data;
	op->left = n;
	op->begun = false;
	return sock_begin(s, op, timeout, sock_push, sock_write_late, done, arg);
}

void sock_take(struct sock *s, size_t n)
{
	buf_consume(&s->in, n);
	if (buf_size(&s->in) == 0)
		buf_free(&s->in);
}

void sock_explain(const struct sock *s, const struct sock_op *op, struct err *err)
{
	const char *what = op == &s->reader ? "reading" : "writing";
	if (op->code == EBUSY)
		err_set(err, op->code, "%s: another task is %s on this connection already", what,
			what);
	else if (op->code == EBADF)
		err_set(err, op->code, "%s: the connection is closed", what);
	else if (op->code == EMSGSIZE)
		err_set(err, op->code, "%s: more than %zu bytes came without an end", what,
			op->most);
	else if (op->code == EPIPE && op == &s->reader)
		err_set(err, op->code, "%s: the other side ended in the middle (after %zu bytes)",
			what, buf_size(&s->in));
	else if (op->code == EPIPE)
		err_set(err, op->code, "%s: the connection takes no more", what);
	else if (op->reason != NULL && strcmp(op->reason, "timeout") == 0)
		err_set(err, op->code, "%s: the other side was silent for too long", what);
	else
		err_set(err, op->code, "%s: %s", what, strerror(op->code));
}

/* --- birth and end --- */

int sock_open(struct sock *s, struct loop *loop, int fd, const struct sock_wire *wire, void *arg,
	      struct err *err)
{
	memset(s, 0, sizeof *s);
	s->fd = -1;
	if (loop_fd_add(loop, &s->watch, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, sock_ready,
			s, err) == -1)
		return -1;
	s->loop = loop;
	s->fd = fd;
	s->wire = wire != NULL ? wire : &sock_plain;
	s->wire_arg = arg;
	s->chunk = SOCK_CHUNK_LEAST;
	s->open = true;
	buf_init(&s->in, SOCK_CHUNK_MOST);
	return 0;
}

static void sock_drop(struct sock *s, struct sock_op *op)
{
	if (op->waiting)
		sock_finish(s, op, sock_fail(op, EBADF, "closed"));
}

void sock_close(struct sock *s)
{
	if (!s->open)
		return;
	s->open = false;
	loop_defer_cancel(&s->more);
	loop_fd_del(s->loop, &s->watch);
	s->wire->close(s->wire_arg, s->fd);
	s->fd = -1;
	buf_free(&s->in);
	sock_drop(s, &s->reader);
	sock_drop(s, &s->writer);
	if (s->closed != NULL)
		s->closed(s->closed_arg);
}

void sock_reset(struct sock *s)
{
	/* Closing with a linger time of zero throws away what is queued and sends a reset. */
	struct linger now = {.l_onoff = 1};
	if (s->open)
		(void)setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	sock_close(s);
}

int sock_shutdown(struct sock *s, struct err *err)
{
	if (!s->open)
		return err_set(err, EBADF, "the connection is closed");
	int ended = s->wire->shutdown(s->wire_arg, s->fd);
	if (ended == -1 && errno == EOPNOTSUPP)
		return err_set(err, errno,
			       "TLS cannot end one direction alone; there is only close");
	/* A peer that is gone already has been told all there is to tell. */
	if (ended == -1 && errno != ENOTCONN)
		return err_errno(err, "ending our direction");
	s->torn = true; /* nothing can follow */
	return 0;
}
