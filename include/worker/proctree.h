/* proctree.h -- one look at all processes: who descends from whom.  Floor 3.
 *
 * A snapshot of /proc with a few bits per process to mark those that are meant, and a signal to
 * the marked ones that cannot hit another process which got the same number meanwhile.  Nothing
 * here takes a lock or uses malloc (memory comes from mmap), so that the keeper can use it too.
 * A zeroed struct is an empty snapshot.
 */
#ifndef WORKER_PROCTREE_H
#define WORKER_PROCTREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct proctree_process {
	uint64_t start; /* ticks since boot; with the pid it names a process once and for all */
	pid_t pid, parent, session;
	unsigned char marks;
	char state;
};

struct proctree {
	struct proctree_process *list; /* by ascending pid */
	size_t count, bytes;
};

/* proctree_read(tree): look again, all marks gone; 0, or -1 with errno.  proctree_free(tree). */
int proctree_read(struct proctree *tree);
void proctree_free(struct proctree *tree);

struct proctree_process *proctree_find(const struct proctree *tree, pid_t pid);

/* proctree_start(pid): its start time, 0 when there is no such process. */
uint64_t proctree_start(pid_t pid);

/* proctree_spread(tree, mark): mark all descendants of the marked too. */
void proctree_spread(struct proctree *tree, unsigned char mark);

/* proctree_mark_session(tree, leader, start, among, mark): mark who is in the session that the
 * process (${leader}, ${start}) began; nobody if the number belongs to another process by now. */
void proctree_mark_session(struct proctree *tree, pid_t leader, uint64_t start, unsigned char among,
			   unsigned char mark);

/* proctree_mark_tag(tree, tag, among, mark): mark who has an environment entry beginning with
 * ${tag}.  Both look only at processes that have all bits of ${among}. */
void proctree_mark_tag(struct proctree *tree, const char *tag, unsigned char among,
		       unsigned char mark);

/* proctree_signal(tree, mark, signo): to every living marked process but ourselves; returns how
 * many those were. Zombies do not count as living. */
size_t proctree_signal(const struct proctree *tree, unsigned char mark, int signo);

#endif
