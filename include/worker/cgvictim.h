/* cgvictim.h -- which jobs the kernel ends first when memory runs out.  Floor 3.  For cgroup.c.
 *
 * That is a number of each process (oom_score_adj), which its children inherit.  Writing it makes
 * the kernel build and drop a part of /proc for the process, which costs more than all else about
 * the birth of a small job but its clone and its exec.  So a group's processes are given it once
 * one of them has lived for a moment, 0.1 to 0.2 seconds: what needs all memory sooner than that is
 * the largest process anyway.  What they start from then on inherits it.
 *
 *	cgvictim_open(&victims, loop, directory);
 *	cgvictim_add(&victims, &victim);	(a process came in)
 *	cgvictim_remove(&victims, &victim);	(nobody is in it any more, or another job)
 *
 * Nothing closes it: without victims there is no timer.
 */
#ifndef WORKER_CGVICTIM_H
#define WORKER_CGVICTIM_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/list.h"
#include "worker/loop.h"

struct cgvictim {
	struct list link;
	int score;     /* 0: what its processes have */
	size_t skip;   /* processes that were looked at already, where there are many */
	bool again;    /* and among them was one that had not the score, or was gone */
	unsigned done; /* how often all were looked at */
};

struct cgvictims {
	struct loop *loop;
	int (*directory)(const struct cgvictim *victim);
	struct list young, grown; /* since the last look, and from before it */
	struct loop_timer look;
};

/* cgvictim_open(victims, loop, directory): ${directory} opens the directory of a group, which is
 * closed here; -1 where it is gone. */
void cgvictim_open(struct cgvictims *victims, struct loop *loop,
		   int (*directory)(const struct cgvictim *victim));

/* cgvictim_add: again, or with the score 0: nothing happens.  Out of memory for a timer: it stays
 * as it is. */
void cgvictim_add(struct cgvictims *victims, struct cgvictim *victim);
void cgvictim_remove(struct cgvictims *victims, struct cgvictim *victim);

#endif
