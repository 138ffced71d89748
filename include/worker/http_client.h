/* http_client.h -- a pool of connections with one set of settings.  Floor 3, with http.h.
 *
 * Its connections are its own, and closing it closes them.  The struct is open to the files of
 * http.h only.
 */
#ifndef WORKER_HTTP_CLIENT_H
#define WORKER_HTTP_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#include "worker/err.h"
#include "worker/http_pool.h"
#include "worker/list.h"

struct http_curl;
struct loop;

/* NULL and 0 stand for "not set".  Everything is copied. */
struct http_config {
	const char *unix_path;		       /* connect there, whatever the URL says */
	const char *ca_file, *ca_dir;	       /* whom to trust instead of the system's list */
	const char *cert, *key, *key_password; /* ours, PEM files */
	int tls_min;			       /* 12 or 13; 10 and 11 for museums; 0 is 12 */
	const char *proxy_http, *proxy_https;  /* for targets of that scheme; none when NULL */
	const char *no_proxy;		       /* comma separated; loopback is always exempt */
	const char *user_agent;
	int64_t connect_timeout;		   /* ns until the connection stands, with TLS */
	int64_t low_speed_time, max_idle, max_age; /* ns; of a connection: unused, since birth */
	long low_speed_bytes;			   /* per second, averaged over low_speed_time */
	int64_t user_timeout;			   /* ns sent bytes may stay unacknowledged */
};

struct http_client {
	struct loop *loop;
	struct http_config config;
	struct list members;	/* transfers under way */
	struct http_pool pool;	/* connections of our own */
	struct http_curl *curl; /* libcurl's, once it is needed */
};

/* A transfer under way; ${cut} ends it because the client closes, and takes it out of the list. */
struct http_member {
	struct list link;
	void (*cut)(struct http_member *member);
};

/* http_client_open(loop, config, err): opens no connection yet.  NULL with ${err} set. */
struct http_client *http_client_open(struct loop *loop, const struct http_config *config,
				     struct err *err);

/* http_client_close(client): transfers under way end with HTTP_CLOSED and stay valid until
 * http_free; the connections are closed. */
void http_client_close(struct http_client *client);

#endif
