/* journal_commit.c -- one batch of records on its way to the disk.  Floor 3.
 *
 * Everything that can fail for want of memory happens before a record is written; after the sync
 * only pointers move.  Some space behind the end is kept allocated: on a full disk the small
 * records, drops above all, still find room, and dropping is what makes room.
 */
#include "worker/journal_commit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "worker/clock.h"
#include "worker/journal_index.h"

#define COMMIT_DATA_MOST                                                                           \
	(JOURNAL_COMMIT_BYTES + JOURNAL_FILE_HEAD + JOURNAL_FILE_KIND + JOURNAL_FILE_KEY +         \
	 JOURNAL_FILE_PAYLOAD)
#define COMMIT_RESERVE (256u << 10)

void journal_commit_init(struct journal_commit *commit)
{
	commit->count = 0;
	commit->durable = false;
	buf_init(&commit->data, COMMIT_DATA_MOST);
}

void journal_commit_free(struct journal_commit *commit)
{
	buf_free(&commit->data);
}

void journal_commit_reset(struct journal_commit *commit)
{
	commit->count = 0;
	commit->durable = false;
	commit->failure = 0;
	commit->sync_ns = 0;
	buf_consume(&commit->data, buf_size(&commit->data));
}

bool journal_commit_full(const struct journal_commit *commit)
{
	return commit->count == JOURNAL_COMMIT_MOST ||
	       buf_size(&commit->data) >= JOURNAL_COMMIT_BYTES;
}

/* The item is counted last, so that a failure on the way leaves the batch as it was. */
struct journal_item *journal_commit_add(struct journal_commit *commit,
					const struct journal_file_record *record, uint32_t salt,
					struct err *err)
{
	struct journal_item *item = &commit->items[commit->count];
	*item = (struct journal_item){.at = buf_size(&commit->data)};
	item->size = journal_file_size(record);
	item->key_at = item->at + JOURNAL_FILE_HEAD + record->kind_length;
	item->key_length = record->key_length;
	if (record->op == JOURNAL_FILE_PUT) {
		item->entry =
			journal_index_entry(record->kind, record->kind_length, record->key,
					    record->key_length, (uint32_t)record->payload_length);
		if (item->entry == NULL) {
			err_set(err, ENOMEM, "out of memory for a journal record");
			return NULL;
		}
	}
	if (journal_file_encode(record, salt, &commit->data) == -1) {
		err_errno(err, "a journal record of %zu bytes", item->size);
		free(item->entry);
		return NULL;
	}
	commit->count++;
	return item;
}

static void commit_reserve(struct journal_commit *commit)
{
	if (commit->end + COMMIT_RESERVE / 2 <= commit->reserved)
		return;
	/* Best effort: not every file system can, and a full disk cannot. */
	if (fallocate(commit->fd, FALLOC_FL_KEEP_SIZE, (off_t)commit->end, COMMIT_RESERVE) == 0)
		commit->reserved = commit->end + COMMIT_RESERVE;
}

/* Cutting the file back also gives the reserve back, so it is taken again at once. */
static void commit_undo(struct journal_commit *commit)
{
	if (ftruncate(commit->fd, (off_t)commit->end) == 0)
		commit->reserved = 0;
	commit_reserve(commit);
}

/* One call for each record and not one for all: when the disk is full the small ones still fit, and
 * each knows for itself.  Beside the sync the calls cost nothing. */
static bool commit_write(struct journal_commit *commit)
{
	bool any = false;
	for (size_t i = 0; i < commit->count; i++) {
		struct journal_item *item = &commit->items[i];
		item->offset = commit->end;
		if (journal_file_write(commit->fd, buf_head(&commit->data) + item->at, item->size,
				       commit->end) == -1) {
			item->failure = errno;
			commit_undo(commit);
			continue;
		}
		commit->end += item->size;
		any = true;
	}
	return any;
}

/* A failed sync is not tried again: the kernel has marked the pages clean, and the next one would
 * succeed without having written them. */
void journal_commit_run(struct journal_commit *commit)
{
	uint64_t start = commit->end;
	commit_reserve(commit);
	if (!commit_write(commit) || !commit->durable)
		return;
	int64_t before = clock_real();
	if (fdatasync(commit->fd) == -1 || (commit->sync_dir && fsync(commit->dir) == -1)) {
		commit->failure = errno;
		commit->end = start;
		commit_undo(commit);
	}
	commit->sync_ns = clock_real() - before;
}

int journal_commit_index(struct journal_commit *commit, struct journal_item *item,
			 struct journal_index *index)
{
	int failure = item->failure ? item->failure : commit->failure;
	if (failure != 0) {
		free(item->entry);
	} else if (item->entry != NULL) {
		item->entry->offset = item->offset;
		journal_index_add(index, item->entry);
	} else {
		journal_index_drop(index, buf_head(&commit->data) + item->key_at, item->key_length);
	}
	item->entry = NULL;
	return failure;
}
