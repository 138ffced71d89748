/* pool.h -- small pieces of memory, quickly.  Floor 1.
 *
 * For an owner that makes and drops many small things and always knows their size, as Lua does.
 * Pieces of up to POOL_SMALL bytes come from lists of equal ones, larger ones from malloc.  What
 * was given back is used again, and goes to the system with the whole pool only.
 *
 * Under the sanitizers, and where allocations are made to fail, every piece is malloc's: they see
 * each of them then.
 */
#ifndef WORKER_POOL_H
#define WORKER_POOL_H

#include <stddef.h>

#define POOL_SMALL 512
#define POOL_STEP  16

struct pool_piece;
struct pool_slab;

/* Begins as zeros. */
struct pool {
	struct pool_piece *free[POOL_SMALL / POOL_STEP];
	struct pool_slab *slabs;
	char *at, *end; /* of the newest slab: what was never used */
};

/* pool_resize(pool, piece, old, size): like realloc, but the size so far is told.  NULL for a new
 * piece; size 0 gives it back.  NULL when out of memory: the piece is as it was. */
void *pool_resize(struct pool *pool, void *piece, size_t old, size_t size);

/* pool_end(pool): frees the small pieces, in use or not. */
void pool_end(struct pool *pool);

#endif
