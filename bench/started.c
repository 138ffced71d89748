/* started.c -- from exec to the first POST on the wire.
 *
 *   started N PROGRAM ARGS...    runs it N times; "@URL@" in an argument is our address, and so is
 *                                CALLBACK_URL in its environment
 *
 * The clock starts before the fork and stops when the head of the first request is there.  Every
 * request is answered with 200 and an empty body; the run ends with the program.  Prints the
 * median, the 90th percentile and the best in milliseconds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST	 1000
#define PATIENCE 5000 /* milliseconds without anything to read: the program is stuck */

static const char ANSWER[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int listen_anywhere(char *url, size_t size)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof at;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 16) ||
	    getsockname(fd, (struct sockaddr *)&at, &len))
		die("listen");
	snprintf(url, size, "http://127.0.0.1:%d/cb", ntohs(at.sin_port));
	return fd;
}

static pid_t start(char **argv)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid == 0) {
		if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr))
			_exit(126);
		execvp(argv[0], argv);
		_exit(127);
	}
	return pid;
}

/* The body may come with the head or after it; its length is in the head. */
static double take_request(int fd)
{
	char text[65536];
	size_t have = 0;
	double came = 0;

	while (have < sizeof text - 1) {
		ssize_t n = read(fd, text + have, sizeof text - 1 - have);
		if (n <= 0)
			break;
		have += (size_t)n;
		text[have] = 0;
		char *end = strstr(text, "\r\n\r\n");
		if (!end)
			continue;
		came = came > 0 ? came : now();
		char *length = strcasestr(text, "content-length:");
		size_t body = length ? strtoul(length + 15, NULL, 10) : 0;
		if (have >= (size_t)(end - text) + 4 + body)
			break;
	}
	if (write(fd, ANSWER, sizeof ANSWER - 1) < 0 && errno != EPIPE)
		die("write");
	close(fd);
	return came;
}

/* One run: answers whatever comes until the program has ended. */
static double run(int listener, char **argv)
{
	struct pollfd poll_for = {.fd = listener, .events = POLLIN};
	double began = now(), first = 0;
	pid_t pid = start(argv);
	int status, silence = 0;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (poll(&poll_for, 1, 1) > 0) {
			double came = take_request(accept(listener, NULL, NULL));
			first = first > 0 ? first : came;
			silence = 0;
		} else if (++silence > PATIENCE) {
			fprintf(stderr, "%s neither asks nor ends\n", argv[0]);
			exit(1);
		}
	}
	if (first == 0) {
		fprintf(stderr, "%s sent nothing\n", argv[0]);
		exit(1);
	}
	return first - began;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	static double took[MOST];
	char url[64];
	int n = argc > 2 ? atoi(argv[1]) : 0;

	if (n < 1 || n > MOST) {
		fprintf(stderr, "usage: started N PROGRAM ARGS...   (N up to %d)\n", MOST);
		return 64;
	}
	int listener = listen_anywhere(url, sizeof url);
	setenv("CALLBACK_URL", url, 1);
	for (int i = 2; i < argc; i++)
		if (strcmp(argv[i], "@URL@") == 0)
			argv[i] = url;
	for (int i = 0; i < n; i++)
		took[i] = run(listener, argv + 2);
	qsort(took, (size_t)n, sizeof took[0], ascending);
	printf("median %.1f ms   p90 %.1f ms   best %.1f ms\n", took[n / 2], took[n * 9 / 10],
	       took[0]);
	return 0;
}
