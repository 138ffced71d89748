/* http_client.c -- a pool of connections with one set of settings.  Floor 3.
 *
 * See worker/http_client.h.  libcurl keeps connections and looked-up names per multi, but TLS
 * sessions per easy handle; sharing them lets any handle resume, which saves the expensive half of
 * a handshake.  Everything runs in one thread, so the share needs no locks.
 */
#include "worker/http_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/clock.h"
#include "worker/http_easy.h"
#include "worker/multi.h"

static char *http_client_copy(const char *text, bool *failed)
{
	char *copy = text ? strdup(text) : NULL;
	if (text != NULL && copy == NULL)
		*failed = true;
	return copy;
}

static int http_client_fill(struct http_client *client, const struct http_config *config,
			    struct err *err)
{
	bool failed = false;
	client->connect_timeout = config->connect_timeout;
	client->user_timeout_ms = (unsigned)(config->user_timeout / CLOCK_MS);
	client->proxy_http = http_client_copy(config->proxy_http, &failed);
	client->proxy_https = http_client_copy(config->proxy_https, &failed);
	client->multi = multi_open(client->loop, err);
	if (client->multi == NULL)
		return -1;
	client->model = http_easy_model(config, err);
	if (client->model == NULL)
		return -1;
	client->share = curl_share_init();
	if (failed || client->share == NULL)
		return err_set(err, ENOMEM, "out of memory for an HTTP client");
	curl_share_setopt(client->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
	return 0;
}

struct http_client *http_client_open(struct loop *loop, const struct http_config *config,
				     struct err *err)
{
	struct http_client *client = calloc(1, sizeof *client);
	if (client == NULL) {
		err_set(err, ENOMEM, "out of memory for an HTTP client");
		return NULL;
	}
	client->loop = loop;
	list_init(&client->members);
	if (http_client_fill(client, config, err) == -1) {
		http_client_close(client);
		return NULL;
	}
	return client;
}

/* The order matters: the handles before the multi whose connections they used, all of them before
 * the share that holds the sessions of those connections. */
void http_client_close(struct http_client *client)
{
	while (!list_empty(&client->members)) {
		struct http_member *member =
			container_of(client->members.next, struct http_member, link);
		member->cut(member);
	}
	while (client->kept_count > 0)
		curl_easy_cleanup(client->kept[--client->kept_count]);
	curl_easy_cleanup(client->model);
	if (client->multi != NULL)
		multi_close(client->multi);
	curl_share_cleanup(client->share);
	free(client->proxy_http);
	free(client->proxy_https);
	free(client);
}

CURL *http_client_take(struct http_client *client)
{
	if (client->kept_count > 0)
		return client->kept[--client->kept_count];
	CURL *easy = curl_easy_duphandle(client->model);
	if (easy != NULL) /* not copied with the rest */
		curl_easy_setopt(easy, CURLOPT_SHARE, client->share);
	return easy;
}

void http_client_keep(struct http_client *client, CURL *easy)
{
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, NULL);
	if (client->kept_count < HTTP_CLIENT_KEPT)
		client->kept[client->kept_count++] = easy;
	else
		curl_easy_cleanup(easy);
}
