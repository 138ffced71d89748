/* journal.c -- the crash-safe record of claims and results.  Floor 3.
 *
 * The loop queues, the helper thread writes, and they never touch the same thing: at most one piece
 * of work is with the thread, either a commit or a step of a compaction, and while it is there the
 * loop only adds to the queue.  A record that needs no sync is written by the loop itself when the
 * thread has nothing.
 *
 *	journal_pump	decides what the thread does next
 *	commit		a batch of the queue: filled here, written and synced there, told here
 *	compact		see journal_compact.h; commits go on between its steps
 */
#include "worker/journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/aside.h"
#include "worker/journal_commit.h"
#include "worker/journal_compact.h"
#include "worker/journal_index.h"
#include "worker/journal_store.h"
#include "worker/log.h"

struct journal {
	struct journal_options options;
	struct journal_store store;
	uint64_t reserved; /* up to here the disk space is ours */
	struct journal_index index;
	struct list queue;

	struct aside *aside;
	struct aside_job job;
	struct journal_commit commit;	/* the thread's while ${busy} */
	struct journal_compact compact; /* likewise */
	struct journal_stats stats;

	bool busy;	/* the thread has something of ours, or we are just deciding */
	bool closing;	/* nothing new is begun */
	bool committed; /* since the last step of the compaction */
	bool dir_unsynced;
	bool rewrite;	   /* a sync failed or damage was found: compact before anything else */
	bool rewrite_now;  /* also with nobody waiting */
	uint64_t patience; /* no compaction below this size, after one that failed */
};

static void journal_pump(struct journal *journal);

/* --- commit --- */

/* Its own memory may be gone when done() returns: ${op} is not touched afterwards. */
static void journal_tell(struct journal *journal, struct journal_op *op, const struct err *failure)
{
	if (failure != NULL)
		journal->stats.failed++;
	op->item = NULL;
	op->done(op->arg, failure);
}

/* Take the first of the queue out and tell it ${failure}. */
static void journal_refuse(struct journal *journal, const struct err *failure)
{
	struct journal_op *op = container_of(list_shift(&journal->queue), struct journal_op, link);
	journal_tell(journal, op, failure);
}

/* One record of the batch is written or is not: the index first, so that whoever is told finds what
 * he has put. */
static void commit_settle(struct journal *journal, struct journal_item *item)
{
	struct err err;
	const char *doing = item->failure ? "writing to" : "syncing";
	int failure = journal_commit_index(&journal->commit, item, &journal->index);
	if (failure != 0) {
		errno = failure;
		err_errno(&err, "%s %s", doing, journal->options.path);
	}
	journal->stats.written += failure == 0;
	if (item->op != NULL)
		journal_tell(journal, item->op, failure ? &err : NULL);
}

/* A batch of which nothing could be written was not synced either. */
static void commit_count(struct journal_stats *stats, int64_t ns)
{
	if (ns == 0)
		return;
	stats->syncs++;
	stats->sync_ns += ns;
	if (ns > stats->sync_max_ns)
		stats->sync_max_ns = ns;
}

static bool commit_run(void *arg)
{
	journal_commit_run(&((struct journal *)arg)->commit);
	return false;
}

/* The end of the file moves here and nowhere else: after a failed sync it is where it was before
 * the batch, and what may be behind it is overwritten. */
static void commit_done(void *arg)
{
	struct journal *journal = arg;
	struct journal_commit *commit = &journal->commit;
	journal->store.end = commit->end;
	journal->reserved = commit->reserved;
	commit_count(&journal->stats, commit->sync_ns);
	if (commit->failure != 0)
		journal->rewrite = true;
	else if (commit->sync_dir && commit->sync_ns > 0)
		journal->dir_unsynced = false;
	for (size_t i = 0; i < commit->count; i++)
		commit_settle(journal, &commit->items[i]);
	journal_commit_reset(commit);
	journal->busy = false;
	journal->committed = true;
	journal_pump(journal);
}

/* Whether ${op} may be written at all, compacted or not. */
static bool journal_has_room(const struct journal *journal, const struct journal_op *op,
			     uint64_t used, struct err *err)
{
	const struct journal_options *options = &journal->options;
	uint64_t size = journal_file_size(&op->record);
	if (op->record.op == JOURNAL_FILE_DROP)
		return true;
	if (used + size > options->max_bytes) {
		err_set(err, ENOSPC, "%s is full: %llu of %llu bytes are live", options->path,
			(unsigned long long)journal->index.bytes,
			(unsigned long long)options->max_bytes);
		return false;
	}
	const struct journal_file_record *record = &op->record;
	if (journal->index.count + journal->commit.count >= options->max_records &&
	    !journal_find(journal, record->kind, record->kind_length, record->key,
			  record->key_length)) {
		err_set(err, ENOSPC, "%s is full: %zu live records", options->path,
			journal->index.count);
		return false;
	}
	return true;
}

/* Whoever cannot be written at all is told now, and the next one gets its chance. */
static void commit_fill(struct journal *journal)
{
	struct journal_commit *commit = &journal->commit;
	struct err err;
	while (!list_empty(&journal->queue) && !journal_commit_full(commit)) {
		struct journal_op *op = container_of(journal->queue.next, struct journal_op, link);
		uint64_t used = journal->store.end + buf_size(&commit->data);
		if (!journal_has_room(journal, op, used, &err)) {
			/* When this batch is through there may be room: next time. */
			if (commit->count > 0)
				return;
			journal_refuse(journal, &err);
			continue;
		}
		struct journal_item *item =
			journal_commit_add(commit, &op->record, journal->store.salt, &err);
		if (item == NULL) {
			journal_refuse(journal, &err);
			continue;
		}
		list_remove(&op->link);
		item->op = op;
		op->item = item;
		commit->durable = commit->durable || !op->lazy;
	}
}

/* Whether there is anything to commit. */
static bool commit_prepare(struct journal *journal)
{
	struct journal_commit *commit = &journal->commit;
	commit_fill(journal);
	if (commit->count == 0)
		return false;
	commit->fd = journal->store.fd;
	commit->dir = journal->store.dir;
	commit->end = journal->store.end;
	commit->reserved = journal->reserved;
	/* The name of the file is not safe yet: then no record in it is. */
	commit->sync_dir = journal->dir_unsynced;
	return true;
}

static bool commit_start(struct journal *journal)
{
	if (!commit_prepare(journal))
		return false;
	aside_start(journal->aside, &journal->job, commit_run, commit_done, journal);
	return true;
}

/* --- compaction --- */

/* Bytes that only a compaction gives back; drop records are dead from the beginning. */
static uint64_t journal_dead(const struct journal *journal)
{
	return journal->store.end - JOURNAL_FILE_HEADER - journal->index.bytes;
}

/* Whether the first of the queue would fit if the dead records were gone. */
static bool journal_is_tight(const struct journal *journal)
{
	if (list_empty(&journal->queue) || journal_dead(journal) == 0)
		return false;
	const struct journal_op *op = container_of(journal->queue.next, struct journal_op, link);
	uint64_t compacted = JOURNAL_FILE_HEADER + journal->index.bytes;
	return !journal_has_room(journal, op, journal->store.end, NULL) &&
	       journal_has_room(journal, op, compacted, NULL);
}

/* Copying costs what is live and gains what is dead, so it pays from half and half on: then every
 * byte put is copied once on average, however long the worker runs. */
static bool journal_wants_compact(const struct journal *journal)
{
	if (journal->rewrite && (journal->rewrite_now || !list_empty(&journal->queue)))
		return true;
	if (journal->store.end > journal->options.compact_bytes &&
	    journal->store.end > journal->patience && journal_dead(journal) > journal->index.bytes)
		return true;
	return journal_is_tight(journal);
}

/* The new file has the name now, so it is the journal, whatever else went wrong. */
static void compact_swap(struct journal *journal)
{
	struct journal_compact *compact = &journal->compact;
	journal_compact_apply(compact, &journal->index);
	close(journal->store.fd);
	journal->store.fd = compact->fd;
	journal->store.end = compact->end;
	journal->reserved = 0;
	journal->dir_unsynced = compact->dir_unsynced;
	journal->rewrite = journal->rewrite_now = false;
	journal->patience = 0;
	journal->stats.compactions++;
	if (compact->lost > 0)
		log_at(LOG_LEVEL_ERROR, "journal.lost", "%s: %zu records could not be read back",
		       journal->options.path, compact->lost);
}

/* Whoever cannot go on without the compaction is told why there is none. */
static void compact_failed(struct journal *journal)
{
	const struct err *err = &journal->compact.err;
	bool tight = journal_is_tight(journal);
	log_at(LOG_LEVEL_WARN, "journal.compact_failed", "compacting %s: %s", journal->options.path,
	       err->text);
	journal->patience = journal->store.end + journal->store.end / 4;
	journal->rewrite_now = false;
	if (journal->rewrite)
		while (!list_empty(&journal->queue))
			journal_refuse(journal, err);
	else if (tight)
		journal_refuse(journal, err);
}

static void compact_settle(struct journal *journal)
{
	if (journal->compact.renamed)
		compact_swap(journal);
	else
		compact_failed(journal);
	journal_compact_end(&journal->compact);
}

static void compact_done(void *arg)
{
	struct journal *journal = arg;
	if (journal->compact.failed || journal->compact.renamed)
		compact_settle(journal);
	journal->busy = journal->committed = false;
	journal_pump(journal);
}

static bool compact_run(void *arg)
{
	struct journal_compact *compact = &((struct journal *)arg)->compact;
	return journal_compact_copied(compact) && compact->fd != -1
		       ? journal_compact_finish(compact)
		       : journal_compact_copy(compact);
}

static bool compact_start(struct journal *journal)
{
	struct journal_compact *compact = &journal->compact;
	if (!compact->active) {
		*compact = (struct journal_compact){.dir = journal->store.dir,
						    .name = journal->store.name,
						    .temp = journal->store.temp,
						    .from = journal->store.fd,
						    .salt = journal->store.salt,
						    .until = journal->store.end};
		if (journal_compact_begin(compact, &journal->index) == -1) {
			compact_settle(journal);
			return false;
		}
	}
	compact->stop = journal->store.end;
	aside_start(journal->aside, &journal->job, compact_run, compact_done, journal);
	return true;
}

/* A compaction under way takes turns with the commits, unless nothing may be committed before it is
 * through. */
static bool journal_compact_next(const struct journal *journal)
{
	if (!journal->compact.active)
		return journal_wants_compact(journal);
	return list_empty(&journal->queue) || journal->committed || journal->rewrite ||
	       journal_is_tight(journal);
}

/* What next?  ${busy} also while deciding: whoever is told something now may ask for more. */
static void journal_pump(struct journal *journal)
{
	while (!journal->busy && !journal->closing) {
		bool compact = journal_compact_next(journal);
		if (!compact && list_empty(&journal->queue))
			break;
		journal->busy = true;
		journal->busy = compact ? compact_start(journal) : commit_start(journal);
	}
}

/* --- opening --- */

static void journal_free(struct journal *journal)
{
	journal_store_close(&journal->store);
	journal_index_free(&journal->index);
	journal_commit_free(&journal->commit);
	free(journal);
}

static int journal_start(struct journal *journal, struct loop *loop, struct journal_report *report,
			 struct err *err)
{
	if (journal_store_open(&journal->store, journal->options.path, &journal->index,
			       &report->scan, err) == -1)
		return -1;
	journal->options.path = journal->store.path; /* the caller's may go */
	/* The damage is kept aside; the good records go into a new file, also with nobody waiting.
	 */
	journal->rewrite = journal->rewrite_now = report->scan.damaged > 0;
	report->records = journal->index.count;
	journal->aside = aside_open(loop, "worker:journal", err);
	return journal->aside == NULL ? -1 : 0;
}

struct journal *journal_open(struct loop *loop, const struct journal_options *options,
			     struct journal_report *report, struct err *err)
{
	memset(report, 0, sizeof *report);
	struct journal *journal = calloc(1, sizeof *journal);
	if (journal == NULL) {
		err_set(err, ENOMEM, "out of memory opening a journal");
		return NULL;
	}
	journal->options = *options;
	journal_index_init(&journal->index);
	journal_commit_init(&journal->commit);
	list_init(&journal->queue);
	if (journal_start(journal, loop, report, err) == -1) {
		journal_free(journal);
		return NULL;
	}
	journal_pump(journal);
	return journal;
}

void journal_close(struct journal *journal)
{
	struct err err;
	/* Set first: closing the thread delivers what is done, and that would begin the next. */
	journal->closing = true;
	aside_close(journal->aside);
	if (journal->compact.active)
		journal_compact_end(&journal->compact);
	err_set(&err, ECANCELED, "the journal %s was closed", journal->options.path);
	while (!list_empty(&journal->queue))
		journal_refuse(journal, &err);
	journal_free(journal);
}

/* --- using --- */

static int journal_check(const struct journal_file_record *record, struct err *err)
{
	if (record->key_length == 0 || record->key_length > JOURNAL_FILE_KEY)
		return err_set(err, EINVAL, "a journal key has 1 to %d bytes, this has %zu",
			       JOURNAL_FILE_KEY, record->key_length);
	if (record->kind_length > JOURNAL_FILE_KIND)
		return err_set(err, EINVAL, "a journal kind has at most %d bytes, this has %zu",
			       JOURNAL_FILE_KIND, record->kind_length);
	if (record->payload_length > JOURNAL_FILE_PAYLOAD)
		return err_set(err, EMSGSIZE, "a journal record holds %u bytes, not %zu",
			       JOURNAL_FILE_PAYLOAD, record->payload_length);
	return 0;
}

int journal_submit(struct journal *journal, struct journal_op *op, struct err *err)
{
	if (journal_check(&op->record, err) == -1)
		return -1;
	op->item = NULL;
	list_append(&journal->queue, &op->link);
	journal_pump(journal);
	return 0;
}

struct written {
	bool failed;
	struct err *err;
};

static void write_done(void *arg, const struct err *failure)
{
	struct written *written = arg;
	written->failed = failure != NULL;
	if (failure != NULL)
		*written->err = *failure;
}

/* A record for the page cache is written sooner than the thread would wake up.  While the thread
 * has something of ours, or should have, it waits like all others. */
int journal_write(struct journal *journal, const struct journal_file_record *record,
		  struct err *err)
{
	struct written written = {.err = err};
	struct journal_op op = {
		.record = *record, .lazy = true, .done = write_done, .arg = &written};
	if (journal_check(record, err) == -1 || journal->busy || journal->closing ||
	    !list_empty(&journal->queue) || journal_compact_next(journal))
		return 0;
	journal->busy = true;
	list_append(&journal->queue, &op.link);
	if (commit_prepare(journal)) {
		journal_commit_run(&journal->commit);
		commit_done(journal);
	} else {
		journal->busy = false;
	}
	return written.failed ? -1 : 1;
}

void journal_cancel(struct journal_op *op)
{
	list_remove(&op->link);
	if (op->item != NULL)
		op->item->op = NULL;
	op->item = NULL;
}

static const struct journal_entry *journal_at(const struct journal *journal,
					      const struct list *node)
{
	return node == &journal->index.order ? NULL
					     : container_of(node, struct journal_entry, order);
}

const struct journal_entry *journal_first(const struct journal *journal)
{
	return journal_at(journal, journal->index.order.next);
}

const struct journal_entry *journal_next(const struct journal *journal,
					 const struct journal_entry *entry)
{
	return journal_at(journal, entry->order.next);
}

const struct journal_entry *journal_find(const struct journal *journal, const char *kind,
					 size_t kind_length, const char *key, size_t key_length)
{
	return journal_index_find(&journal->index, kind, kind_length, key, key_length);
}

const char *journal_read(const struct journal *journal, const struct journal_entry *entry,
			 char *room, struct err *err)
{
	struct journal_file_record record;
	size_t size = (size_t)journal_entry_size(entry);
	ssize_t got = pread(journal->store.fd, room, size, (off_t)entry->offset);
	if (got == -1) {
		err_errno(err, "reading %s", journal->options.path);
		return NULL;
	}
	if (journal_file_decode(room, (size_t)got, journal->store.salt, &record) != size) {
		err_set(err, EBADMSG, "%s: the record at byte %llu is damaged",
			journal->options.path, (unsigned long long)entry->offset);
		return NULL;
	}
	return record.payload;
}

struct journal_stats journal_stats(const struct journal *journal)
{
	struct journal_stats stats = journal->stats;
	stats.records = journal->index.count;
	stats.file_bytes = journal->store.end;
	stats.live_bytes = journal->index.bytes;
	for (const struct list *node = journal->queue.next; node != &journal->queue;
	     node = node->next)
		stats.queued++;
	stats.queued += journal->commit.count;
	return stats;
}
