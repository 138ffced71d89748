/* stream.c -- bytes over a pipe.  Floor 3.  See worker/stream.h.
 *
 * The fd is registered with EPOLLONESHOT: after one event epoll is silent until it is asked again.
 * Asking for no events would not do, as epoll reports a hang-up even then, turn after turn.
 *
 * One armed read is in one of three places: waiting for epoll; waiting in the pause, while more
 * bytes come together; or in the list of deferred work, when the last read filled its room or the
 * writers have gone, and so there is certainly more or the end.  The last goes through the loop
 * too, or a child that writes without end would keep everybody else from their turn.
 *
 * Most streams of most children never carry a byte.  Such a one is made, watched and closed, and
 * nothing else: a hang-up without bytes is the end, which no read has to find.
 */
#include "worker/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "worker/clock.h"

#define STREAM_PIPE  (1024 * 1024)
#define STREAM_PAUSE CLOCK_MS
#define STREAM_GOOD  (STREAM_CHUNK / 2) /* worth reading without a pause */

int stream_pipe(int fds[2], struct err *err)
{
	if (pipe2(fds, O_CLOEXEC) == -1)
		return err_errno(err, "pipe");
	fcntl(fds[1], F_SETFL, O_NONBLOCK);
	return 0;
}

/* Sealed: the child cannot change what it reads, nor grow it at our expense. */
static int memory_fill(int fd, const char *data, size_t n)
{
	while (n > 0) {
		ssize_t wrote = write(fd, data, n);
		if (wrote == -1 && errno == EINTR)
			continue;
		if (wrote == -1)
			return -1;
		data += wrote;
		n -= (size_t)wrote;
	}
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) == -1)
		return -1;
	return lseek(fd, 0, SEEK_SET) == -1 ? -1 : 0;
}

int stream_memory(const void *data, size_t n, struct err *err)
{
	int fd = memfd_create("stdin", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd == -1)
		return err_errno(err, "memory for the input");
	if (memory_fill(fd, data, n) == 0)
		return fd;
	err_errno(err, "%zu bytes of input", n);
	close(fd);
	return -1;
}

/* --- reading --- */

void stream_reader_open(struct stream_reader *reader, struct loop *loop, int fd,
			void (*ready)(void *arg), void *arg)
{
	*reader = (struct stream_reader){
		.loop = loop, .fd = fd, .ready = ready, .arg = arg, .open = true};
}

/* Disarmed first: the owner may arm it again from within. */
static void reader_tell(void *arg)
{
	struct stream_reader *reader = arg;
	reader->armed = false;
	reader->ready(reader->arg);
}

/* A large pipe takes time to make, and most children write little: only a stream that has shown to
 * need one gets it.  A user without privileges has a quota for this; the usual 64 KiB work too. */
static bool reader_has_much(struct stream_reader *reader)
{
	bool much = stream_reader_held(reader) >= STREAM_GOOD;
	if (much && !reader->large)
		fcntl(reader->fd, F_SETPIPE_SZ, STREAM_PIPE);
	reader->large = reader->large || much;
	return much;
}

static void reader_event(void *arg, uint32_t events)
{
	struct stream_reader *reader = arg;
	reader->over = (events & (EPOLLHUP | EPOLLERR)) != 0;
	reader->empty = reader->over && (events & EPOLLIN) == 0;
	if (!reader->over && !reader_has_much(reader) &&
	    loop_timer_start(reader->loop, &reader->pause, STREAM_PAUSE, reader_tell, reader) == 0)
		return;
	reader_tell(reader);
}

int stream_reader_arm(struct stream_reader *reader, struct err *err)
{
	const uint32_t events = EPOLLIN | EPOLLONESHOT;
	if (reader->armed)
		return 0;
	if (!reader->full)
		reader->over = reader->empty = false; /* as the next event says */
	if (reader->full)
		loop_defer(reader->loop, &reader->again, reader_tell, reader);
	else if (reader->watch.registered)
		loop_fd_set(reader->loop, &reader->watch, events);
	else if (loop_fd_add(reader->loop, &reader->watch, reader->fd, events, reader_event, reader,
			     err) == -1)
		return -1;
	reader->armed = true;
	return 0;
}

void stream_reader_disarm(struct stream_reader *reader)
{
	if (!reader->armed)
		return;
	loop_defer_cancel(&reader->again);
	loop_timer_stop(reader->loop, &reader->pause);
	loop_fd_del(reader->loop, &reader->watch);
	reader->armed = false;
}

void stream_reader_hurry(struct stream_reader *reader)
{
	if (!loop_timer_running(&reader->pause))
		return;
	loop_timer_stop(reader->loop, &reader->pause);
	loop_defer(reader->loop, &reader->again, reader_tell, reader);
}

/* What goes beyond the ceiling is still read: a child that is not listened to any more must not be
 * stopped by a full pipe. */
static size_t reader_keep(struct stream_reader *reader, size_t n)
{
	uint64_t before = reader->bytes;
	reader->bytes += n;
	if (reader->ceiling == 0 || reader->bytes <= reader->ceiling)
		return n;
	uint64_t room = before < reader->ceiling ? reader->ceiling - before : 0;
	reader->dropped += n - room;
	return (size_t)room;
}

/* Before the first read, as a pipe with bytes may be empty when we come to read them: the child can
 * open /dev/stdout and be quicker. */
static ssize_t reader_take(struct stream_reader *reader, char *room, size_t size)
{
	ssize_t n;
	if (reader->empty)
		return 0;
	if (!reader->prepared && fcntl(reader->fd, F_SETFL, O_NONBLOCK) == -1)
		return -1;
	reader->prepared = true;
	do
		n = read(reader->fd, room, size);
	while (n == -1 && errno == EINTR);
	return n;
}

/* A full room means that there is more, or that there is exactly nothing more; the next read
 * finds out.  A room that is not full means neither: a pipe of packets gives them one by one.
 * Errors other than EAGAIN end the stream: a pipe has none that pass. */
size_t stream_reader_read(struct stream_reader *reader, char *room, size_t size)
{
	ssize_t n = reader_take(reader, room, size);
	reader->full = n == (ssize_t)size || (n > 0 && reader->over);
	if (n > 0)
		return reader_keep(reader, (size_t)n);
	if (n == -1 && errno == EAGAIN)
		return 0;
	reader->error = n == -1 ? errno : 0;
	stream_reader_close(reader);
	return 0;
}

size_t stream_reader_held(const struct stream_reader *reader)
{
	int held = 0;
	return reader->open && ioctl(reader->fd, FIONREAD, &held) == 0 ? (size_t)held : 0;
}

/* poll() tells of a hang-up beside the bytes that lie before it. */
bool stream_reader_has_writer(const struct stream_reader *reader)
{
	struct pollfd look = {.fd = reader->fd, .events = POLLIN};
	return reader->open && poll(&look, 1, 0) != -1 && (look.revents & POLLHUP) == 0;
}

void stream_reader_close(struct stream_reader *reader)
{
	if (!reader->open)
		return;
	loop_defer_cancel(&reader->again);
	loop_timer_stop(reader->loop, &reader->pause);
	loop_fd_forget(reader->loop, &reader->watch);
	close(reader->fd);
	reader->open = reader->armed = false;
}

/* --- writing --- */

void stream_writer_open(struct stream_writer *writer, struct loop *loop, int fd)
{
	*writer = (struct stream_writer){.loop = loop, .fd = fd, .open = true};
}

/* 1 when all is written, 0 when the pipe is full, -1 with errno. */
static int writer_push(struct stream_writer *writer)
{
	while (writer->left > 0) {
		ssize_t n = write(writer->fd, writer->data, writer->left);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return errno == EAGAIN ? 0 : -1;
		writer->data += n;
		writer->left -= (size_t)n;
		writer->bytes += (uint64_t)n;
	}
	return 1;
}

/* Cancelled before it is told, as the owner may send again or close. */
static void writer_event(void *arg, uint32_t events)
{
	struct stream_writer *writer = arg;
	(void)events;
	int n = writer_push(writer);
	int code = n == -1 ? errno : 0;
	if (n == 0)
		return;
	stream_writer_cancel(writer);
	writer->done(writer->arg, code);
}

/* Tried at once: a pipe has room most of the time, and then nobody needs to wait. */
int stream_writer_send(struct stream_writer *writer, const void *data, size_t size,
		       void (*done)(void *arg, int code), void *arg, struct err *err)
{
	if (writer->left > 0)
		return err_set(err, EBUSY, "another write is under way");
	writer->data = data;
	writer->left = size;
	writer->done = done;
	writer->arg = arg;
	int n = writer_push(writer);
	if (n == -1)
		err_errno(err, "write");
	else if (n == 0)
		n = loop_fd_add(writer->loop, &writer->watch, writer->fd, EPOLLOUT, writer_event,
				writer, err);
	if (n == -1)
		writer->left = 0;
	return n;
}

void stream_writer_cancel(struct stream_writer *writer)
{
	loop_fd_del(writer->loop, &writer->watch);
	writer->left = 0;
}

void stream_writer_close(struct stream_writer *writer)
{
	if (!writer->open)
		return;
	stream_writer_cancel(writer);
	close(writer->fd);
	writer->open = false;
}
