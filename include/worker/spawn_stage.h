/* spawn_stage.h -- the file descriptors that a child takes over.  Floor 3.
 *
 * A child is born into our table of file descriptors, as a thread is, since a copy of ten thousand
 * takes longer than all the rest.  Its first step is to leave that table with a copy of the lowest
 * numbers alone.  So what it is given has to lie there, and nothing else may: these numbers are set
 * aside before anything else is open, as 0, 1 and 2 are.  Between two births they are /dev/null.
 * There is one stage in a process, and one thread that changes it.  Where clone3 is refused a child
 * is born into a copy of the table, with all that this costs, and leaves it just so.
 *
 * Of the limit of open files a worker takes all that it may have: each job costs it some, and the
 * usual 1024 are there for programs that call select.  A child gets back what the worker was
 * started with.
 *
 *	main		spawn_stage_open()
 *	the thread	spawn_stage_put(i, fd) for each file, clone, spawn_stage_clear(count)
 *	the child	leaves with what is below spawn_stage_end()
 */
#ifndef WORKER_SPAWN_STAGE_H
#define WORKER_SPAWN_STAGE_H

#include <stddef.h>
#include <sys/resource.h>

/* spawn_stage_open(): set the numbers aside, and raise the limit.  First of all in main: every file
 * that is open before is one that children get a copy of until they exec.  A failure is told by
 * spawn_stage_put. */
void spawn_stage_open(void);

/* spawn_stage_put(i, fd): the i-th of SPAWN_FDS places becomes a copy of ${fd}; its number, or -1
 * with errno.  spawn_stage_clear(count): the first ${count} places are /dev/null again. */
int spawn_stage_put(size_t i, int fd);
void spawn_stage_clear(size_t count);

/* spawn_stage_null(): /dev/null, always.  spawn_stage_end(): the first number above the stage. */
int spawn_stage_null(void);
int spawn_stage_end(void);

/* spawn_stage_limit(): how many files a child may open unless it is told otherwise. */
rlim_t spawn_stage_limit(void);

#endif
