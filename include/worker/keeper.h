/* keeper.h -- no job outlives its worker, not even after kill -9.  Floor 3.
 *
 * A small process holds the other end of a socket.  As long as the worker lives it only takes
 * notes; when the socket ends, the worker is dead, and the keeper kills what was noted: control
 * groups (killed and removed), sessions and tags where there are no groups; then it removes noted
 * directories and files, and exits.
 *
 * A child that is between clone and exec when the worker dies is no gap: it was born in its v2
 * group, or finds its v1 group removed and does not go on, or gets its parent-death signal.
 *
 * The keeper is forked at the first note.  It is a fork, not an exec of this program again: that
 * would cost ten milliseconds and the libraries' memory; the fork gives its copy of the heap
 * back at once.  If it dies, another is started and told everything again.
 *
 * What remains uncovered: both killed in the same moment (it does not carry the worker's name, so
 * that pkill does not hit it).  Then the next worker on this host ends the groups.
 */
#ifndef WORKER_KEEPER_H
#define WORKER_KEEPER_H

#include <stddef.h>
#include <sys/types.h>

#include "worker/err.h"
#include "worker/loop.h"

struct keeper;

/* keeper_open(loop, err): no process yet. */
struct keeper *keeper_open(struct loop *loop, struct err *err);

/* keeper_close(keeper): a clean end: the keeper goes without doing anything. */
void keeper_close(struct keeper *keeper);

/* What a note says. */
enum keeper_kind {
	KEEPER_GROUP = 'g',   /* path of a control group: kill and remove it and all below it */
	KEEPER_TAG = 't',     /* beginning of an environment entry: kill whoever carries it */
	KEEPER_SESSION = 's', /* "PID START" of a session's leader: kill everyone in it */
	KEEPER_DIR = 'd',     /* absolute path of a directory or file: remove it with all in it */
};

/* keeper_note(keeper, kind, text, err): 0, or -1 when out of memory or no keeper can be started.
 * keeper_forget(keeper, kind, text): the note is done with; unknown ones are ignored. */
int keeper_note(struct keeper *keeper, enum keeper_kind kind, const char *text, struct err *err);
void keeper_forget(struct keeper *keeper, enum keeper_kind kind, const char *text);

/* keeper_pid(keeper): its process, or 0 when there is none now. */
pid_t keeper_pid(const struct keeper *keeper);

#endif
