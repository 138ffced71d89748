/* journal_store.h -- the file of a journal: owning, creating, reading it.  Floor 3, used by
 * journal.c.
 *
 * Everything is reached through one descriptor of the directory: a rename of a directory above, or
 * a chdir, cannot make us write elsewhere than we have locked.
 */
#ifndef WORKER_JOURNAL_STORE_H
#define WORKER_JOURNAL_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/err.h"
#include "worker/journal_file.h"

struct journal_index;

struct journal_store {
	char *path;	   /* for messages */
	char *name, *temp; /* in the directory: the journal, and what compaction writes */
	int dir, lock, fd; /* -1 while not open */
	uint32_t salt;
	uint64_t end; /* of the good part */
};

/* journal_store_open(store, path, index, scan, err): own the journal, or make it, and put what is
 * live into ${index}.  What is torn at the end is cut off.  When something in the middle is damaged
 * (scan->damaged) the file is kept aside under another name.  -1 on failure; close it all the same.
 */
int journal_store_open(struct journal_store *store, const char *path, struct journal_index *index,
		       struct journal_file_scan *scan, struct err *err);

void journal_store_close(struct journal_store *store);

#endif
