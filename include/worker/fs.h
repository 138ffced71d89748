/* fs.h -- files, with the care that a bare system call leaves to its caller.  Floor 3.
 *
 * Opening never blocks and never yields anything but a regular file: a pipe, a device or a socket
 * where a file is expected is refused, not waited for.  Replacing a file is write, (sync,) rename,
 * so that its readers see the old or the new one and never half of it.
 */
#ifndef WORKER_FS_H
#define WORKER_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "worker/err.h"

/* fs_open(path, flags, mode, err): open(2) for a regular file; a descriptor or -1. */
int fs_open(const char *path, int flags, mode_t mode, struct err *err);

/* fs_open_beneath(root, path, flags, mode, err): the same for a path that somebody else chose: it
 * stays below ${root} and no part of it below ${root} may be a symbolic link. */
int fs_open_beneath(const char *root, const char *path, int flags, mode_t mode, struct err *err);

/* fs_open_walk(...): the same, component by component, for kernels without openat2. */
int fs_open_walk(const char *root, const char *path, int flags, mode_t mode, struct err *err);

/* fs_make_dirs(path, mode, err): mkdir -p. */
int fs_make_dirs(const char *path, mode_t mode, struct err *err);

/* fs_sync_dir(path, err): what was created or renamed in it is on the disk afterwards. */
int fs_sync_dir(const char *path, struct err *err);

/* fs_parent(path): the directory a path is in, allocated; NULL when out of memory. */
char *fs_parent(const char *path);

/* fs_temp_beside(path, mode, temp, err): a new file in the directory of ${path}, named so that
 * nobody takes it for something else; ${temp} becomes its allocated name. */
int fs_temp_beside(const char *path, mode_t mode, char **temp, struct err *err);

/* fs_write_all(fd, data, n): 0, or -1 with errno. */
int fs_write_all(int fd, const void *data, size_t n);

/* fs_write_whole(fd, data, n): the same for a file with one writer, of which a write that fails, as
 * on a full disk, leaves nothing: whoever tries again repeats no bytes. */
int fs_write_whole(int fd, const void *data, size_t n);

struct fs_space {
	uint64_t bytes_free, bytes_total; /* free: for those without privileges */
	uint64_t inodes_free, inodes_total;
};

/* fs_space(path, space, err): of the file system that ${path} is on. */
int fs_space(const char *path, struct fs_space *space, struct err *err);

/* fs_type(mode): "file", "dir", "link", "fifo", "socket", "char", "block". */
const char *fs_type(mode_t mode);

/* Copying a file in steps, for a helper thread: the target is replaced as a whole at the end. */
struct fs_copy {
	int from, to;
	char *target, *temp; /* allocated */
	int64_t copied;
	bool sync;
	bool plain; /* copy_file_range does not work between these two */
};

/* fs_copy_begin(copy, from, to, mode, err): ${mode} -1 takes that of the source. */
int fs_copy_begin(struct fs_copy *copy, const char *from, const char *to, int mode,
		  struct err *err);

/* fs_copy_step(copy, err): 1 for more, 0 when the target is there, -1. */
int fs_copy_step(struct fs_copy *copy, struct err *err);

/* fs_copy_end(copy): frees; removes what was not finished. */
void fs_copy_end(struct fs_copy *copy);

/* fs_replace(fd, temp, target, sync, err): give ${temp} the name ${target}; with ${sync}, so that
 * it is on the disk.  Does not close ${fd}. */
int fs_replace(int fd, const char *temp, const char *target, bool sync, struct err *err);

#endif
