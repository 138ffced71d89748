/* dial_lookup.h -- the addresses behind a host's name.  Floor 3, with dial.h.
 *
 * The C library knows how this machine looks up names (files, DNS and what else is configured), but
 * only in a call that may take many seconds and cannot be called off.  So each lookup has a thread
 * of its own, which is left alone when nobody waits for it any more.
 */
#ifndef WORKER_DIAL_LOOKUP_H
#define WORKER_DIAL_LOOKUP_H

#include <netdb.h>

#include "worker/err.h"
#include "worker/loop.h"

struct dial_lookup;

/* dial_lookup_start(loop, host, port, done, arg, err): ${done} comes once, from the loop, unless it
 * is freed first.  NULL with ${err} set. */
struct dial_lookup *dial_lookup_start(struct loop *loop, const char *host, int port,
				      void (*done)(void *arg), void *arg, struct err *err);

/* dial_lookup_found(lookup): after ${done}: a list, or NULL: there is none, and dial_lookup_why
 * says why. */
const struct addrinfo *dial_lookup_found(const struct dial_lookup *lookup);
const char *dial_lookup_why(const struct dial_lookup *lookup);

/* dial_lookup_free(lookup): at any time. */
void dial_lookup_free(struct dial_lookup *lookup);

#endif
