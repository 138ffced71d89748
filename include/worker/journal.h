/* journal.h -- the crash-safe record of claims and results.  Floor 3.
 *
 * A journal is a file of records (key, kind, payload).  Of each key and kind the last record put is
 * live until the key is dropped.  A record is reported done when it is on the disk: many writers
 * waiting at the same time share one sync, which runs in a helper thread.  After any crash, opening
 * finds every record that was reported done and none that is torn.
 *
 *	journal = journal_open(loop, &options, &report, &err);
 *	op->record = ...; op->done = ...;
 *	journal_submit(journal, op, &err);	op->done is called later, by the loop
 *	journal_first / journal_next / journal_read
 *	journal_close(journal);
 *
 * When a write fails (a full disk) the writer is told and the file is cut back to its last whole
 * record; others go on.  When a sync fails nothing written since the last one can be trusted: its
 * writers are told, and the live records are copied into a new file before anything else is
 * accepted.  Some disk space is kept in reserve, so that dropping works on a full disk.
 *
 * Files: NAME, NAME.lock (held while open: one owner), NAME.new (while compacting), NAME.damaged
 * (what the journal was when damage inside it was found).
 */
#ifndef WORKER_JOURNAL_H
#define WORKER_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/err.h"
#include "worker/journal_file.h"
#include "worker/list.h"

struct journal;
struct journal_entry;
struct loop;

struct journal_options {
	const char *path;
	uint64_t max_bytes;	/* a put beyond this fails; drops still work */
	uint64_t compact_bytes; /* a smaller file is not worth compacting */
	size_t max_records;	/* live at the same time */
};

/* What opening found; fit for a log line. */
struct journal_report {
	size_t records;
	struct journal_file_scan scan;
};

/* One record to write.  Its strings and the op itself must stay until done() is called or it is
 * cancelled.  done(arg, NULL): it is on the disk. */
struct journal_op {
	struct journal_file_record record;
	void (*done)(void *arg, const struct err *failure);
	void *arg;
	bool lazy;		   /* done once written: a kill -9 loses nothing, a power cut may */
	struct list link;	   /* private, as is */
	struct journal_item *item; /* this */
};

struct journal_stats {
	size_t records, queued;
	uint64_t file_bytes, live_bytes;
	uint64_t written, failed; /* records */
	uint64_t syncs, compactions;
	int64_t sync_ns, sync_max_ns;
};

/* journal_open(...): err->code is EBUSY when another process owns the journal.  Reads the whole
 * file, blocking: done once, at start. */
struct journal *journal_open(struct loop *loop, const struct journal_options *options,
			     struct journal_report *report, struct err *err);

/* journal_close(journal): waits for what is being written; what is queued fails with ECANCELED. */
void journal_close(struct journal *journal);

/* journal_submit(journal, op, err): -1 when the record itself is impossible (too large, no key). */
int journal_submit(struct journal *journal, struct journal_op *op, struct err *err);

/* journal_write(journal, record, err): write it now, without a sync: a kill -9 loses nothing, a
 * power cut may.  1: it is written; -1: it is not; 0: not like this (something else is under way,
 * or the record is impossible): submit it, lazy. */
int journal_write(struct journal *journal, const struct journal_file_record *record,
		  struct err *err);

/* journal_cancel(op): done() will not be called.  The record may still come to be written. */
void journal_cancel(struct journal_op *op);

/* The live records in the order they were written.  An entry is good until the loop runs on. */
const struct journal_entry *journal_first(const struct journal *journal);
const struct journal_entry *journal_next(const struct journal *journal,
					 const struct journal_entry *entry);
const struct journal_entry *journal_find(const struct journal *journal, const char *kind,
					 size_t kind_length, const char *key, size_t key_length);

/* journal_read(journal, entry, room, err): read and check the record into ${room}, which has
 * journal_entry_size(entry) bytes.  Returns where in there the payload is, or NULL. */
const char *journal_read(const struct journal *journal, const struct journal_entry *entry,
			 char *room, struct err *err);

struct journal_stats journal_stats(const struct journal *journal);

#endif
