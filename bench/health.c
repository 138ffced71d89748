/* health.c -- who asks a health address: one good client, and a crowd of bad ones.
 *
 *	health probe PORT COUNT
 *		ask /health so often, a new connection each time, every 20 ms; print how long the
 *		answers took, from connect to the last byte
 *	health crowd PORT CLIENTS
 *		until killed: a fifth each is silent, sends garbage, drips a header, asks 200 times
 *		and reads nothing, sends a body without end; who is thrown out comes again
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct sockaddr_in where;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* --- the good one --- */

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* Whether the answer came, whole and good, within 60 s. */
static int ask(void)
{
	static const char text[] = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
	char answer[65536];
	size_t size = 0;
	struct timeval most = {.tv_sec = 60};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), good = 0;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
	if (connect(fd, (struct sockaddr *)&where, sizeof where) == 0 &&
	    send(fd, text, sizeof text - 1, MSG_NOSIGNAL) == (ssize_t)sizeof text - 1) {
		ssize_t n;
		while (size < sizeof answer &&
		       (n = recv(fd, answer + size, sizeof answer - size, 0)) > 0)
			size += (size_t)n;
		good = size > 12 && memcmp(answer, "HTTP/1.1 200", 12) == 0;
	}
	close(fd);
	return good;
}

static int probe(int count)
{
	double *took = calloc((size_t)count, sizeof *took);
	int good = 0;
	for (int i = 0; i < count; i++) {
		double began = now();
		if (ask())
			took[good++] = (now() - began) * 1000;
		usleep(20000);
	}
	qsort(took, (size_t)good, sizeof *took, by_size);
	printf("%5d of %d answered", good, count);
	if (good > 0)
		printf("   median %6.1f ms   95 of 100 %6.1f   99 of 100 %6.1f   most %6.1f",
		       took[good / 2], took[good * 95 / 100], took[good * 99 / 100],
		       took[good - 1]);
	printf("\n");
	free(took);
	return good == count ? 0 : 1;
}

/* --- the crowd --- */

enum { SILENT, GARBAGE, DRIPPING, PIPELINING, ENDLESS, KINDS };

struct client {
	int fd;
	double next; /* when it does something again */
	size_t said;
};

static char pipelined[200 * 40], garbage[1200], body[65536];

static void go(struct client *c)
{
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	c->said = 0;
	if (c->fd != -1)
		connect(c->fd, (struct sockaddr *)&where, sizeof where);
}

/* Says what is next to be said; false when it was thrown out. */
static int say(struct client *c, int kind)
{
	static const char
		drip[] = "GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: yes, very slow, so slow",
		post[] = "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n";
	struct pollfd p = {.fd = c->fd, .events = POLLRDHUP | POLLOUT};
	if (c->fd == -1 || poll(&p, 1, 0) == -1 || p.revents & (POLLERR | POLLHUP | POLLRDHUP))
		return 0;
	if (!(p.revents & POLLOUT))
		return 1;
	const char *from = NULL;
	size_t size = 0;
	if (kind == GARBAGE && c->said == 0)
		from = garbage, size = sizeof garbage;
	else if (kind == DRIPPING && c->said < sizeof drip - 1)
		from = drip + c->said, size = 1;
	else if (kind == PIPELINING && c->said < sizeof pipelined)
		from = pipelined + c->said, size = sizeof pipelined - c->said;
	else if (kind == ENDLESS && c->said < sizeof post - 1)
		from = post + c->said, size = sizeof post - 1 - c->said;
	else if (kind == ENDLESS)
		from = body, size = sizeof body;
	if (from == NULL)
		return 1;
	ssize_t n = send(c->fd, from, size, MSG_NOSIGNAL);
	if (n > 0)
		c->said += (size_t)n;
	return n > 0 || errno == EAGAIN;
}

static void crowd(int count)
{
	struct client *clients = calloc((size_t)count, sizeof *clients);
	for (int i = 0; i < 200; i++)
		memcpy(pipelined + i * 37, "GET /metrics HTTP/1.1\r\nHost: xxxx\r\n\r\n", 37);
	memset(pipelined + 200 * 37, '\r', sizeof pipelined - 200 * 37);
	memset(garbage, 0xff, sizeof garbage);
	for (int i = 0; i < count; i++)
		go(&clients[i]);
	for (;;) {
		for (int i = 0; i < count; i++) {
			struct client *c = &clients[i];
			double at = now();
			if (c->next > at)
				continue;
			c->next = at + 0.2;
			if (c->fd == -1) {
				go(c);
			} else if (!say(c, i % KINDS)) {
				close(c->fd);
				c->fd = -1;
				c->next = at + 0.5 + (double)rand() / RAND_MAX;
			}
		}
		usleep(5000);
	}
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 64;
	where.sin_family = AF_INET;
	where.sin_port = htons((uint16_t)atoi(argv[2]));
	where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (strcmp(argv[1], "probe") == 0)
		return probe(atoi(argv[3]));
	crowd(atoi(argv[3]));
}
