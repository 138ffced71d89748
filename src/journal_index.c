/* journal_index.c -- which records of a journal are live, and where.  Floor 3.
 *
 * A chained hash table by key alone: all kinds of one key share a chain, so that dropping a key is
 * one walk.  The hash is the file's check sum of the key; keys come from orchestrators we chose,
 * and a chain of equal sums would only be slow.  When growing the table fails it stays as it is:
 * longer chains, same answers.
 */
#include "worker/journal_index.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "worker/crc.h"
#include "worker/journal_file.h"

uint64_t journal_entry_size(const struct journal_entry *entry)
{
	return (uint64_t)JOURNAL_FILE_HEAD + entry->kind_length + entry->key_length +
	       entry->payload_length;
}

void journal_index_init(struct journal_index *index)
{
	memset(index, 0, sizeof *index);
	index->buckets = index->few;
	index->room = JOURNAL_INDEX_FIRST;
	list_init(&index->order);
}

void journal_index_free(struct journal_index *index)
{
	struct list *node;
	while ((node = list_shift(&index->order)) != NULL)
		free(container_of(node, struct journal_entry, order));
	if (index->buckets != index->few)
		free(index->buckets);
	journal_index_init(index);
}

struct journal_entry *journal_index_entry(const char *kind, size_t kind_length, const char *key,
					  size_t key_length, uint32_t payload_length)
{
	struct journal_entry *entry = malloc(sizeof *entry + kind_length + key_length + 2);
	if (entry == NULL)
		return NULL;
	*entry = (struct journal_entry){.hash = crc_update(0, key, key_length),
					.payload_length = payload_length,
					.key_length = (uint16_t)key_length,
					.kind_length = (uint8_t)kind_length};
	memcpy(entry->text, kind, kind_length);
	entry->text[kind_length] = '\0';
	memcpy(entry->text + kind_length + 1, key, key_length);
	entry->text[kind_length + 1 + key_length] = '\0';
	return entry;
}

static struct journal_entry **journal_bucket(const struct journal_index *index, uint32_t hash)
{
	return &index->buckets[hash & (index->room - 1)];
}

static bool journal_is_key(const struct journal_entry *entry, const char *key, size_t n)
{
	return entry->key_length == n && memcmp(journal_entry_key(entry), key, n) == 0;
}

static bool journal_is_kind(const struct journal_entry *entry, const char *kind, size_t n)
{
	return entry->kind_length == n && memcmp(entry->text, kind, n) == 0;
}

static void journal_unlink(struct journal_index *index, struct journal_entry **place)
{
	struct journal_entry *entry = *place;
	*place = entry->next;
	list_remove(&entry->order);
	index->bytes -= journal_entry_size(entry);
	index->count--;
	free(entry);
}

static void journal_grow(struct journal_index *index)
{
	size_t room = index->room * 2;
	struct journal_entry **buckets = calloc(room, sizeof(struct journal_entry *));
	if (buckets == NULL)
		return;
	if (index->buckets != index->few)
		free(index->buckets);
	index->buckets = buckets;
	index->room = room;
	for (struct list *node = index->order.next; node != &index->order; node = node->next) {
		struct journal_entry *entry = container_of(node, struct journal_entry, order);
		struct journal_entry **bucket = journal_bucket(index, entry->hash);
		entry->next = *bucket;
		*bucket = entry;
	}
}

/* In the chain that begins with ${entry}. */
static struct journal_entry *journal_find_in(struct journal_entry *entry, const char *kind,
					     size_t kind_length, const char *key, size_t key_length)
{
	while (entry && !(journal_is_key(entry, key, key_length) &&
			  journal_is_kind(entry, kind, kind_length)))
		entry = entry->next;
	return entry;
}

struct journal_entry *journal_index_find(const struct journal_index *index, const char *kind,
					 size_t kind_length, const char *key, size_t key_length)
{
	struct journal_entry **bucket = journal_bucket(index, crc_update(0, key, key_length));
	return journal_find_in(*bucket, kind, kind_length, key, key_length);
}

void journal_index_remove(struct journal_index *index, struct journal_entry *entry)
{
	struct journal_entry **place = journal_bucket(index, entry->hash);
	while (*place != entry)
		place = &(*place)->next;
	journal_unlink(index, place);
}

size_t journal_index_drop(struct journal_index *index, const char *key, size_t n)
{
	size_t before = index->count;
	struct journal_entry **place = journal_bucket(index, crc_update(0, key, n));
	while (*place != NULL) {
		if (journal_is_key(*place, key, n))
			journal_unlink(index, place);
		else
			place = &(*place)->next;
	}
	return before - index->count;
}

void journal_index_add(struct journal_index *index, struct journal_entry *entry)
{
	struct journal_entry *old =
		journal_find_in(*journal_bucket(index, entry->hash), journal_entry_kind(entry),
				entry->kind_length, journal_entry_key(entry), entry->key_length);
	if (old != NULL)
		journal_index_remove(index, old);
	if (index->count >= index->room)
		journal_grow(index);
	struct journal_entry **bucket = journal_bucket(index, entry->hash);
	entry->next = *bucket;
	*bucket = entry;
	list_append(&index->order, &entry->order);
	index->bytes += journal_entry_size(entry);
	index->count++;
}
