/* http_plan.h -- a request laid out once, to be sent many times.  Floor 3, with http.h.
 *
 * A worker asks the same few addresses all day.  What such requests share (method, URL, headers,
 * limits) is checked, taken apart and written down when the plan is made; sending one is then its
 * body and a few bytes that say how long it is.
 *
 *	plan = http_plan_open(client, &request, &reason, &err);
 *	transfer = http_plan_start(plan, body, size, changed, arg, &reason, &err);
 *	...	as http.h says
 *	http_plan_close(plan);
 *
 * A plan belongs to its client, and must not be started once that is closed.  A transfer does not
 * need its plan any more.
 */
#ifndef WORKER_HTTP_PLAN_H
#define WORKER_HTTP_PLAN_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/buf.h"
#include "worker/http.h"
#include "worker/http_place.h"

#define HTTP_LABEL 160

struct http_way;

/* Open to the files of http.h only. */
struct http_plan {
	struct http_client *client;
	const struct http_way *way;
	size_t size; /* of a transfer */
	struct http_request request;
	char label[HTTP_LABEL];
	bool head, repeatable;	 /* of the method: no body in its answer; it may be sent again */
	struct http_place place; /* http_plain: where it leads */
	struct buf lines;	 /* http_plain: the head, but for what tells of the body */
	void *copy;		 /* the strings, if they are the plan's own */
};

/* http_plan_open(client, request, reason, err): ${request} without a body, nor anybody to tell;
 * everything is copied.  NULL with ${reason} and ${err} when it is wrong. */
struct http_plan *http_plan_open(struct http_client *client, const struct http_request *request,
				 enum http_reason *reason, struct err *err);
void http_plan_close(struct http_plan *plan);

/* http_plan_start(plan, body, size, changed, arg, reason, err): begin such a request.  ${body} is
 * NULL for none, and must stay until the transfer is over. */
struct http_transfer *http_plan_start(const struct http_plan *plan, const char *body, size_t size,
				      void (*changed)(void *arg), void *arg,
				      enum http_reason *reason, struct err *err);

/* http_plan_lay(plan, client, request, reason, err): the same in memory of the caller's, with
 * strings that stay the caller's; http_plan_clear gives back what it made. */
int http_plan_lay(struct http_plan *plan, struct http_client *client,
		  const struct http_request *request, enum http_reason *reason, struct err *err);
void http_plan_clear(struct http_plan *plan);

#endif
