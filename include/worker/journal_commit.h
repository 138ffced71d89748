/* journal_commit.h -- one batch of records on its way to the disk.  Floor 3, used by journal.c.
 *
 * Filled in the loop, run in the helper thread, settled in the loop.  The records are encoded when
 * they are added, so that whoever asked may go away before the thread has written them.
 *
 * A record that cannot be written (a full disk) fails alone: the file is cut back to where it
 * began.  When the sync fails all of them fail, and the file is cut back to where the batch began.
 */
#ifndef WORKER_JOURNAL_COMMIT_H
#define WORKER_JOURNAL_COMMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/buf.h"
#include "worker/err.h"
#include "worker/journal_file.h"

#define JOURNAL_COMMIT_MOST  256
#define JOURNAL_COMMIT_BYTES (4u << 20)

struct journal_entry;
struct journal_index;
struct journal_op;

struct journal_item {
	struct journal_op *op;	     /* NULL once cancelled */
	struct journal_entry *entry; /* for a put; the index takes it */
	size_t at, size;	     /* in the batch's data */
	size_t key_at, key_length;
	uint64_t offset; /* in the file */
	int failure;	 /* errno */
};

struct journal_commit {
	struct buf data;
	struct journal_item items[JOURNAL_COMMIT_MOST];
	size_t count;
	int fd, dir;
	uint64_t end;	   /* of the file's good part, before and after */
	uint64_t reserved; /* up to here disk space is ours, before and after */
	bool durable;	   /* somebody waits for the disk */
	bool sync_dir;
	int failure; /* of the sync: errno */
	int64_t sync_ns;
};

void journal_commit_init(struct journal_commit *commit);
void journal_commit_free(struct journal_commit *commit);

/* journal_commit_full(commit): nothing more should be added. */
bool journal_commit_full(const struct journal_commit *commit);

/* journal_commit_add(commit, record, salt, err): the item, or NULL when there is no memory. */
struct journal_item *journal_commit_add(struct journal_commit *commit,
					const struct journal_file_record *record, uint32_t salt,
					struct err *err);

/* journal_commit_run(commit): write and sync.  In the thread. */
void journal_commit_run(struct journal_commit *commit);

/* journal_commit_index(commit, item, index): make ${item} known, or let it go when it failed.
 * Returns the errno it failed with, or 0. */
int journal_commit_index(struct journal_commit *commit, struct journal_item *item,
			 struct journal_index *index);

/* journal_commit_reset(commit): empty again. */
void journal_commit_reset(struct journal_commit *commit);

#endif
