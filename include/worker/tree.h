/* tree.h -- removing a directory tree that somebody else made.  Floor 3.
 *
 * What a job leaves behind may be anything: a million files, directories nested deeper than a path
 * can be written or than there are descriptors, no permissions, immutable flags, symbolic links to
 * elsewhere, mounts, processes that still create files.  Nothing is followed, mount points are not
 * entered, and the work is done in steps, so that a helper thread can be shared and left.
 *
 *	tree = tree_new(path, keep_root, &err);
 *	while (tree_step(tree))
 *		;
 *	removed = tree_end(tree, &err);		-1 when something could not be removed
 */
#ifndef WORKER_TREE_H
#define WORKER_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/err.h"

struct tree;

/* tree_new(path, keep_root, err): ${keep_root} empties the directory and leaves it. NULL when out
 * of memory. */
struct tree *tree_new(const char *path, bool keep_root, struct err *err);

/* tree_step(tree): a few hundred entries; false when nothing more can be done. */
bool tree_step(struct tree *tree);

/* tree_end(tree, err): how many entries are gone, or -1 with the first failure; frees it, finished
 * or not. A path that was not there is no failure: 0. */
int64_t tree_end(struct tree *tree, struct err *err);

#endif
