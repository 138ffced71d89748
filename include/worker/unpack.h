/* unpack.h -- an archive from somebody else, into a directory of ours.  Floor 3.
 *
 * A tar file (plain or gzip) is hostile input: nothing of it may land outside the
 * directory.  Every name is walked component by component from the directory's own descriptor and
 * no link is followed on the way.  Refused, and with them the whole archive: absolute names, "..",
 * links that lead out of the directory, hard links to what the archive did not bring as a file,
 * devices, pipes and sockets, more bytes or entries than allowed.  Owners and the bits beyond 0777
 * are not taken over.
 *
 * The work is done in steps, so that a helper thread can be shared and left:
 *
 *	unpack = unpack_open(path, dir, &most, &err);
 *	while ((result = unpack_step(unpack, &err)) == 1)
 *		;
 *	entries = unpack_entries(unpack);
 *	unpack_close(unpack);
 *
 * What was unpacked before a failure stays; the caller removes the directory.
 */
#ifndef WORKER_UNPACK_H
#define WORKER_UNPACK_H

#include <stdint.h>

#include "worker/err.h"

struct unpack;

struct unpack_most {
	int64_t bytes; /* of content, unpacked */
	int64_t entries;
};

/* unpack_open(path, dir, most, err): ${dir} must exist and should be empty. */
struct unpack *unpack_open(const char *path, const char *dir, const struct unpack_most *most,
			   struct err *err);

/* unpack_step(unpack, err): 1 for more, 0 when all is there, -1. */
int unpack_step(struct unpack *unpack, struct err *err);

/* unpack_entries(unpack): how many there were so far. */
int64_t unpack_entries(const struct unpack *unpack);

/* unpack_close(unpack): finished or not; NULL is fine. */
void unpack_close(struct unpack *unpack);

#endif
