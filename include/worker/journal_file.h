/* journal_file.h -- what a journal looks like on disk.  Floor 3, used by journal.c alone.
 *
 *	file	header, then records without gaps; little endian throughout
 *	header	"worker\0J", version, salt, crc of these; 32 bytes
 *	record	mark, crc of the head, crc of the body, sizes, operation: 32 bytes;
 *		then the body: kind, key, payload
 *
 * The head has a sum of its own, so that a damaged body can be stepped over; after a damaged head
 * the next mark whose head sums up is looked for.  All sums begin with the file's random salt:
 * a payload that happens to contain a journal is never taken for part of this one.
 */
#ifndef WORKER_JOURNAL_FILE_H
#define WORKER_JOURNAL_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/buf.h"
#include "worker/err.h"

#define JOURNAL_FILE_HEADER  32
#define JOURNAL_FILE_HEAD    32
#define JOURNAL_FILE_KEY     1024
#define JOURNAL_FILE_KIND    32
#define JOURNAL_FILE_PAYLOAD (16u << 20)

enum journal_file_op { JOURNAL_FILE_PUT = 1, JOURNAL_FILE_DROP = 2 };

struct journal_file_record {
	enum journal_file_op op;
	const char *kind, *key, *payload;
	size_t kind_length, key_length, payload_length;
};

/* What reading a file from its beginning found. */
struct journal_file_scan {
	uint64_t end;		/* the good part ends here; what follows is a torn tail */
	uint64_t cut;		/* bytes after that */
	uint64_t damaged_bytes; /* stepped over in the middle */
	uint64_t damaged_at;	/* where the first damage is */
	uint32_t damaged;	/* how many times something was stepped over */
};

/* journal_file_size(record): bytes it takes on disk. */
static inline uint64_t journal_file_size(const struct journal_file_record *record)
{
	return JOURNAL_FILE_HEAD + record->kind_length + record->key_length +
	       record->payload_length;
}

/* journal_file_encode(record, salt, buf): append the record's bytes; 0, or -1 with errno. */
int journal_file_encode(const struct journal_file_record *record, uint32_t salt, struct buf *buf);

/* journal_file_decode(data, n, salt, record): read one record at ${data}; its strings point into
 * ${data}.  Returns its size, 0 when it is not a whole and good record. */
size_t journal_file_decode(const char *data, size_t n, uint32_t salt,
			   struct journal_file_record *record);

/* journal_file_create(fd, salt, err): write the header of an empty file. */
int journal_file_create(int fd, uint32_t salt, struct err *err);

/* journal_file_check(fd, salt, err): read the header; 1 and the salt, 0 when the file is too short
 * to have one (its creation was interrupted), -1 when it is something else. */
int journal_file_check(int fd, uint32_t *salt, struct err *err);

/* journal_file_read(fd, size, salt, visit, arg, scan, err): call ${visit} for every good record in
 * order; its strings are gone afterwards.  -1 when reading fails or ${visit} returns -1. */
int journal_file_read(int fd, uint64_t size, uint32_t salt,
		      int (*visit)(void *arg, const struct journal_file_record *record,
				   uint64_t offset),
		      void *arg, struct journal_file_scan *scan, struct err *err);

/* journal_file_write(fd, data, n, offset): all of it, whatever the kernel takes at a time; 0, or
 * -1 with errno. */
int journal_file_write(int fd, const void *data, size_t n, uint64_t offset);

#endif
