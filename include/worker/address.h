/* address.h -- the ends of a connection by name, and how its socket is set up.  Floor 3.
 *
 * Written addresses are "127.0.0.1:80", "[::1]:80", "name:80" for TCP; Unix sockets are named by
 * path, where a leading "@" stands for the abstract namespace.
 */
#ifndef WORKER_ADDRESS_H
#define WORKER_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "worker/err.h"

#define ADDRESS_SIZE 160

/* address_name(fd, peer, out): the address of one end: 127.0.0.1:80, [::1]:80, unix:/path,
 * unix:@abstract, or unix: for an end without a name. */
void address_name(int fd, bool peer, char out[ADDRESS_SIZE]);

/* address_split(text, host, size, port, err): take "host:port" apart; the brackets of a version 6
 * address are dropped.  0 or -1. */
int address_split(const char *text, char *host, size_t size, int *port, struct err *err);

/* address_unix(path, n, out, length, err): fill in a Unix address.  0 or -1. */
int address_unix(const char *path, size_t n, struct sockaddr_un *out, socklen_t *length,
		 struct err *err);

/* address_tune(fd, user_timeout_ms): for TCP: no delay, keepalive, and a limit on waiting for
 * acknowledgements.  Accepted connections inherit all of it from their listener. */
void address_tune(int fd, unsigned user_timeout_ms);

/* address_datagram(path, n, data, size, err): send one datagram to a Unix socket, at once or not
 * at all.  0 or -1. */
int address_datagram(const char *path, size_t n, const void *data, size_t size, struct err *err);

#endif
