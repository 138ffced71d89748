/* watch.h -- waiting until something appears in a directory.  Floor 3.
 *
 * inotify, where it works.  What comes is only a hint that it is worth looking: hints are coalesced
 * and do not say what has happened.  Where inotify is not to be had (limits of the system) or does
 * not see what others do (network file systems), watch_polled tells the caller to look now and
 * then.
 *
 *	watch_open(watch, path, false, err);
 *	watch_start(watch, loop, ready, arg, err);	ready(arg, why) once
 *	watch_stop(watch, loop);
 *	watch_close(watch);
 */
#ifndef WORKER_WATCH_H
#define WORKER_WATCH_H

#include <stdbool.h>

#include "worker/err.h"
#include "worker/loop.h"

enum watch_why {
	WATCH_NOTHING,
	WATCH_CHANGED,
	WATCH_RESCAN, /* so much has happened that some of it was not noted */
	WATCH_GONE,   /* the directory is no longer there; nothing will come any more */
};

struct watch {
	int fd; /* -1 when polled */
	bool polled, gone;
	struct loop_fd fd_watch;
	void (*ready)(void *arg, enum watch_why why);
	void *arg;
};

/* watch_open(watch, path, force_polling, err): -1 when ${path} is not a directory that can be read.
 */
int watch_open(struct watch *watch, const char *path, bool force_polling, struct err *err);
void watch_close(struct watch *watch);

/* watch_take(watch): what has come since the last time. */
enum watch_why watch_take(struct watch *watch);

/* watch_start(...): call ${ready} once, when something comes; not when it is polled. */
int watch_start(struct watch *watch, struct loop *loop,
		void (*ready)(void *arg, enum watch_why why), void *arg, struct err *err);
void watch_stop(struct watch *watch, struct loop *loop);

#endif
