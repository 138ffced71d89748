/* cgroup.h -- one control group per job: limits, usage, and a kill nothing escapes.  Floor 3.
 *
 * The place is found once: the group this process lives in, in the v2 tree and in the v1
 * controllers memory, pids, cpu and cpuacct.  Below it a group "worker-PID-START-xxxx" is made, and
 * in that one group per job.  A job has up to five directories:
 *
 *	v2 tree		birth (CLONE_INTO_CGROUP), kill (cgroup.kill), "empty" as an event, and
 *			those limits whose controllers are there
 *	v1 controllers	the limits that the v2 tree cannot give, each where it is asked for
 *
 * So a v2 tree without controllers next to v1 controllers uses both.  With v1 alone, killing is a
 * loop over cgroup.procs; with nothing, cgroup_open() says so and orphans.h kills the tree.
 *
 * Order of calls for a job:
 *
 *	group = cgroup_create(place, "7", &limits, &err);
 *	entry = cgroup_enter(group);		(spawn puts the child inside, before its exec)
 *	cgroup_entered(group);
 *	...
 *	cgroup_wait(group, empty, arg);		(tell me when the last process is gone)
 *	cgroup_kill(group);			(all of it, now)
 *	cgroup_usage(group, &usage);		(any time; last of all when it is empty)
 *	cgroup_free(group);			(what is left is killed and removed by the loop)
 */
#ifndef WORKER_CGROUP_H
#define WORKER_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/err.h"
#include "worker/loop.h"

struct cgroup_place;
struct cgroup;

/* What to use.  AUTO is the best there is; the others are for specs and for people who know. */
enum cgroup_mode { CGROUP_AUTO, CGROUP_V2, CGROUP_V1, CGROUP_NONE };

/* What a place can do, as bits. */
enum cgroup_can {
	CGROUP_MEMORY = 1,	/* limit and measure memory */
	CGROUP_SWAP = 2,	/* limit swap */
	CGROUP_CPU = 4,		/* limit processor time */
	CGROUP_PIDS = 8,	/* limit the number of processes */
	CGROUP_CPU_TIME = 16,	/* measure processor time */
	CGROUP_BIRTH = 32,	/* v2: CLONE_INTO_CGROUP; the group's end is an event */
	CGROUP_KILL = 64,	/* v2: cgroup.kill ends everything in one write */
	CGROUP_OOM_GROUP = 128, /* v2: out of memory ends the whole job, not one process of it */
};

/* Limits of one job; a negative value is no limit. */
struct cgroup_limits {
	int64_t memory; /* bytes */
	int64_t swap;	/* bytes on top of ${memory} */
	int64_t cpus;	/* thousandths of a processor: 1500 is one and a half */
	int64_t pids;	/* processes and threads */

	/* How willingly the kernel ends its processes when memory runs out, 0 to 1000, for those
	 * that live longer than a moment (see worker/cgvictim.h); of itself no limit. */
	int oom_score_adj;
};
#define CGROUP_UNLIMITED                                                                           \
	{                                                                                          \
		-1, -1, -1, -1, 0                                                                  \
	}

/* What one job has used; a negative value is not known here. */
struct cgroup_usage {
	int64_t cpu_ns, cpu_user_ns, cpu_system_ns;
	int64_t memory;	      /* bytes now */
	int64_t memory_peak;  /* bytes, page cache included */
	int64_t oom_kills;    /* processes the kernel killed for want of memory */
	int64_t pids;	      /* now */
	int64_t pids_peak;    /* the most at one time */
	int64_t pids_refused; /* how often fork() was refused by the pids limit */
	int64_t throttled_ns; /* time the job waited because of the cpu limit */
};

/* How spawn gets a child in: the v2 directory for CLONE_INTO_CGROUP (-1: none), and open
 * "cgroup.procs" files of v1 groups, into each of which the child writes "0" itself, before its
 * exec.  Where clone3 is refused (a seccomp filter) the child does the same with "cgroup.procs" in
 * ${dir_fd}.  A write that fails with ENODEV means the group is gone: the child must not go on. The
 * fds belong to the group. */
#define CGROUP_ENTRIES 4
struct cgroup_entry {
	int dir_fd;
	int procs_fd[CGROUP_ENTRIES];
	size_t procs_count;
};

/* cgroup_open(loop, mode, err): find the place, clean up after workers that are dead (pid and start
 * time say so, and nobody holds the group's lock), make our group.  Where v2 wants it ("no internal
 * processes") and our group holds nobody else, this process moves into a leaf of its own.  NULL
 * with ENOTSUP when this host offers nothing; the reasons are in the text. */
struct cgroup_place *cgroup_open(struct loop *loop, enum cgroup_mode mode, struct err *err);

/* cgroup_close(place): kill and remove every group that is left (waits, at most two seconds) and
 * ours. */
void cgroup_close(struct cgroup_place *place);

/* cgroup_can(place): bits of enum cgroup_can. */
unsigned cgroup_can(const struct cgroup_place *place);

/* cgroup_notes(place): what is missing and why, one line each ("\n" between them), for a person;
 * empty when nothing is. */
const char *cgroup_notes(const struct cgroup_place *place);

/* cgroup_path(place, index): directories of our own group (v2 first), NULL after the last: what a
 * keeper has to end. */
const char *cgroup_path(const struct cgroup_place *place, size_t index);

/* cgroup_create(place, name, limits, err): a group for one job.  ${name} is made fit for a path and
 * unique.  A limit that cannot be set here is left out; see cgroup_unenforced.  NULL limits are
 * none.  What a v1 controller measures is known of jobs that it limits.  NULL for ${name} means
 * any group will do, also one that has served other jobs. */
struct cgroup *cgroup_create(struct cgroup_place *place, const char *name,
			     const struct cgroup_limits *limits, struct err *err);

/* cgroup_unenforced(group): bits (MEMORY, SWAP, CPU, PIDS) of limits that were asked for and that
 * nobody keeps: the caller uses rlimits instead, or refuses the job. */
unsigned cgroup_unenforced(const struct cgroup *group);

/* cgroup_enter(group): a child is on its way in, by this entry.  It stays open, and the group is no
 * other job's, also where the group is freed meanwhile, until
 * cgroup_entered(group): the child is in, or does not come. */
const struct cgroup_entry *cgroup_enter(struct cgroup *group);
void cgroup_entered(struct cgroup *group);

/* cgroup_path_of(group): its v2 directory, else its first v1 one. */
const char *cgroup_path_of(const struct cgroup *group);

/* cgroup_usage(group, usage): best when it is empty and cgroup_populated has said so: that is all
 * of it, and need not be read again for who comes next. */
void cgroup_usage(struct cgroup *group, struct cgroup_usage *usage);

/* cgroup_populated(group): is a living process inside (also in groups below it)? */
bool cgroup_populated(struct cgroup *group);

/* cgroup_signal(group, signo): send to every process now inside; returns how many. */
size_t cgroup_signal(const struct cgroup *group, int signo);

/* cgroup_kill(group): SIGKILL for everything inside, also for what is being forked meanwhile.
 * Nothing waits here; cgroup_wait tells when it is done. */
void cgroup_kill(struct cgroup *group);

/* cgroup_wait(group, empty, arg): call ${empty} once, from the loop, when nothing lives inside (any
 * more).  Only after the first child is in.  NULL ends the wait. */
void cgroup_wait(struct cgroup *group, void (*empty)(void *arg), void *arg);

/* cgroup_free(group): the caller is done with it.  No callback comes any more; what still lives
 * inside is killed and the directories are removed, by the loop, or kept for another job. */
void cgroup_free(struct cgroup *group);

/* cgroup_count(place): groups that have or had a job and are not removed yet. */
size_t cgroup_count(const struct cgroup_place *place);

#endif
