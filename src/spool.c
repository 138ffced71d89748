/* spool.c -- the log bytes of one job on disk, with a ceiling.  Floor 3.
 *
 * In memory a spool is a short list of segments, sorted by offset; wherever one does not begin
 * where the one before it ends, there is a gap.  So all gaps are found the same way, whatever made
 * them: the ceiling, a full disk, a power cut.
 *
 * Writing and reading go through the page cache from the loop, at most a chunk at a time.  A reader
 * that reads on is met by a cursor (the frame behind the last one read), so that following the log
 * costs the same however long it is.
 */
#include "worker/spool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/spool_disk.h"

#define SPOOL_SEGMENTS 16 /* the ceiling in segments, roughly */
#define SPOOL_LEAST    (2 * (SPOOL_CHUNK + SPOOL_DISK_HEAD))
#define SPOOL_MOST     (4u << 20)

struct spool_cursor {
	int fd;		     /* of a segment, or -1 */
	uint64_t start;	     /* which */
	uint64_t offset, at; /* a frame with this offset begins there */
};

struct spool {
	char *path;
	uint64_t ceiling, head, segment_bytes;
	int dir, state_fd, write_fd;
	struct spool_segment *segments;
	size_t count, room;
	struct spool_state state; /* ${end} and ${lines} are the truth also while running */
	struct spool_cursor cursor;
	uint64_t disk, dropped;
};

/* --- segments --- */

/* The one that is being written, or was. */
static struct spool_segment *spool_last(struct spool *spool)
{
	return spool->count > 0 ? &spool->segments[spool->count - 1] : NULL;
}

static int spool_add(struct spool *spool, const struct spool_segment *segment)
{
	if (spool->count == spool->room) {
		size_t room = spool->room ? spool->room * 2 : 8;
		struct spool_segment *more =
			realloc(spool->segments, room * sizeof *spool->segments);
		if (more == NULL)
			return -1;
		spool->segments = more;
		spool->room = room;
	}
	spool->segments[spool->count++] = *segment;
	spool->disk += segment->disk;
	return 0;
}

static void spool_forget_cursor(struct spool *spool)
{
	if (spool->cursor.fd != -1)
		close(spool->cursor.fd);
	spool->cursor.fd = -1;
}

/* Remove a segment from the disk and from the list. */
static void spool_drop(struct spool *spool, size_t at)
{
	struct spool_segment *segment = &spool->segments[at];
	char name[SPOOL_DISK_NAME];
	spool_disk_name(segment, name);
	unlinkat(spool->dir, name, 0);
	if (spool->cursor.fd != -1 && spool->cursor.start == segment->start)
		spool_forget_cursor(spool);
	spool->disk -= segment->disk;
	spool->count--;
	memmove(segment, segment + 1, (spool->count - at) * sizeof *segment);
}

/* Finish the segment that is being written, if there is one. */
static void spool_seal(struct spool *spool)
{
	struct spool_segment *last = spool_last(spool);
	char from[SPOOL_DISK_NAME], to[SPOOL_DISK_NAME];
	if (spool->write_fd == -1)
		return;
	close(spool->write_fd);
	spool->write_fd = -1;
	if (last->disk == 0) {
		spool_drop(spool, spool->count - 1);
		return;
	}
	spool_disk_name(last, from);
	last->sealed = true;
	spool_disk_name(last, to);
	/* Under its old name it is found as well, only more slowly. */
	if (renameat(spool->dir, from, spool->dir, to) == -1)
		last->sealed = false;
}

/* At the running offset: when something was lost before, this is what makes the gap visible. */
static int spool_begin(struct spool *spool)
{
	struct spool_segment segment = {.start = spool->state.end,
					.end = spool->state.end,
					.lines_before = spool->state.lines,
					.lines_after = spool->state.lines};
	char name[SPOOL_DISK_NAME];
	spool_disk_name(&segment, name);
	int fd =
		openat(spool->dir, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd == -1)
		return -1;
	if (spool_add(spool, &segment) == -1) {
		close(fd);
		unlinkat(spool->dir, name, 0);
		errno = ENOMEM;
		return -1;
	}
	spool->write_fd = fd;
	return 0;
}

/* Make room for ${more} bytes: the oldest segments behind the head go.  The one being written
 * stays; it is small against the ceiling. */
static void spool_shrink(struct spool *spool, uint64_t more)
{
	size_t at = 0;
	while (spool->disk + more > spool->ceiling && at + 1 < spool->count) {
		const struct spool_segment *segment = &spool->segments[at];
		if (segment->start < spool->head) {
			at++;
			continue;
		}
		spool->dropped += segment->end - segment->start;
		spool_drop(spool, at);
	}
}

/* --- appending --- */

static uint32_t spool_count_lines(const char *data, size_t n)
{
	uint32_t lines = 0;
	const char *end = data + n;
	while ((data = memchr(data, '\n', (size_t)(end - data))) != NULL) {
		lines++;
		data++;
	}
	return lines;
}

static int spool_write(struct spool *spool, const struct spool_frame *frame, const char *data)
{
	uint64_t need = SPOOL_DISK_HEAD + frame->size;
	struct spool_segment *last = spool_last(spool);
	if (spool->write_fd != -1 && last->disk + need > spool->segment_bytes)
		spool_seal(spool);
	spool_shrink(spool, need);
	if (spool->write_fd == -1 && spool_begin(spool) == -1)
		return -1;
	last = spool_last(spool);
	if (spool_disk_write(spool->write_fd, last->disk, frame, data) == -1)
		return -1;
	last->disk += need;
	last->end += frame->size;
	last->lines_after += frame->lines;
	spool->disk += need;
	return 0;
}

int spool_append(struct spool *spool, int stream, int64_t time, const char *data, size_t n,
		 struct err *err)
{
	if (n == 0)
		return 0;
	if (n > SPOOL_CHUNK)
		return err_set(err, EMSGSIZE, "a log chunk of %zu bytes; %u is the most", n,
			       SPOOL_CHUNK);
	struct spool_frame frame = {.offset = spool->state.end,
				    .time = time,
				    .size = (uint32_t)n,
				    .lines = spool_count_lines(data, n),
				    .stream = stream};
	int result = spool_write(spool, &frame, data);
	if (result == -1) {
		err_errno(err, "writing to %s", spool->path);
		/* The segment ends here: what comes next has another offset than its end. */
		spool->dropped += n;
		spool_seal(spool);
	}
	spool->state.end += n;
	spool->state.lines += frame.lines;
	/* Nothing on disk tells of bytes that are lost at the end, and their offsets must not be
	 * given out again after a restart. */
	if (result == -1)
		spool_disk_save(spool->state_fd, &spool->state);
	return result;
}

/* --- reading --- */

/* The first segment that ends behind ${offset}; ${count} when there is none. */
static size_t spool_find(const struct spool *spool, uint64_t offset)
{
	size_t low = 0, high = spool->count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (spool->segments[middle].end <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int spool_gap(uint64_t offset, uint64_t next, uint64_t lines, struct spool_piece *piece)
{
	*piece = (struct spool_piece){.offset = offset, .next = next, .gap = true, .lines = lines};
	return 1;
}

/* The gap in front of the segment ${at}. */
static int spool_gap_before(const struct spool *spool, size_t at, uint64_t offset,
			    struct spool_piece *piece)
{
	uint64_t before = at > 0 ? spool->segments[at - 1].lines_after : 0;
	uint64_t next = at < spool->count ? spool->segments[at].start : spool->state.end;
	uint64_t after = at < spool->count ? spool->segments[at].lines_before : spool->state.lines;
	return spool_gap(offset, next, after - before, piece);
}

/* The cursor goes to the segment's beginning only for another segment or to read backwards. */
static int spool_point(struct spool *spool, const struct spool_segment *segment, uint64_t offset)
{
	struct spool_cursor *cursor = &spool->cursor;
	if (cursor->fd == -1 || cursor->start != segment->start) {
		char name[SPOOL_DISK_NAME];
		spool_forget_cursor(spool);
		spool_disk_name(segment, name);
		cursor->fd = openat(spool->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		cursor->start = cursor->offset = segment->start;
		cursor->at = 0;
	} else if (cursor->offset > offset) {
		cursor->offset = segment->start;
		cursor->at = 0;
	}
	return cursor->fd == -1 ? -1 : 0;
}

/* Move the cursor to the frame that holds ${offset}: 1, 0 when something there is damaged, -1. */
static int spool_seek(struct spool *spool, uint64_t offset, struct spool_frame *frame)
{
	struct spool_cursor *cursor = &spool->cursor;
	for (;;) {
		int good = spool_disk_head(cursor->fd, cursor->at, frame);
		if (good != 1)
			return good;
		if (frame->offset != cursor->offset)
			return 0;
		if (offset < frame->offset + frame->size)
			return 1;
		cursor->offset += frame->size;
		cursor->at += SPOOL_DISK_HEAD + frame->size;
	}
}

static void spool_chunk(const struct spool_frame *frame, uint64_t offset, char *room,
			struct spool_piece *piece)
{
	uint64_t skip = offset - frame->offset;
	*piece = (struct spool_piece){.offset = offset,
				      .next = frame->offset + frame->size,
				      .stream = frame->stream,
				      .time = frame->time,
				      .size = frame->size - (size_t)skip};
	memmove(room, room + skip, piece->size);
}

int spool_read(struct spool *spool, uint64_t offset, char *room, struct spool_piece *piece,
	       struct err *err)
{
	if (offset >= spool->state.end)
		return 0;
	size_t at = spool_find(spool, offset);
	if (at == spool->count || offset < spool->segments[at].start)
		return spool_gap_before(spool, at, offset, piece);
	const struct spool_segment *segment = &spool->segments[at];
	struct spool_frame frame;
	if (spool_point(spool, segment, offset) == -1)
		return err_errno(err, "opening a segment of %s", spool->path);
	int good = spool_seek(spool, offset, &frame);
	/* Without its head nobody knows where the next frame begins. */
	if (good == 0)
		return spool_gap(offset, segment->end, 0, piece);
	if (good == 1)
		good = spool_disk_data(spool->cursor.fd, spool->cursor.at, &frame, room);
	if (good == -1)
		return err_errno(err, "reading %s", spool->path);
	if (good == 0)
		return spool_gap(offset, frame.offset + frame.size, frame.lines, piece);
	spool_chunk(&frame, offset, room, piece);
	return 1;
}

void spool_ack(struct spool *spool, uint64_t offset)
{
	if (offset > spool->state.end)
		offset = spool->state.end;
	if (offset <= spool->state.acked)
		return;
	/* Saved before anything is removed: a crash in between reads nothing that is gone. */
	spool->state.acked = offset;
	spool_disk_save(spool->state_fd, &spool->state);
	while (spool->count > (spool->write_fd != -1) && spool->segments[0].end <= offset)
		spool_drop(spool, 0);
}

struct spool_stats spool_stats(const struct spool *spool)
{
	return (struct spool_stats){.start = spool->count > 0 ? spool->segments[0].start
							      : spool->state.end,
				    .end = spool->state.end,
				    .acked = spool->state.acked,
				    .disk = spool->disk,
				    .dropped = spool->dropped};
}

/* --- opening --- */

/* A segment that was being written when the worker ended: find its end and finish it. */
static int spool_recover(struct spool *spool, struct spool_segment *segment)
{
	char from[SPOOL_DISK_NAME], to[SPOOL_DISK_NAME];
	spool_disk_name(segment, from);
	int fd = openat(spool->dir, from, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd == -1)
		return -1;
	int result = spool_disk_scan(fd, segment);
	close(fd);
	if (result == -1)
		return -1;
	if (segment->disk == 0) {
		unlinkat(spool->dir, from, 0);
		return 0;
	}
	segment->sealed = true;
	spool_disk_name(segment, to);
	if (renameat(spool->dir, from, spool->dir, to) == -1)
		return -1;
	return 0;
}

/* Complete what a name did not tell. */
static int spool_measure(struct spool *spool, struct spool_segment *segment)
{
	struct stat st;
	char name[SPOOL_DISK_NAME];
	if (!segment->sealed && spool_recover(spool, segment) == -1)
		return -1;
	if (segment->start == segment->end)
		return 0;
	spool_disk_name(segment, name);
	if (fstatat(spool->dir, name, &st, AT_SYMLINK_NOFOLLOW) == -1)
		return -1;
	segment->disk = (uint64_t)st.st_size;
	spool->disk += segment->disk;
	return 0;
}

static int spool_compare(const void *a, const void *b)
{
	const struct spool_segment *one = a, *two = b;
	return one->start < two->start ? -1 : one->start > two->start;
}

static int spool_names(struct spool *spool)
{
	int fd = openat(spool->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd == -1 ? NULL : fdopendir(fd);
	if (dir == NULL) {
		if (fd != -1)
			close(fd);
		return -1;
	}
	struct spool_segment segment;
	const struct dirent *entry;
	while ((errno = 0, entry = readdir(dir)) != NULL)
		if (spool_disk_parse(entry->d_name, &segment) && spool_add(spool, &segment) == -1)
			break;
	int failure = errno;
	closedir(dir);
	errno = failure;
	return failure ? -1 : 0;
}

/* The names first and the files afterwards: finishing a segment renames it, and whoever renames
 * while reading a directory may meet the same file twice. */
static int spool_list(struct spool *spool, struct err *err)
{
	if (spool_names(spool) == -1)
		return err_errno(err, "reading %s", spool->path);
	if (spool->count > 1)
		qsort(spool->segments, spool->count, sizeof *spool->segments, spool_compare);
	size_t kept = 0;
	uint64_t end = 0;
	for (size_t i = 0; i < spool->count; i++) {
		struct spool_segment *segment = &spool->segments[i];
		if (spool_measure(spool, segment) == -1)
			return err_errno(err, "reading a segment of %s", spool->path);
		if (segment->start < end || segment->start == segment->end)
			continue;
		end = segment->end;
		spool->segments[kept++] = *segment;
	}
	spool->count = kept;
	return 0;
}

/* The end is where the last segment ends, or behind it when bytes were lost there. */
static void spool_resume(struct spool *spool)
{
	const struct spool_segment *last = spool_last(spool);
	if (last != NULL && last->end >= spool->state.end) {
		spool->state.end = last->end;
		spool->state.lines = last->lines_after;
	}
	if (spool->state.acked > spool->state.end)
		spool->state.acked = spool->state.end;
	while (spool->count > 0 && spool->segments[0].end <= spool->state.acked)
		spool_drop(spool, 0);
}

static int spool_start(struct spool *spool, struct err *err)
{
	if (mkdir(spool->path, 0700) == -1 && errno != EEXIST)
		return err_errno(err, "making %s", spool->path);
	spool->dir = open(spool->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (spool->dir == -1)
		return err_errno(err, "opening %s", spool->path);
	spool->state_fd = openat(spool->dir, SPOOL_DISK_STATE,
				 O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (spool->state_fd == -1)
		return err_errno(err, "opening %s/%s", spool->path, SPOOL_DISK_STATE);
	spool_disk_load(spool->state_fd, &spool->state);
	if (spool_list(spool, err) == -1)
		return -1;
	spool_resume(spool);
	/* Both slots exist from now on, so that saving never needs new space. */
	spool_disk_save(spool->state_fd, &spool->state);
	spool_disk_save(spool->state_fd, &spool->state);
	return 0;
}

static void spool_free(struct spool *spool)
{
	spool_forget_cursor(spool);
	if (spool->write_fd != -1)
		close(spool->write_fd);
	if (spool->state_fd != -1)
		close(spool->state_fd);
	if (spool->dir != -1)
		close(spool->dir);
	free(spool->segments);
	free(spool->path);
	free(spool);
}

static uint64_t spool_clamp(uint64_t value, uint64_t least, uint64_t most)
{
	return value < least ? least : value > most ? most : value;
}

struct spool *spool_open(const struct spool_options *options, struct err *err)
{
	struct spool *spool = calloc(1, sizeof *spool);
	char *path = strdup(options->path);
	if (spool == NULL || path == NULL) {
		free(spool);
		free(path);
		err_set(err, ENOMEM, "out of memory opening a spool");
		return NULL;
	}
	spool->path = path;
	spool->dir = spool->state_fd = spool->write_fd = spool->cursor.fd = -1;
	spool->ceiling = spool_clamp(options->ceiling, 8 * SPOOL_LEAST, UINT64_MAX / 2);
	spool->head = spool_clamp(options->head, 0, spool->ceiling / 2);
	spool->segment_bytes =
		spool_clamp(spool->ceiling / SPOOL_SEGMENTS, SPOOL_LEAST, SPOOL_MOST);
	if (spool_start(spool, err) == -1) {
		spool_free(spool);
		return NULL;
	}
	return spool;
}

void spool_close(struct spool *spool)
{
	/* Sealed, so that opening it again need not read it. */
	spool_seal(spool);
	spool_disk_save(spool->state_fd, &spool->state);
	spool_free(spool);
}

void spool_remove(struct spool *spool)
{
	spool_seal(spool);
	while (spool->count > 0)
		spool_drop(spool, spool->count - 1);
	unlinkat(spool->dir, SPOOL_DISK_STATE, 0);
	rmdir(spool->path);
	spool_free(spool);
}
