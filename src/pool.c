/* pool.c -- small pieces of memory, quickly.  Floor 1.  See worker/pool.h.
 *
 * A list of free pieces per size, each a multiple of POOL_STEP, which is also what everything in C
 * may have to be aligned to.  New ones are cut off a slab.
 */
#include "worker/pool.h"

#include <stdlib.h>
#include <string.h>

#define POOL_SLAB ((size_t)16 * 1024)

struct pool_slab {
	struct pool_slab *next;
	_Alignas(POOL_STEP) char room[];
};

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

void *pool_make(struct pool *pool, size_t size)
{
	return size > POOL_LARGEST ? malloc(size)
				   : pool_cut(pool, (pool_class(size) + 1) * POOL_STEP);
}

void *pool_resize(struct pool *pool, void *piece, size_t old, size_t size)
{
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
