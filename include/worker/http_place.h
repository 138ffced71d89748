/* http_place.h -- where a URL leads, and by which way.  Floor 3, with http.h. */
#ifndef WORKER_HTTP_PLACE_H
#define WORKER_HTTP_PLACE_H

#include <stdbool.h>
#include <stddef.h>

struct http_client;

#define HTTP_HOST 256

struct http_place {
	char host[HTTP_HOST]; /* without the brackets of a version 6 address */
	int port;
	const char *authority; /* in the URL: host, and port if it is not 80 */
	const char *target;    /* in the URL: path and query, maybe empty */
	size_t authority_size, target_size;
};

/* http_place_plain(client, url, place): take a URL apart to which a connection of our own leads.
 * False: it is no plain http:// URL, has something that libcurl understands better (a user's name,
 * a zone, a strange host), or the client asks for what only libcurl does. */
bool http_place_plain(const struct http_client *client, const char *url, struct http_place *place);

#endif
