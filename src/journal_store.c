/* journal_store.c -- the file of a journal: owning, creating, reading it.  Floor 3.
 *
 * Opening blocks and reads the whole file: it happens once, at start.  See worker/journal.h for
 * what the files beside the journal are.
 */
#include "worker/journal_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/journal_index.h"
#include "worker/lock.h"
#include "worker/log.h"

static int store_names(struct journal_store *store, const char *path, struct err *err)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	char *dir = slash ? strndup(path, slash > path ? (size_t)(slash - path) : 1) : strdup(".");
	store->path = strdup(path);
	store->name = strdup(name);
	if (asprintf(&store->temp, "%s.new", name) == -1)
		store->temp = NULL;
	if (dir == NULL || !store->path || !store->name || !store->temp) {
		free(dir);
		return err_set(err, ENOMEM, "out of memory opening a journal");
	}
	store->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (store->dir == -1)
		err_errno(err, "opening directory %s", dir);
	free(dir);
	return store->dir == -1 ? -1 : 0;
}

/* The lock is a file of its own, because compaction replaces the journal: a lock on the replaced
 * file would keep nobody out.  What a compaction left that was killed is only ours to remove now.
 */
static int store_own(struct journal_store *store, struct err *err)
{
	char lock[300];
	if (snprintf(lock, sizeof lock, "%s.lock", store->name) >= (int)sizeof lock)
		return err_set(err, ENAMETOOLONG, "%s: the name is too long", store->name);
	store->lock = lock_take(store->dir, lock, false, err);
	if (store->lock == -1)
		return err_wrap(err, "journal %s", store->path);
	unlinkat(store->dir, store->temp, 0);
	return 0;
}

/* Synced before it is used, and its directory, too: the first record's sync is then enough. */
static int store_create(struct journal_store *store, struct err *err)
{
	if (getrandom(&store->salt, sizeof store->salt, 0) == -1)
		return err_errno(err, "getrandom");
	if (ftruncate(store->fd, 0) == -1)
		return err_errno(err, "truncating %s", store->path);
	if (journal_file_create(store->fd, store->salt, err) == -1)
		return err_wrap(err, "%s", store->path);
	if (fsync(store->fd) == -1 || fsync(store->dir) == -1)
		return err_errno(err, "syncing %s", store->path);
	store->end = JOURNAL_FILE_HEADER;
	return 0;
}

/* Replay: the same two operations as when they were made. */
static int store_visit(void *arg, const struct journal_file_record *record, uint64_t offset)
{
	struct journal_index *index = arg;
	if (record->op == JOURNAL_FILE_DROP) {
		journal_index_drop(index, record->key, record->key_length);
		return 0;
	}
	struct journal_entry *entry =
		journal_index_entry(record->kind, record->kind_length, record->key,
				    record->key_length, (uint32_t)record->payload_length);
	if (entry == NULL)
		return -1;
	entry->offset = offset;
	journal_index_add(index, entry);
	return 0;
}

/* What the file was stays under another name; the journal itself will be written anew. */
static void store_keep_damaged(struct journal_store *store)
{
	char name[300];
	snprintf(name, sizeof name, "%.255s.damaged", store->name);
	unlinkat(store->dir, name, 0);
	if (linkat(store->dir, store->name, store->dir, name, 0) == -1)
		log_at(LOG_LEVEL_WARN, "journal.keep_failed", "keeping %s aside: %s", name,
		       strerror(errno));
}

static int store_load(struct journal_store *store, uint64_t size, struct journal_index *index,
		      struct journal_file_scan *scan, struct err *err)
{
	int known = journal_file_check(store->fd, &store->salt, err);
	if (known == -1)
		return err_wrap(err, "%s", store->path);
	/* Creation was interrupted: nothing was ever reported written.  But a long file without a
	 * header had one, and is nothing to begin anew over. */
	if (known == 0 && size > JOURNAL_FILE_HEADER)
		return err_set(err, EBADMSG, "%s: its header is zero; move it out of the way",
			       store->path);
	if (known == 0) {
		scan->cut = size;
		return store_create(store, err);
	}
	if (journal_file_read(store->fd, size, store->salt, store_visit, index, scan, err) == -1)
		return err_wrap(err, "%s", store->path);
	store->end = scan->end;
	if (scan->damaged > 0)
		store_keep_damaged(store);
	if (scan->cut > 0 && ftruncate(store->fd, (off_t)scan->end) == -1)
		return err_errno(err, "truncating %s", store->path);
	return 0;
}

static int store_open_file(struct journal_store *store, struct stat *st, struct err *err)
{
	store->fd = openat(store->dir, store->name,
			   O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (store->fd == -1 || fstat(store->fd, st) == -1)
		return err_errno(err, "opening %s", store->path);
	if (!S_ISREG(st->st_mode))
		return err_set(err, EINVAL, "%s is not a regular file", store->path);
	/* It may hold secrets of jobs, and somebody may have copied it here. */
	if ((st->st_mode & 0777) != 0600 && fchmod(store->fd, 0600) == -1)
		return err_errno(err, "making %s private", store->path);
	return 0;
}

int journal_store_open(struct journal_store *store, const char *path, struct journal_index *index,
		       struct journal_file_scan *scan, struct err *err)
{
	struct stat st;
	*store = (struct journal_store){.dir = -1, .lock = -1, .fd = -1};
	if (store_names(store, path, err) == -1 || store_own(store, err) == -1 ||
	    store_open_file(store, &st, err) == -1)
		return -1;
	return store_load(store, (uint64_t)st.st_size, index, scan, err);
}

void journal_store_close(struct journal_store *store)
{
	const int fds[] = {store->fd, store->lock, store->dir};
	for (int i = 0; i < 3; i++)
		if (fds[i] != -1)
			close(fds[i]);
	free(store->path);
	free(store->name);
	free(store->temp);
}
