/* dial.c -- connecting to somebody: TCP, TLS, through a proxy, or a Unix socket.  Floor 3.
 *
 * See worker/dial.h.  Each dial has a multi of its own: dials are rare next to requests, and what
 * it would pool cannot be shared by raw connections anyway.
 *
 * How a plain connection leaves libcurl: our close callback is asked before libcurl closes any
 * socket of the transfer, and spares the one that was chosen.  The sockets of the addresses that
 * lost the race are closed as usual.
 *
 * A Unix connection is made here and now; the kernel answers EAGAIN only when the listener's
 * backlog is full, and offers nothing to wait for, so the dial asks again a little later.
 */
#include "worker/dial.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/address.h"
#include "worker/clock.h"
#include "worker/multi.h"

#define DIAL_AGAIN_FIRST (5 * CLOCK_MS)
#define DIAL_AGAIN_MOST	 (250 * CLOCK_MS)

struct dial {
	struct loop *loop;
	void (*done)(void *arg);
	void *arg;
	bool working;
	bool tls;
	unsigned user_timeout_ms;
	struct loop_timer limit;
	const char *reason; /* why it failed, NULL when it stands */
	int code;
	char where[300]; /* whom we call, for messages */

	int fd; /* Unix: the socket.  TCP: the one to be spared by the close callback */
	struct loop_timer again;
	int64_t pause;
	struct sockaddr_un address;
	socklen_t length;

	struct multi *multi;
	CURL *easy;
	struct multi_job job;
	struct curl_slist *connect_to;
	char text[CURL_ERROR_SIZE];
};

/* --- the end of a dial --- */

static void dial_over(struct dial *dial, int code, const char *reason)
{
	dial->code = code;
	dial->reason = reason;
	if (!dial->working)
		return;
	dial->working = false;
	loop_outside(dial->loop, -1);
	loop_timer_stop(dial->loop, &dial->limit);
	loop_timer_stop(dial->loop, &dial->again);
}

static void dial_tell(struct dial *dial, int code, const char *reason)
{
	dial_over(dial, code, reason);
	dial->done(dial->arg);
}

static void dial_late(void *arg)
{
	struct dial *dial = arg;
	snprintf(dial->text, sizeof dial->text, "no connection within the time allowed");
	dial_tell(dial, ETIMEDOUT, "timeout");
}

static void dial_free(struct dial *dial)
{
	dial_over(dial, dial->code, dial->reason);
	if (dial->multi != NULL) {
		multi_remove(dial->multi, dial->easy);
		curl_easy_cleanup(dial->easy);
		multi_close(dial->multi);
	} else if (dial->easy != NULL) {
		curl_easy_cleanup(dial->easy);
	}
	if (dial->multi == NULL && dial->fd != -1)
		close(dial->fd);
	curl_slist_free_all(dial->connect_to);
	free(dial);
}

void dial_cancel(struct dial *dial)
{
	dial_free(dial);
}

const char *dial_reason(const struct dial *dial)
{
	return dial->reason;
}

/* --- Unix --- */

static void dial_unix_try(void *arg);

/* 1 it stands, 0 asked for again later, -1 it will not be. */
static int dial_unix_connect(struct dial *dial)
{
	if (connect(dial->fd, (struct sockaddr *)&dial->address, dial->length) == 0)
		return 1;
	if (errno != EAGAIN && errno != EINTR)
		return -1;
	if (loop_timer_start(dial->loop, &dial->again, dial->pause, dial_unix_try, dial) == -1) {
		errno = ENOMEM;
		return -1;
	}
	dial->pause = dial->pause * 2 < DIAL_AGAIN_MOST ? dial->pause * 2 : DIAL_AGAIN_MOST;
	return 0;
}

static void dial_unix_try(void *arg)
{
	struct dial *dial = arg;
	int stands = dial_unix_connect(dial);
	int code = errno;
	if (stands == 1)
		dial_tell(dial, 0, NULL);
	else if (stands == -1)
		dial_tell(dial, code, "connect");
}

static int dial_start_unix(struct dial *dial, const struct dial_options *options, struct err *err)
{
	snprintf(dial->where, sizeof dial->where, "%.*s", (int)options->unix_length,
		 options->unix_path);
	if (options->tls)
		return err_set(err, EINVAL, "%s: TLS over a Unix socket is not offered",
			       dial->where);
	if (address_unix(options->unix_path, options->unix_length, &dial->address, &dial->length,
			 err) == -1)
		return -1;
	dial->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (dial->fd == -1)
		return err_errno(err, "%s", dial->where);
	/* Even what is known at once is told from the loop: one way for the caller. */
	dial->pause = DIAL_AGAIN_FIRST;
	if (loop_timer_start(dial->loop, &dial->again, 0, dial_unix_try, dial) == -1)
		return err_set(err, ENOMEM, "%s: out of memory", dial->where);
	return 0;
}

/* --- TCP, by libcurl --- */

static const char *dial_word(CURLcode code)
{
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		return "dns";
	case CURLE_OPERATION_TIMEDOUT:
		return "timeout";
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_INVALIDCERTSTATUS:
		return "tls";
	default:
		return "connect";
	}
}

static void dial_connected(void *arg, CURLcode code)
{
	struct dial *dial = arg;
	long number = 0;
	if (code == CURLE_OK) {
		dial_tell(dial, 0, NULL);
		return;
	}
	curl_easy_getinfo(dial->easy, CURLINFO_OS_ERRNO, &number);
	if (dial->text[0] == '\0')
		snprintf(dial->text, sizeof dial->text, "%s", curl_easy_strerror(code));
	dial_tell(dial, (int)number, dial_word(code));
}

/* libcurl would open sockets that survive an exec. */
static curl_socket_t dial_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
	(void)arg;
	(void)purpose;
	return socket(a->family, a->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->protocol);
}

static int dial_close_socket(void *arg, curl_socket_t fd)
{
	const struct dial *dial = arg;
	return fd == dial->fd ? 0 : close(fd);
}

static int dial_tune_socket(void *arg, curl_socket_t fd, curlsocktype purpose)
{
	const struct dial *dial = arg;
	(void)purpose;
	address_tune(fd, dial->user_timeout_ms);
	return CURL_SOCKOPT_OK;
}

static bool dial_is_loopback(const char *host)
{
	return strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 ||
	       strcmp(host, "::1") == 0;
}

/* A host name becomes part of a URL; whatever could end it early is refused. */
static int dial_check_host(const char *host, struct err *err)
{
	size_t good = strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				   "0123456789.-_:");
	if (host[0] == '\0' || host[good] != '\0')
		return err_set(err, EINVAL, "\"%.80s\" is not a host name", host);
	return 0;
}

/* libcurl offers h2 only where it would speak it itself, so its OpenSSL is asked directly.  The
 * function comes along with libcurl; nothing is linked for it. */
static CURLcode dial_offer_h2(CURL *easy, void *context, void *arg)
{
	static const unsigned char protocols[] = {2, 'h', '2'};
	int (*offer)(void *context, const unsigned char *protocols, unsigned n);
	(void)easy;
	(void)arg;
	*(void **)&offer = dlsym(RTLD_DEFAULT, "SSL_CTX_set_alpn_protos");
	if (offer == NULL || offer(context, protocols, sizeof protocols) != 0)
		return CURLE_SSL_CONNECT_ERROR;
	return CURLE_OK;
}

static void dial_setup_alpn(CURL *easy, const char *alpn)
{
	bool h2 = alpn != NULL && strcmp(alpn, "h2") == 0;
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_SSL_ENABLE_ALPN, (long)(alpn != NULL && !h2));
	if (h2)
		curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, dial_offer_h2);
}

static void dial_setup_tls(const struct dial *dial, const struct dial_options *options)
{
	CURL *easy = dial->easy;
	bool newest = options->tls_min != NULL && strcmp(options->tls_min, "1.3") == 0;
	curl_easy_setopt(easy, CURLOPT_SSLVERSION,
			 (long)(newest ? CURL_SSLVERSION_TLSv1_3 : CURL_SSLVERSION_TLSv1_2));
	dial_setup_alpn(easy, options->alpn);
	if (options->insecure) {
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	if (options->ca_file != NULL)
		curl_easy_setopt(easy, CURLOPT_CAINFO, options->ca_file);
	if (options->ca_dir != NULL)
		curl_easy_setopt(easy, CURLOPT_CAPATH, options->ca_dir);
	if (options->cert != NULL)
		curl_easy_setopt(easy, CURLOPT_SSLCERT, options->cert);
	if (options->key != NULL)
		curl_easy_setopt(easy, CURLOPT_SSLKEY, options->key);
	/* Without one OpenSSL would ask for it at the terminal, and the loop would stand still. */
	curl_easy_setopt(easy, CURLOPT_KEYPASSWD,
			 options->key_password != NULL ? options->key_password : "");
}

/* The URL names whom the certificate must belong to; CONNECT_TO says where that is. */
static int dial_setup_address(struct dial *dial, const struct dial_options *options,
			      struct err *err)
{
	const char *name = options->name != NULL ? options->name : options->host;
	if (dial_check_host(options->host, err) == -1 || dial_check_host(name, err) == -1)
		return -1;
	char url[700], to[700];
	bool v6 = strchr(name, ':') != NULL;
	snprintf(url, sizeof url, "%s://%s%.255s%s:%d", options->tls ? "https" : "http",
		 v6 ? "[" : "", name, v6 ? "]" : "", options->port);
	curl_easy_setopt(dial->easy, CURLOPT_URL, url);
	if (options->name == NULL)
		return 0;
	v6 = strchr(options->host, ':') != NULL;
	snprintf(to, sizeof to, "::%s%.255s%s:%d", v6 ? "[" : "", options->host, v6 ? "]" : "",
		 options->port);
	dial->connect_to = curl_slist_append(NULL, to);
	curl_easy_setopt(dial->easy, CURLOPT_CONNECT_TO, dial->connect_to);
	return 0;
}

static void dial_setup(struct dial *dial, const struct dial_options *options)
{
	CURL *easy = dial->easy;
	curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, dial->text);
	curl_easy_setopt(easy, CURLOPT_HTTPPROXYTUNNEL, 1L);
	/* The limit is ours; libcurl's own must not come first. */
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
			 (long)(options->timeout / CLOCK_MS + 60000));
#if LIBCURL_VERSION_NUM >= 0x075700
	/* Giving up on a name server that is silent must not wait for its thread. */
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
#endif
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, dial_open_socket);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, dial_close_socket);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, dial);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, dial_tune_socket);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTDATA, dial);
	if (dial_is_loopback(options->host))
		curl_easy_setopt(easy, CURLOPT_PROXY, "");
	else if (options->proxy != NULL)
		curl_easy_setopt(easy, CURLOPT_PROXY, options->proxy);
	if (options->tls)
		dial_setup_tls(dial, options);
}

static int dial_start_tcp(struct dial *dial, const struct dial_options *options, struct err *err)
{
	snprintf(dial->where, sizeof dial->where, "%s:%d", options->host, options->port);
	/* The multi comes first: it is what initialises libcurl. */
	struct multi *multi = multi_open(dial->loop, err);
	if (multi == NULL)
		return -1;
	dial->easy = curl_easy_init();
	dial->job = (struct multi_job){.done = dial_connected, .arg = dial};
	if (dial->easy == NULL) {
		multi_close(multi);
		return err_set(err, ENOMEM, "%s: out of memory", dial->where);
	}
	dial_setup(dial, options);
	if (dial_setup_address(dial, options, err) == -1 ||
	    multi_add(multi, dial->easy, &dial->job, err) == -1) {
		curl_easy_cleanup(dial->easy);
		dial->easy = NULL;
		multi_close(multi);
		return -1;
	}
	dial->multi = multi;
	return 0;
}

/* --- TLS as a wire --- */

static ssize_t dial_outcome(CURLcode code, size_t n)
{
	if (code == CURLE_OK)
		return (ssize_t)n;
	if (code == CURLE_AGAIN)
		errno = EAGAIN;
	else if (errno != ECONNRESET && errno != EPIPE && errno != ETIMEDOUT)
		errno = EPROTO;
	return -1;
}

static ssize_t dial_tls_recv(void *arg, int fd, void *to, size_t n)
{
	const struct dial *dial = arg;
	size_t got = 0;
	(void)fd;
	errno = 0;
	CURLcode code = curl_easy_recv(dial->easy, to, n, &got);
	return dial_outcome(code, got);
}

static ssize_t dial_tls_send(void *arg, int fd, const void *from, size_t n)
{
	const struct dial *dial = arg;
	size_t sent = 0;
	(void)fd;
	errno = 0;
	CURLcode code = curl_easy_send(dial->easy, from, n, &sent);
	return dial_outcome(code, sent);
}

/* libcurl cannot end one direction of TLS, and a bare FIN would look like an attack. */
static int dial_tls_shutdown(void *arg, int fd)
{
	(void)arg;
	(void)fd;
	errno = EOPNOTSUPP;
	return -1;
}

static void dial_tls_close(void *arg, int fd)
{
	(void)fd;
	dial_free(arg);
}

static const struct sock_wire dial_tls = {.recv = dial_tls_recv,
					  .send = dial_tls_send,
					  .shutdown = dial_tls_shutdown,
					  .close = dial_tls_close};

/* --- the two ends of the story --- */

struct dial *dial_start(struct loop *loop, const struct dial_options *options,
			void (*done)(void *arg), void *arg, struct err *err)
{
	struct dial *dial = calloc(1, sizeof *dial);
	if (dial == NULL) {
		err_set(err, ENOMEM, "out of memory for a connection");
		return NULL;
	}
	*dial = (struct dial){.loop = loop, .done = done, .arg = arg, .fd = -1};
	dial->tls = options->tls;
	dial->user_timeout_ms = options->user_timeout_ms;
	int started = options->unix_path != NULL ? dial_start_unix(dial, options, err)
						 : dial_start_tcp(dial, options, err);
	if (started == -1 ||
	    loop_timer_start(loop, &dial->limit, options->timeout, dial_late, dial) == -1) {
		if (started != -1)
			err_set(err, ENOMEM, "%s: out of memory", dial->where);
		loop_timer_stop(loop, &dial->again);
		dial_free(dial);
		return NULL;
	}
	dial->working = true;
	loop_outside(loop, 1);
	return dial;
}

static int dial_explain(const struct dial *dial, struct err *err)
{
	if (dial->text[0] != '\0')
		return err_set(err, dial->code, "connecting to %.120s: %.120s", dial->where,
			       dial->text);
	return err_set(err, dial->code, "connecting to %.120s: %s", dial->where,
		       strerror(dial->code));
}

int dial_finish(struct dial *dial, struct sock *s, struct err *err)
{
	int fd = dial->fd;
	if (dial->reason != NULL) {
		dial_explain(dial, err);
		dial_free(dial);
		return -1;
	}
	if (dial->multi != NULL) {
		curl_socket_t chosen = CURL_SOCKET_BAD;
		curl_easy_getinfo(dial->easy, CURLINFO_ACTIVESOCKET, &chosen);
		fd = (int)chosen;
	}
	if (sock_open(s, dial->loop, fd, dial->tls ? &dial_tls : NULL, dial, err) == -1) {
		dial_free(dial);
		return -1;
	}
	if (dial->tls)
		return 0; /* the sock closes it */
	/* Spared by the close callback (TCP), or simply not ours any more (Unix). */
	dial->fd = dial->multi != NULL ? fd : -1;
	dial_free(dial);
	return 0;
}
