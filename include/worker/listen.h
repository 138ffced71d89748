/* listen.h -- being called: listening sockets and a limit on open connections.  Floor 3.
 *
 * A listener hands out connections one at a time to whoever waits in listen_accept.  It stops
 * taking them while its limit of open ones is reached (the kernel's backlog holds the rest), and
 * for a while when the machine has no file descriptors or memory left; it never spins.
 *
 * A Unix socket file gets exactly the mode asked for and is removed at the end if it is still the
 * same file.  One that is found at the start is removed only when nobody listens on it.
 */
#ifndef WORKER_LISTEN_H
#define WORKER_LISTEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "worker/err.h"
#include "worker/loop.h"
#include "worker/sock.h"

struct listen_options {
	const char *unix_path; /* or NULL: then host ("" for any) and port (0 for a free one) */
	size_t unix_length;
	mode_t mode;
	const char *host;
	int port;
	int backlog;
	size_t most; /* open connections; 0 for no limit */
	unsigned user_timeout_ms;
	int send_buffer; /* what the kernel holds of our bytes for each; 0: as it likes */
};

struct listen_tally;

struct listen {
	struct loop *loop;
	bool open;
	int fd, taken; /* taken: accepted, not yet picked up; or -1 */
	struct loop_fd watch;
	struct loop_timer limit, pause;
	bool waiting, late;
	int code;
	void (*done)(void *arg);
	void *arg;
	struct listen_tally *tally;
	uint64_t accepted, pauses;
	unsigned eager; /* connections in a row that were there already */
	char path[108]; /* of the socket file, or "" */
	dev_t device;
	ino_t inode;
};

/* listen_open(l, loop, options, err): ${l} must not move while open. */
int listen_open(struct listen *l, struct loop *loop, const struct listen_options *options,
		struct err *err);

/* listen_close(l): connections handed out live on; a waiter is told (SOCK_FAILED, EBADF). */
void listen_close(struct listen *l);

/* listen_accept(l, timeout, done, arg): SOCK_DONE when one can be picked up, SOCK_WAIT when
 * ${done} will tell, SOCK_FAILED with l->code set. */
enum sock_result listen_accept(struct listen *l, int64_t timeout, void (*done)(void *arg),
			       void *arg);
void listen_stop(struct listen *l);

/* listen_pick(l, s, err): open the connection that was taken as ${s}: 1, or 0 when there is none
 * (wait again), or -1. */
int listen_pick(struct listen *l, struct sock *s, struct err *err);

/* listen_connections(l): how many of its connections are open now. */
size_t listen_connections(const struct listen *l);

#endif
