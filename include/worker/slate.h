/* slate.h -- an empty directory that one job after the other uses.  Floor 3.
 *
 * Between two jobs it has to be what it was when it was new: the very same directory, nobody
 * else's, with nothing in it and nothing hung on it.
 *
 *	slate_mark(path, &slate, &err);		when it has just been made
 *	slate_found(path, &slate);		after each job
 *
 * Most jobs leave it alone, and then one question is enough.  Whatever happens to a directory (an
 * entry comes or goes, owner, permissions, attributes, flags or times are set) moves its time of
 * change to now, and nobody can set that one back.  So one that has not moved since the directory
 * was last examined says that all is as it was, under three conditions, without which it is
 * examined again:
 *
 *	- The file system keeps that time itself, on this machine and with all digits.
 *	- Now has become another now.  The kernel's clock for files ticks, some hundred times a
 *	  second: what happens within one tick cannot be told apart.  So the clock must have been
 *	  beyond the directory's time already before it was examined.
 *	- Where a change of the extended attributes does not count as a change everywhere (in
 *	  memory, before Linux 6.1), those are looked at besides.
 *
 * Who may set the machine's clock could forge it; they could as well write into our memory.
 */
#ifndef WORKER_SLATE_H
#define WORKER_SLATE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "worker/err.h"

/* What can be seen without opening it. */
struct slate_look {
	uint64_t device, inode, mount, flags;
	int64_t changed; /* 0: not known */
	uid_t user;
	gid_t group;
	mode_t mode;
};

/* What a file system's time of change tells. */
enum slate_trust { SLATE_NOTHING, SLATE_MOST, SLATE_ALL };

struct slate {
	struct slate_look was; /* ${was.changed}: 0 where the time of change would prove nothing */
	size_t names;	       /* bytes of the names of its attributes */
	enum slate_trust trust;
};

enum slate_state { SLATE_SAME, SLATE_FULL, SLATE_OTHER };

/* slate_mark(path, slate, err): remember the empty directory ${path}. */
int slate_mark(const char *path, struct slate *slate, struct err *err);

/* slate_found(path, slate): what has become of it.  Owner and permissions are given back where we
 * may.  SAME: as good as new.  FULL: but for what is in it.  OTHER: it cannot be used again. */
enum slate_state slate_found(const char *path, struct slate *slate);

#endif
