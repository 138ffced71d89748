/* sock.h -- a stream of bytes to another program: reading, writing, giving up in time.  Floor 3.
 *
 * A sock is born from dial.h (we call) or listen.h (we are called) and is then the same thing for
 * TCP, Unix and TLS.  What differs is its wire, four functions behind which a scripted network can
 * stand just as well.
 *
 * There is at most one reader and one writer at a time.  An operation that can be answered at once
 * is; otherwise it returns SOCK_WAIT and ${done}(${arg}) is called exactly once, later, from the
 * loop, unless sock_stop takes the operation back first:
 *
 *	SOCK_DONE	the bytes are sock_bytes(s)[0 .. s->reader.size); take them with sock_take
 *	SOCK_END	a clean end came, before the first byte of what was asked for
 *	SOCK_FAILED	see sock_explain
 *	SOCK_WAIT	not yet
 *
 * Nothing is lost by giving up on a read: bytes stay in the buffer until they are taken.  A write
 * that is given up halfway leaves the stream torn, and every later write fails.
 */
#ifndef WORKER_SOCK_H
#define WORKER_SOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "worker/buf.h"
#include "worker/err.h"
#include "worker/loop.h"

#define SOCK_MOST ((size_t)64 * 1024 * 1024) /* what one read may ask for */

enum sock_result { SOCK_FAILED = -1, SOCK_WAIT, SOCK_DONE, SOCK_END };

enum sock_want {
	SOCK_ANY,     /* until at least one byte is there; takes none (size is 0) */
	SOCK_SOME,    /* what is there, at most ${most} */
	SOCK_EXACTLY, /* ${most} bytes */
	SOCK_LINE,    /* up to and with the first LF */
	SOCK_HEAD,    /* up to and with the first empty line, which may be the very first */
};

/* Like recv, send and close: -1 with errno, EAGAIN when it would block. */
struct sock_wire {
	ssize_t (*recv)(void *arg, int fd, void *to, size_t n);
	ssize_t (*send)(void *arg, int fd, const void *from, size_t n);
	int (*shutdown)(void *arg, int fd); /* end our direction */
	void (*close)(void *arg, int fd);
};

struct sock_op {
	struct loop_timer timer;
	void (*done)(void *arg);
	void *arg;
	bool waiting;
	enum sock_result result;
	int code;	    /* errno of a failure */
	const char *reason; /* its word: timeout reset closed too_big tls io */

	enum sock_want want; /* reading */
	size_t most, size;
	size_t scanned, line; /* bytes looked at; where the current line begins */
	const char *from;     /* writing: what is left */
	size_t left;
	bool begun; /* some of it is on its way */
};

struct sock {
	struct loop *loop;
	int fd;
	bool open, ended, torn;
	bool hung_up; /* the other side has ended, though bytes may lie before its end */
	const struct sock_wire *wire;
	void *wire_arg;
	struct loop_fd watch;
	struct loop_work more; /* a fast peer is given a share of each turn, not all of it */
	struct buf in;
	unsigned eager; /* operations in a row that did not wait */
	size_t chunk;	/* how much to ask the kernel for; grows while it fills */
	struct sock_op reader, writer;
	uint64_t received, sent;
	void (*closed)(void *arg); /* told once when it closes; for who counts connections */
	void *closed_arg;
};

/* sock_open(s, loop, fd, wire, arg, err): begin on a connected, non-blocking ${fd}.  A NULL ${wire}
 * is the plain one.  On failure the fd is still the caller's.  ${s} must not move while open. */
int sock_open(struct sock *s, struct loop *loop, int fd, const struct sock_wire *wire, void *arg,
	      struct err *err);

/* sock_close(s): operations under way fail with "closed".  May be called twice. */
void sock_close(struct sock *s);

/* sock_reset(s): close so that the other side sees a reset (TCP), not an end. */
void sock_reset(struct sock *s);

/* sock_shutdown(s, err): end our direction; the other may go on. */
int sock_shutdown(struct sock *s, struct err *err);

/* sock_read(s, want, most, timeout, done, arg): see above.  ${timeout} in nanoseconds, negative
 * for none. */
enum sock_result sock_read(struct sock *s, enum sock_want want, size_t most, int64_t timeout,
			   void (*done)(void *arg), void *arg);

/* sock_await(s, done, arg): as SOCK_ANY, but without a look at what may be there already: for a
 * connection on which nothing is expected but its end.  Who goes on with it looks (sock_stop,
 * sock_read). */
void sock_await(struct sock *s, void (*done)(void *arg), void *arg);

/* sock_write(s, data, n, timeout, done, arg): all of it, from the caller's memory, which must stay
 * until the operation ends. */
enum sock_result sock_write(struct sock *s, const void *data, size_t n, int64_t timeout,
			    void (*done)(void *arg), void *arg);

/* sock_stop(s, op): take back an operation that waits; its ${done} is not called any more. */
void sock_stop(struct sock *s, struct sock_op *op);

static inline const char *sock_bytes(const struct sock *s)
{
	return buf_head(&s->in);
}

/* sock_take(s, n): the bytes have been used. */
void sock_take(struct sock *s, size_t n);

/* sock_explain(s, op, err): why the operation failed, for a person. */
void sock_explain(const struct sock *s, const struct sock_op *op, struct err *err);

#endif
