/* address.c -- the ends of a connection by name, and how its socket is set up.  Floor 3.
 *
 * See worker/address.h.  Nothing here waits and nothing asks a name server: who wants a name
 * resolved goes through dial.c, which has a thread for it.
 */
#include "worker/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A peer that vanished is noticed after about two minutes of silence. */
#define ADDRESS_KEEP_IDLE  60
#define ADDRESS_KEEP_EVERY 15
#define ADDRESS_KEEP_TRIES 4

static void address_name_unix(const struct sockaddr_un *name, socklen_t length, char *out)
{
	size_t head = offsetof(struct sockaddr_un, sun_path);
	size_t n = length > head ? length - head : 0;
	if (n == 0)
		snprintf(out, ADDRESS_SIZE, "unix:");
	else if (name->sun_path[0] == '\0')
		snprintf(out, ADDRESS_SIZE, "unix:@%.*s", (int)n - 1, name->sun_path + 1);
	else
		snprintf(out, ADDRESS_SIZE, "unix:%.*s", (int)n, name->sun_path);
}

void address_name(int fd, bool peer, char out[ADDRESS_SIZE])
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
		struct sockaddr_un local;
		struct sockaddr_storage room;
	} name;
	socklen_t length = sizeof name;
	char text[INET6_ADDRSTRLEN];
	if ((peer ? getpeername : getsockname)(fd, &name.any, &length) == -1) {
		snprintf(out, ADDRESS_SIZE, "?");
		return;
	}
	switch (name.any.sa_family) {
	case AF_INET:
		inet_ntop(AF_INET, &name.v4.sin_addr, text, sizeof text);
		snprintf(out, ADDRESS_SIZE, "%s:%d", text, ntohs(name.v4.sin_port));
		break;
	case AF_INET6:
		inet_ntop(AF_INET6, &name.v6.sin6_addr, text, sizeof text);
		snprintf(out, ADDRESS_SIZE, "[%s]:%d", text, ntohs(name.v6.sin6_port));
		break;
	case AF_UNIX:
		address_name_unix(&name.local, length, out);
		break;
	default:
		snprintf(out, ADDRESS_SIZE, "?");
	}
}

static int address_port(const char *text, int *port)
{
	if (text[0] < '0' || text[0] > '9' || strlen(text) > 5)
		return -1;
	char *end;
	long value = strtol(text, &end, 10);
	if (*end != '\0' || value > 65535)
		return -1;
	*port = (int)value;
	return 0;
}

int address_split(const char *text, char *host, size_t size, int *port, struct err *err)
{
	const char *colon = strrchr(text, ':');
	if (colon == NULL || address_port(colon + 1, port) == -1)
		return err_set(err, EINVAL, "\"%.80s\": expected host:port, like 127.0.0.1:9252",
			       text);
	const char *from = text;
	size_t n = (size_t)(colon - text);
	if (n >= 2 && from[0] == '[' && from[n - 1] == ']') {
		from++;
		n -= 2;
	} else if (memchr(from, ':', n) != NULL) {
		return err_set(err, EINVAL,
			       "\"%.80s\": a version 6 address needs brackets: [::1]:80", text);
	}
	if (n >= size)
		return err_set(err, ENAMETOOLONG, "\"%.40s...\": the host name is too long", text);
	memcpy(host, from, n);
	host[n] = '\0';
	return 0;
}

int address_unix(const char *path, size_t n, struct sockaddr_un *out, socklen_t *length,
		 struct err *err)
{
	bool abstract = n > 0 && path[0] == '@';
	/* A path needs its NUL; an abstract name is counted and may fill the field. */
	size_t most = sizeof out->sun_path - (abstract ? 0 : 1);
	if (n == 0)
		return err_set(err, EINVAL, "a Unix socket needs a path");
	if (memchr(path, '\0', n) != NULL)
		return err_set(err, EINVAL, "the path of a Unix socket contains a NUL");
	if (n > most)
		return err_set(err, ENAMETOOLONG,
			       "%.100s...: the path of a Unix socket may have %zu bytes, not %zu",
			       path, most, n);
	memset(out, 0, sizeof *out);
	out->sun_family = AF_UNIX;
	memcpy(out->sun_path, path, n);
	if (abstract)
		out->sun_path[0] = '\0';
	*length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (abstract ? 0 : 1));
	return 0;
}

static void address_set(int fd, int level, int name, int value)
{
	/* These are improvements, not conditions: a kernel that refuses one is still good. */
	(void)setsockopt(fd, level, name, &value, sizeof value);
}

void address_tune(int fd, unsigned user_timeout_ms)
{
	address_set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	address_set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	address_set(fd, IPPROTO_TCP, TCP_KEEPIDLE, ADDRESS_KEEP_IDLE);
	address_set(fd, IPPROTO_TCP, TCP_KEEPINTVL, ADDRESS_KEEP_EVERY);
	address_set(fd, IPPROTO_TCP, TCP_KEEPCNT, ADDRESS_KEEP_TRIES);
	if (user_timeout_ms > 0)
		address_set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)user_timeout_ms);
}

int address_datagram(const char *path, size_t n, const void *data, size_t size, struct err *err)
{
	struct sockaddr_un to;
	socklen_t length;
	if (address_unix(path, n, &to, &length, err) == -1)
		return -1;
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd == -1)
		return err_errno(err, "datagram to %.*s", (int)n, path);
	ssize_t sent = sendto(fd, data, size, MSG_NOSIGNAL, (struct sockaddr *)&to, length);
	int result = sent == (ssize_t)size ? 0 : err_errno(err, "datagram to %.*s", (int)n, path);
	close(fd);
	return result;
}
