/* peer.c -- what the worker is measured against: the least C that does the same, and the meter.
 *
 *	peer meter [-j JOBS] [-w] [-f] [-s SCRIPT] -- COMMAND...
 *		be Vulcan's server for COMMAND, which finds it through $ORCHESTRATOR_URL,
 *		$BENCH_URL and $BENCH_PORT; print what JOBS jobs took, then end COMMAND;
 *		-f: end it with its first claim
 *	peer cycle [-n SLOTS] [-x PROGRAM]
 *		ask for work, spawn, read, wait, report; for ever
 *	peer log COMMAND...
 *		one job whose output is posted as JSON, 256 KiB at a time
 *	peer lines MIB [BLOCK]
 *		a job that writes lines of 100 bytes, BLOCK bytes at once
 *
 * The meter prints one line of numbers:
 *
 *	jobs per second
 *	microseconds of COMMAND's own processor time per job
 *	megabytes of log per second
 *	nanoseconds of own processor time per 100 bytes of log
 *	milliseconds from exec to the first claim
 *	milliseconds of COMMAND's own processor time until then
 *
 * "Own" is what COMMAND used, without the jobs: the kernel's clock of the process, since getrusage
 * may count in ticks.  The first WARM jobs are not measured; -w measures from the exec on.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WARM  64
#define SLOTS 64
#define ROOM  65536
#define BATCH (256 * 1024)

extern char **environ;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static void watch(int epoll, int fd, uint32_t events, void *arg)
{
	struct epoll_event event = {.events = events, .data.ptr = arg};
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == -1)
		die("epoll_ctl");
}

/* Also on a socket that does not block: what is sent here is small, or has nothing to wait for. */
static void send_all(int fd, const char *text, size_t n)
{
	while (n > 0) {
		ssize_t sent = write(fd, text, n);
		if (sent == -1 && errno != EAGAIN && errno != EINTR)
			return; /* closed: reading tells */
		if (sent > 0) {
			text += sent;
			n -= (size_t)sent;
		}
	}
}

/* Where the message in ${text} has its body, and how long that is; NULL while the head is
 * unfinished. */
static char *body_of(char *text, size_t n, size_t *length)
{
	char *end = memmem(text, n, "\r\n\r\n", 4);
	if (end == NULL)
		return NULL;
	char *field = memmem(text, (size_t)(end - text), "ontent-Length:", 14);
	*length = field != NULL ? strtoul(field + 14, NULL, 10) : 0;
	return end + 4;
}

/* --- the meter: a server with fixed answers --- */

enum ask { CLAIM, RESULT, LOG, REGISTER, OTHER };

struct client {
	int fd;
	enum ask asks;
	size_t have, skip; /* bytes of a body that are still to come */
	char text[ROOM];
};

static struct {
	const char *script;
	pid_t pid;
	long jobs, warm, claims, results;
	size_t log_bytes, log_measured;
	double started, first, from, until;
	double cpu_from, cpu_until, cpu_first;
	bool finished, only_first;
} meter = {.script = ":", .jobs = 500, .warm = WARM};

/* Seconds of processor time of the command: all its threads, those that have ended, too, but no
 * children.  The kernel's own clock of a process, since getrusage may count in ticks. */
static double own_cpu(void)
{
	struct timespec used = {0};
	clockid_t clock;
	if (clock_getcpuclockid(meter.pid, &clock) == 0)
		clock_gettime(clock, &used);
	return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

static void stop_command(void)
{
	kill(meter.pid, SIGQUIT); /* the worker's way of ending at once, and cleanly */
}

static void answer(struct client *client, const char *body)
{
	char text[1024];
	int n = snprintf(text, sizeof text,
			 "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
			 "Content-Length: %zu\r\n\r\n%s",
			 strlen(body), body);
	send_all(client->fd, text, (size_t)n);
}

static void answer_claim(struct client *client)
{
	char body[512];
	if (meter.claims++ == 0) {
		meter.first = now();
		meter.cpu_first = own_cpu();
		if (meter.only_first) {
			meter.finished = true;
			stop_command();
		}
	}
	snprintf(body, sizeof body,
		 "{\"fragment_id\":\"6fa1c2d0-0000-4000-8000-%012ld\","
		 "\"chain_id\":\"0b1e5a44-7c1d-4b53-9c35-3f0a5a1f2c77\","
		 "\"run_script\":\"%s\",\"attempt\":1}",
		 meter.claims, meter.script);
	answer(client, body);
}

static void answer_register(struct client *client)
{
	static long workers;
	char body[128];
	snprintf(body, sizeof body,
		 "{\"worker_id\":\"e07334fd-a000-4919-89d9-%012ld\",\"status\":\"Active\"}",
		 ++workers);
	answer(client, body);
}

static void count_result(void)
{
	meter.results++;
	if (meter.results == meter.warm) {
		meter.cpu_from = own_cpu();
		meter.from = now();
	}
	if (meter.results == meter.warm + meter.jobs) {
		meter.until = now();
		meter.cpu_until = own_cpu();
		meter.finished = true;
		meter.log_measured = meter.log_bytes;
		stop_command();
	}
}

static void request_done(struct client *client)
{
	if (client->asks == RESULT)
		count_result();
	if (client->asks == REGISTER)
		answer_register(client);
	else if (client->asks == CLAIM)
		answer_claim(client);
	else
		answer(client, "{\"status\":\"ok\",\"fragment_status\":\"Completed\"}");
}

static enum ask asked(const char *head)
{
	static const char *const paths[] = {"/work/request ", "/work/result ", "/log ",
					    "/workers/register "};
	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
		if (strncmp(head + sizeof "POST " - 1, paths[i], strlen(paths[i])) == 0)
			return (enum ask)i;
	return OTHER;
}

/* One request from the front of what has been read; false when more has to come. */
static bool take_request(struct client *client)
{
	size_t length;
	char *body = body_of(client->text, client->have, &length);
	if (body == NULL)
		return false;
	size_t head = (size_t)(body - client->text), here = client->have - head;
	client->asks = asked(client->text);
	if (client->asks == LOG)
		meter.log_bytes += length;
	if (here > length)
		here = length;
	client->skip = length - here;
	client->have -= head + here;
	memmove(client->text, body + here, client->have);
	if (client->skip == 0)
		request_done(client);
	return client->have > 0;
}

static bool client_ready(struct client *client)
{
	ssize_t n = read(client->fd, client->text + client->have, ROOM - client->have);
	if (n <= 0)
		return n == -1 && errno == EAGAIN;
	size_t skipped = client->skip < (size_t)n ? client->skip : (size_t)n;
	client->skip -= skipped;
	client->have += (size_t)n - skipped;
	if (skipped > 0) {
		memmove(client->text, client->text + skipped, client->have);
		if (client->skip == 0)
			request_done(client);
	}
	while (client->have > 0 && take_request(client))
		continue;
	return true;
}

static void accept_client(int epoll, int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct client *client = fd == -1 ? NULL : calloc(1, sizeof *client);
	if (client == NULL)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
	client->fd = fd;
	watch(epoll, fd, EPOLLIN, client);
}

static int listen_somewhere(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof at;
	char text[64];
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (bind(fd, (void *)&at, sizeof at) == -1 || listen(fd, SLOTS) == -1 ||
	    getsockname(fd, (void *)&at, &size) == -1)
		die("listening");
	snprintf(text, sizeof text, "%d", ntohs(at.sin_port));
	setenv("BENCH_PORT", text, 1);
	snprintf(text, sizeof text, "http://127.0.0.1:%d", ntohs(at.sin_port));
	setenv("BENCH_URL", text, 1);
	setenv("ORCHESTRATOR_URL", text, 1);
	return fd;
}

static void print_measured(void)
{
	double wall = meter.until - meter.from, cpu = meter.cpu_until - meter.cpu_from;
	double bytes = (double)meter.log_measured, units = bytes / 100;
	printf("%.0f %.1f %.0f %.0f %.2f %.2f\n", (double)meter.jobs / wall,
	       cpu / (double)meter.jobs * 1e6, bytes / wall / 1e6,
	       units > 0 ? cpu / units * 1e9 : 0, (meter.first - meter.started) * 1e3,
	       meter.cpu_first * 1e3);
}

static void run_meter(char **command)
{
	int listener = listen_somewhere(), epoll = epoll_create1(EPOLL_CLOEXEC);
	watch(epoll, listener, EPOLLIN, NULL);
	meter.started = now();
	if ((meter.pid = fork()) == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execvp(command[0], command);
		die(command[0]);
	}
	int pidfd = (int)syscall(SYS_pidfd_open, meter.pid, 0);
	watch(epoll, pidfd, EPOLLIN, &meter);
	if (meter.warm == 0)
		meter.from = meter.started;
	for (;;) {
		struct epoll_event events[SLOTS];
		int n = epoll_wait(epoll, events, SLOTS, -1);
		for (int i = 0; i < n; i++) {
			struct client *client = events[i].data.ptr;
			if (events[i].data.ptr == &meter) {
				if (!meter.finished)
					fprintf(stderr, "peer: the command ended early\n");
				else
					print_measured();
				exit(!meter.finished);
			} else if (client == NULL) {
				accept_client(epoll, listener);
			} else if (!client_ready(client)) {
				close(client->fd);
				free(client);
			}
		}
	}
}

/* --- the least C: one connection per slot, one event loop --- */

enum slot_state { CLAIMING, RUNNING, REPORTING };

struct pipe_end {
	struct slot *slot; /* first: what epoll hands back leads here */
	int fd;
};

struct slot {
	enum slot_state state;
	struct pipe_end sock, out, err, child;
	int open; /* of out, err and child: the job is over at 0 */
	size_t bytes, have;
	char id[64], text[8192];
};

static const char *program;
static int cycle_epoll;

static int dial(void)
{
	const char *port = getenv("BENCH_PORT");
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	to.sin_port = htons((uint16_t)atoi(port != NULL ? port : "0"));
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(fd, (void *)&to, sizeof to) == -1)
		die("connecting to $BENCH_PORT");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
	return fd;
}

static void post(int fd, const char *path, const char *body, size_t n)
{
	char head[256];
	int length = snprintf(head, sizeof head,
			      "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n"
			      "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
			      path, n);
	struct msghdr message = {.msg_iovlen = 2};
	struct iovec parts[2] = {{head, (size_t)length}, {(void *)(uintptr_t)body, n}};
	message.msg_iov = parts;
	ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
	if (sent >= length && (size_t)(sent - length) < n)
		send_all(fd, body + (sent - length), n - (size_t)(sent - length));
}

static void claim(struct slot *slot)
{
	static const char body[] = "{\"worker_id\":\"e07334fd-a000-4919-89d9-000000000001\"}";
	slot->state = CLAIMING;
	post(slot->sock.fd, "/work/request", body, sizeof body - 1);
}

/* The value of "${key}": in ${text}, without its escapes being undone but for the common ones. */
static void string_field(const char *text, const char *key, char *out, size_t room)
{
	char name[32];
	size_t n = 0;
	int length = snprintf(name, sizeof name, "\"%s\":\"", key);
	const char *at = strstr(text, name);
	for (at = at != NULL ? at + length : ""; *at != 0 && *at != '"' && n + 1 < room; at++) {
		if (*at == '\\' && at[1] != 0)
			at++;
		out[n++] = *at;
	}
	out[n] = 0;
}

/* The child borrows our memory until its exec; it changes nothing of ours. */
static __attribute__((noinline)) pid_t spawn(char *const *argv, int out, int err)
{
	pid_t pid = vfork();
	if (pid != 0)
		return pid;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	dup2(null, 0);
	dup2(out, 1);
	dup2(err, 2);
	setsid();
	execve(argv[0], argv, environ);
	_exit(127);
}

static void start_job(struct slot *slot)
{
	char script[4096], sh[] = "/bin/sh", c[] = "-c";
	char *by_shell[] = {sh, c, script, NULL}, *alone[] = {(char *)(uintptr_t)program, NULL};
	int out[2], err[2];
	string_field(slot->text, "fragment_id", slot->id, sizeof slot->id);
	string_field(slot->text, "run_script", script, sizeof script);
	if (pipe2(out, O_CLOEXEC) == -1 || pipe2(err, O_CLOEXEC) == -1)
		die("pipe2");
	pid_t pid = spawn(program != NULL ? alone : by_shell, out[1], err[1]);
	close(out[1]);
	close(err[1]);
	slot->out.fd = out[0];
	slot->err.fd = err[0];
	slot->child.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	slot->state = RUNNING;
	slot->open = 3;
	slot->bytes = 0;
	watch(cycle_epoll, slot->out.fd, EPOLLIN, &slot->out);
	watch(cycle_epoll, slot->err.fd, EPOLLIN, &slot->err);
	watch(cycle_epoll, slot->child.fd, EPOLLIN, &slot->child);
}

static void report(struct slot *slot, const siginfo_t *end)
{
	char body[512];
	int n = snprintf(body, sizeof body,
			 "{\"worker_id\":\"e07334fd-a000-4919-89d9-000000000001\","
			 "\"fragment_id\":\"%s\",\"success\":%s,\"exit_code\":%d,"
			 "\"error_message\":null}",
			 slot->id, end->si_status == 0 ? "true" : "false", end->si_status);
	slot->state = REPORTING;
	post(slot->sock.fd, "/work/result", body, (size_t)n);
}

static void job_ready(struct slot *slot, struct pipe_end *end)
{
	static char text[ROOM];
	siginfo_t info;
	if (end != &slot->child) {
		ssize_t n = read(end->fd, text, sizeof text);
		if (n > 0) {
			slot->bytes += (size_t)n;
			return;
		}
	}
	/* First out of epoll: a child that has not run its exec yet may still hold a copy. */
	epoll_ctl(cycle_epoll, EPOLL_CTL_DEL, end->fd, NULL);
	if (--slot->open > 0) {
		if (end != &slot->child)
			close(end->fd);
		return;
	}
	if (end != &slot->child)
		close(end->fd);
	waitid(P_PIDFD, (id_t)slot->child.fd, &info, WEXITED);
	close(slot->child.fd);
	report(slot, &info);
}

static void sock_ready(struct slot *slot)
{
	size_t length;
	ssize_t n =
		read(slot->sock.fd, slot->text + slot->have, sizeof slot->text - 1 - slot->have);
	if (n <= 0)
		exit(0);
	slot->have += (size_t)n;
	slot->text[slot->have] = 0;
	const char *body = body_of(slot->text, slot->have, &length);
	if (body == NULL || body + length > slot->text + slot->have)
		return;
	slot->have = 0;
	if (slot->state == CLAIMING)
		start_job(slot);
	else
		claim(slot);
}

static void run_cycle(int slots)
{
	static struct slot all[SLOTS];
	cycle_epoll = epoll_create1(EPOLL_CLOEXEC);
	for (int i = 0; i < slots; i++) {
		struct slot *slot = &all[i];
		slot->sock = (struct pipe_end){slot, dial()};
		slot->out.slot = slot->err.slot = slot->child.slot = slot;
		watch(cycle_epoll, slot->sock.fd, EPOLLIN, &slot->sock);
		claim(slot);
	}
	for (;;) {
		struct epoll_event events[SLOTS];
		int n = epoll_wait(cycle_epoll, events, SLOTS, -1);
		for (int i = 0; i < n; i++) {
			struct pipe_end *end = events[i].data.ptr;
			if (end == &end->slot->sock)
				sock_ready(end->slot);
			else
				job_ready(end->slot, end);
		}
	}
}

/* --- the least C: output of one job, posted as JSON --- */

static size_t escape(char *out, const char *text, size_t n)
{
	char *at = out;
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)text[i];
		if (c >= ' ' && c != '"' && c != '\\') {
			*at++ = (char)c;
		} else if (c == '\n' || c == '"' || c == '\\') {
			*at++ = '\\';
			*at++ = c == '\n' ? 'n' : (char)c;
		} else {
			at += sprintf(at, "\\u%04x", c);
		}
	}
	return (size_t)(at - out);
}

static void await_answer(int fd)
{
	char text[4096];
	if (read(fd, text, sizeof text) <= 0)
		exit(0);
}

static void run_log(char **command)
{
	static char text[ROOM], body[BATCH + 6 * ROOM + 128];
	static const char head[] = "{\"stream\":\"stdout\",\"text\":\"";
	int out[2], sock = dial();
	post(sock, "/work/request", "{}", 2);
	await_answer(sock);
	if (pipe2(out, O_CLOEXEC) == -1)
		die("pipe2");
	pid_t pid = spawn(command, out[1], 2);
	close(out[1]);
	size_t have = sizeof head - 1;
	memcpy(body, head, have);
	for (ssize_t n = 1; n > 0;) {
		if ((n = read(out[0], text, sizeof text)) > 0)
			have += escape(body + have, text, (size_t)n);
		if (have < BATCH && n > 0)
			continue;
		memcpy(body + have, "\"}", 2);
		post(sock, "/log", body, have + 2);
		await_answer(sock);
		have = sizeof head - 1;
	}
	waitpid(pid, NULL, 0);
	post(sock, "/work/result", "{}", 2);
	for (;;)
		await_answer(sock);
}

static void run_lines(size_t bytes, size_t block)
{
	static char text[1 << 20];
	static const char line[] = "2024-11-21T00:10:00.123Z INFO  [worker-3] compiled module "
				   "\"core/net/http\" in 12.7 ms (cache miss)!!\n";
	block = block < 100 ? 100 : block - block % 100;
	for (size_t at = 0; at < block && at + 100 <= sizeof text; at += 100)
		memcpy(text + at, line, 100);
	for (size_t sent = 0; sent < bytes; sent += block)
		send_all(1, text, block);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	int slots = 8, option;
	signal(SIGPIPE, SIG_IGN);
	signal(SIGQUIT, _exit);
	optind = 2;
	if (strcmp(what, "lines") == 0 && argc > 2) {
		run_lines((size_t)atol(argv[2]) << 20, argc > 3 ? (size_t)atol(argv[3]) : 65536);
		return 0;
	}
	if (strcmp(what, "log") == 0 && argc > 2)
		run_log(argv + 2);
	while ((option = getopt(argc, argv, "+n:x:j:s:wf")) != -1) {
		if (option == 'n')
			slots = atoi(optarg) < SLOTS ? atoi(optarg) : SLOTS;
		else if (option == 'x')
			program = optarg;
		else if (option == 'j')
			meter.jobs = atol(optarg);
		else if (option == 's')
			meter.script = optarg;
		else if (option == 'w')
			meter.warm = 0;
		else if (option == 'f')
			meter.only_first = true;
	}
	if (strcmp(what, "cycle") == 0)
		run_cycle(slots);
	if (strcmp(what, "meter") == 0 && optind < argc)
		run_meter(argv + optind);
	fprintf(stderr, "peer: see the top of peer.c\n");
	return 64;
}
