/* cgplace.h -- where this worker's control groups are, and what they can do there.  Floor 3.
 *
 * A place has one tree per hierarchy that is of use: the v2 tree first, then v1 controllers for
 * what v2 does not give.  In each it holds a group "worker-PID-START-xxxx", locked as long as the
 * worker lives.  This is the ground cgroup.c stands on; nobody else includes it.
 */
#ifndef WORKER_CGPLACE_H
#define WORKER_CGPLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/buf.h"
#include "worker/cgroup.h"
#include "worker/err.h"

#define CGPLACE_TREES 5

struct cgplace_tree {
	char *path;   /* of our group */
	int parent;   /* the directory our group is in */
	int dir;      /* our group; holds the lock */
	int gate;     /* v2: the cgroup.procs above us and our jobs, see cgdir_hold; or -1 */
	unsigned can; /* what is used of it: bits of enum cgroup_can */
	bool v2;
	bool moved; /* this process was moved into the leaf CGDIR_SPARE */
};

struct cgplace {
	struct cgplace_tree trees[CGPLACE_TREES];
	size_t count;
	unsigned can;
	char name[64];
	uint64_t serial;  /* of the groups that were named */
	struct buf notes; /* what is missing, a line each, ends with a NUL after cgplace_open */
};

/* cgplace_open(place, mode, err): 0, or -1 with nothing held.  cgplace_close(place): our groups are
 * removed as far as they are empty. */
int cgplace_open(struct cgplace *place, enum cgroup_mode mode, struct err *err);
void cgplace_close(struct cgplace *place);

/* cgplace_name(place, name, out, room): what the group of a job is called in this place: a name for
 * a directory that no other group has. */
void cgplace_name(struct cgplace *place, const char *name, char *out, size_t room);

#endif
