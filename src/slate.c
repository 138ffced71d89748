/* slate.c -- an empty directory that one job after the other uses.  Floor 3.  See worker/slate.h.
 */
#include "worker/slate.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "worker/clock.h"

#define SLATE_XFS 0x58465342

#ifndef STATX_MNT_ID
#define STATX_MNT_ID 0
#endif

/* --- looking --- */

/* Where there is no statx, or a sandbox that does not know it: without the time, so that nothing
 * is ever concluded from that. */
static int slate_look_plainly(int fd, const char *path, struct slate_look *look)
{
	struct stat st;
	if (fstatat(fd, path, &st, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) == -1)
		return -1;
	*look = (struct slate_look){.device = st.st_dev,
				    .inode = st.st_ino,
				    .user = st.st_uid,
				    .group = st.st_gid,
				    .mode = st.st_mode};
	return 0;
}

static int slate_look(int fd, const char *path, struct slate_look *look)
{
	struct statx st;
	if (statx(fd, path, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_MNT_ID,
		  &st) == -1)
		return errno == EPERM || errno == ENOSYS ? slate_look_plainly(fd, path, look) : -1;
	*look = (struct slate_look){
		.device = makedev(st.stx_dev_major, st.stx_dev_minor),
		.inode = st.stx_ino,
		.mount = st.stx_mask & STATX_MNT_ID ? st.stx_mnt_id : 0,
		.flags = st.stx_attributes & st.stx_attributes_mask,
		.changed = st.stx_ctime.tv_sec * CLOCK_SECOND + st.stx_ctime.tv_nsec,
		.user = st.stx_uid,
		.group = st.stx_gid,
		.mode = st.stx_mode,
	};
	return 0;
}

static bool slate_is_it(const struct slate *slate, const struct slate_look *now)
{
	const struct slate_look *was = &slate->was;
	return now->device == was->device && now->inode == was->inode && now->mount == was->mount;
}

/* The names alone: a list of the same length is taken for the same, as only we could have set what
 * was on it when it was new (a security label, mostly). */
static size_t slate_names(ssize_t listed)
{
	return listed == -1 ? 0 : (size_t)listed;
}

static enum slate_trust slate_trust(int fd)
{
	struct statfs fs;
	if (fstatfs(fd, &fs) == -1)
		return SLATE_NOTHING;
	if (fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == BTRFS_SUPER_MAGIC ||
	    fs.f_type == SLATE_XFS)
		return SLATE_ALL;
	/* What is below the second may be the first. */
	return fs.f_type == TMPFS_MAGIC || fs.f_type == OVERLAYFS_SUPER_MAGIC ? SLATE_MOST
									      : SLATE_NOTHING;
}

/* --- from outside --- */

static int slate_open(const char *path)
{
	return open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

int slate_mark(const char *path, struct slate *slate, struct err *err)
{
	struct slate_look look;
	int fd = slate_open(path);
	if (fd == -1 || slate_look(fd, "", &look) == -1) {
		err_errno(err, "%s", path);
		if (fd != -1)
			close(fd);
		return -1;
	}
	look.changed = 0; /* just made, so now is still the same now */
	slate->was = look;
	slate->names = slate_names(flistxattr(fd, NULL, 0));
	slate->trust = slate_trust(fd);
	close(fd);
	return 0;
}

static bool slate_untouched(const char *path, const struct slate *slate)
{
	struct slate_look now;
	return slate_look(AT_FDCWD, path, &now) == 0 && slate_is_it(slate, &now) &&
	       now.changed == slate->was.changed &&
	       (slate->trust == SLATE_ALL ||
		slate_names(llistxattr(path, NULL, 0)) == slate->names);
}

/* The kernel lists "." and ".." too; with nothing else the next answer is the end. */
static bool slate_is_empty(int fd)
{
	char text[4096];
	ssize_t n;
	while ((n = getdents64(fd, text, sizeof text)) > 0)
		for (ssize_t at = 0; at < n;) {
			const struct dirent64 *entry = (void *)(text + at);
			if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
				return false;
			at += entry->d_reclen;
		}
	return n == 0;
}

static bool slate_restore(int fd, const struct slate_look *was, const struct slate_look *now)
{
	bool owned = now->user == was->user && now->group == was->group;
	if (!owned && fchown(fd, was->user, was->group) == -1)
		return false;
	return (owned && now->mode == was->mode) || fchmod(fd, was->mode & 07777) == 0;
}

/* A time of change without digits below the microsecond comes from a file system that counts in
 * larger pieces, or once in a thousand cases by chance. */
static bool slate_proves(const struct slate *slate, const struct slate_look *look, int64_t clock)
{
	return slate->trust != SLATE_NOTHING && look->changed < clock && look->changed % 1000 != 0;
}

/* The clock is read before anything is looked at: what happens behind our back from then on is at
 * least as late as that. */
static enum slate_state slate_examine(int fd, struct slate *slate)
{
	struct slate_look *was = &slate->was, now;
	int64_t clock = clock_files();
	was->changed = 0;
	if (slate_look(fd, "", &now) == -1 || !slate_is_it(slate, &now) ||
	    !slate_restore(fd, was, &now) || now.flags != was->flags ||
	    slate_names(flistxattr(fd, NULL, 0)) != slate->names)
		return SLATE_OTHER;
	if (!slate_is_empty(fd))
		return SLATE_FULL;
	/* What was given back has moved the time beyond what was seen. */
	if (slate_proves(slate, &now, clock))
		was->changed = now.changed;
	return SLATE_SAME;
}

enum slate_state slate_found(const char *path, struct slate *slate)
{
	if (slate->was.changed != 0 && slate_untouched(path, slate))
		return SLATE_SAME;
	int fd = slate_open(path);
	if (fd == -1)
		return SLATE_OTHER;
	enum slate_state state = slate_examine(fd, slate);
	close(fd);
	return state;
}
