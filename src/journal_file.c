/* journal_file.c -- what a journal looks like on disk.  Floor 3.
 *
 * The layout is described in worker/journal_file.h.  Reading goes through a window of the file in
 * memory that grows to the size of the record at hand, so that a file of any size is read with
 * bounded memory and few system calls.  Nothing read is trusted before its sum has been checked:
 * sizes are compared with their limits first, so a damaged head cannot make us read far.
 */
#include "worker/journal_file.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "worker/crc.h"

#define JOURNAL_MARK	0x4b52574au /* "JWRK" */
#define JOURNAL_VERSION 1
#define JOURNAL_WINDOW	(64u << 10)

static const char journal_magic[8] = "worker\0J";

struct journal_header {
	char magic[8];
	uint32_t version, salt, zero[3], crc;
};

struct journal_head {
	uint32_t mark, head_crc, body_crc, payload_length;
	uint16_t key_length;
	uint8_t kind_length, op;
	uint32_t zero[3];
};

_Static_assert(sizeof(struct journal_header) == JOURNAL_FILE_HEADER, "header size");
_Static_assert(sizeof(struct journal_head) == JOURNAL_FILE_HEAD, "record head size");

/* --- one record --- */

/* Everything behind the sum itself, the reserved words included: they must be zero until they mean
 * something. */
static uint32_t journal_head_crc(const struct journal_head *head, uint32_t salt)
{
	size_t from = offsetof(struct journal_head, body_crc);
	return crc_update(salt, (const char *)head + from, sizeof *head - from);
}

int journal_file_encode(const struct journal_file_record *record, uint32_t salt, struct buf *buf)
{
	uint32_t sum = crc_update(salt, record->kind, record->kind_length);
	sum = crc_update(sum, record->key, record->key_length);
	sum = crc_update(sum, record->payload, record->payload_length);
	struct journal_head head = {
		.mark = htole32(JOURNAL_MARK),
		.body_crc = htole32(sum),
		.payload_length = htole32((uint32_t)record->payload_length),
		.key_length = htole16((uint16_t)record->key_length),
		.kind_length = (uint8_t)record->kind_length,
		.op = (uint8_t)record->op,
	};
	head.head_crc = htole32(journal_head_crc(&head, salt));
	/* Reserved as a whole first: a record is in the buffer completely or not at all. */
	char *at = buf_reserve(buf, journal_file_size(record));
	if (at == NULL)
		return -1;
	at = (char *)memcpy(at, &head, sizeof head) + sizeof head;
	at = (char *)memcpy(at, record->kind, record->kind_length) + record->kind_length;
	at = (char *)memcpy(at, record->key, record->key_length) + record->key_length;
	memcpy(at, record->payload, record->payload_length);
	buf_commit(buf, journal_file_size(record));
	return 0;
}

/* Whether ${data} begins with a head that can be believed; fills in the sizes. */
static bool journal_head_read(const char *data, uint32_t salt, struct journal_file_record *record,
			      uint32_t *body_crc)
{
	struct journal_head head;
	memcpy(&head, data, sizeof head);
	if (head.mark != htole32(JOURNAL_MARK) ||
	    head.head_crc != htole32(journal_head_crc(&head, salt)))
		return false;
	record->op = head.op;
	record->kind_length = head.kind_length;
	record->key_length = le16toh(head.key_length);
	record->payload_length = le32toh(head.payload_length);
	*body_crc = le32toh(head.body_crc);
	return record->kind_length <= JOURNAL_FILE_KIND && record->key_length <= JOURNAL_FILE_KEY &&
	       record->payload_length <= JOURNAL_FILE_PAYLOAD &&
	       (head.op == JOURNAL_FILE_PUT || head.op == JOURNAL_FILE_DROP);
}

size_t journal_file_decode(const char *data, size_t n, uint32_t salt,
			   struct journal_file_record *record)
{
	uint32_t body_crc;
	if (n < JOURNAL_FILE_HEAD || !journal_head_read(data, salt, record, &body_crc))
		return 0;
	size_t size = journal_file_size(record);
	if (n < size ||
	    crc_update(salt, data + JOURNAL_FILE_HEAD, size - JOURNAL_FILE_HEAD) != body_crc)
		return 0;
	record->kind = data + JOURNAL_FILE_HEAD;
	record->key = record->kind + record->kind_length;
	record->payload = record->key + record->key_length;
	return size;
}

/* --- the header --- */

int journal_file_write(int fd, const void *data, size_t n, uint64_t offset)
{
	const char *at = data;
	while (n > 0) {
		ssize_t wrote = pwrite(fd, at, n, (off_t)offset);
		if (wrote == -1 && errno == EINTR)
			continue;
		if (wrote == 0)
			errno = ENOSPC;
		if (wrote <= 0)
			return -1;
		at += wrote;
		n -= (size_t)wrote;
		offset += (uint64_t)wrote;
	}
	return 0;
}

static uint32_t journal_header_crc(const struct journal_header *header)
{
	return crc_update(0, header, offsetof(struct journal_header, crc));
}

/* A new salt with every file: what an older journal left in the same blocks does not sum up. */
int journal_file_create(int fd, uint32_t salt, struct err *err)
{
	struct journal_header header = {.version = htole32(JOURNAL_VERSION), .salt = htole32(salt)};
	memcpy(header.magic, journal_magic, sizeof header.magic);
	header.crc = htole32(journal_header_crc(&header));
	if (journal_file_write(fd, &header, sizeof header, 0) == -1)
		return err_errno(err, "writing the header");
	return 0;
}

int journal_file_check(int fd, uint32_t *salt, struct err *err)
{
	struct journal_header header;
	ssize_t n = pread(fd, &header, sizeof header, 0);
	if (n == -1)
		return err_errno(err, "reading the header");
	/* Zeros are what a power cut leaves of a file that was just made. */
	static const char zero[8];
	if ((size_t)n < sizeof header || memcmp(header.magic, zero, sizeof zero) == 0)
		return 0;
	if (memcmp(header.magic, journal_magic, sizeof header.magic) != 0)
		return err_set(err, EINVAL, "not a journal of worker; move it out of the way");
	if (header.version != htole32(JOURNAL_VERSION))
		return err_set(err, EINVAL, "written by another version of worker (format %u)",
			       le32toh(header.version));
	if (header.crc != htole32(journal_header_crc(&header)))
		return err_set(err, EBADMSG, "its header is damaged; move it out of the way");
	*salt = le32toh(header.salt);
	return 1;
}

/* --- reading it all --- */

struct journal_window {
	int fd;
	uint64_t size; /* of the file */
	uint64_t from; /* where the buffer begins */
	struct buf buf;
};

/* The file's bytes from ${offset} on; ${n} becomes how many there are, at least as many as asked
 * for unless the file ends. NULL with errno set. */
static const char *journal_window_at(struct journal_window *window, uint64_t offset, size_t *n)
{
	uint64_t left = window->size - offset;
	size_t want = *n < left ? *n : (size_t)left;
	if (offset < window->from || offset + want > window->from + buf_size(&window->buf)) {
		size_t fetch = want > JOURNAL_WINDOW ? want : JOURNAL_WINDOW;
		buf_consume(&window->buf, buf_size(&window->buf));
		window->from = offset;
		char *room = buf_reserve(&window->buf, fetch);
		ssize_t got = room ? pread(window->fd, room, fetch, (off_t)offset) : -1;
		if (got == -1)
			return NULL;
		buf_commit(&window->buf, (size_t)got);
	}
	size_t skip = (size_t)(offset - window->from);
	size_t held = buf_size(&window->buf);
	*n = held > skip ? held - skip : 0;
	return buf_head(&window->buf) + (held > skip ? skip : held);
}

/* The size of the record at ${offset}: 0 when there is none, and -1 when reading failed.
 * ${believed} becomes the size its head tells, 0 when the head itself is bad. */
static ssize_t journal_record_at(struct journal_window *window, uint64_t offset, uint32_t salt,
				 struct journal_file_record *record, uint64_t *believed)
{
	size_t n = JOURNAL_FILE_HEAD;
	uint32_t body_crc;
	*believed = 0;
	const char *data = journal_window_at(window, offset, &n);
	if (data == NULL)
		return -1;
	if (n < JOURNAL_FILE_HEAD || !journal_head_read(data, salt, record, &body_crc))
		return 0;
	*believed = journal_file_size(record);
	n = (size_t)*believed;
	data = journal_window_at(window, offset, &n);
	if (data == NULL)
		return -1;
	return (ssize_t)journal_file_decode(data, n, salt, record);
}

/* Where the next record with a good head begins at or after ${offset}; the file's size when there
 * is none. -1 with errno set. */
static int64_t journal_resync(struct journal_window *window, uint64_t offset, uint32_t salt)
{
	uint32_t mark = htole32(JOURNAL_MARK), body_crc;
	struct journal_file_record record;
	while (offset + JOURNAL_FILE_HEAD <= window->size) {
		size_t n = JOURNAL_FILE_HEAD;
		const char *data = journal_window_at(window, offset, &n);
		if (data == NULL)
			return -1;
		if (n < JOURNAL_FILE_HEAD)
			break;
		const char *hit =
			memmem(data, n - JOURNAL_FILE_HEAD + sizeof mark, &mark, sizeof mark);
		if (hit == NULL) {
			offset += n - JOURNAL_FILE_HEAD + 1;
			continue;
		}
		offset += (uint64_t)(hit - data);
		if (journal_head_read(hit, salt, &record, &body_crc))
			return (int64_t)offset;
		offset++;
	}
	return (int64_t)window->size;
}

/* One step from ${offset}: the offset after the record or the damage there, or -1. */
static int64_t journal_step(struct journal_window *window, uint64_t offset, uint32_t salt,
			    struct journal_file_record *record, bool *good)
{
	uint64_t believed;
	ssize_t size = journal_record_at(window, offset, salt, record, &believed);
	if (size == -1)
		return -1;
	*good = size > 0;
	if (*good)
		return (int64_t)offset + size;
	if (believed > 0 && offset + believed <= window->size)
		return (int64_t)(offset + believed);
	return journal_resync(window, offset + 1, salt);
}

static int journal_read_window(struct journal_window *window, uint32_t salt,
			       int (*visit)(void *arg, const struct journal_file_record *record,
					    uint64_t offset),
			       void *arg, struct journal_file_scan *scan, struct err *err)
{
	uint64_t offset = JOURNAL_FILE_HEADER;
	while (offset < window->size) {
		struct journal_file_record record;
		bool good;
		int64_t next = journal_step(window, offset, salt, &record, &good);
		if (next == -1)
			return err_errno(err, "reading at byte %llu", (unsigned long long)offset);
		if (good) {
			/* Damage counts as such only when something good comes after it;
			 * otherwise it is the torn tail. */
			if (offset > scan->end) {
				if (scan->damaged++ == 0)
					scan->damaged_at = scan->end;
				scan->damaged_bytes += offset - scan->end;
			}
			if (visit(arg, &record, offset) == -1)
				return err_set(err, ENOMEM, "out of memory for the index");
			scan->end = (uint64_t)next;
		}
		offset = (uint64_t)next;
	}
	scan->cut = window->size - scan->end;
	return 0;
}

int journal_file_read(int fd, uint64_t size, uint32_t salt,
		      int (*visit)(void *arg, const struct journal_file_record *record,
				   uint64_t offset),
		      void *arg, struct journal_file_scan *scan, struct err *err)
{
	struct journal_window window = {.fd = fd, .size = size, .from = 0};
	size_t most = JOURNAL_FILE_HEAD + JOURNAL_FILE_KIND + JOURNAL_FILE_KEY +
		      JOURNAL_FILE_PAYLOAD + JOURNAL_WINDOW;
	buf_init(&window.buf, most);
	memset(scan, 0, sizeof *scan);
	scan->end = JOURNAL_FILE_HEADER;
	int result = journal_read_window(&window, salt, visit, arg, scan, err);
	buf_free(&window.buf);
	return result;
}
