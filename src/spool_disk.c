/* spool_disk.c -- what a spool looks like on disk.  Floor 3.
 *
 * Head and bytes of a frame have a sum each: damaged bytes cost their own frame, a damaged head the
 * rest of its segment.  Numbers are stored as this machine has them: a spool never leaves it, and
 * one from a machine of the other kind has no good sums and reads as gaps.
 */
#include "worker/spool_disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include "worker/crc.h"
#include "worker/spool.h"

#define SPOOL_MARK 0x4c505357u /* "WSPL" */
#define SPOOL_SLOT 64

struct spool_head {
	uint32_t mark, crc;
	uint64_t offset;
	int64_t time;
	uint32_t size, lines, stream, data_crc;
};

struct spool_slot {
	struct spool_state state;
	uint32_t crc;
	char room[SPOOL_SLOT - sizeof(struct spool_state) - sizeof(uint32_t)];
};

_Static_assert(sizeof(struct spool_head) == SPOOL_DISK_HEAD, "frame head size");
_Static_assert(sizeof(struct spool_slot) == SPOOL_SLOT, "state slot size");

/* --- names --- */

void spool_disk_name(const struct spool_segment *segment, char name[SPOOL_DISK_NAME])
{
	int n = snprintf(name, SPOOL_DISK_NAME, "%016llx-%012llx",
			 (unsigned long long)segment->start,
			 (unsigned long long)segment->lines_before);
	if (segment->sealed)
		snprintf(name + n, (size_t)(SPOOL_DISK_NAME - n), "-%016llx-%012llx.log",
			 (unsigned long long)segment->end,
			 (unsigned long long)segment->lines_after);
	else
		snprintf(name + n, (size_t)(SPOOL_DISK_NAME - n), ".open");
}

bool spool_disk_parse(const char *name, struct spool_segment *segment)
{
	unsigned long long start, lines, end, lines_after;
	char made[SPOOL_DISK_NAME];
	int found = sscanf(name, "%16llx-%12llx-%16llx-%12llx", &start, &lines, &end, &lines_after);
	if (found != 2 && found != 4)
		return false;
	*segment = (struct spool_segment){.start = start, .lines_before = lines};
	segment->sealed = found == 4;
	segment->end = segment->sealed ? end : start;
	segment->lines_after = segment->sealed ? lines_after : lines;
	/* Only what we would call it ourselves is ours: sscanf takes more than it should. */
	spool_disk_name(segment, made);
	return strcmp(name, made) == 0 && segment->start <= segment->end;
}

/* --- frames --- */

static uint32_t spool_head_crc(const struct spool_head *head)
{
	size_t from = offsetof(struct spool_head, offset);
	return crc_update(SPOOL_MARK, (const char *)head + from, sizeof *head - from);
}

int spool_disk_write(int fd, uint64_t at, const struct spool_frame *frame, const char *data)
{
	struct spool_head head = {
		.mark = SPOOL_MARK,
		.offset = frame->offset,
		.time = frame->time,
		.size = frame->size,
		.lines = frame->lines,
		.stream = (uint32_t)frame->stream,
		.data_crc = crc_update(0, data, frame->size),
	};
	head.crc = spool_head_crc(&head);
	struct iovec parts[2] = {{&head, sizeof head}, {(void *)(uintptr_t)data, frame->size}};
	ssize_t whole = (ssize_t)sizeof head + (ssize_t)frame->size;
	ssize_t wrote = pwritev(fd, parts, 2, (off_t)at);
	if (wrote == whole)
		return 0;
	/* Regular files take all or run out of space; a half frame is not left behind. */
	int failure = wrote == -1 ? errno : ENOSPC;
	if (ftruncate(fd, (off_t)at) == -1)
		failure = errno;
	errno = failure;
	return -1;
}

int spool_disk_head(int fd, uint64_t at, struct spool_frame *frame)
{
	struct spool_head head;
	ssize_t got = pread(fd, &head, sizeof head, (off_t)at);
	if (got == -1)
		return -1;
	if (got != sizeof head || head.mark != SPOOL_MARK || head.crc != spool_head_crc(&head) ||
	    head.size > SPOOL_CHUNK || head.size == 0)
		return 0;
	*frame = (struct spool_frame){.offset = head.offset,
				      .time = head.time,
				      .size = head.size,
				      .lines = head.lines,
				      .stream = (int)head.stream,
				      .sum = head.data_crc};
	return 1;
}

int spool_disk_data(int fd, uint64_t at, const struct spool_frame *frame, char *room)
{
	ssize_t got = pread(fd, room, frame->size, (off_t)(at + SPOOL_DISK_HEAD));
	if (got == -1)
		return -1;
	return (size_t)got == frame->size && crc_update(0, room, frame->size) == frame->sum;
}

/* Also the bytes are checked, not only the heads: behind a torn frame the sizes may be right and
 * the pages never written. */
int spool_disk_scan(int fd, struct spool_segment *segment)
{
	char *room = malloc(SPOOL_CHUNK);
	if (room == NULL)
		return -1;
	struct spool_frame frame;
	segment->disk = 0;
	segment->end = segment->start;
	segment->lines_after = segment->lines_before;
	int good;
	while ((good = spool_disk_head(fd, segment->disk, &frame)) == 1 &&
	       frame.offset == segment->end &&
	       (good = spool_disk_data(fd, segment->disk, &frame, room)) == 1) {
		segment->disk += SPOOL_DISK_HEAD + frame.size;
		segment->end += frame.size;
		segment->lines_after += frame.lines;
	}
	free(room);
	return good == -1 ? -1 : ftruncate(fd, (off_t)segment->disk);
}

/* --- state --- */

static uint32_t spool_slot_crc(const struct spool_slot *slot)
{
	return crc_update(SPOOL_MARK, &slot->state, sizeof slot->state);
}

/* Never the slot that was written last: if this write is torn, that one still holds. */
void spool_disk_save(int fd, struct spool_state *state)
{
	struct spool_slot slot = {.state = *state};
	slot.state.turn = ++state->turn;
	slot.crc = spool_slot_crc(&slot);
	/* A lost acknowledgement means that something is read twice: not worth failing for. */
	if (pwrite(fd, &slot, sizeof slot, (off_t)(state->turn % 2 * SPOOL_SLOT)) == -1)
		return;
}

void spool_disk_load(int fd, struct spool_state *state)
{
	memset(state, 0, sizeof *state);
	for (int i = 0; i < 2; i++) {
		struct spool_slot slot;
		if (pread(fd, &slot, sizeof slot, i * SPOOL_SLOT) == sizeof slot &&
		    slot.crc == spool_slot_crc(&slot) && slot.state.turn > state->turn)
			*state = slot.state;
	}
}
