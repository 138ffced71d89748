/* watch.c -- waiting until something appears in a directory.  Floor 3.
 *
 * The descriptor is registered with the loop only while somebody waits.  Otherwise events stay in
 * the kernel, which merges equal ones and drops the rest beyond a limit; that limit is our bound,
 * and its overflow is reported as "rescan".
 */
#include "worker/watch.h"

#include <errno.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define WATCH_EVENTS                                                                               \
	(IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

/* File systems on which others may change things without this kernel knowing. */
static bool watch_is_remote(const char *path)
{
	static const uint32_t remote[] = {
		0x6969,	    /* nfs */
		0xff534d42, /* cifs */
		0xfe534d42, /* smb2 */
		0x517b,	    /* smb */
		0x65735546, /* fuse */
		0x01021997, /* 9p */
		0x00c36400, /* ceph */
		0x0bd00bd0, /* lustre */
		0x01161970, /* gfs2 */
		0x7461636f, /* ocfs2 */
		0x786f4256, /* vboxsf */
	};
	struct statfs st;
	if (statfs(path, &st) == -1)
		return false;
	for (size_t i = 0; i < sizeof remote / sizeof *remote; i++)
		if ((uint32_t)st.f_type == remote[i])
			return true;
	return false;
}

static int watch_is_dir(const char *path, struct err *err)
{
	struct stat st;
	if (stat(path, &st) == -1)
		return err_errno(err, "watching %s", path);
	if (!S_ISDIR(st.st_mode))
		return err_set(err, ENOTDIR, "watching %s: not a directory", path);
	return 0;
}

int watch_open(struct watch *watch, const char *path, bool force_polling, struct err *err)
{
	*watch = (struct watch){.fd = -1};
	if (watch_is_dir(path, err) == -1)
		return -1;
	watch->polled = force_polling || watch_is_remote(path);
	if (watch->polled)
		return 0;
	watch->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (watch->fd != -1 && inotify_add_watch(watch->fd, path, WATCH_EVENTS) != -1)
		return 0;
	if (errno == EACCES) {
		err_errno(err, "watching %s", path);
		watch_close(watch);
		return -1;
	}
	/* EMFILE, ENOSPC: the user's instances or watches are used up. ENOSYS: a sandbox. */
	watch_close(watch);
	watch->polled = true;
	return 0;
}

void watch_close(struct watch *watch)
{
	if (watch->fd != -1)
		close(watch->fd);
	watch->fd = -1;
}

static enum watch_why watch_worse(enum watch_why one, enum watch_why two)
{
	return one > two ? one : two;
}

static enum watch_why watch_judge(const struct inotify_event *event)
{
	if (event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED))
		return WATCH_GONE;
	return event->mask & IN_Q_OVERFLOW ? WATCH_RESCAN : WATCH_CHANGED;
}

enum watch_why watch_take(struct watch *watch)
{
	union {
		char bytes[4096];
		struct inotify_event align;
	} room;
	enum watch_why why = watch->gone ? WATCH_GONE : WATCH_NOTHING;
	ssize_t n;
	if (watch->polled || watch->fd == -1)
		return why;
	while ((n = read(watch->fd, room.bytes, sizeof room.bytes)) > 0) {
		const struct inotify_event *event;
		for (char *at = room.bytes; at < room.bytes + n; at += sizeof *event + event->len) {
			event = (const struct inotify_event *)(const void *)at;
			why = watch_worse(why, watch_judge(event));
		}
	}
	watch->gone = why == WATCH_GONE;
	return why;
}

static void watch_ready(void *arg, uint32_t events)
{
	struct watch *watch = arg;
	(void)events;
	enum watch_why why = watch_take(watch);
	if (why != WATCH_NOTHING)
		watch->ready(watch->arg, why);
}

int watch_start(struct watch *watch, struct loop *loop,
		void (*ready)(void *arg, enum watch_why why), void *arg, struct err *err)
{
	watch->ready = ready;
	watch->arg = arg;
	if (watch->polled)
		return 0;
	return loop_fd_add(loop, &watch->fd_watch, watch->fd, EPOLLIN, watch_ready, watch, err);
}

void watch_stop(struct watch *watch, struct loop *loop)
{
	loop_fd_del(loop, &watch->fd_watch);
}
