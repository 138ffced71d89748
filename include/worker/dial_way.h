/* dial_way.h -- one connection being made, as the files of dial.h see it.  Floor 3, with dial.h.
 *
 * dial.c begins and ends a dial and keeps its time.  How the connection comes about is its way:
 *
 *	dial_unix	a Unix socket						dial.c
 *	dial_tcp	TCP, straight to the host				dial_tcp.c
 *	dial_curl	through a proxy, or with TLS: libcurl's			dial_curl.c
 */
#ifndef WORKER_DIAL_WAY_H
#define WORKER_DIAL_WAY_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/dial.h"

#define DIAL_TEXT 256

struct dial_way {
	size_t size; /* of its own struct, which begins with the dial */
	/* start: 0, or -1 with err; what it got hold of so far is for stop. */
	int (*start)(struct dial *dial, const struct dial_options *options, struct err *err);
	/* open: the connection stands and becomes the sock.  0 with *${keeps} set when the dial
	 * lives on in it (and the sock's wire ends it), or -1. */
	int (*open)(struct dial *dial, struct sock *s, bool *keeps, struct err *err);
	/* stop: give everything back but what open handed on. */
	void (*stop)(struct dial *dial);
};

extern const struct dial_way dial_tcp, dial_curl;

struct dial {
	const struct dial_way *way;
	struct loop *loop;
	void (*done)(void *arg);
	void *arg;
	bool working;
	unsigned user_timeout_ms;
	struct loop_timer limit;
	const char *reason; /* why it failed, NULL when it stands */
	int code;
	char where[300];      /* whom we call, for messages */
	char text[DIAL_TEXT]; /* what went wrong; empty: what ${code} says */
};

/* dial_tell(dial, code, reason): it stands (0, NULL), or it failed.  Only the first time counts. */
void dial_tell(struct dial *dial, int code, const char *reason);

/* dial_free(dial): the end of one that a sock has kept. */
void dial_free(struct dial *dial);

#endif
