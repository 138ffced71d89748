/* http_check.c -- what a request may consist of, and how it is spoken about.  Floor 3.
 *
 * See worker/http_check.h.
 */
#include "worker/http_check.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define CHECK_MAX_URL 65536

bool http_check_token(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)text[i];
		if (!isalnum(c) && (c == '\0' || strchr("!#$%&'*+-.^_`|~", c) == NULL))
			return false;
	}
	return n > 0;
}

static int check_method(const char *method, struct err *err)
{
	if (http_check_token(method, strlen(method)) && strlen(method) <= 32)
		return 0;
	return err_set(err, 0, "'%.40s' is no HTTP method", method);
}

/* These decide where the body ends; two opinions about that are request smuggling. */
static bool check_reserved(const char *name, size_t n)
{
	static const char *const reserved[] = {"Content-Length", "Transfer-Encoding", "Expect"};
	for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
		if (strlen(reserved[i]) == n && strncasecmp(reserved[i], name, n) == 0)
			return true;
	return false;
}

/* The value is never shown: it may be a token. */
static int check_header(const struct http_header *header, struct err *err)
{
	if (!http_check_token(header->name, header->name_size))
		return err_set(err, 0, "'%.40s' is no header name", header->name);
	if (check_reserved(header->name, header->name_size))
		return err_set(err, 0, "header %s is set by the client itself", header->name);
	for (size_t i = 0; i < header->value_size; i++) {
		unsigned char c = (unsigned char)header->value[i];
		if ((c < ' ' && c != '\t') || c == 0x7f)
			return err_set(err, 0,
				       "the value of header %s has a control character (0x%02x) at "
				       "byte %zu",
				       header->name, c, i + 1);
	}
	return 0;
}

int http_check_url(const char *url, struct err *err)
{
	if (strncasecmp(url, "http://", 7) != 0 && strncasecmp(url, "https://", 8) != 0)
		return err_set(err, 0, "'%.*s...' does not begin with http:// or https://",
			       (int)strcspn(url, "/@?") > 40 ? 40 : (int)strcspn(url, "/@?"), url);
	if (strcspn(strstr(url, "//") + 2, "/?#") == 0)
		return err_set(err, 0, "the URL names no host");
	size_t n = strlen(url);
	if (n > CHECK_MAX_URL)
		return err_set(err, 0, "the URL is %zu bytes long; the limit is %d", n,
			       CHECK_MAX_URL);
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)url[i] <= ' ' || (unsigned char)url[i] >= 0x7f)
			return err_set(err, 0,
				       "the URL has a character that must be escaped (0x%02x) at "
				       "byte %zu",
				       (unsigned char)url[i], i + 1);
	return 0;
}

void http_check_label(char *out, size_t size, const char *method, const char *url)
{
	const char *host = strstr(url, "://");
	host = host ? host + 3 : url;
	size_t authority = strcspn(host, "/?#");
	const char *at = memrchr(host, '@', authority);
	const char *shown = at ? at + 1 : host;
	snprintf(out, size, "%s %.*s%.*s", method, (int)(host - url), url,
		 (int)strcspn(shown, "?#"), shown);
	for (char *c = out; *c != '\0'; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
}

static bool check_one_of(const char *method, const char *const *list)
{
	while (*list != NULL && strcmp(*list, method) != 0)
		list++;
	return *list != NULL;
}

bool http_check_repeatable(const char *method)
{
	static const char *const repeatable[] = {"GET", "HEAD", "PUT", "DELETE", "OPTIONS", NULL};
	return check_one_of(method, repeatable);
}

bool http_check_has_body(const char *method)
{
	static const char *const with_body[] = {"POST", "PUT", "PATCH", NULL};
	return check_one_of(method, with_body);
}

int http_check_request(const struct http_request *request, struct err *err)
{
	if (check_method(request->method, err) == -1 || http_check_url(request->url, err) == -1)
		return -1;
	for (size_t i = 0; i < request->header_count; i++)
		if (check_header(&request->headers[i], err) == -1)
			return -1;
	return 0;
}

static int check_readable(const char *field, const char *path, struct err *err)
{
	if (path == NULL || access(path, R_OK) == 0)
		return 0;
	return err_errno(err, "%s %s", field, path);
}

int http_check_config(const struct http_config *config, struct err *err)
{
	const char *agent = config->user_agent ? config->user_agent : "";
	struct http_header line = {"User-Agent", agent, 10, strlen(agent)};
	if (check_readable("ca_file", config->ca_file, err) == -1 ||
	    check_readable("ca_dir", config->ca_dir, err) == -1 ||
	    check_readable("cert", config->cert, err) == -1 ||
	    check_readable("key", config->key, err) == -1)
		return -1;
	return check_header(&line, err);
}

const char *http_check_word(enum http_reason reason)
{
	static const char *const words[] = {
		[HTTP_FINE] = "fine",	  [HTTP_DNS] = "dns",	      [HTTP_CONNECT] = "connect",
		[HTTP_TLS] = "tls",	  [HTTP_TIMEOUT] = "timeout", [HTTP_RESET] = "reset",
		[HTTP_CLOSED] = "closed", [HTTP_TOO_BIG] = "too_big", [HTTP_PROTOCOL] = "protocol",
		[HTTP_MEMORY] = "memory", [HTTP_URL] = "url",	      [HTTP_FILE] = "file",
	};
	return words[reason];
}
