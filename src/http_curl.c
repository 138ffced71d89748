/* http_curl.c -- requests by libcurl: TLS, proxies.  Floor 3.  See worker/http_transfer.h.
 *
 * The callbacks that libcurl calls never end a transfer: they note why (http_blame) and answer
 * "stop", and libcurl then comes to curl_done.  Time is kept by http.c, so that it runs on the
 * replaceable clock.
 *
 * libcurl keeps connections and looked-up names per multi, but TLS sessions per easy handle;
 * sharing them lets any handle resume, which saves the expensive half of a handshake.  Everything
 * runs in one thread, so the share needs no locks.
 */
#include "worker/http_curl.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#include "worker/clock.h"
#include "worker/http_easy.h"
#include "worker/http_transfer.h"
#include "worker/multi.h"

#define CURL_KEPT 16

struct http_curl {
	struct multi *multi;
	CURL *model;   /* every easy handle is a copy of it */
	CURLSH *share; /* TLS sessions, to be resumed by the next connection */
	CURL *kept[CURL_KEPT];
	size_t kept_count;
};

struct curl_transfer {
	struct http_transfer transfer;
	struct http_curl *curl;
	CURL *easy;
	struct multi_job job;
	struct curl_slist *headers;
	bool resolving, attempted;
	long sent_before; /* CURLINFO_REQUEST_SIZE when this attempt began */
	char words[CURL_ERROR_SIZE];
};

/* --- the client's part --- */

static int curl_fill(struct http_curl *curl, struct http_client *client, struct err *err)
{
	curl->multi = multi_open(client->loop, err); /* first: it loads libcurl */
	if (curl->multi == NULL)
		return -1;
	curl->model = http_easy_model(&client->config, err);
	if (curl->model == NULL)
		return -1;
	curl->share = curl_share_init();
	if (curl->share == NULL)
		return err_set(err, ENOMEM, "out of memory for an HTTP client");
	curl_share_setopt(curl->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
	return 0;
}

/* The order matters: the handles before the multi whose connections they used, all of them before
 * the share that holds the sessions of those connections. */
void http_curl_close(struct http_curl *curl)
{
	if (curl == NULL)
		return;
	while (curl->kept_count > 0)
		curl_easy_cleanup(curl->kept[--curl->kept_count]);
	if (curl->model != NULL)
		curl_easy_cleanup(curl->model);
	if (curl->multi != NULL)
		multi_close(curl->multi);
	if (curl->share != NULL)
		curl_share_cleanup(curl->share);
	free(curl);
}

/* The client's part, made when it is asked for: most clients never need it. */
static struct http_curl *curl_of(struct http_client *client, struct err *err)
{
	if (client->curl != NULL)
		return client->curl;
	struct http_curl *curl = calloc(1, sizeof *curl);
	if (curl == NULL) {
		err_set(err, ENOMEM, "out of memory for an HTTP client");
		return NULL;
	}
	if (curl_fill(curl, client, err) == -1) {
		http_curl_close(curl);
		return NULL;
	}
	return client->curl = curl;
}

/* Making an easy handle costs more than a request. */
static CURL *curl_take(struct http_curl *curl)
{
	if (curl->kept_count > 0)
		return curl->kept[--curl->kept_count];
	CURL *easy = curl_easy_duphandle(curl->model);
	if (easy != NULL) /* not copied with the rest */
		curl_easy_setopt(easy, CURLOPT_SHARE, curl->share);
	return easy;
}

static void curl_keep(struct http_curl *curl, CURL *easy)
{
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, NULL);
	if (curl->kept_count < CURL_KEPT)
		curl->kept[curl->kept_count++] = easy;
	else
		curl_easy_cleanup(easy);
}

/* --- how a transfer ends --- */

/* Counts what was handed to the kernel, over all attempts; with nothing of this attempt gone out,
 * the server cannot have seen it. */
static long curl_request_size(const struct curl_transfer *own)
{
	long size = 0;
	curl_easy_getinfo(own->easy, CURLINFO_REQUEST_SIZE, &size);
	return size;
}

/* While a thread of libcurl looks up a name, somebody outside works for us. */
static void curl_resolved(struct curl_transfer *own)
{
	if (own->resolving)
		loop_outside(own->transfer.client->loop, -1);
	own->resolving = false;
}

/* The handle is asked before it is removed, and what libcurl borrowed (headers) is freed after
 * that. */
static void curl_stop(struct http_transfer *transfer)
{
	struct curl_transfer *own = (struct curl_transfer *)transfer;
	if (own->easy != NULL) {
		transfer->reply.sent = own->attempted && curl_request_size(own) > own->sent_before;
		curl_resolved(own);
		multi_remove(own->curl->multi, own->easy);
		curl_keep(own->curl, own->easy);
		own->easy = NULL;
	}
	free(own->headers);
	own->headers = NULL;
}

/* "Couldn't connect" is what every failed connect is called; the errno says which kind it was. */
static void curl_explain(struct curl_transfer *own, CURLcode code)
{
	struct http_transfer *transfer = &own->transfer;
	const char *words = own->words[0] ? own->words : curl_easy_strerror(code);
	enum http_reason reason = http_easy_reason(own->easy, code, words);
	long number = 0;
	curl_easy_getinfo(own->easy, CURLINFO_OS_ERRNO, &number);
	if (reason == HTTP_CONNECT && number != 0) {
		struct err *err = &transfer->reply.err;
		transfer->reply.reason = reason;
		err_set(err, (int)number, "%s: %s", words, strerror((int)number));
	} else if (reason == HTTP_RESET) {
		http_blame(transfer, reason, (int)number, words);
	} else {
		http_blame(transfer, reason, 0, words);
	}
}

static void curl_done(void *arg, CURLcode code)
{
	struct curl_transfer *own = arg;
	struct http_transfer *transfer = &own->transfer;
	if (code != CURLE_OK && transfer->reply.reason == HTTP_FINE)
		curl_explain(own, code);
	else if (!transfer->reply.answered && transfer->reply.reason == HTTP_FINE)
		http_blame(transfer, HTTP_CLOSED, 0, "the connection ended without an answer");
	http_over(transfer);
}

/* --- what libcurl calls: connection --- */

static int curl_on_resolve(void *state, void *reserved, void *arg)
{
	(void)state;
	(void)reserved;
	struct curl_transfer *own = arg;
	if (!own->resolving)
		loop_outside(own->transfer.client->loop, +1);
	own->resolving = true;
	return 0;
}

static int curl_on_socket(void *arg, curl_socket_t fd, curlsocktype purpose)
{
	(void)purpose;
	struct curl_transfer *own = arg;
	curl_resolved(own);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	unsigned ms = (unsigned)(own->transfer.client->config.user_timeout / CLOCK_MS);
	if (ms > 0) /* has no meaning for a Unix socket, which refuses it */
		setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
	return CURL_SOCKOPT_OK;
}

/* Called before each attempt to send the request; libcurl tries again by itself when a kept
 * connection turns out to be dead.  What may have arrived must not arrive twice. */
static int curl_on_attempt(void *arg, char *ip, char *local_ip, int port, int local_port)
{
	(void)ip, (void)local_ip, (void)port, (void)local_port;
	struct curl_transfer *own = arg;
	struct http_transfer *transfer = &own->transfer;
	long size = curl_request_size(own);
	if (own->attempted && size > own->sent_before && !transfer->repeatable) {
		http_blame(transfer, HTTP_CLOSED, 0,
			   "the kept connection was closed before the answer came");
		return CURL_PREREQFUNC_ABORT;
	}
	own->attempted = true;
	own->sent_before = size;
	http_connected(transfer);
	return CURL_PREREQFUNC_OK;
}

/* --- what libcurl calls: the bodies --- */

/* Without a piece libcurl is told to pause, and http_feed wakes it. */
static size_t curl_on_send(char *to, size_t size, size_t count, void *arg)
{
	struct http_transfer *transfer = arg;
	transfer->progress = clock_mono();
	if (transfer->upload == HTTP_FED) {
		size_t n = http_read_feed(transfer, to, size * count);
		if (n > 0 || transfer->feed_ended)
			return n;
		transfer->send_paused = true;
		return CURL_READFUNC_PAUSE;
	}
	ssize_t n = http_read_file(transfer, to, size * count);
	return n == -1 ? CURL_READFUNC_ABORT : (size_t)n;
}

/* libcurl wants to send the body again from the start. A file can; what a task fed us is gone. */
static int curl_on_rewind(void *arg, curl_off_t offset, int origin)
{
	(void)origin;
	struct http_transfer *transfer = arg;
	if (transfer->upload == HTTP_FED && transfer->body_at != offset)
		return CURL_SEEKFUNC_CANTSEEK;
	transfer->body_at = offset;
	return CURL_SEEKFUNC_OK;
}

/* Answering less than was given ends the transfer. */
static size_t curl_on_line(char *line, size_t size, size_t count, void *arg)
{
	struct http_transfer *transfer = arg;
	size_t n = size * count;
	transfer->progress = clock_mono();
	return http_answer_line(transfer, line, n) ? n : 0;
}

static size_t curl_on_body(char *data, size_t size, size_t count, void *arg)
{
	struct http_transfer *transfer = arg;
	size_t n = size * count;
	transfer->progress = clock_mono();
	if (http_answer_full(transfer)) {
		transfer->receive_paused = true;
		return CURL_WRITEFUNC_PAUSE;
	}
	return http_answer_body(transfer, data, n) ? n : 0;
}

/* --- beginning and going on --- */

static void curl_set_callbacks(struct curl_transfer *own)
{
	CURL *easy = own->easy;
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, own->words);
	curl_easy_setopt(easy, CURLOPT_RESOLVER_START_FUNCTION, curl_on_resolve);
	curl_easy_setopt(easy, CURLOPT_RESOLVER_START_DATA, own);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, curl_on_socket);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTDATA, own);
	curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, curl_on_attempt);
	curl_easy_setopt(easy, CURLOPT_PREREQDATA, own);
	curl_easy_setopt(easy, CURLOPT_READFUNCTION, curl_on_send);
	curl_easy_setopt(easy, CURLOPT_READDATA, &own->transfer);
	curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, curl_on_rewind);
	curl_easy_setopt(easy, CURLOPT_SEEKDATA, &own->transfer);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, curl_on_line);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, &own->transfer);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, curl_on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, &own->transfer);
}

static int curl_begin(struct http_transfer *transfer, const struct http_plan *plan,
		      const struct http_request *request, enum http_reason *reason, struct err *err)
{
	(void)plan;
	struct curl_transfer *own = (struct curl_transfer *)transfer;
	struct http_client *client = transfer->client;
	own->job = (struct multi_job){.done = curl_done, .arg = own};
	*reason = HTTP_TLS;
	own->curl = curl_of(client, err);
	if (own->curl == NULL)
		return -1;
	*reason = HTTP_MEMORY;
	own->headers = http_easy_headers(request->headers, request->header_count);
	own->easy = own->headers ? curl_take(own->curl) : NULL;
	if (own->easy == NULL)
		return err_set(err, ENOMEM, "out of memory for a request");
	curl_set_callbacks(own);
	http_easy_body(own->easy, request);
	curl_easy_setopt(own->easy, CURLOPT_HTTPHEADER, own->headers);
	if (http_easy_target(own->easy, &client->config, request, err) == -1)
		return -1;
	return multi_add(own->curl->multi, own->easy, &own->job, err);
}

/* Going on may hand out what libcurl has kept back, within the call; a failure of that is told to
 * nobody else. */
static void curl_go_on(struct http_transfer *transfer)
{
	struct curl_transfer *own = (struct curl_transfer *)transfer;
	int bits = (transfer->receive_paused ? CURLPAUSE_RECV : 0) |
		   (transfer->send_paused ? CURLPAUSE_SEND : 0);
	CURLcode code = curl_easy_pause(own->easy, bits);
	if (code != CURLE_OK)
		curl_done(own, code);
}

const struct http_way http_curl = {.size = sizeof(struct curl_transfer),
				   .begin = curl_begin,
				   .go_on = curl_go_on,
				   .stop = curl_stop};
