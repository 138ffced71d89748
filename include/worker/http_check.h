/* http_check.h -- what a request may consist of, and how it is spoken about.  Floor 3, with http.h.
 *
 * Headers that cannot smuggle anything, addresses that can be shown.
 */
#ifndef WORKER_HTTP_CHECK_H
#define WORKER_HTTP_CHECK_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/err.h"
#include "worker/http.h"
#include "worker/http_client.h"

/* http_check_request(request, err): method, URL, headers: 0, or -1 when one of them is none. */
int http_check_request(const struct http_request *request, struct err *err);

/* http_check_token(text, n): may it be a method, or the name of a header? */
bool http_check_token(const char *text, size_t n);

/* http_check_url(url, err): an http or https URL, every odd character of it escaped? */
int http_check_url(const char *url, struct err *err);

/* http_check_config(config, err): the files it names can be read: better said at start than at the
 * first request. */
int http_check_config(const struct http_config *config, struct err *err);

/* http_check_label(out, size, method, url): "POST http://host/path": no credentials, no query. */
void http_check_label(char *out, size_t size, const char *method, const char *url);

/* http_check_word(reason): "dns", "connect", "tls" ... */
const char *http_check_word(enum http_reason reason);

/* http_check_repeatable(method): may it be sent twice and mean the same?
 * http_check_has_body(method): is it one that says so when its body is empty? */
bool http_check_repeatable(const char *method);
bool http_check_has_body(const char *method);

#endif
