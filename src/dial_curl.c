/* dial_curl.c -- connecting through a proxy, or with TLS, by libcurl.  Floor 3.
 *
 * See worker/dial_way.h.  Each dial has a multi of its own: dials are rare next to requests, and
 * what it would pool cannot be shared by raw connections anyway.
 *
 * How a plain connection leaves libcurl: our close callback is asked before libcurl closes any
 * socket of the transfer, and spares the one that was chosen.  The sockets of the addresses that
 * lost the race are closed as usual.  A TLS connection stays: libcurl is the wire of its sock.
 */
#include "worker/dial_way.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/address.h"
#include "worker/clock.h"
#include "worker/libcurl.h"
#include "worker/multi.h"

_Static_assert(DIAL_TEXT >= CURL_ERROR_SIZE, "libcurl's words have room");

struct curl_dial {
	struct dial dial;
	bool tls;
	int spared; /* by the close callback; -1 is none */
	struct multi *multi;
	CURL *easy;
	struct multi_job job;
	struct curl_slist *connect_to;
};

static const char *curl_word(CURLcode code)
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

static void curl_connected(void *arg, CURLcode code)
{
	struct curl_dial *way = arg;
	struct dial *dial = &way->dial;
	long number = 0;
	if (code == CURLE_OK) {
		dial_tell(dial, 0, NULL);
		return;
	}
	curl_easy_getinfo(way->easy, CURLINFO_OS_ERRNO, &number);
	if (dial->text[0] == '\0')
		snprintf(dial->text, sizeof dial->text, "%s", curl_easy_strerror(code));
	dial_tell(dial, (int)number, curl_word(code));
}

/* --- what is asked of libcurl --- */

/* libcurl would open sockets that survive an exec. */
static curl_socket_t curl_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
	(void)arg;
	(void)purpose;
	return socket(a->family, a->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->protocol);
}

static int curl_close_socket(void *arg, curl_socket_t fd)
{
	const struct curl_dial *way = arg;
	return fd == way->spared ? 0 : close(fd);
}

static int curl_tune_socket(void *arg, curl_socket_t fd, curlsocktype purpose)
{
	const struct curl_dial *way = arg;
	(void)purpose;
	address_tune(fd, way->dial.user_timeout_ms);
	return CURL_SOCKOPT_OK;
}

/* libcurl offers h2 only where it would speak it itself, so its OpenSSL is asked directly. */
static CURLcode curl_offer_h2(CURL *easy, void *context, void *arg)
{
	static const unsigned char protocols[] = {2, 'h', '2'};
	int (*offer)(void *context, const unsigned char *protocols, unsigned n);
	(void)easy;
	(void)arg;
	*(void **)&offer = libcurl_symbol("SSL_CTX_set_alpn_protos");
	if (offer == NULL || offer(context, protocols, sizeof protocols) != 0)
		return CURLE_SSL_CONNECT_ERROR;
	return CURLE_OK;
}

static void curl_setup_alpn(CURL *easy, const char *alpn)
{
	bool h2 = alpn != NULL && strcmp(alpn, "h2") == 0;
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_SSL_ENABLE_ALPN, (long)(alpn != NULL && !h2));
	if (h2)
		curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, curl_offer_h2);
}

static void curl_setup_tls(CURL *easy, const struct dial_options *options)
{
	bool newest = options->tls_min != NULL && strcmp(options->tls_min, "1.3") == 0;
	curl_easy_setopt(easy, CURLOPT_SSLVERSION,
			 (long)(newest ? CURL_SSLVERSION_TLSv1_3 : CURL_SSLVERSION_TLSv1_2));
	curl_setup_alpn(easy, options->alpn);
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
static void curl_setup_address(struct curl_dial *way, const struct dial_options *options)
{
	const char *name = options->name != NULL ? options->name : options->host;
	char url[700], to[700];
	bool v6 = strchr(name, ':') != NULL;
	snprintf(url, sizeof url, "%s://%s%.255s%s:%d", options->tls ? "https" : "http",
		 v6 ? "[" : "", name, v6 ? "]" : "", options->port);
	curl_easy_setopt(way->easy, CURLOPT_URL, url);
	if (options->name == NULL)
		return;
	v6 = strchr(options->host, ':') != NULL;
	snprintf(to, sizeof to, "::%s%.255s%s:%d", v6 ? "[" : "", options->host, v6 ? "]" : "",
		 options->port);
	way->connect_to = curl_slist_append(NULL, to);
	curl_easy_setopt(way->easy, CURLOPT_CONNECT_TO, way->connect_to);
}

static void curl_setup(struct curl_dial *way, const struct dial_options *options)
{
	CURL *easy = way->easy;
	curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, way->dial.text);
	curl_easy_setopt(easy, CURLOPT_HTTPPROXYTUNNEL, 1L);
	/* The limit is ours; libcurl's own must not come first. */
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
			 (long)(options->timeout / CLOCK_MS + 60000));
#if LIBCURL_VERSION_NUM >= 0x075700
	/* Giving up on a name server that is silent must not wait for its thread. */
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
#endif
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, curl_open_socket);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, curl_close_socket);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, way);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, curl_tune_socket);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTDATA, way);
	if (options->proxy != NULL)
		curl_easy_setopt(easy, CURLOPT_PROXY, options->proxy);
	if (options->tls)
		curl_setup_tls(easy, options);
	curl_setup_address(way, options);
}

/* --- TLS as a wire --- */

static ssize_t curl_outcome(CURLcode code, size_t n)
{
	if (code == CURLE_OK)
		return (ssize_t)n;
	if (code == CURLE_AGAIN)
		errno = EAGAIN;
	else if (errno != ECONNRESET && errno != EPIPE && errno != ETIMEDOUT)
		errno = EPROTO;
	return -1;
}

static ssize_t curl_tls_recv(void *arg, int fd, void *to, size_t n)
{
	const struct curl_dial *way = arg;
	size_t got = 0;
	(void)fd;
	errno = 0;
	CURLcode code = curl_easy_recv(way->easy, to, n, &got);
	return curl_outcome(code, got);
}

static ssize_t curl_tls_send(void *arg, int fd, const void *from, size_t n)
{
	const struct curl_dial *way = arg;
	size_t sent = 0;
	(void)fd;
	errno = 0;
	CURLcode code = curl_easy_send(way->easy, from, n, &sent);
	return curl_outcome(code, sent);
}

/* libcurl cannot end one direction of TLS, and a bare FIN would look like an attack. */
static int curl_tls_shutdown(void *arg, int fd)
{
	(void)arg;
	(void)fd;
	errno = EOPNOTSUPP;
	return -1;
}

static void curl_tls_close(void *arg, int fd)
{
	struct curl_dial *way = arg;
	(void)fd;
	dial_free(&way->dial);
}

static const struct sock_wire curl_tls = {.recv = curl_tls_recv,
					  .send = curl_tls_send,
					  .shutdown = curl_tls_shutdown,
					  .close = curl_tls_close};

/* --- the way --- */

static int curl_start(struct dial *dial, const struct dial_options *options, struct err *err)
{
	struct curl_dial *way = (struct curl_dial *)dial;
	way->spared = -1;
	way->tls = options->tls;
	way->multi = multi_open(dial->loop, err); /* first: it loads libcurl */
	if (way->multi == NULL)
		return -1;
	way->easy = curl_easy_init();
	if (way->easy == NULL)
		return err_set(err, ENOMEM, "%s: out of memory", dial->where);
	curl_setup(way, options);
	way->job = (struct multi_job){.done = curl_connected, .arg = way};
	return multi_add(way->multi, way->easy, &way->job, err);
}

static int curl_open(struct dial *dial, struct sock *s, bool *keeps, struct err *err)
{
	struct curl_dial *way = (struct curl_dial *)dial;
	curl_socket_t chosen = CURL_SOCKET_BAD;
	curl_easy_getinfo(way->easy, CURLINFO_ACTIVESOCKET, &chosen);
	if (sock_open(s, dial->loop, chosen, way->tls ? &curl_tls : NULL, way, err) == -1)
		return -1;
	*keeps = way->tls;
	if (!way->tls)
		way->spared = chosen;
	return 0;
}

static void curl_stop(struct dial *dial)
{
	struct curl_dial *way = (struct curl_dial *)dial;
	if (way->multi == NULL)
		return;
	if (way->easy != NULL) {
		multi_remove(way->multi, way->easy);
		curl_easy_cleanup(way->easy);
	}
	multi_close(way->multi);
	curl_slist_free_all(way->connect_to);
}

const struct dial_way dial_curl = {.size = sizeof(struct curl_dial),
				   .start = curl_start,
				   .open = curl_open,
				   .stop = curl_stop};
