/* tree.c -- removing a directory tree that somebody else made.  Floor 3.
 *
 * Depth first, with a descriptor for each directory on the way down; names are only ever used
 * relative to one, so nothing that is renamed or replaced meanwhile leads elsewhere.  The number of
 * descriptors is bounded: what lies deeper than TREE_DEPTH is moved up into the root and is met
 * there again, so a tree of any depth is removed with 24 descriptors and no recursion.
 *
 * What cannot be removed is counted, the first of it is told, and the rest is removed all the same.
 * A directory that fills up again while it is emptied is tried a number of times, not for ever.
 */
#include "worker/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TREE_DEPTH  24
#define TREE_STEP   256
#define TREE_ROUNDS 16

struct tree_level {
	DIR *dir;
	char name[NAME_MAX + 1]; /* in the level above */
	int rounds;		 /* how often it was read to its end */
	bool failed;		 /* something in it stays */
};

struct tree {
	char *path;
	bool keep_root, begun;
	dev_t device;
	struct tree_level levels[TREE_DEPTH];
	size_t depth; /* levels in use; 0 when all is done */
	int64_t removed;
	uint64_t moved, failures;
	struct err err; /* the first failure */
};

static int tree_fd(const struct tree *tree)
{
	return dirfd(tree->levels[tree->depth - 1].dir);
}

/* Note that ${name} stays; errno says why. */
static void tree_fail(struct tree *tree, const char *name)
{
	if (tree->failures++ == 0)
		err_errno(&tree->err, "removing %s%s%s", tree->path,
			  tree->depth > 1 ? "/.../" : "/", name);
	if (tree->depth > 0)
		tree->levels[tree->depth - 1].failed = true;
}

/* --- insisting --- */

static bool tree_clear_flags(int fd)
{
	int flags;
	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == -1 || !(flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)))
		return false;
	flags &= ~(FS_IMMUTABLE_FL | FS_APPEND_FL);
	return ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
}

/* Only files and directories have flags, and opening anything else could do something. */
static void tree_clear_flags_at(int dir, const char *name)
{
	struct stat st;
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == -1 ||
	    !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
		return;
	int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd == -1)
		return;
	tree_clear_flags(fd);
	close(fd);
}

/* Open a directory's permissions.  By an O_PATH descriptor: chmod by name would follow a link. */
static void tree_chmod_at(int dir, const char *name)
{
	char proc[40];
	int fd = openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd == -1)
		return;
	snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
	chmod(proc, 0700);
	close(fd);
}

/* Take away whatever may stand against removing ${name}. Whether it is worth another try. */
static bool tree_insist(struct tree *tree, const char *name)
{
	if (errno != EACCES && errno != EPERM)
		return false;
	int dir = tree_fd(tree);
	fchmod(dir, 0700);
	tree_clear_flags(dir);
	tree_clear_flags_at(dir, name);
	return true;
}

static int tree_unlink(struct tree *tree, const char *name, int flags)
{
	int dir = tree_fd(tree);
	if (unlinkat(dir, name, flags) == 0 ||
	    (tree_insist(tree, name) && unlinkat(dir, name, flags) == 0) || errno == ENOENT) {
		tree->removed++;
		return 0;
	}
	return -1;
}

/* --- going down --- */

/* Without crossing into another mount, which may be the host's own files. */
static int tree_open(const struct tree *tree, int dir, const char *name)
{
	struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
			       .resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH};
	int fd = (int)syscall(SYS_openat2, dir, name, &how, sizeof how);
	if (fd != -1 || (errno != ENOSYS && errno != EPERM))
		return fd;
	/* An old kernel, or a sandbox that knows only the old calls. */
	struct stat st;
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd != -1 && fstat(fd, &st) == 0 && st.st_dev != tree->device) {
		close(fd);
		errno = EXDEV;
		return -1;
	}
	return fd;
}

static int tree_push(struct tree *tree, int fd, const char *name)
{
	DIR *dir = fd == -1 ? NULL : fdopendir(fd);
	if (dir == NULL) {
		if (fd != -1)
			close(fd);
		return -1;
	}
	struct tree_level *level = &tree->levels[tree->depth++];
	*level = (struct tree_level){.dir = dir};
	snprintf(level->name, sizeof level->name, "%s", name);
	return 0;
}

/* Too deep: to the root with it, where it is met again, much less deep. */
static int tree_move_up(struct tree *tree, const char *name)
{
	char lifted[40];
	int root = dirfd(tree->levels[0].dir), dir = tree_fd(tree);
	snprintf(lifted, sizeof lifted, ".lifted-%d-%llu", (int)getpid(),
		 (unsigned long long)tree->moved);
	if (renameat2(dir, name, root, lifted, RENAME_NOREPLACE) == -1) {
		tree_chmod_at(dir, name);
		fchmod(dir, 0700);
		if (renameat2(dir, name, root, lifted, RENAME_NOREPLACE) == -1)
			return -1;
	}
	tree->moved++;
	tree->levels[0].rounds = 0; /* not its fault that it is not empty */
	return 0;
}

static int tree_enter(struct tree *tree, const char *name)
{
	if (tree->depth == TREE_DEPTH)
		return tree_move_up(tree, name);
	int fd = tree_open(tree, tree_fd(tree), name);
	if (fd == -1 && errno == EACCES) {
		tree_chmod_at(tree_fd(tree), name);
		fd = tree_open(tree, tree_fd(tree), name);
	}
	return tree_push(tree, fd, name);
}

static void tree_remove_entry(struct tree *tree, const struct dirent *entry)
{
	const char *name = entry->d_name;
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return;
	/* What is not a directory says so when it is taken for one, and the other way round. */
	if (entry->d_type != DT_DIR) {
		if (tree_unlink(tree, name, 0) == 0)
			return;
		if (errno != EISDIR) {
			tree_fail(tree, name);
			return;
		}
	}
	if (unlinkat(tree_fd(tree), name, AT_REMOVEDIR) == 0) {
		tree->removed++;
		return;
	}
	if (errno == ENOENT)
		return;
	if (errno == EBUSY || tree_enter(tree, name) == -1)
		tree_fail(tree, name);
}

/* --- coming up --- */

static void tree_pop(struct tree *tree)
{
	struct tree_level *level = &tree->levels[--tree->depth];
	bool failed = level->failed;
	closedir(level->dir);
	level->dir = NULL;
	if (tree->depth > 0 && failed)
		tree->levels[tree->depth - 1].failed = true;
}

/* The root itself; its name is a path from where the process is. */
static void tree_finish(struct tree *tree)
{
	bool failed = tree->levels[0].failed;
	tree_pop(tree);
	if (tree->keep_root || failed)
		return;
	if (rmdir(tree->path) == 0 || errno == ENOENT)
		tree->removed++;
	else if (tree->failures++ == 0)
		err_errno(&tree->err, "removing %s", tree->path);
}

/* Whether the level has to be read again: something has come meanwhile. */
static bool tree_again(struct tree_level *level)
{
	if (level->failed || ++level->rounds >= TREE_ROUNDS)
		return false;
	rewinddir(level->dir);
	return true;
}

static bool tree_is_empty(DIR *dir)
{
	const struct dirent *entry;
	rewinddir(dir);
	while ((entry = readdir(dir)) != NULL)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			return false;
	return true;
}

/* The directory on top was read to its end. */
static void tree_leave(struct tree *tree)
{
	struct tree_level *level = &tree->levels[tree->depth - 1];
	if (tree->depth == 1) {
		if (tree_is_empty(level->dir) || !tree_again(level))
			tree_finish(tree);
		return;
	}
	char name[NAME_MAX + 1];
	memcpy(name, level->name, sizeof name);
	bool failed = level->failed;
	tree->depth--; /* removed by its name in the level above */
	int result = failed ? -1 : tree_unlink(tree, name, AT_REMOVEDIR);
	int why = errno;
	tree->depth++;
	if (result == -1 && !failed && (why == ENOTEMPTY || why == EEXIST) && tree_again(level))
		return;
	tree_pop(tree);
	errno = why;
	if (result == -1 && !failed)
		tree_fail(tree, name);
}

/* --- from outside --- */

struct tree *tree_new(const char *path, bool keep_root, struct err *err)
{
	struct tree *tree = calloc(1, sizeof *tree);
	char *copy = strdup(path);
	if (tree == NULL || copy == NULL) {
		free(tree);
		free(copy);
		err_set(err, ENOMEM, "out of memory removing %s", path);
		return NULL;
	}
	tree->path = copy;
	tree->keep_root = keep_root;
	return tree;
}

/* Open the root; a file or a link in its place is removed as such. */
static void tree_begin(struct tree *tree)
{
	struct stat st;
	int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	int fd = open(tree->path, flags);
	if (fd == -1 && errno == EACCES) {
		tree_chmod_at(AT_FDCWD, tree->path);
		fd = open(tree->path, flags);
	}
	if (fd != -1 && fstat(fd, &st) == 0)
		tree->device = st.st_dev;
	if (tree_push(tree, fd, "") == 0 || errno == ENOENT)
		return;
	if (!tree->keep_root && (errno == ENOTDIR || errno == ELOOP) && unlink(tree->path) == 0)
		tree->removed++;
	else if (tree->failures++ == 0)
		err_errno(&tree->err, "removing %s", tree->path);
}

bool tree_step(struct tree *tree)
{
	if (!tree->begun) {
		tree->begun = true;
		tree_begin(tree);
	}
	for (int i = 0; i < TREE_STEP && tree->depth > 0; i++) {
		errno = 0;
		const struct dirent *entry = readdir(tree->levels[tree->depth - 1].dir);
		if (entry != NULL)
			tree_remove_entry(tree, entry);
		else
			tree_leave(tree);
	}
	return tree->depth > 0;
}

int64_t tree_end(struct tree *tree, struct err *err)
{
	int64_t removed = tree->failures > 0 ? -1 : tree->removed;
	if (tree->failures > 1)
		err_set(err, tree->err.code, "%s (and %llu more)", tree->err.text,
			(unsigned long long)tree->failures - 1);
	else if (tree->failures == 1 && err != NULL)
		*err = tree->err;
	while (tree->depth > 0)
		tree_pop(tree);
	free(tree->path);
	free(tree);
	return removed;
}
