/* mask.h -- hiding secrets in streams of bytes.  Floor 1.
 *
 * A struct mask knows the secrets, each in all the forms it may be printed in (see mask_forms.h);
 * any number of struct mask_stream are read through it.  What a stream gives out is its input with
 * every occurrence replaced by "***", also where chunks cut it; only bytes that may be the
 * beginning of a secret are held back (at most MASK_HEAD), until the next chunk or mask_end
 * decides.
 *
 * A form up to MASK_HEAD bytes long is hidden where all of it occurs.  A longer one is hidden as
 * soon as its first MASK_HEAD bytes occur, as far as the text goes on like it: holding back a whole
 * key file would stall a log, and half of it is a leak already.  Occurrences that touch become one
 * "***".
 *
 * Secrets may be added while streams run; what was given out before is not taken back.  The time is
 * linear in the text whatever it holds, and most of it is skipped rather than read.  All memory
 * that held a secret is wiped when it is given back.
 */
#ifndef WORKER_MASK_H
#define WORKER_MASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/buf.h"

#define MASK_LEAST   6			  /* a shorter secret would destroy the log */
#define MASK_MOST    ((size_t)256 * 1024) /* the longest one taken */
#define MASK_HEAD    60
#define MASK_FOLLOWS 16

struct mask;

struct mask *mask_new(void);
void mask_free(struct mask *mask);

/* mask_add(mask, s, n): one secret; 1, or 0 when it is too short to be hidden (newlines at its ends
 * do not count), or -1 with errno (ENOMEM; EMSGSIZE: more than MASK_MOST, or too many in all). */
int mask_add(struct mask *mask, const char *s, size_t n);

/* mask_count(mask): how many different forms it looks for. */
size_t mask_count(const struct mask *mask);

/* A zeroed one is a stream at its beginning; the rest is private to mask.c. */
struct mask_stream {
	uint64_t version; /* of the mask the state belongs to */
	uint64_t hidden;  /* bit k: the k-th last byte consumed is to be hidden */
	uint32_t state;
	uint32_t place;	  /* where in the ring the next byte goes */
	unsigned pending; /* bytes consumed and not yet given out */
	unsigned follows;
	bool inside; /* the last byte given out was hidden */
	struct {
		uint32_t form;
		size_t at;
	} follow[MASK_FOLLOWS]; /* long forms whose beginning was seen */
	char ring[64];
};

/* mask_feed(mask, stream, s, n, out): append what of the text can be given out; 0, or -1 with errno
 * (then the stream is as before). */
int mask_feed(struct mask *mask, struct mask_stream *stream, const char *s, size_t n,
	      struct buf *out);

/* mask_end(stream, out): give out what was held back; the stream is at its beginning again. */
int mask_end(struct mask_stream *stream, struct buf *out);

#endif
