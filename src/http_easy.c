/* http_easy.c -- what is asked of libcurl, in one place.  Floor 3.  See worker/http_easy.h.
 *
 * Everything that holds for all requests of a client is set once, on a model; each easy handle
 * of the pool is a copy of it (curl_easy_duphandle), so a request costs only the options that
 * differ.  Nothing is left to libcurl's defaults where they matter to safety: protocols, proxies,
 * HTTP/0.9, what a proxy gets to see.
 */
#include "worker/http_easy.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/clock.h"
#include "worker/http_check.h"
#include "worker/http_transfer.h"

#define HTTP_EASY_CA_DIR    "/etc/ssl/certs"
#define HTTP_EASY_LOOPBACK  "localhost,127.0.0.0/8,::1"
#define HTTP_EASY_KEEP_IDLE 30L
#define HTTP_EASY_KEEP_STEP 10L
#define HTTP_EASY_UPLOAD    (256 * 1024L) /* a batch of a log in one system call, not in four */

/* --- the model --- */

/* A directory prepared by c_rehash has names like 4a6481c9.0. */
static bool http_easy_hashed(const char *path)
{
	DIR *dir = opendir(path);
	if (dir == NULL)
		return false;
	bool found = false;
	const struct dirent *entry;
	while (!found && (entry = readdir(dir)) != NULL)
		found = strlen(entry->d_name) == 10 && strcmp(entry->d_name + 8, ".0") == 0 &&
			strspn(entry->d_name, "0123456789abcdef") == 8;
	closedir(dir);
	return found;
}

/* The options on which trust hangs are all strings, which libcurl copies: out of memory must not
 * mean "not set". */
static void http_easy_text(CURL *easy, CURLoption option, const char *text, bool *failed)
{
	if (curl_easy_setopt(easy, option, text) != CURLE_OK)
		*failed = true;
}

/* The system's list as one bundle costs 30 ms and 800 KiB at the first request, since every
 * certificate of it is parsed; as a hashed directory only those that are needed are. */
static void http_easy_trust(CURL *easy, const struct http_config *config, bool *failed)
{
	if (config->ca_file != NULL || config->ca_dir != NULL) {
		http_easy_text(easy, CURLOPT_CAINFO, config->ca_file, failed);
		http_easy_text(easy, CURLOPT_CAPATH, config->ca_dir, failed);
	} else if (http_easy_hashed(HTTP_EASY_CA_DIR)) {
		http_easy_text(easy, CURLOPT_CAINFO, NULL, failed);
		http_easy_text(easy, CURLOPT_CAPATH, HTTP_EASY_CA_DIR, failed);
	}
}

static long http_easy_tls_version(int version)
{
	switch (version) {
	case 10:
		return CURL_SSLVERSION_TLSv1_0;
	case 11:
		return CURL_SSLVERSION_TLSv1_1;
	case 13:
		return CURL_SSLVERSION_TLSv1_3;
	default:
		return CURL_SSLVERSION_TLSv1_2;
	}
}

static void http_easy_tls(CURL *easy, const struct http_config *config, bool *failed)
{
	http_easy_trust(easy, config, failed);
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, http_easy_tls_version(config->tls_min));
	http_easy_text(easy, CURLOPT_SSLCERT, config->cert, failed);
	http_easy_text(easy, CURLOPT_SSLKEY, config->key, failed);
	/* Without one OpenSSL would ask for it at the terminal, and the loop would stand still. */
	http_easy_text(easy, CURLOPT_KEYPASSWD,
		       config->key_password != NULL ? config->key_password : "", failed);
}

static long http_easy_seconds(int64_t ns)
{
	return (long)((ns + CLOCK_SECOND - 1) / CLOCK_SECOND);
}

static void http_easy_connection(CURL *easy, const struct http_config *config, bool *failed)
{
	http_easy_text(easy, CURLOPT_UNIX_SOCKET_PATH, config->unix_path, failed);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
			 (long)(config->connect_timeout / CLOCK_MS));
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, HTTP_EASY_KEEP_IDLE);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, HTTP_EASY_KEEP_STEP);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, config->low_speed_bytes);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, http_easy_seconds(config->low_speed_time));
	if (config->max_idle > 0)
		curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, http_easy_seconds(config->max_idle));
	if (config->max_age > 0)
		curl_easy_setopt(easy, CURLOPT_MAXLIFETIME_CONN,
				 http_easy_seconds(config->max_age));
	/* Otherwise giving up during a name lookup waits, in the loop, for the lookup. */
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
}

static void http_easy_protocol(CURL *easy, const struct http_config *config, bool *failed)
{
	http_easy_text(easy, CURLOPT_PROTOCOLS_STR, "http,https", failed);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_HTTP09_ALLOWED, 0L);
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, config->user_agent);
	/* The headers (bearer tokens) are for the server, not for a proxy on the way. */
	curl_easy_setopt(easy, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE);
	curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 1L);
	curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, HTTP_EASY_UPLOAD);
}

/* libcurl would look at the environment by itself, per request; here the floors above have looked,
 * once.  The target's own proxy is set with the request, whose scheme decides. */
static void http_easy_exempt(CURL *easy, const char *list, bool *failed)
{
	if (list != NULL && strcmp(list, "*") == 0) { /* known to libcurl only when alone */
		http_easy_text(easy, CURLOPT_NOPROXY, list, failed);
		return;
	}
	char *all = NULL;
	if (asprintf(&all, "%s%s%s", HTTP_EASY_LOOPBACK, list ? "," : "", list ? list : "") == -1) {
		*failed = true;
		return;
	}
	http_easy_text(easy, CURLOPT_NOPROXY, all, failed);
	free(all);
}

CURL *http_easy_model(const struct http_config *config, struct err *err)
{
	CURL *easy = curl_easy_init();
	bool failed = easy == NULL;
	if (!failed) {
		http_easy_protocol(easy, config, &failed);
		http_easy_connection(easy, config, &failed);
		http_easy_exempt(easy, config->no_proxy, &failed);
		http_easy_tls(easy, config, &failed);
	}
	if (!failed)
		return easy;
	curl_easy_cleanup(easy);
	err_set(err, ENOMEM, "out of memory for an HTTP client");
	return NULL;
}

/* --- a request --- */

/* libcurl's own notation: "Name: value", but "Name;" for an empty value. */
static char *http_easy_write(char *to, const struct http_header *header)
{
	to = mempcpy(to, header->name, header->name_size);
	if (header->value_size == 0) {
		*to++ = ';';
	} else {
		to = mempcpy(to, ": ", 2);
		to = mempcpy(to, header->value, header->value_size);
	}
	*to++ = '\0';
	return to;
}

struct curl_slist *http_easy_headers(const struct http_header *headers, size_t count)
{
	/* Ends every list: no default Content-Type, and no waiting for "100 Continue". A header
	 * of the same name before it wins. */
	static const struct http_header last[] = {
		{.name = "Content-Type", .name_size = 12},
		{.name = "Expect", .name_size = 6},
	};
	size_t bytes = (count + 2) * sizeof(struct curl_slist) + 64;
	for (size_t i = 0; i < count; i++)
		bytes += headers[i].name_size + headers[i].value_size + 3;
	struct curl_slist *list = malloc(bytes);
	if (list == NULL)
		return NULL;
	char *text = (char *)(list + count + 2);
	for (size_t i = 0; i < count + 2; i++) {
		list[i] = (struct curl_slist){.data = text, .next = &list[i + 1]};
		if (i < count)
			text = http_easy_write(text, &headers[i]);
		else
			text += sprintf(text, "%s:", last[i - count].name) + 1;
	}
	list[count + 1].next = NULL;
	return list;
}

/* First what the handle's last request had set is taken back; HTTPGET after POSTFIELDS, which,
 * even with NULL, would make it a POST. */
void http_easy_body(CURL *easy, const struct http_request *request)
{
	bool head = strcmp(request->method, "HEAD") == 0;
	curl_easy_setopt(easy, CURLOPT_POSTFIELDS, NULL);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)-1);
	curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
	curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, head ? NULL : request->method);
	if (head) {
		curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
	} else if (request->upload == HTTP_FROM_FILE || request->upload == HTTP_FED) {
		curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->body_length);
	} else if (request->upload == HTTP_BYTES || http_check_has_body(request->method)) {
		size_t size = request->upload == HTTP_BYTES ? request->body_size : 0;
		curl_easy_setopt(easy, CURLOPT_POST, 1L);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)size);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, size ? request->body : "");
	}
	/* An announced length over the limit ends it before the body comes. HEAD only announces. */
	uint64_t most = head ? 0 : request->max_body;
	curl_easy_setopt(easy, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)most);
}

/* An empty proxy is none; without one, libcurl would ask the environment. */
int http_easy_target(CURL *easy, const struct http_config *config,
		     const struct http_request *request, struct err *err)
{
	bool failed = false;
	bool tls = strncasecmp(request->url, "https:", 6) == 0;
	const char *proxy = tls ? config->proxy_https : config->proxy_http;
	http_easy_text(easy, CURLOPT_URL, request->url, &failed);
	http_easy_text(easy, CURLOPT_PROXY, proxy ? proxy : "", &failed);
	return failed ? err_set(err, ENOMEM, "out of memory for a request") : 0;
}

/* --- what came back --- */

/* After a failed read or write libcurl tells one code for many things: the errno, and for the
 * chunked framing only its words, tell them apart. */
static enum http_reason http_easy_broken(CURL *easy, const char *text)
{
	long code = 0;
	curl_easy_getinfo(easy, CURLINFO_HTTP_CONNECTCODE, &code);
	if (code >= 300)
		return HTTP_CONNECT; /* the proxy refused the tunnel */
	if (strstr(text, "chunk") != NULL)
		return HTTP_PROTOCOL;
	curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &code);
	return http_lost_reason((int)code);
}

enum http_reason http_easy_reason(CURL *easy, CURLcode code, const char *text)
{
	switch (code) {
	case CURLE_OK:
		return HTTP_FINE;
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		return HTTP_DNS;
	case CURLE_COULDNT_CONNECT:
	case CURLE_PROXY:
	case CURLE_INTERFACE_FAILED:
		return HTTP_CONNECT;
	case CURLE_OPERATION_TIMEDOUT:
		return HTTP_TIMEOUT;
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
		return http_easy_broken(easy, text);
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
	case CURLE_SEND_FAIL_REWIND:
		return HTTP_CLOSED;
	case CURLE_FILESIZE_EXCEEDED:
		return HTTP_TOO_BIG;
	case CURLE_OUT_OF_MEMORY:
		return HTTP_MEMORY;
	case CURLE_URL_MALFORMAT:
		return HTTP_URL;
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_SSL_ENGINE_NOTFOUND:
	case CURLE_SSL_ENGINE_SETFAILED:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_USE_SSL_FAILED:
	case CURLE_SSL_ENGINE_INITFAILED:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_SHUTDOWN_FAILED:
	case CURLE_SSL_CRL_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
	case CURLE_SSL_INVALIDCERTSTATUS:
	case CURLE_SSL_CLIENTCERT:
		return HTTP_TLS;
	default:
		return HTTP_PROTOCOL;
	}
}
