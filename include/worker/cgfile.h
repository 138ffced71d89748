/* cgfile.h -- what the files of a job's control group say and take.  Floor 3.
 *
 * Below cgroup.c, which alone includes it: limits written, usage read, in the units of cgroup.h.
 */
#ifndef WORKER_CGFILE_H
#define WORKER_CGFILE_H

#include "worker/cgplace.h"
#include "worker/cgroup.h"

#define CGFILE_TEXT 1024 /* room for a whole cpu.stat or cgroup.events */

/* cgfile_asked(limits): which limits there are, as bits. */
unsigned cgfile_asked(const struct cgroup_limits *limits);

/* cgfile_limit(tree, dir, wanted, limits): set what ${tree} can of ${wanted} in the group ${dir};
 * returns the bits that were set. */
unsigned cgfile_limit(const struct cgplace_tree *tree, int dir, unsigned wanted,
		      const struct cgroup_limits *limits);

/* cgfile_usage(tree, dir, usage): what the group ${dir} of ${tree} knows; the rest stays. */
void cgfile_usage(const struct cgplace_tree *tree, int dir, struct cgroup_usage *usage);

/* cgfile_cpu(text, usage): the same of the text of a v2 cpu.stat. */
void cgfile_cpu(const char *text, struct cgroup_usage *usage);

#endif
