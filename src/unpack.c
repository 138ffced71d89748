/* unpack.c -- an archive from somebody else, into a directory of ours.  Floor 3.  See
 * worker/unpack.h.
 *
 * libarchive reads the format; writing is ours, because only what is opened relative to a
 * descriptor, without following links, cannot be led astray by an earlier entry.
 */
#include "worker/unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/libarchive.h"

#define BUFFER	      (64 * 1024)
#define STEP_BYTES    (1024 * 1024)
#define STEP_ENTRIES  64
#define DEPTH_MOST    100
#define ARCHIVE_BLOCK (64 * 1024)

struct unpack {
	struct archive *archive;
	int root;
	struct unpack_most most;
	int64_t bytes, entries;
	int file;    /* being written, or -1 */
	mode_t mode; /* it gets at the end */
	struct timespec modified;
	char name[PATH_MAX]; /* of the entry: clean, relative, "" for the root itself */
	char buffer[BUFFER];
};

/* --- names --- */

/* ${name} cleaned into ${clean}: no empty part, no "."; refused when it could lead elsewhere. */
static int clean_name(const char *name, char clean[PATH_MAX], struct err *err)
{
	size_t used = 0;
	int depth = 0;
	if (name == NULL)
		return err_set(err, EILSEQ, "an entry of the archive has a name nobody can read");
	if (name[0] == '/')
		return err_set(err, EPERM, "the entry '%s' of the archive has an absolute name",
			       name);
	while (*name != '\0') {
		size_t n = strcspn(name, "/");
		if (n == 2 && name[0] == '.' && name[1] == '.')
			return err_set(err, EPERM, "an entry of the archive leads upwards: '%s'",
				       name);
		if (n > 0 && !(n == 1 && name[0] == '.')) {
			if (++depth > DEPTH_MOST || n > NAME_MAX || used + n + 2 > PATH_MAX)
				return err_set(err, ENAMETOOLONG,
					       "an entry of the archive has too long a name");
			if (used > 0)
				clean[used++] = '/';
			memcpy(clean + used, name, n);
			used += n;
		}
		name += n + (name[n] == '/');
	}
	clean[used] = '\0';
	return 0;
}

static int open_dir_at(int at, const char *name)
{
	return openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* The directory that ${name} is in, made where it is missing (or not, for a link's target), as a
 * descriptor; ${last} becomes the last part. */
static int open_parent(const struct unpack *unpack, const char *name, bool make, const char **last,
		       struct err *err)
{
	int at = fcntl(unpack->root, F_DUPFD_CLOEXEC, 0);
	const char *slash;
	while (at != -1 && (slash = strchr(name, '/')) != NULL) {
		char part[NAME_MAX + 1];
		memcpy(part, name, (size_t)(slash - name));
		part[slash - name] = '\0';
		if (make && mkdirat(at, part, 0755) == -1 && errno != EEXIST) {
			err_errno(err, "making the directory %s", part);
			close(at);
			return -1;
		}
		int next = open_dir_at(at, part);
		if (next == -1)
			err_errno(err, "'%s' in the archive is no directory", part);
		close(at);
		if (next == -1)
			return -1;
		at = next;
		name = slash + 1;
	}
	*last = name;
	return at == -1 ? err_errno(err, "unpacking") : at;
}

/* --- kinds of entries --- */

/* Whatever an earlier entry put there goes, so that a link in the place is replaced and never
 * written through.  A directory stays, and what follows fails. */
static void make_room(int at, const char *last)
{
	unlinkat(at, last, 0);
}

static int put_directory(int at, const char *last, mode_t mode, struct err *err)
{
	if (mkdirat(at, last, 0755) == -1 && errno != EEXIST)
		return err_errno(err, "making the directory %s", last);
	int fd = open_dir_at(at, last);
	if (fd == -1)
		return err_errno(err, "'%s' in the archive is no directory", last);
	/* We have to get into it again ourselves. */
	int result = fchmod(fd, (mode & 0777) | 0700);
	if (result == -1)
		err_errno(err, "chmod %s", last);
	close(fd);
	return result;
}

static int put_file(struct unpack *unpack, int at, const char *last, struct archive_entry *entry,
		    struct err *err)
{
	make_room(at, last);
	unpack->file = openat(at, last, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (unpack->file == -1)
		return err_errno(err, "creating %s", unpack->name);
	unpack->mode = (libarchive_fn.entry_perm(entry) & 0777) | 0400;
	unpack->modified.tv_sec = libarchive_fn.entry_mtime(entry);
	unpack->modified.tv_nsec = libarchive_fn.entry_mtime_nsec(entry);
	return 0;
}

/* Whether a link at ${name} stays inside.  Its ".." may only come first, where they are counted
 * against real directories (open_parent has walked them); further on one could step out through
 * another link. */
static bool stays_inside(const char *name, const char *target)
{
	int depth = 0;
	bool down = false;
	if (target[0] == '/' || target[0] == '\0')
		return false;
	for (const char *p = name; (p = strchr(p, '/')) != NULL; p++)
		depth++;
	while (*target != '\0') {
		size_t n = strcspn(target, "/");
		bool up = n == 2 && target[0] == '.' && target[1] == '.';
		if (up && (down || --depth < 0))
			return false;
		if (!up && n > 0 && !(n == 1 && target[0] == '.'))
			down = true;
		target += n + (target[n] == '/');
	}
	return true;
}

static int put_symlink(const struct unpack *unpack, int at, const char *last,
		       struct archive_entry *entry, struct err *err)
{
	const char *target = libarchive_fn.entry_symlink(entry);
	if (target == NULL)
		target = libarchive_fn.entry_symlink_utf8(entry);
	if (target == NULL || !stays_inside(unpack->name, target))
		return err_set(err, EPERM, "the link '%s' of the archive leads out of it",
			       unpack->name);
	make_room(at, last);
	if (symlinkat(target, at, last) == -1)
		return err_errno(err, "making the link %s", unpack->name);
	return 0;
}

static int put_hardlink(const struct unpack *unpack, int at, const char *last, const char *name,
			struct err *err)
{
	char clean[PATH_MAX];
	const char *from;
	struct stat st;
	if (clean_name(name, clean, err) == -1)
		return -1;
	int dir = open_parent(unpack, clean, false, &from, err);
	if (dir == -1)
		return -1;
	int result = 0;
	if (fstatat(dir, from, &st, AT_SYMLINK_NOFOLLOW) == -1 || !S_ISREG(st.st_mode))
		result = err_set(err, EPERM, "'%s' of the archive is a second name of no file",
				 unpack->name);
	else if (strcmp(clean, unpack->name) != 0) {
		make_room(at, last);
		if (linkat(dir, from, at, last, 0) == -1)
			result = err_errno(err, "linking %s", unpack->name);
	}
	close(dir);
	return result;
}

static int put_entry(struct unpack *unpack, struct archive_entry *entry, struct err *err)
{
	const char *last, *hardlink = libarchive_fn.entry_hardlink(entry);
	if (hardlink == NULL)
		hardlink = libarchive_fn.entry_hardlink_utf8(entry);
	mode_t type = libarchive_fn.entry_filetype(entry);
	if (unpack->name[0] == '\0') /* the directory itself, "./" */
		return hardlink == NULL && type == AE_IFDIR
			       ? 0
			       : err_set(err, EPERM, "an entry of the archive has no name");
	int at = open_parent(unpack, unpack->name, true, &last, err);
	if (at == -1)
		return -1;
	int result;
	if (hardlink != NULL)
		result = put_hardlink(unpack, at, last, hardlink, err);
	else if (type == AE_IFREG)
		result = put_file(unpack, at, last, entry, err);
	else if (type == AE_IFDIR)
		result = put_directory(at, last, libarchive_fn.entry_perm(entry), err);
	else if (type == AE_IFLNK)
		result = put_symlink(unpack, at, last, entry, err);
	else
		result = err_set(err, EPERM, "'%s' of the archive is no file, directory or link",
				 unpack->name);
	close(at);
	return result;
}

/* --- steps --- */

static int failed(struct unpack *unpack, struct err *err)
{
	const char *why = libarchive_fn.error_string(unpack->archive);
	return err_set(err, libarchive_fn.code(unpack->archive), "the archive cannot be read: %s",
		       why ? why : "no reason given");
}

static int write_all(int fd, const char *data, size_t n)
{
	while (n > 0) {
		ssize_t written = write(fd, data, n);
		if (written == -1 && errno != EINTR)
			return -1;
		if (written > 0) {
			data += written;
			n -= (size_t)written;
		}
	}
	return 0;
}

static int finish_file(struct unpack *unpack, struct err *err)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, unpack->modified};
	int result = 0;
	/* A time that the file system cannot hold is no reason to fail. */
	(void)futimens(unpack->file, times);
	if (fchmod(unpack->file, unpack->mode) == -1)
		result = err_errno(err, "chmod %s", unpack->name);
	if (close(unpack->file) == -1 && result == 0)
		result = err_errno(err, "writing %s", unpack->name);
	unpack->file = -1;
	return result;
}

/* One piece of the open file; how much that was, 0 at its end, -1. */
static ssize_t copy_piece(struct unpack *unpack, struct err *err)
{
	ssize_t n = libarchive_fn.read_data(unpack->archive, unpack->buffer, BUFFER);
	if (n < 0)
		return failed(unpack, err);
	if (n == 0)
		return finish_file(unpack, err);
	unpack->bytes += n;
	if (unpack->bytes > unpack->most.bytes)
		return err_set(err, EFBIG, "the archive has more than the allowed %lld bytes",
			       (long long)unpack->most.bytes);
	if (write_all(unpack->file, unpack->buffer, (size_t)n) == -1)
		return err_errno(err, "writing %s", unpack->name);
	return n;
}

/* 1 when there was one, 0 at the end, -1. */
static int next_entry(struct unpack *unpack, struct err *err)
{
	struct archive_entry *entry;
	int status = libarchive_fn.read_next_header(unpack->archive, &entry);
	if (status == ARCHIVE_EOF)
		return 0;
	if (status != ARCHIVE_OK && status != ARCHIVE_WARN)
		return failed(unpack, err);
	if (++unpack->entries > unpack->most.entries)
		return err_set(err, EFBIG, "the archive has more than the allowed %lld entries",
			       (long long)unpack->most.entries);
	const char *name = libarchive_fn.entry_pathname(entry);
	if (name == NULL)
		name = libarchive_fn.entry_pathname_utf8(entry);
	if (clean_name(name, unpack->name, err) == -1)
		return -1;
	return put_entry(unpack, entry, err) == -1 ? -1 : 1;
}

int unpack_step(struct unpack *unpack, struct err *err)
{
	ssize_t bytes = 0;
	int entries = 0;
	while (bytes < STEP_BYTES && entries < STEP_ENTRIES) {
		if (unpack->file != -1) {
			ssize_t n = copy_piece(unpack, err);
			if (n == -1)
				return -1;
			bytes += n;
		} else {
			int more = next_entry(unpack, err);
			if (more != 1)
				return more;
			entries++;
		}
	}
	return 1;
}

/* --- begin and end --- */

static int open_archive(struct unpack *unpack, const char *path, struct err *err)
{
	if (libarchive_load(err) == -1)
		return -1;
	unpack->archive = libarchive_fn.read_new();
	if (unpack->archive == NULL)
		return err_set(err, ENOMEM, "out of memory for an archive");
	libarchive_fn.read_support_format_tar(unpack->archive);
	libarchive_fn.read_support_filter_gzip(unpack->archive);
	if (libarchive_fn.read_open_filename(unpack->archive, path, ARCHIVE_BLOCK) != ARCHIVE_OK)
		return failed(unpack, err);
	return 0;
}

struct unpack *unpack_open(const char *path, const char *dir, const struct unpack_most *most,
			   struct err *err)
{
	struct unpack *unpack = calloc(1, sizeof *unpack);
	if (unpack == NULL) {
		err_set(err, ENOMEM, "out of memory for an archive");
		return NULL;
	}
	unpack->file = -1;
	unpack->most = *most;
	unpack->root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int result = unpack->root == -1 ? err_errno(err, "open %s", dir)
					: open_archive(unpack, path, err);
	if (result == -1) {
		unpack_close(unpack);
		return NULL;
	}
	return unpack;
}

int64_t unpack_entries(const struct unpack *unpack)
{
	return unpack->entries;
}

void unpack_close(struct unpack *unpack)
{
	if (unpack == NULL)
		return;
	if (unpack->file != -1)
		close(unpack->file);
	if (unpack->root != -1)
		close(unpack->root);
	if (unpack->archive != NULL)
		libarchive_fn.read_free(unpack->archive);
	free(unpack);
}
