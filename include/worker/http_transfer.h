/* http_transfer.h -- one request under way, as its files see it.  Floor 3, with http.h.
 *
 * http.c begins and ends a transfer and keeps its time; http_answer.c takes in what comes back.
 */
#ifndef WORKER_HTTP_TRANSFER_H
#define WORKER_HTTP_TRANSFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <curl/curl.h>

#include "worker/http.h"
#include "worker/http_client.h"
#include "worker/loop.h"
#include "worker/multi.h"

#define HTTP_LABEL 160

struct http_transfer {
	struct http_member member;
	struct http_client *client; /* NULL when over, like ${easy} */
	CURL *easy;
	struct multi_job job;
	struct curl_slist *headers;
	struct http_reply reply;
	char label[HTTP_LABEL];
	char words[CURL_ERROR_SIZE];

	struct loop_timer timer;
	int64_t started, progress, timeout;
	bool connected, resolving, stream, patient;
	uint64_t max_body;

	bool receive_paused, send_paused;
	bool repeatable; /* the method may be repeated */
	bool attempted;
	size_t head_seen;    /* bytes, of all heads: 1xx answers may come without end */
	long long announced; /* Content-Length, -1 before there was one */
	long sent_before;    /* CURLINFO_REQUEST_SIZE when this attempt began */

	enum http_upload upload;
	const char *feed; /* HTTP_FED: what is left of the current piece */
	size_t feed_left;
	bool feed_ended;
	int body_fd, save_fd;
	int64_t body_at, body_length;

	void (*changed)(void *arg);
	void *arg;
};

/* http_blame(transfer, reason, code, text): note why it fails.  The first reason is the true one;
 * what follows from it is noise. */
void http_blame(struct http_transfer *transfer, enum http_reason reason, int code,
		const char *text);

/* http_changed(transfer): tell whoever waits that there is news. */
static inline void http_changed(struct http_transfer *transfer)
{
	transfer->changed(transfer->arg);
}

/* http_answer_setup(transfer): have libcurl hand the answer to http_answer.c. */
void http_answer_setup(struct http_transfer *transfer);

/* http_answer_write(transfer, data, n): into the file of http_save; false when that failed. */
bool http_answer_write(struct http_transfer *transfer, const char *data, size_t n);

#endif
