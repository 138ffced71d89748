/* pack.h -- files of a directory into a gzipped tar file.  Floor 3.
 *
 * The directory is a job's: what is in it may change or turn into something else while it is read.
 * Only regular files are taken, opened beneath the directory without following any link; which
 * ones is for the caller to say.  In steps, for a helper thread:
 *
 *	pack = pack_open(path, root, &err);
 *	pack_add(pack, "state.json", &err);
 *	while ((result = pack_step(pack, &err)) == 1)
 *		;
 *	pack_close(pack);
 */
#ifndef WORKER_PACK_H
#define WORKER_PACK_H

#include <stdint.h>

#include "worker/err.h"

struct pack;

/* pack_open(path, root, most, err): ${path} becomes the archive, replaced if it is there; more than
 * ${most} bytes of content are an error. */
struct pack *pack_open(const char *path, const char *root, int64_t most, struct err *err);

/* pack_add(pack, name, err): a file of ${root}; before the first step. */
int pack_add(struct pack *pack, const char *name, struct err *err);

/* pack_step(pack, err): 1 for more, 0 when the archive is complete, -1. */
int pack_step(struct pack *pack, struct err *err);

/* pack_bytes(pack): how much content was taken so far. */
int64_t pack_bytes(const struct pack *pack);

/* pack_close(pack): an archive that is not complete is removed. */
void pack_close(struct pack *pack);

#endif
