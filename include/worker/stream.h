/* stream.h -- bytes over a pipe: a reader that waits a little, a writer.  Floor 3.
 *
 * Both work on demand.  Nobody reads ahead: while the owner does not ask, the pipe fills up and
 * whoever writes into it waits.  That is all the backpressure there is.
 *
 * The reader waits about a millisecond between the first bytes and reading them, so that a child
 * that writes line by line costs one wake-up per millisecond instead of one per line; a pipe that
 * already holds a good chunk, and the end of the stream, are told at once.
 *
 *	stream_reader_open(&reader, loop, fd, ready, arg);
 *	stream_reader_arm(&reader, &err);	once per chunk wanted
 *	... ready(arg) ...
 *	n = stream_reader_read(&reader, room, STREAM_CHUNK);
 *
 * The structs are embedded in the caller's, zeroed before use, and own their fd.
 */
#ifndef WORKER_STREAM_H
#define WORKER_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "worker/err.h"
#include "worker/loop.h"

#define STREAM_CHUNK ((size_t)64 * 1024)

struct stream_reader {
	struct loop *loop;
	struct loop_fd watch;
	struct loop_timer pause;
	struct loop_work again;
	void (*ready)(void *arg);
	void *arg;
	int fd;
	bool open, armed;
	bool large;	  /* its pipe has been made large */
	bool full;	  /* there is more, or the end, without waiting */
	bool over, empty; /* nobody writes any more; and nothing is left of what was written */
	bool prepared;	  /* it does not block */
	int error;	  /* what ended the stream, where it was not its end */
	uint64_t bytes;	  /* read so far */
	uint64_t ceiling; /* bytes handed out at most, 0 for no limit: the rest is read and dropped
			   */
	uint64_t dropped;
};

/* stream_pipe(fds, err): a pipe that we write to, at ${fds}[1], which does not block; the end to
 * read from, ${fds}[0], does.  Both are close-on-exec. */
int stream_pipe(int fds[2], struct err *err);

/* stream_memory(data, n, err): a sealed file in memory with these bytes, read from the start: the
 * stdin of a child that needs nobody to feed it.  The fd, or -1. */
int stream_memory(const void *data, size_t n, struct err *err);

/* stream_reader_open(reader, loop, fd, ready, arg): ${fd} may block (the reader sees to that);
 * nobody else may keep it open for long. */
void stream_reader_open(struct stream_reader *reader, struct loop *loop, int fd,
			void (*ready)(void *arg), void *arg);

/* stream_reader_arm(reader, err): call ${ready} once, from the loop, when there are bytes or the
 * end has come.  Armed already: nothing changes.  stream_reader_disarm takes it back. */
int stream_reader_arm(struct stream_reader *reader, struct err *err);
void stream_reader_disarm(struct stream_reader *reader);

/* stream_reader_hurry(reader): do not wait for more bytes than there are. */
void stream_reader_hurry(struct stream_reader *reader);

/* stream_reader_read(reader, room, size): bytes; 0 when there is nothing to hand out now (also when
 * all was dropped).  At the end of the stream ${reader->open} becomes false; when it could not be
 * read on, ${reader->error} says why: what was not read is lost. */
size_t stream_reader_read(struct stream_reader *reader, char *room, size_t size);

/* stream_reader_is_over(reader): it is known already that the next read finds the end. */
static inline bool stream_reader_is_over(const struct stream_reader *reader)
{
	return reader->open && !reader->armed && reader->empty;
}

/* stream_reader_held(reader): bytes in the pipe that nobody has read yet. */
size_t stream_reader_held(const struct stream_reader *reader);

/* stream_reader_has_writer(reader): can anybody still write into it?  If not, its end is near. */
bool stream_reader_has_writer(const struct stream_reader *reader);
void stream_reader_close(struct stream_reader *reader);

struct stream_writer {
	struct loop *loop;
	struct loop_fd watch;
	void (*done)(void *arg, int code);
	void *arg;
	const char *data; /* the caller's, until done */
	size_t left;
	int fd;
	bool open;
	uint64_t bytes;
};

void stream_writer_open(struct stream_writer *writer, struct loop *loop, int fd);

/* stream_writer_send(writer, data, n, done, arg, err): write all of it, then call ${done}(arg, 0)
 * from the loop; ${done}(arg, EPIPE) when nobody reads any more.  Returns 1 when it was all written
 * at once (${done} is not called), 0 when it is under way, -1 when it failed. */
int stream_writer_send(struct stream_writer *writer, const void *data, size_t n,
		       void (*done)(void *arg, int code), void *arg, struct err *err);

/* stream_writer_cancel(writer): forget what is not written yet; the stream stays open. */
void stream_writer_cancel(struct stream_writer *writer);
void stream_writer_close(struct stream_writer *writer);

#endif
