/* http_easy.h -- what is asked of libcurl, in one place.  Floor 3, with http.h.
 *
 * http_easy_model turns a client's configuration into an easy handle that is copied for each
 * handle of its pool; what changes with every request is set by http_curl.c.  The rest translates
 * between the two worlds.
 */
#ifndef WORKER_HTTP_EASY_H
#define WORKER_HTTP_EASY_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/http.h"
#include "worker/http_client.h"
#include "worker/libcurl.h"

/* http_easy_model(config, err): NULL with ${err} set when there is no memory. */
CURL *http_easy_model(const struct http_config *config, struct err *err);

/* http_easy_headers(headers, count): a list in one allocation, to be free()d; NULL when there is no
 * memory. */
struct curl_slist *http_easy_headers(const struct http_header *headers, size_t count);

/* http_easy_reason(easy, code, text): what went wrong, given libcurl's own words. */
enum http_reason http_easy_reason(CURL *easy, CURLcode code, const char *text);

/* http_easy_body, http_easy_target: the options that change with each request; 0 or -1. */
void http_easy_body(CURL *easy, const struct http_request *request);
int http_easy_target(CURL *easy, const struct http_config *config,
		     const struct http_request *request, struct err *err);

#endif
