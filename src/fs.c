/* fs.c -- files, with the care that a bare system call leaves to its caller.  Floor 3.
 *
 * See worker/fs.h.  O_NONBLOCK on open is for pipes and devices that are in the way: it keeps the
 * open itself from blocking, and a regular file does not mind it.
 */
#include "worker/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#define FS_ALWAYS    (O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
#define FS_COPY_STEP (8u << 20)
#define FS_COPY_BUF  (128u << 10)

/* --- opening --- */

static int fs_only_regular(int fd, const char *path, struct err *err)
{
	struct stat st;
	if (fd == -1)
		return err_errno(err, "opening %s", path);
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		return fd;
	err_set(err, S_ISDIR(st.st_mode) ? EISDIR : EINVAL, "opening %s: it is a %s, not a file",
		path, fs_type(st.st_mode));
	close(fd);
	return -1;
}

int fs_open(const char *path, int flags, mode_t mode, struct err *err)
{
	return fs_only_regular(open(path, flags | FS_ALWAYS, mode), path, err);
}

/* What errno means for a path that has to stay below a root. */
static int fs_beneath(int fd, const char *root, const char *path, struct err *err)
{
	if (fd == -1 && errno == EXDEV)
		return err_set(err, EXDEV, "opening %s: it leads out of %s", path, root);
	if (fd == -1 && errno == ELOOP)
		return err_set(err, ELOOP, "opening %s in %s: a symbolic link is in the way", path,
			       root);
	return fs_only_regular(fd, path, err);
}

/* O_PATH: to stand on it, one need not be allowed to list it. */
static int fs_root(const char *root, struct err *err)
{
	int fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd == -1 ? err_errno(err, "opening %s", root) : fd;
}

/* One component of a walk; ${last} is opened as asked, those before it as directories. */
static int fs_walk_step(int dir, const char *name, bool last, int flags, mode_t mode)
{
	if (strcmp(name, "..") == 0) {
		errno = EXDEV; /* as openat2 says it */
		return -1;
	}
	if (!last)
		return openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return openat(dir, name, flags | O_NOFOLLOW | FS_ALWAYS, mode);
}

/* ${path} is cut into its components in place. */
static int fs_walk(int dir, char *path, int flags, mode_t mode)
{
	char *rest = path, *name;
	int at = dir, next = -1;
	if (*path == '/' || *path == '\0') {
		errno = *path ? EXDEV : ENOENT;
		return -1;
	}
	while ((name = strsep(&rest, "/")) != NULL) {
		if (*name == '\0' && rest != NULL)
			continue;
		next = fs_walk_step(at, *name ? name : ".", rest == NULL, flags, mode);
		if (at != dir)
			close(at);
		if (next == -1)
			return -1;
		at = next;
	}
	return next;
}

int fs_open_walk(const char *root, const char *path, int flags, mode_t mode, struct err *err)
{
	char *copy = strdup(path);
	int dir = copy ? fs_root(root, err) : err_set(err, ENOMEM, "out of memory");
	if (dir == -1) {
		free(copy);
		return -1;
	}
	int fd = fs_walk(dir, copy, flags, mode);
	int failure = errno;
	close(dir);
	free(copy);
	errno = failure;
	return fs_beneath(fd, root, path, err);
}

int fs_open_beneath(const char *root, const char *path, int flags, mode_t mode, struct err *err)
{
	int all = flags | FS_ALWAYS;
	struct open_how how = {.flags = (uint64_t)all,
			       .mode = flags & O_CREAT ? mode : 0,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
					  RESOLVE_NO_MAGICLINKS};
	int dir = fs_root(root, err);
	if (dir == -1)
		return -1;
	int fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
	int failure = errno;
	close(dir);
	/* EPERM: a sandbox that knows only the old calls; if it is meant, the walk says so, too. */
	if (fd == -1 && (failure == ENOSYS || failure == EPERM))
		return fs_open_walk(root, path, flags, mode, err);
	errno = failure;
	return fs_beneath(fd, root, path, err);
}

/* --- directories --- */

/* Somebody else making the same directory at the same time is no failure. */
static int fs_make_dir(const char *path, mode_t mode)
{
	struct stat st;
	if (mkdir(path, mode) == 0)
		return 0;
	if (errno != EEXIST)
		return -1;
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return 0;
	errno = ENOTDIR;
	return -1;
}

int fs_make_dirs(const char *path, mode_t mode, struct err *err)
{
	if (*path == '\0')
		return err_set(err, ENOENT, "making a directory without a name");
	struct stat st;
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return 0;
	char *copy = strdup(path);
	if (copy == NULL)
		return err_set(err, ENOMEM, "out of memory");
	int result = 0;
	for (char *at = copy + 1; result == 0; at++) {
		char was = *at;
		if (was != '/' && was != '\0')
			continue;
		*at = '\0';
		result = fs_make_dir(copy, mode);
		if (result == -1)
			err_errno(err, "making directory %s", copy);
		*at = was;
		if (was == '\0')
			break;
	}
	free(copy);
	return result;
}

char *fs_parent(const char *path)
{
	const char *slash = strrchr(path, '/');
	if (slash == NULL)
		return strdup(".");
	return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

int fs_sync_dir(const char *path, struct err *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int result = fd == -1 ? -1 : fsync(fd);
	if (result == -1)
		err_errno(err, "syncing directory %s", path);
	if (fd != -1)
		close(fd);
	return result;
}

int fs_space(const char *path, struct fs_space *space, struct err *err)
{
	struct statvfs st;
	if (statvfs(path, &st) == -1)
		return err_errno(err, "asking for the free space of %s", path);
	space->bytes_free = (uint64_t)st.f_bavail * st.f_frsize;
	space->bytes_total = (uint64_t)st.f_blocks * st.f_frsize;
	space->inodes_free = st.f_favail;
	space->inodes_total = st.f_files;
	return 0;
}

const char *fs_type(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return "file";
	case S_IFDIR:
		return "dir";
	case S_IFLNK:
		return "link";
	case S_IFIFO:
		return "fifo";
	case S_IFSOCK:
		return "socket";
	case S_IFCHR:
		return "char";
	default:
		return "block";
	}
}

/* --- replacing --- */

int fs_temp_beside(const char *path, mode_t mode, char **temp, struct err *err)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	uint64_t random;
	if (getrandom(&random, sizeof random, 0) != sizeof random)
		return err_errno(err, "getrandom");
	/* A long name is cut: with the suffix it must still be a name. */
	if (asprintf(temp, "%.*s.%.200s.%016llx.tmp", (int)(name - path), path, name,
		     (unsigned long long)random) == -1) {
		*temp = NULL;
		return err_set(err, ENOMEM, "out of memory");
	}
	int fd = open(*temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	if (fd == -1) {
		err_errno(err, "creating %s", *temp);
		free(*temp);
		*temp = NULL;
	}
	return fd;
}

int fs_write_all(int fd, const void *data, size_t n)
{
	const char *at = data;
	while (n > 0) {
		ssize_t wrote = write(fd, at, n);
		if (wrote == -1 && errno == EINTR)
			continue;
		if (wrote == -1)
			return -1;
		at += wrote;
		n -= (size_t)wrote;
	}
	return 0;
}

/* What others have written behind it stays. */
static void fs_unwrite(int fd, size_t wrote)
{
	int code = errno;
	struct stat st;
	off_t at = lseek(fd, 0, SEEK_CUR);
	if (at >= (off_t)wrote && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == at &&
	    ftruncate(fd, at - (off_t)wrote) == 0)
		lseek(fd, at - (off_t)wrote, SEEK_SET);
	errno = code;
}

int fs_write_whole(int fd, const void *data, size_t n)
{
	size_t wrote = 0;
	while (wrote < n) {
		ssize_t got = write(fd, (const char *)data + wrote, n - wrote);
		if (got == -1 && errno != EINTR) {
			fs_unwrite(fd, wrote);
			return -1;
		}
		wrote += got > 0 ? (size_t)got : 0;
	}
	return 0;
}

/* The order is the promise: content, name, directory. */
int fs_replace(int fd, const char *temp, const char *target, bool sync, struct err *err)
{
	if (sync && fsync(fd) == -1)
		return err_errno(err, "syncing %s", temp);
	if (rename(temp, target) == -1)
		return err_errno(err, "renaming %s to %s", temp, target);
	if (!sync)
		return 0;
	char *parent = fs_parent(target);
	int result = parent ? fs_sync_dir(parent, err) : err_set(err, ENOMEM, "out of memory");
	free(parent);
	return result;
}

/* --- copying --- */

int fs_copy_begin(struct fs_copy *copy, const char *from, const char *to, int mode, struct err *err)
{
	struct stat st;
	copy->from = copy->to = -1;
	copy->target = strdup(to);
	if (copy->target == NULL)
		return err_set(err, ENOMEM, "out of memory");
	copy->from = fs_open(from, O_RDONLY, 0, err);
	if (copy->from == -1)
		return -1;
	if (mode == -1)
		mode = fstat(copy->from, &st) == 0 ? (int)(st.st_mode & 0777) : 0600;
	/* Made private; the permissions asked for come before there is anything in it. */
	copy->to = fs_temp_beside(to, 0600, &copy->temp, err);
	if (copy->to == -1)
		return -1;
	if (fchmod(copy->to, (mode_t)mode) == -1)
		return err_errno(err, "chmod %s", copy->temp);
	return 0;
}

/* Where the kernel cannot copy by itself: other file systems, old ones, /proc. */
static ssize_t fs_copy_plain(const struct fs_copy *copy)
{
	char *buf = malloc(FS_COPY_BUF);
	if (buf == NULL)
		return -1;
	ssize_t got = read(copy->from, buf, FS_COPY_BUF);
	if (got > 0 && fs_write_all(copy->to, buf, (size_t)got) == -1)
		got = -1;
	free(buf);
	return got;
}

static ssize_t fs_copy_some(struct fs_copy *copy)
{
	if (!copy->plain) {
		ssize_t got = copy_file_range(copy->from, NULL, copy->to, NULL, FS_COPY_STEP, 0);
		/* Files of /proc and the like have no size and copy as nothing. */
		if (got > 0 || (got == 0 && copy->copied > 0) ||
		    (got == -1 && (errno == ENOSPC || errno == EIO || errno == EDQUOT)))
			return got;
		copy->plain = true;
	}
	return fs_copy_plain(copy);
}

int fs_copy_step(struct fs_copy *copy, struct err *err)
{
	ssize_t got = fs_copy_some(copy);
	if (got == -1)
		return err_errno(err, "copying to %s", copy->target);
	copy->copied += got;
	if (got > 0)
		return 1;
	if (fs_replace(copy->to, copy->temp, copy->target, copy->sync, err) == -1)
		return -1;
	free(copy->temp);
	copy->temp = NULL;
	return 0;
}

void fs_copy_end(struct fs_copy *copy)
{
	if (copy->temp != NULL)
		unlink(copy->temp);
	if (copy->from != -1)
		close(copy->from);
	if (copy->to != -1)
		close(copy->to);
	free(copy->temp);
	free(copy->target);
}
