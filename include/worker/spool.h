/* spool.h -- the log bytes of one job on disk, with a ceiling.  Floor 3.
 *
 * Bytes are appended in chunks (stream, time, bytes) and have a running offset, counted from the
 * job's first byte.  A reader asks for what is at an offset; what it has delivered it acknowledges,
 * and the disk space is given back.  When more is kept than the ceiling allows, the head stays (how
 * it began) and the tail stays (how it ended), and what is in between becomes a gap: a read there
 * answers how many bytes and lines are missing.  Offsets are never reused and never shift.
 *
 * On disk a spool is a directory of segment files.  A segment's name tells the offset and the
 * number of lines before and after it, so reopening after a restart reads one directory and the
 * last segment:
 *
 *	0000000000000000-000000000000.open		being written
 *	0000000000000000-000000000000-0000000000010000-0000000004d2.log		finished
 *	acked						the acknowledged offset, twice
 *
 * Nothing is synced: a power cut may lose the last seconds.  Every chunk has a sum, so what is
 * read is what was written, and what is not becomes a gap.  A full disk is a gap, too, and not an
 * error of the job.  Memory does not depend on how much is kept.
 */
#ifndef WORKER_SPOOL_H
#define WORKER_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/err.h"

#define SPOOL_CHUNK (64u << 10) /* most bytes of one chunk */

struct spool;

struct spool_options {
	const char *path; /* the directory; made when it is not there */
	uint64_t ceiling; /* most bytes on disk */
	uint64_t head;	  /* of them, how many of the job's first are kept */
};

/* What is at an offset. */
struct spool_piece {
	uint64_t offset, next; /* where it begins; where to read on */
	bool gap;
	int stream;	/* chunk: as appended */
	int64_t time;	/* chunk: as appended */
	size_t size;	/* chunk: bytes, = next - offset; gap: 0 */
	uint64_t lines; /* gap: how many newlines are missing */
};

struct spool_stats {
	uint64_t start, end, acked; /* offsets: the first byte kept, behind the last one */
	uint64_t disk;		    /* bytes on disk, frames included */
	uint64_t dropped;	    /* bytes of this run that went into gaps */
};

struct spool *spool_open(const struct spool_options *options, struct err *err);

/* spool_close(spool): everything stays on disk. */
void spool_close(struct spool *spool);

/* spool_remove(spool): close, and remove it from the disk. */
void spool_remove(struct spool *spool);

/* spool_append(spool, stream, time, data, n, err): at most SPOOL_CHUNK bytes.  -1 when the disk did
 * not take them: they count, and are in a gap. */
int spool_append(struct spool *spool, int stream, int64_t time, const char *data, size_t n,
		 struct err *err);

/* spool_read(spool, offset, room, piece, err): the piece at ${offset}; when it is a chunk, its
 * bytes are in ${room}, which has SPOOL_CHUNK bytes.  1, or 0 at the end, or -1. */
int spool_read(struct spool *spool, uint64_t offset, char *room, struct spool_piece *piece,
	       struct err *err);

/* spool_ack(spool, offset): what is before ${offset} will not be read any more. */
void spool_ack(struct spool *spool, uint64_t offset);

struct spool_stats spool_stats(const struct spool *spool);

#endif
