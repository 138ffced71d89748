/* http_easy.h -- what is asked of libcurl, in one place.  Floor 3, with http.h.
 *
 * http_easy_model turns a client's configuration into an easy handle that is copied for each
 * handle of its pool; what changes with every request is set by http.c.  The rest translates
 * between the two worlds: headers that cannot smuggle anything, addresses that can be shown.
 */
#ifndef WORKER_HTTP_EASY_H
#define WORKER_HTTP_EASY_H

#include <stdbool.h>
#include <stddef.h>

#include <curl/curl.h>

#include "worker/http.h"
#include "worker/http_client.h"

/* http_easy_model(config, err): NULL with ${err} set, for instance for a CA file that is not
 * there: better said at start than at the first request. */
CURL *http_easy_model(const struct http_config *config, struct err *err);

/* http_easy_headers(headers, count, out, err): a list in one allocation, free()d by the caller.
 * 0, or -1 for a header that could smuggle something. */
int http_easy_headers(const struct http_header *headers, size_t count, struct curl_slist **out,
		      struct err *err);

/* http_easy_method, http_easy_url: 0, or -1 when it is none. */
int http_easy_method(const char *method, struct err *err);
int http_easy_url(const char *url, struct err *err);

/* http_easy_label(out, size, method, url): what may be shown of a request. */
void http_easy_label(char *out, size_t size, const char *method, const char *url);

/* http_easy_reason(easy, code, text): what went wrong, given libcurl's own words. */
enum http_reason http_easy_reason(CURL *easy, CURLcode code, const char *text);

/* http_easy_word(reason): "dns", "connect", "tls" ... */
const char *http_easy_word(enum http_reason reason);

/* http_easy_repeatable(method): may it be sent twice and mean the same? */
bool http_easy_repeatable(const char *method);

/* http_easy_body, http_easy_target: the options that change with each request; 0 or -1. */
void http_easy_body(CURL *easy, const struct http_request *request);
int http_easy_target(CURL *easy, const struct http_client *client,
		     const struct http_request *request, struct err *err);

/* http_easy_resolve(base, ref): ${ref} as seen from ${base}, to be freed with free(); NULL when
 * that is no http or https URL. */
char *http_easy_resolve(const char *base, const char *ref);

#endif
