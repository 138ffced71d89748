/* http_client.c -- a pool of connections with one set of settings.  Floor 3.
 *
 * See worker/http_client.h.
 */
#include "worker/http_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/http_check.h"
#include "worker/http_curl.h"

#define CLIENT_TEXTS 10

static void client_texts(struct http_config *config, const char **texts[CLIENT_TEXTS])
{
	const char **all[CLIENT_TEXTS] = {
		&config->unix_path,  &config->ca_file,	   &config->ca_dir,
		&config->cert,	     &config->key,	   &config->key_password,
		&config->proxy_http, &config->proxy_https, &config->no_proxy,
		&config->user_agent,
	};
	memcpy(texts, all, sizeof all);
}

/* All or none, so that what is freed is ours. */
static int client_copy(struct http_config *config)
{
	const char **texts[CLIENT_TEXTS];
	bool failed = false;
	client_texts(config, texts);
	for (size_t i = 0; i < CLIENT_TEXTS; i++) {
		if (*texts[i] == NULL)
			continue;
		*texts[i] = strdup(*texts[i]);
		failed = failed || *texts[i] == NULL;
	}
	return failed ? -1 : 0;
}

static void client_free(struct http_client *client)
{
	const char **texts[CLIENT_TEXTS];
	client_texts(&client->config, texts);
	for (size_t i = 0; i < CLIENT_TEXTS; i++)
		free((char *)*texts[i]);
	free(client);
}

struct http_client *http_client_open(struct loop *loop, const struct http_config *config,
				     struct err *err)
{
	if (http_check_config(config, err) == -1)
		return NULL;
	struct http_client *client = calloc(1, sizeof *client);
	if (client == NULL) {
		err_set(err, ENOMEM, "out of memory for an HTTP client");
		return NULL;
	}
	client->loop = loop;
	client->config = *config;
	list_init(&client->members);
	http_pool_open(&client->pool, loop, config->max_idle, config->max_age);
	if (client_copy(&client->config) == -1) {
		client_free(client);
		err_set(err, ENOMEM, "out of memory for an HTTP client");
		return NULL;
	}
	return client;
}

void http_client_close(struct http_client *client)
{
	while (!list_empty(&client->members)) {
		struct http_member *member =
			container_of(client->members.next, struct http_member, link);
		member->cut(member);
	}
	http_pool_close(&client->pool);
	http_curl_close(client->curl);
	client_free(client);
}
