/* journal_compact.h -- a journal's live records into a new file.  Floor 3, used by journal.c.
 *
 * Write, then rename: at any moment the name stands for one complete journal.  Copying is done in
 * steps in the helper thread, and commits to the old file go on between them; the last step, during
 * which nothing else is written, copies what was committed meanwhile, syncs, renames and syncs the
 * directory.
 *
 *	journal_compact_begin		loop	remember what is live now
 *	journal_compact_copy		thread	a few MiB; until journal_compact_copied()
 *	journal_compact_finish		thread	the rest and the rename
 *	journal_compact_apply		loop	the index follows to the new places
 *	journal_compact_end		loop	always: free, and remove the new file if not renamed
 */
#ifndef WORKER_JOURNAL_COMPACT_H
#define WORKER_JOURNAL_COMPACT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/buf.h"
#include "worker/err.h"

struct journal_index;
struct journal_piece;

struct journal_compact {
	int dir;	  /* the directory, and in it: */
	const char *name; /* the journal, */
	const char *temp; /* the file that will take its place */
	int from;	  /* the journal's fd */
	uint32_t salt;
	uint64_t until; /* records before here are in pieces, those after it are the tail */
	uint64_t stop;	/* end of the tail; set before journal_compact_finish */

	struct journal_piece *pieces;
	size_t count, next, lost; /* lost: did not sum up any more, and were left out */

	int fd; /* the new file; taken by the caller once renamed */
	uint64_t end, tail;
	bool active, renamed, dir_unsynced, failed;
	struct err err;
};

/* journal_compact_begin(compact, index): the fields up to ${until} are set by the caller. */
int journal_compact_begin(struct journal_compact *compact, const struct journal_index *index);

bool journal_compact_copy(void *compact);
bool journal_compact_finish(void *compact);
static inline bool journal_compact_copied(const struct journal_compact *compact)
{
	return compact->next == compact->count;
}

void journal_compact_apply(const struct journal_compact *compact, struct journal_index *index);
void journal_compact_end(struct journal_compact *compact);

#endif
