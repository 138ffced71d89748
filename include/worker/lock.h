/* lock.h -- a file that one process holds.  Floor 3.
 *
 * Open-file-description locks: they belong to the descriptor, so they end with it however the
 * process ends, and two handles of one process exclude each other like those of two.  The holder
 * writes its process id into the file, for the message the other one gets; nothing relies on it.
 * The file is never removed: removing it would let two owners lock two different files.
 */
#ifndef WORKER_LOCK_H
#define WORKER_LOCK_H

#include <stdbool.h>

#include "worker/err.h"

/* lock_take(dir, path, shared, err): create and lock ${path} (relative to ${dir} as in openat)
 * without waiting.  Returns a descriptor whose close() is the release, or -1; err->code is EBUSY
 * when it is held. */
int lock_take(int dir, const char *path, bool shared, struct err *err);

#endif
