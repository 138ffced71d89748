/* http_plan.c -- a request laid out once, to be sent many times.  Floor 3.
 *
 * See worker/http_plan.h.
 */
#include "worker/http_plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/http_check.h"
#include "worker/http_client.h"
#include "worker/http_transfer.h"

static int plan_no_memory(enum http_reason *reason, struct err *err)
{
	*reason = HTTP_MEMORY;
	return err_set(err, ENOMEM, "out of memory for a request");
}

int http_plan_lay(struct http_plan *plan, struct http_client *client,
		  const struct http_request *request, enum http_reason *reason, struct err *err)
{
	*plan = (struct http_plan){.client = client, .request = *request};
	*reason = HTTP_URL;
	if (http_check_request(request, err) == -1)
		return -1;
	plan->way = http_place_plain(client, request->url, &plan->place) ? &http_plain : &http_curl;
	plan->size = plan->way->size;
	plan->head = strcmp(request->method, "HEAD") == 0;
	plan->repeatable = http_check_repeatable(request->method);
	http_check_label(plan->label, sizeof plan->label, request->method, request->url);
	if (plan->way->lay == NULL || plan->way->lay(plan) == 0)
		return 0;
	http_plan_clear(plan);
	return plan_no_memory(reason, err);
}

void http_plan_clear(struct http_plan *plan)
{
	buf_free(&plan->lines);
}

/* --- with strings of its own --- */

static char *plan_put(char **at, const char *text, size_t n)
{
	char *copy = *at;
	memcpy(copy, text, n);
	copy[n] = '\0';
	*at += n + 1;
	return copy;
}

static size_t plan_size(const struct http_request *request)
{
	size_t size = strlen(request->method) + strlen(request->url) + 2;
	for (size_t i = 0; i < request->header_count; i++)
		size += sizeof(struct http_header) + request->headers[i].name_size +
			request->headers[i].value_size + 2;
	return size;
}

/* One piece of memory: the headers, and then all strings.  NULL: there is none. */
static void *plan_copy(struct http_request *request)
{
	struct http_header *headers = malloc(plan_size(request));
	if (headers == NULL)
		return NULL;
	char *at = (char *)(headers + request->header_count);
	for (size_t i = 0; i < request->header_count; i++) {
		struct http_header header = request->headers[i];
		header.name = plan_put(&at, header.name, header.name_size);
		header.value = plan_put(&at, header.value, header.value_size);
		headers[i] = header;
	}
	request->headers = headers;
	request->method = plan_put(&at, request->method, strlen(request->method));
	request->url = plan_put(&at, request->url, strlen(request->url));
	return headers;
}

struct http_plan *http_plan_open(struct http_client *client, const struct http_request *request,
				 enum http_reason *reason, struct err *err)
{
	struct http_request own = *request;
	struct http_plan *plan = malloc(sizeof *plan);
	void *copy = plan != NULL ? plan_copy(&own) : NULL;
	if (copy == NULL)
		plan_no_memory(reason, err);
	if (copy == NULL || http_plan_lay(plan, client, &own, reason, err) == -1) {
		free(copy);
		free(plan);
		return NULL;
	}
	plan->copy = copy;
	return plan;
}

void http_plan_close(struct http_plan *plan)
{
	http_plan_clear(plan);
	free(plan->copy);
	free(plan);
}

struct http_transfer *http_plan_start(const struct http_plan *plan, const char *body, size_t size,
				      void (*changed)(void *arg), void *arg,
				      enum http_reason *reason, struct err *err)
{
	struct http_request request = plan->request;
	request.upload = body != NULL ? HTTP_BYTES : HTTP_NO_BODY;
	request.body = body;
	request.body_size = size;
	request.changed = changed;
	request.arg = arg;
	return http_transfer_start(plan, &request, reason, err);
}
