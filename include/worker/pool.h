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
#include <stdlib.h>

#define POOL_SMALL 512
#define POOL_STEP  16

#if defined(__SANITIZE_ADDRESS__) || defined(WORKER_FAULTS)
#define POOL_LARGEST 0
#else
#define POOL_LARGEST POOL_SMALL
#endif

struct pool_slab;
struct pool_piece {
	struct pool_piece *next;
};

/* Begins as zeros. */
struct pool {
	struct pool_piece *free[POOL_SMALL / POOL_STEP];
	struct pool_slab *slabs;
	char *at, *end; /* of the newest slab: what was never used */
};

static inline size_t pool_class(size_t size)
{
	return (size - 1) / POOL_STEP;
}

/* pool_take(pool, size): a new piece, of at least one byte; NULL when out of memory.  Nearly always
 * one was given back before; pool_make is for when none was. */
void *pool_make(struct pool *pool, size_t size);
static inline void *pool_take(struct pool *pool, size_t size)
{
	struct pool_piece *piece = size > POOL_LARGEST ? NULL : pool->free[pool_class(size)];
	if (piece == NULL)
		return pool_make(pool, size);
	pool->free[pool_class(size)] = piece->next;
	return piece;
}

/* pool_give(pool, piece, size): gives it back; its size is told. */
static inline void pool_give(struct pool *pool, void *piece, size_t size)
{
	if (size > POOL_LARGEST) {
		free(piece);
		return;
	}
	struct pool_piece *first = piece;
	first->next = pool->free[pool_class(size)];
	pool->free[pool_class(size)] = first;
}

/* pool_resize(pool, piece, old, size): like realloc, but the size so far is told, and neither is 0.
 * NULL when out of memory: the piece is as it was. */
void *pool_resize(struct pool *pool, void *piece, size_t old, size_t size);

/* pool_end(pool): frees the small pieces, in use or not. */
void pool_end(struct pool *pool);

#endif
