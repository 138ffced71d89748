/* dial.h -- connecting to somebody: TCP, TLS, through a proxy, or a Unix socket.  Floor 3.
 *
 * Unix sockets and plain TCP are ours.  TLS and proxies go through libcurl (CURLOPT_CONNECT_ONLY):
 * a connection through a proxy is taken out of its hands once it stands; a TLS connection stays,
 * as the wire of the sock (worker/sock.h).
 *
 *	dial = dial_start(loop, &options, connected, arg, &err);
 *	...
 *	connected(arg):	dial_finish(dial, &sock, &err)	or	dial_cancel(dial)
 *
 * ${done} comes once, from the loop, unless the dial is cancelled first.  While a dial is under way
 * the loop knows that something outside works.
 */
#ifndef WORKER_DIAL_H
#define WORKER_DIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/err.h"
#include "worker/loop.h"
#include "worker/sock.h"

struct dial_options {
	const char *unix_path; /* or NULL: then host and port */
	size_t unix_length;
	const char *host;
	int port;
	int64_t timeout; /* for all of it: name, connection, proxy, TLS */
	unsigned user_timeout_ms;
	const char *proxy; /* NULL: what the environment says, "" for none; never for loopback */

	bool tls;
	bool insecure;	  /* accept any certificate */
	const char *alpn; /* the protocol to offer: "http/1.1" (some WebSocket servers ask for it)
			     or "h2"; NULL for none */
	const char *name; /* the name the certificate must carry, when it is not the host */
	const char *ca_file, *ca_dir, *cert, *key;
	const char *key_password; /* NULL: the key has none; nobody is asked */
	const char *tls_min;	  /* "1.2" (also when NULL) or "1.3" */
};

struct dial;

/* dial_start(loop, options, done, arg, err): copies what it needs.  NULL with ${err} set. */
struct dial *dial_start(struct loop *loop, const struct dial_options *options,
			void (*done)(void *arg), void *arg, struct err *err);

/* dial_finish(dial, s, err): after ${done}: open the sock, or say why there is none.  Either way
 * the dial is not the caller's any more. */
int dial_finish(struct dial *dial, struct sock *s, struct err *err);

/* dial_reason(dial): after ${done}, before dial_finish: dns, connect, tls, timeout, io; NULL when
 * it stands. */
const char *dial_reason(const struct dial *dial);

/* dial_is_loopback(host): does the name, or the written address, mean this machine?  The worker
 * asks no proxy for it. */
bool dial_is_loopback(const char *host);

/* dial_cancel(dial): at any time, instead of dial_finish. */
void dial_cancel(struct dial *dial);

#endif
