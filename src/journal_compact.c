/* journal_compact.c -- a journal's live records into a new file.  Floor 3.
 *
 * Every record is checked while it passes: after a failed fsync the kernel may have thrown written
 * pages away, and what then comes back from the disk is not what was written.  A record that does
 * not sum up is left out, and the index forgets it.  The tail is copied as it is, drops included:
 * it follows the copied records just as it followed the old ones.  The salt stays the same, so
 * records are copied byte for byte.
 */
#include "worker/journal_compact.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "worker/journal_file.h"
#include "worker/journal_index.h"

#define COMPACT_STEP (4u << 20)
#define COMPACT_MOST                                                                               \
	(JOURNAL_FILE_HEAD + JOURNAL_FILE_KIND + JOURNAL_FILE_KEY + JOURNAL_FILE_PAYLOAD)

struct journal_piece {
	uint64_t from, to;
	uint32_t size; /* 0 once it turned out to be lost */
};

int journal_compact_begin(struct journal_compact *compact, const struct journal_index *index)
{
	compact->active = true;
	compact->fd = -1;
	compact->count = index->count;
	compact->pieces = calloc(index->count + 1, sizeof *compact->pieces);
	if (compact->pieces == NULL)
		return err_set(&compact->err, ENOMEM, "out of memory");
	struct journal_piece *piece = compact->pieces;
	for (struct list *node = index->order.next; node != &index->order; node = node->next) {
		const struct journal_entry *entry = container_of(node, struct journal_entry, order);
		piece->from = entry->offset;
		piece->size = (uint32_t)journal_entry_size(entry);
		piece++;
	}
	return 0;
}

static int compact_fail(struct journal_compact *compact, const char *what)
{
	compact->failed = true;
	return err_errno(&compact->err, "%s %s", what, compact->temp);
}

/* O_EXCL after unlink: whatever had the name, we write into a file that is ours alone. */
static int compact_create(struct journal_compact *compact)
{
	unlinkat(compact->dir, compact->temp, 0);
	compact->fd = openat(compact->dir, compact->temp,
			     O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (compact->fd == -1)
		return compact_fail(compact, "creating");
	compact->end = JOURNAL_FILE_HEADER;
	if (journal_file_create(compact->fd, compact->salt, &compact->err) == 0)
		return 0;
	compact->failed = true;
	return err_wrap(&compact->err, "%s", compact->temp);
}

/* Append ${size} bytes of the old file to the new one, as one record when ${piece} is true.
 * Returns how many were taken: none of a record that is not good; -1 on failure. */
static int64_t compact_move(struct journal_compact *compact, struct buf *buf, uint64_t from,
			    size_t size, bool piece)
{
	struct journal_file_record record;
	char *room = buf_reserve(buf, size);
	ssize_t got = room ? pread(compact->from, room, size, (off_t)from) : -1;
	if (piece && got == -1 && errno == EIO)
		return 0; /* the disk has lost it; the others need not follow */
	if (got == -1)
		return compact_fail(compact, "reading for");
	if (piece && journal_file_decode(room, (size_t)got, compact->salt, &record) != size)
		return 0;
	if (got == 0) {
		errno = EIO;
		return compact_fail(compact, "reading for");
	}
	if (journal_file_write(compact->fd, room, (size_t)got, compact->end) == -1)
		return compact_fail(compact, "writing");
	compact->end += (uint64_t)got;
	return got;
}

static int compact_piece(struct journal_compact *compact, struct buf *buf)
{
	struct journal_piece *piece = &compact->pieces[compact->next];
	piece->to = compact->end;
	int64_t moved = compact_move(compact, buf, piece->from, piece->size, true);
	if (moved == -1)
		return -1;
	if (moved == 0) {
		piece->size = 0;
		compact->lost++;
	}
	compact->next++;
	return 0;
}

/* The buffer lives for a step only: between two steps nothing large is held. */
bool journal_compact_copy(void *arg)
{
	struct journal_compact *compact = arg;
	if (compact->fd == -1 && compact_create(compact) == -1)
		return false;
	struct buf buf;
	buf_init(&buf, COMPACT_MOST);
	uint64_t pause = compact->end + COMPACT_STEP;
	while (!journal_compact_copied(compact) && compact->end < pause)
		if (compact_piece(compact, &buf) == -1)
			break;
	buf_free(&buf);
	return false;
}

static int compact_copy_tail(struct journal_compact *compact)
{
	struct buf buf;
	buf_init(&buf, COMPACT_MOST);
	compact->tail = compact->end;
	uint64_t from = compact->until;
	while (from < compact->stop && !compact->failed) {
		uint64_t left = compact->stop - from;
		size_t size = left < COMPACT_STEP ? (size_t)left : COMPACT_STEP;
		int64_t moved = compact_move(compact, &buf, from, size, false);
		if (moved > 0)
			from += (uint64_t)moved;
	}
	buf_free(&buf);
	return compact->failed ? -1 : 0;
}

bool journal_compact_finish(void *arg)
{
	struct journal_compact *compact = arg;
	if (compact_copy_tail(compact) == -1)
		return false;
	/* Before the rename: else a crash could find the name leading to an empty file. */
	if (fsync(compact->fd) == -1) {
		compact_fail(compact, "syncing");
		return false;
	}
	if (renameat(compact->dir, compact->temp, compact->dir, compact->name) == -1) {
		compact_fail(compact, "renaming");
		return false;
	}
	/* From here on the new file is the journal, synced directory or not: the caller repeats
	 * the sync before it tells anybody that a record is safe. */
	compact->renamed = true;
	compact->dir_unsynced = fsync(compact->dir) == -1;
	return false;
}

void journal_compact_apply(const struct journal_compact *compact, struct journal_index *index)
{
	const struct journal_piece *piece = compact->pieces, *last = piece + compact->count;
	struct list *node = index->order.next;
	while (node != &index->order) {
		struct journal_entry *entry = container_of(node, struct journal_entry, order);
		node = node->next;
		if (entry->offset >= compact->until) {
			entry->offset = entry->offset - compact->until + compact->tail;
			continue;
		}
		/* Both are in the order of the old file; pieces without an entry died meanwhile. */
		while (piece < last && piece->from != entry->offset)
			piece++;
		if (piece == last || piece->size == 0)
			journal_index_remove(index, entry);
		else
			entry->offset = piece->to;
	}
}

void journal_compact_end(struct journal_compact *compact)
{
	free(compact->pieces);
	compact->pieces = NULL;
	compact->active = false;
	if (compact->renamed || compact->fd == -1)
		return;
	close(compact->fd);
	unlinkat(compact->dir, compact->temp, 0);
}
