/* list.h -- an intrusive doubly linked list and an intrusive binary heap.  Floor 1.
 *
 * Both hold nodes that live inside the caller's structs, so adding never allocates (the heap's
 * array is grown by heap_reserve, beforehand).  A zeroed node is in no list and in no heap.
 */
#ifndef WORKER_LIST_H
#define WORKER_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

struct list {
	struct list *prev, *next;
};

static inline void list_init(struct list *list)
{
	list->prev = list->next = list;
}
static inline bool list_empty(const struct list *list)
{
	return list->next == list;
}
static inline bool list_linked(const struct list *node)
{
	return node->next != NULL;
}

static inline void list_append(struct list *list, struct list *node)
{
	node->prev = list->prev;
	node->next = list;
	list->prev->next = node;
	list->prev = node;
}

/* list_remove(node): take ${node} out; nothing happens when it is in no list. */
static inline void list_remove(struct list *node)
{
	if (!list_linked(node))
		return;
	node->prev->next = node->next;
	node->next->prev = node->prev;
	node->prev = node->next = NULL;
}

/* list_shift(list): take out and return the first node, or NULL. */
static inline struct list *list_shift(struct list *list)
{
	struct list *node = list->next;
	if (node == list)
		return NULL;
	list_remove(node);
	return node;
}

/* list_splice(to, from): move everything in ${from} to the end of ${to}. */
static inline void list_splice(struct list *to, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

/* A heap of timers: the smallest ${due} is on top. ${at} is the place in the array plus one. */
struct heap_node {
	int64_t due;
	size_t at;
};

struct heap {
	struct heap_node **nodes;
	size_t count, room;
};

static inline bool heap_linked(const struct heap_node *node)
{
	return node->at != 0;
}
static inline struct heap_node *heap_top(const struct heap *heap)
{
	return heap->count ? heap->nodes[0] : NULL;
}

/* heap_reserve(heap): make sure one more node fits; 0, or -1 when out of memory. */
static inline int heap_reserve(struct heap *heap)
{
	if (heap->count < heap->room)
		return 0;
	size_t room = heap->room ? heap->room * 2 : 64;
	struct heap_node **nodes = realloc(heap->nodes, room * sizeof *nodes);
	if (nodes == NULL)
		return -1;
	heap->nodes = nodes;
	heap->room = room;
	return 0;
}

static inline void heap_place(struct heap *heap, size_t at, struct heap_node *node)
{
	heap->nodes[at] = node;
	node->at = at + 1;
}

static inline void heap_up(struct heap *heap, size_t at, struct heap_node *node)
{
	while (at > 0 && heap->nodes[(at - 1) / 2]->due > node->due) {
		heap_place(heap, at, heap->nodes[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	heap_place(heap, at, node);
}

static inline void heap_down(struct heap *heap, size_t at, struct heap_node *node)
{
	for (;;) {
		size_t child = 2 * at + 1;
		if (child + 1 < heap->count &&
		    heap->nodes[child + 1]->due < heap->nodes[child]->due)
			child++;
		if (child >= heap->count || heap->nodes[child]->due >= node->due)
			break;
		heap_place(heap, at, heap->nodes[child]);
		at = child;
	}
	heap_place(heap, at, node);
}

/* heap_add(heap, node): after a heap_reserve that succeeded. */
static inline void heap_add(struct heap *heap, struct heap_node *node)
{
	heap_up(heap, heap->count++, node);
}

/* heap_remove(heap, node): nothing happens when it is in no heap. */
static inline void heap_remove(struct heap *heap, struct heap_node *node)
{
	if (!heap_linked(node))
		return;
	size_t at = node->at - 1;
	struct heap_node *last = heap->nodes[--heap->count];
	node->at = 0;
	if (last == node)
		return;
	if (at > 0 && heap->nodes[(at - 1) / 2]->due > last->due)
		heap_up(heap, at, last);
	else
		heap_down(heap, at, last);
}

#endif
