/* http_curl.h -- what a client needs of libcurl, made with its first such request.  Floor 3. */
#ifndef WORKER_HTTP_CURL_H
#define WORKER_HTTP_CURL_H

struct http_curl;

/* http_curl_close(curl): its connections are closed.  NULL is none. */
void http_curl_close(struct http_curl *curl);

#endif
