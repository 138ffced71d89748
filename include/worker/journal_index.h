/* journal_index.h -- which records of a journal are live, and where.  Floor 3, used by journal.c.
 *
 * At most one record per key and kind is live: the last one put.  Entries are found by key and are
 * also kept in the order of their place in the file.  Payloads stay on disk.
 */
#ifndef WORKER_JOURNAL_INDEX_H
#define WORKER_JOURNAL_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "worker/list.h"

struct journal_entry {
	struct list order;
	struct journal_entry *next; /* in its bucket */
	uint64_t offset;	    /* of the record in the file */
	uint32_t hash, payload_length;
	uint16_t key_length;
	uint8_t kind_length;
	char text[]; /* kind, NUL, key, NUL */
};

#define JOURNAL_INDEX_FIRST 64

struct journal_index {
	struct journal_entry **buckets; /* ${few} at first: never NULL, so do not move the struct */
	struct journal_entry *few[JOURNAL_INDEX_FIRST];
	size_t room, count; /* room is a power of two */
	struct list order;
	uint64_t bytes; /* the live records' sizes on disk */
};

static inline const char *journal_entry_kind(const struct journal_entry *entry)
{
	return entry->text;
}
static inline const char *journal_entry_key(const struct journal_entry *entry)
{
	return entry->text + entry->kind_length + 1;
}

/* journal_entry_size(entry): bytes of its record on disk. */
uint64_t journal_entry_size(const struct journal_entry *entry);

void journal_index_init(struct journal_index *index);
void journal_index_free(struct journal_index *index);

/* journal_index_entry(...): make an entry that is in no index yet; NULL when out of memory. Made
 * before the record is written, so that afterwards nothing can fail. */
struct journal_entry *journal_index_entry(const char *kind, size_t kind_length, const char *key,
					  size_t key_length, uint32_t payload_length);

/* journal_index_add(index, entry): take the entry; one of the same key and kind goes. */
void journal_index_add(struct journal_index *index, struct journal_entry *entry);

/* journal_index_drop(index, key, n): forget all kinds of a key; returns how many there were. */
size_t journal_index_drop(struct journal_index *index, const char *key, size_t n);

/* journal_index_remove(index, entry): forget this one. */
void journal_index_remove(struct journal_index *index, struct journal_entry *entry);

/* journal_index_find(index, kind, nkind, key, nkey): the live entry, or NULL. */
struct journal_entry *journal_index_find(const struct journal_index *index, const char *kind,
					 size_t kind_length, const char *key, size_t key_length);

#endif
