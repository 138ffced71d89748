/* spool_disk.h -- what a spool looks like on disk.  Floor 3, used by spool.c alone.
 *
 * A segment is a file of frames (head, bytes); its name says what is in it, see spool.h.  The state
 * is a small file of two slots that are written in turn, so that one of them is always whole, and
 * in place, so that it can be written on a full disk.
 */
#ifndef WORKER_SPOOL_DISK_H
#define WORKER_SPOOL_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SPOOL_DISK_HEAD	 40
#define SPOOL_DISK_NAME	 80
#define SPOOL_DISK_STATE "acked"

struct spool_segment {
	uint64_t start, end;		    /* offsets */
	uint64_t lines_before, lines_after; /* newlines before start, before end */
	uint64_t disk;			    /* size of the file */
	bool sealed;
};

struct spool_frame {
	uint64_t offset;
	int64_t time;
	uint32_t size, lines;
	int stream;
	uint32_t sum; /* of the bytes */
};

struct spool_state {
	uint64_t turn, acked, end, lines;
};

/* spool_disk_name(segment, name): the name of its file. */
void spool_disk_name(const struct spool_segment *segment, char name[SPOOL_DISK_NAME]);

/* spool_disk_parse(name, segment): whether it is such a name; everything but ${disk}. */
bool spool_disk_parse(const char *name, struct spool_segment *segment);

/* spool_disk_write(fd, at, frame, data): one frame; its sum is made here.  0, or -1 with errno and
 * the file as long as before. */
int spool_disk_write(int fd, uint64_t at, const struct spool_frame *frame, const char *data);

/* spool_disk_head(fd, at, frame): read a frame's head; 1, 0 when there is no good one, -1. */
int spool_disk_head(int fd, uint64_t at, struct spool_frame *frame);

/* spool_disk_data(fd, at, frame, room): read the bytes of the frame at ${at}; 1, 0 when they do not
 * sum up, -1. */
int spool_disk_data(int fd, uint64_t at, const struct spool_frame *frame, char *room);

/* spool_disk_scan(fd, segment): find the end of a segment that was being written, cut off what is
 * torn; 0, or -1 with errno. */
int spool_disk_scan(int fd, struct spool_segment *segment);

void spool_disk_save(int fd, struct spool_state *state);
void spool_disk_load(int fd, struct spool_state *state);

#endif
