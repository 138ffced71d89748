/* mask.c -- hiding secrets in streams of bytes.  Floor 1.  See worker/mask.h.
 *
 * Two engines take turns.  While nothing that looks like a secret is under way, mask_skip jumps
 * over the text: a table says, for the three bytes at the far end of a window as long as the
 * shortest form, how far the window may be moved because no form has these bytes so near to its
 * beginning (Wu and Manber).  Where the window must stop, an automaton (Aho and Corasick) goes on
 * byte by byte until it has fallen back to its root.  Its state's depth is how much of the text's
 * end could be the beginning of a secret, which is just what has to be held back.
 *
 * What is held is at most MASK_HEAD < 64 bytes, so "which of them are to be hidden" is one 64-bit
 * word, shifted by one for each byte: a form of m bytes that ends here sets the lowest m bits.
 *
 * The automaton holds only the first MASK_HEAD bytes of a long form; when they have been seen, the
 * stream follows that form byte by byte, beside the automaton, for as long as the text goes on like
 * it.  Sixteen may be followed at once; only a text that repeats one beginning inside another more
 * often than that could need more.
 */
#include "worker/mask.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/mask_forms.h"

#define MASK_TEXT	"***"
#define MASK_TEXT_SIZE	3
#define MASK_NODES_MOST ((uint32_t)4 << 20)
#define MASK_WINDOW	32 /* longer jumps gain nothing */

#define SKIP_BITS 15
#define SKIP_FULL (1 << SKIP_BITS >> 2) /* entries to fill at most: more, and no jump is far */

struct node {
	uint32_t child, sibling; /* first child; next child of the parent */
	uint32_t fail;		 /* the longest proper suffix that is a beginning too */
	uint32_t chain;		 /* nearest node, itself first, then by fail, with long forms */
	uint32_t longs;		 /* first long form whose head ends here */
	unsigned char byte, depth;
	unsigned char own;   /* a form (or head) ends here */
	unsigned char match; /* length of the longest that ends here; 0 none */
};

struct form {
	char *text;
	size_t size;
	uint32_t next; /* of the long forms with the same head */
};

/* Index 0 of both arrays is taken: the root, and "none". */
struct mask {
	struct node *nodes;
	struct form *forms;
	uint32_t node_count, node_room, form_count, form_room;
	uint64_t version; /* counts the changes; streams compare it with theirs */
	bool stale;	  /* forms were added since the tables were made */
	unsigned window;
	size_t shortest;
	uint32_t first[256]; /* children of the root */
	unsigned char skip[1 << SKIP_BITS];
};

/* An array with room for one more, without leaving a copy of the old one behind; or NULL. */
static void *grown(void *old, uint32_t *room, uint32_t count, size_t size)
{
	if (count < *room)
		return old;
	uint32_t more = *room ? *room * 2 : 64;
	void *new = calloc(more, size);
	if (new == NULL)
		return NULL;
	if (old != NULL) {
		memcpy(new, old, count * size);
		explicit_bzero(old, *room * size);
		free(old);
	}
	*room = more;
	return new;
}

static int nodes_grow(struct mask *mask)
{
	struct node *nodes = grown(mask->nodes, &mask->node_room, mask->node_count, sizeof *nodes);
	if (nodes == NULL)
		return -1;
	mask->nodes = nodes;
	return 0;
}

static int forms_grow(struct mask *mask)
{
	struct form *forms = grown(mask->forms, &mask->form_room, mask->form_count, sizeof *forms);
	if (forms == NULL)
		return -1;
	mask->forms = forms;
	return 0;
}

struct mask *mask_new(void)
{
	struct mask *mask = calloc(1, sizeof *mask);
	if (mask == NULL)
		return NULL;
	if (nodes_grow(mask) == -1 || forms_grow(mask) == -1) {
		mask_free(mask);
		return NULL;
	}
	mask->node_count = mask->form_count = 1;
	mask->shortest = SIZE_MAX;
	mask->version = 1;
	return mask;
}

void mask_free(struct mask *mask)
{
	if (mask == NULL)
		return;
	for (uint32_t i = 1; i < mask->form_count; i++) {
		explicit_bzero(mask->forms[i].text, mask->forms[i].size);
		free(mask->forms[i].text);
	}
	if (mask->nodes != NULL)
		explicit_bzero(mask->nodes, mask->node_room * sizeof *mask->nodes);
	free(mask->nodes);
	free(mask->forms);
	explicit_bzero(mask, sizeof *mask);
	free(mask);
}

size_t mask_count(const struct mask *mask)
{
	return mask->form_count - 1;
}

/* --- building --- */

static uint32_t node_child(const struct mask *mask, uint32_t at, unsigned char byte)
{
	if (at == 0)
		return mask->first[byte];
	uint32_t child = mask->nodes[at].child;
	while (child != 0 && mask->nodes[child].byte != byte)
		child = mask->nodes[child].sibling;
	return child;
}

static uint32_t node_add(struct mask *mask, uint32_t parent, unsigned char byte)
{
	if (mask->node_count >= MASK_NODES_MOST) {
		errno = EMSGSIZE;
		return 0;
	}
	if (nodes_grow(mask) == -1)
		return 0;
	uint32_t at = mask->node_count++;
	mask->nodes[at] = (struct node){.byte = byte,
					.sibling = mask->nodes[parent].child,
					.depth = (unsigned char)(mask->nodes[parent].depth + 1)};
	mask->nodes[parent].child = at;
	if (parent == 0)
		mask->first[byte] = at;
	return at;
}

/* Is the form already known?  ${at} is where its head ends. */
static bool form_known(const struct mask *mask, uint32_t at, const char *s, size_t n)
{
	if (n <= MASK_HEAD)
		return mask->nodes[at].own;
	for (uint32_t i = mask->nodes[at].longs; i != 0; i = mask->forms[i].next)
		if (mask->forms[i].size == n && memcmp(mask->forms[i].text, s, n) == 0)
			return true;
	return false;
}

static int form_keep(struct mask *mask, uint32_t at, const char *s, size_t n)
{
	if (forms_grow(mask) == -1)
		return -1;
	char *text = malloc(n);
	if (text == NULL)
		return -1;
	memcpy(text, s, n);
	struct form *form = &mask->forms[mask->form_count];
	*form = (struct form){.text = text, .size = n};
	mask->nodes[at].own = 1;
	if (n > MASK_HEAD) {
		form->next = mask->nodes[at].longs;
		mask->nodes[at].longs = mask->form_count;
	}
	mask->form_count++;
	mask->stale = true;
	if (n < mask->shortest)
		mask->shortest = n;
	return 0;
}

static int form_add(void *arg, const char *s, size_t n)
{
	struct mask *mask = arg;
	if (n < MASK_LEAST)
		return 0;
	uint32_t at = 0;
	for (size_t i = 0; i < n && i < MASK_HEAD; i++) {
		uint32_t child = node_child(mask, at, (unsigned char)s[i]);
		if (child == 0 && (child = node_add(mask, at, (unsigned char)s[i])) == 0)
			return -1;
		at = child;
	}
	return form_known(mask, at, s, n) ? 0 : form_keep(mask, at, s, n);
}

int mask_add(struct mask *mask, const char *s, size_t n)
{
	while (n > 0 && (s[0] == '\n' || s[0] == '\r'))
		s++, n--;
	while (n > 0 && (s[n - 1] == '\n' || s[n - 1] == '\r'))
		n--;
	if (n < MASK_LEAST)
		return 0;
	if (n > MASK_MOST) {
		errno = EMSGSIZE;
		return -1;
	}
	return mask_forms(s, n, form_add, mask) == -1 ? -1 : 1;
}

/* Where the automaton goes with one more byte. */
static uint32_t mask_step(const struct mask *mask, uint32_t at, unsigned char byte)
{
	uint32_t next;
	while ((next = node_child(mask, at, byte)) == 0 && at != 0)
		at = mask->nodes[at].fail;
	return next;
}

/* What a node inherits from the suffix it falls back to. */
static void node_link(struct mask *mask, uint32_t parent, uint32_t at)
{
	struct node *node = &mask->nodes[at];
	node->fail = parent ? mask_step(mask, mask->nodes[parent].fail, node->byte) : 0;
	const struct node *fail = &mask->nodes[node->fail];
	node->match = node->own ? node->depth : fail->match;
	node->chain = node->longs ? at : fail->chain;
}

/* Fallbacks, level by level: a node's is shorter than itself, so it has been linked before. */
static int mask_link(struct mask *mask)
{
	uint32_t *queue = malloc(mask->node_count * sizeof *queue);
	if (queue == NULL)
		return -1;
	uint32_t head = 0, tail = 0;
	queue[tail++] = 0;
	while (head < tail) {
		uint32_t at = queue[head++];
		for (uint32_t c = mask->nodes[at].child; c != 0; c = mask->nodes[c].sibling) {
			node_link(mask, at, c);
			queue[tail++] = c;
		}
	}
	free(queue);
	return 0;
}

static unsigned skip_hash(const char *s)
{
	const unsigned char *u = (const unsigned char *)s;
	uint32_t three = (uint32_t)u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16;
	return three * UINT32_C(0x9e3779b1) >> (32 - SKIP_BITS);
}

static void mask_fill_skip(struct mask *mask)
{
	size_t window = mask->shortest < MASK_WINDOW ? mask->shortest : MASK_WINDOW;
	while (window > MASK_LEAST && (window - 2) * mask_count(mask) > SKIP_FULL)
		window--;
	mask->window = (unsigned)window;
	memset(mask->skip, (int)(window - 2), sizeof mask->skip);
	for (uint32_t i = 1; i < mask->form_count; i++) {
		for (size_t at = 0; at + 3 <= window; at++) {
			unsigned char *entry = &mask->skip[skip_hash(mask->forms[i].text + at)];
			unsigned char jump = (unsigned char)(window - 3 - at);
			if (jump < *entry)
				*entry = jump;
		}
	}
}

static int mask_build(struct mask *mask)
{
	if (!mask->stale)
		return 0;
	if (mask_link(mask) == -1)
		return -1;
	mask_fill_skip(mask);
	mask->stale = false;
	mask->version++;
	return 0;
}

/* --- reading --- */

/* The first place from ${i} on where a form may begin, or where the text is too short to tell. */
static size_t mask_skip(const struct mask *mask, const char *s, size_t i, size_t n)
{
	if (mask->form_count == 1)
		return n;
	size_t window = mask->window;
	while (n - i >= window) {
		size_t jump = mask->skip[skip_hash(s + i + window - 3)];
		if (jump == 0) {
			if (mask->first[(unsigned char)s[i]] != 0)
				return i;
			jump = 1;
		}
		i += jump;
	}
	while (i < n && mask->first[(unsigned char)s[i]] == 0)
		i++;
	return i;
}

/* Give out the ${count} oldest of the bytes held. */
static char *give_out(struct mask_stream *st, char *to, unsigned count)
{
	while (count-- > 0) {
		bool hide = st->hidden >> (st->pending - 1) & 1;
		if (!hide)
			*to++ = st->ring[(st->place - st->pending) & 63];
		else if (!st->inside)
			to = (char *)memcpy(to, MASK_TEXT, MASK_TEXT_SIZE) + MASK_TEXT_SIZE;
		st->inside = hide;
		st->pending--;
	}
	return to;
}

/* Go on with the long forms that are followed; true when one of them goes on with this byte. */
static bool follow(const struct mask *mask, struct mask_stream *st, char byte)
{
	unsigned kept = 0;
	bool hit = false;
	for (unsigned i = 0; i < st->follows; i++) {
		const struct form *form = &mask->forms[st->follow[i].form];
		if (form->text[st->follow[i].at] != byte)
			continue;
		hit = true;
		st->follow[kept] = st->follow[i];
		if (++st->follow[kept].at < form->size)
			kept++;
	}
	st->follows = kept;
	return hit;
}

/* The heads of long forms that end in this state. */
static void follow_more(const struct mask *mask, struct mask_stream *st)
{
	for (uint32_t at = mask->nodes[st->state].chain; at != 0;
	     at = mask->nodes[mask->nodes[at].fail].chain)
		for (uint32_t i = mask->nodes[at].longs; i != 0; i = mask->forms[i].next)
			if (st->follows < MASK_FOLLOWS) {
				st->follow[st->follows].form = i;
				st->follow[st->follows++].at = MASK_HEAD;
			}
}

/* One byte. */
static char *take(const struct mask *mask, struct mask_stream *st, char byte, char *to)
{
	st->ring[st->place++ & 63] = byte;
	st->hidden <<= 1;
	st->pending++;
	if (st->follows > 0 && follow(mask, st, byte))
		st->hidden |= 1;
	st->state = mask_step(mask, st->state, (unsigned char)byte);
	const struct node *node = &mask->nodes[st->state];
	if (node->match > 0)
		st->hidden |= (UINT64_C(1) << node->match) - 1;
	if (node->chain != 0)
		follow_more(mask, st);
	return st->pending > node->depth ? give_out(st, to, st->pending - node->depth) : to;
}

/* Secrets were added: the bytes that led to the present state go through the new automaton (the old
 * nodes are still in it). It finds no shorter way, so nothing is given out; and a head of a long
 * form can only end at the last byte. */
static void take_again(const struct mask *mask, struct mask_stream *st)
{
	unsigned depth = mask->nodes[st->state].depth;
	st->state = 0;
	st->version = mask->version;
	for (unsigned left = depth; left > 0; left--) {
		unsigned char byte = (unsigned char)st->ring[(st->place - left) & 63];
		st->state = mask_step(mask, st->state, byte);
		const struct node *node = &mask->nodes[st->state];
		if (node->match > 0)
			st->hidden |= ((UINT64_C(1) << node->match) - 1) << (left - 1);
	}
	/* Those that begin to be followed here are found again, with the new ones. */
	unsigned kept = 0;
	for (unsigned i = 0; i < st->follows; i++)
		if (st->follow[i].at > MASK_HEAD)
			st->follow[kept++] = st->follow[i];
	st->follows = kept;
	follow_more(mask, st);
}

/* What is held and already known to be hidden need not wait. */
static char *give_out_hidden(struct mask_stream *st, char *to)
{
	while (st->pending > 0 && st->hidden >> (st->pending - 1) & 1)
		to = give_out(st, to, 1);
	return to;
}

int mask_feed(struct mask *mask, struct mask_stream *st, const char *s, size_t n, struct buf *out)
{
	/* Nothing gets longer: a hidden run has at least as many bytes as its stars, except that
	 * its first byte may be the last one given out. */
	char *from = buf_reserve(out, n + st->pending + MASK_TEXT_SIZE), *to = from;
	if (from == NULL || mask_build(mask) == -1)
		return -1;
	if (st->version != mask->version)
		take_again(mask, st);
	for (size_t i = 0; i < n;) {
		if (st->state == 0 && st->follows == 0) {
			size_t next = mask_skip(mask, s, i, n);
			if (next > i) {
				memcpy(to, s + i, next - i);
				to += next - i;
				st->inside = false;
				i = next;
				continue;
			}
		}
		to = take(mask, st, s[i++], to);
	}
	to = give_out_hidden(st, to);
	buf_commit(out, (size_t)(to - from));
	return 0;
}

int mask_end(struct mask_stream *st, struct buf *out)
{
	char *from = buf_reserve(out, st->pending + MASK_TEXT_SIZE);
	if (from == NULL)
		return -1;
	buf_commit(out, (size_t)(give_out(st, from, st->pending) - from));
	explicit_bzero(st, sizeof *st);
	return 0;
}
