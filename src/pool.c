/* pool.c -- small pieces of memory, quickly.  Floor 1.  See worker/pool.h.
 *
 * A list of free pieces per size, each a multiple of POOL_STEP, which is also what everything in C
 * may have to be aligned to.  New ones are cut off a slab.
 */
#include "worker/pool.h"

#include <stdlib.h>
#include <string.h>

#define POOL_SLAB ((size_t)16 * 1024)

struct pool_piece {
	struct pool_piece *next;
};

struct pool_slab {
	struct pool_slab *next;
	_Alignas(POOL_STEP) char room[];
};

#if defined(__SANITIZE_ADDRESS__) || defined(WORKER_FAULTS)
#define POOL_LARGEST 0
#else
#define POOL_LARGEST POOL_SMALL
#endif

static size_t pool_class(size_t size)
{
	return (size - 1) / POOL_STEP;
}

/* The rest of the slab before is lost: less than one piece. */
static void *pool_cut(struct pool *pool, size_t size)
{
	if ((size_t)(pool->end - pool->at) < size) {
		struct pool_slab *slab = malloc(POOL_SLAB);
		if (slab == NULL)
			return NULL;
		slab->next = pool->slabs;
		pool->slabs = slab;
		pool->at = slab->room;
		pool->end = (char *)slab + POOL_SLAB;
	}
	void *piece = pool->at;
	pool->at += size;
	return piece;
}

static void *pool_take(struct pool *pool, size_t size)
{
	if (size > POOL_LARGEST)
		return malloc(size);
	size_t class = pool_class(size);
	struct pool_piece *piece = pool->free[class];
	if (piece == NULL)
		return pool_cut(pool, (class + 1) * POOL_STEP);
	pool->free[class] = piece->next;
	return piece;
}

static void pool_give(struct pool *pool, void *old, size_t size)
{
	if (size > POOL_LARGEST) {
		free(old);
		return;
	}
	struct pool_piece *piece = old;
	piece->next = pool->free[pool_class(size)];
	pool->free[pool_class(size)] = piece;
}

void *pool_resize(struct pool *pool, void *piece, size_t old, size_t size)
{
	if (piece == NULL)
		return size > 0 ? pool_take(pool, size) : NULL;
	if (size == 0) {
		pool_give(pool, piece, old);
		return NULL;
	}
	if (old > POOL_LARGEST && size > POOL_LARGEST)
		return realloc(piece, size);
	if (old <= POOL_LARGEST && size <= POOL_LARGEST && pool_class(old) == pool_class(size))
		return piece;
	void *fresh = pool_take(pool, size);
	if (fresh == NULL)
		return NULL;
	memcpy(fresh, piece, old < size ? old : size);
	pool_give(pool, piece, old);
	return fresh;
}

void pool_end(struct pool *pool)
{
	while (pool->slabs != NULL) {
		struct pool_slab *slab = pool->slabs;
		pool->slabs = slab->next;
		free(slab);
	}
	*pool = (struct pool){.slabs = NULL};
}
