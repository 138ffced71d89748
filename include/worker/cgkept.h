/* cgkept.h -- a control group that serves one job after the other.  Floor 3.  For cgroup.c alone.
 *
 * Its files stay open, and what it has measured is told as what one job has used: the rest was used
 * before.  What had been used when nobody was in it any more is all that this job will have used,
 * and at the same time what was used before the next one, for which it is not read again.  (Only
 * the last steps of a process that has ended already, microseconds, count for that.)
 *
 *	cgkept_open(&kept, dir);
 *	... cgkept_enter(&kept);		for each child
 *	... cgkept_populated(&kept), cgkept_usage(&kept, &usage) ...
 *	cgkept_may_rest(&kept, dir);		whether another job may have it,
 *	cgkept_renew(&kept);			and when it comes, whether that is still so
 *	cgkept_close(&kept);
 */
#ifndef WORKER_CGKEPT_H
#define WORKER_CGKEPT_H

#include <stdbool.h>

#include "worker/cgroup.h"

struct cgkept {
	int told, spent; /* its cgroup.events and cpu.stat, or -1 */
	int gate;	 /* its cgroup.procs, held for the kernel (see cgdir_hold), or -1 */
	bool vacant;	 /* seen empty, and nobody was let in since */
	bool over;	 /* ${after} was read since then */
	struct cgroup_usage before, after;
};
#define CGKEPT_NONE                                                                                \
	(struct cgkept)                                                                            \
	{                                                                                          \
		.told = -1, .spent = -1, .gate = -1                                                \
	}

/* cgkept_open(kept, dir): whether the files could be opened.  cgkept_close(kept): closed already:
 * nothing happens. */
bool cgkept_open(struct cgkept *kept, int dir);
void cgkept_close(struct cgkept *kept);
static inline bool cgkept_is_open(const struct cgkept *kept)
{
	return kept->told != -1;
}

/* cgkept_enter(kept): somebody is let in. */
void cgkept_enter(struct cgkept *kept);

/* cgkept_populated(kept): 1 or 0, or -1 where it cannot be read (any more). */
int cgkept_populated(struct cgkept *kept);

/* cgkept_usage(kept, usage): what is not known stays as it is. */
void cgkept_usage(struct cgkept *kept, struct cgroup_usage *usage);

/* cgkept_may_rest(kept, dir): whether another job may have the group: it is there, nobody is in it
 * (or was when it was asked last, if nobody was let in since), and there never was a group below
 * it: who makes some also hands controllers down to them.  Else its own settings are not looked at;
 * only a job that is root can change them. */
bool cgkept_may_rest(const struct cgkept *kept, int dir);

/* cgkept_renew(kept): whether it is still there and still free, which a process that had left it
 * could have changed, and does not freeze who comes next; from now on it counts for another job. */
bool cgkept_renew(struct cgkept *kept);

#endif
