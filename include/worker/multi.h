/* multi.h -- libcurl's multi interface, driven by our loop.  Floor 3.
 *
 * libcurl does not wait: it says which sockets and which one timer it would wait for, and is told
 * when they come up.  A multi is that bridge, and owns what libcurl keeps per multi: the pool of
 * connections and the DNS cache.  The users are http_curl.c (a multi per client, so that closing
 * the client closes its connections) and dial_curl.c (CURLOPT_CONNECT_ONLY).
 *
 *	struct multi_job job = {.done = connected, .arg = conn};
 *	if (multi_add(multi, easy, &job, err) == -1) ...
 *	...
 *	static void connected(void *arg, CURLcode code) { multi_remove(multi, easy); ... }
 *
 * multi_add, multi_remove and multi_close must not be called from a callback of libcurl (read,
 * write, header, sockopt ...); from ${done} they may be, except for multi_close.
 */
#ifndef WORKER_MULTI_H
#define WORKER_MULTI_H

#include "worker/err.h"
#include "worker/libcurl.h"

struct loop;
struct multi;

struct multi_job {
	void (*done)(void *arg, CURLcode code);
	void *arg;
};

/* multi_open(loop, err): a new bridge; loads libcurl.  NULL with ${err} set. */
struct multi *multi_open(struct loop *loop, struct err *err);

/* multi_close(multi): closes every pooled connection.  All easy handles must have been removed. */
void multi_close(struct multi *multi);

/* multi_add(multi, easy, job, err): begin the transfer; ${job} must live until multi_remove and
 * takes the place of CURLOPT_PRIVATE.  Nothing happens before the loop's next step.  ${done} comes
 * once, when the transfer has ended by itself; the easy handle stays added until multi_remove. */
int multi_add(struct multi *multi, CURL *easy, struct multi_job *job, struct err *err);

/* multi_remove(multi, easy): at any time; a transfer under way is cut off and its connection
 * closed. */
void multi_remove(struct multi *multi, CURL *easy);

#endif
