/* http_place.c -- where a URL leads, and by which way.  Floor 3.  See worker/http_place.h. */
#include "worker/http_place.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "worker/dial.h"
#include "worker/http_client.h"

#define PLACE_SCHEME "http://"
#define PLACE_NAME   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"
#define PLACE_V6     "abcdefABCDEF0123456789.:"

/* ":8080", or nothing. */
static bool place_port(const char *text, size_t n, int *port)
{
	*port = 80;
	if (n == 0)
		return true;
	if (text[0] != ':' || n < 2 || n > 6 || strspn(text + 1, "0123456789") < n - 1 ||
	    text[1] == '0')
		return false;
	*port = atoi(text + 1);
	return *port > 0 && *port <= 65535;
}

static bool place_host(const char *text, size_t n, bool v6, char host[HTTP_HOST])
{
	struct in6_addr address;
	if (n == 0 || n >= HTTP_HOST)
		return false;
	memcpy(host, text, n);
	host[n] = '\0';
	return !v6 || inet_pton(AF_INET6, host, &address) == 1;
}

static bool place_read(const char *url, struct http_place *place)
{
	if (strncasecmp(url, PLACE_SCHEME, sizeof PLACE_SCHEME - 1) != 0)
		return false;
	const char *at = url + sizeof PLACE_SCHEME - 1;
	size_t size = strcspn(at, "/?#"), skip = at[0] == '[' ? 1 : 0;
	size_t name = strspn(at + skip, skip ? PLACE_V6 : PLACE_NAME), end = skip + name + skip;
	if (end > size || (skip && at[end - 1] != ']') ||
	    !place_host(at + skip, name, skip > 0, place->host) ||
	    !place_port(at + end, size - end, &place->port))
		return false;
	place->authority = at;
	place->authority_size = place->port == 80 ? end : size; /* as everybody says it */
	place->target = at + size;
	place->target_size = strcspn(place->target, "#");
	return true;
}

bool http_place_plain(const struct http_client *client, const char *url, struct http_place *place)
{
	const struct http_config *config = &client->config;
	if (config->low_speed_bytes > 0 || !place_read(url, place))
		return false;
	return config->unix_path != NULL || config->proxy_http == NULL ||
	       dial_is_loopback(place->host);
}
