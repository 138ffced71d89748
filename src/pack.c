/* pack.c -- files of a directory into a gzipped tar file.  Floor 3.  See worker/pack.h. */
#include "worker/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/fs.h"
#include "worker/libarchive.h"

#define BUFFER	   (64 * 1024)
#define STEP_BYTES (1024 * 1024)

struct pack {
	struct archive *archive;
	char *path, *root;
	char **names;
	size_t count, room, at;
	int64_t most, bytes;
	int file;     /* being read, or -1 */
	int64_t left; /* what its header promised and is still to come */
	bool complete;
	char buffer[BUFFER];
};

static int failed(struct pack *pack, struct err *err)
{
	const char *why = libarchive_fn.error_string(pack->archive);
	return err_set(err, libarchive_fn.code(pack->archive), "writing %s: %s", pack->path,
		       why ? why : "no reason given");
}

static int open_archive(struct pack *pack, struct err *err)
{
	if (libarchive_load(err) == -1)
		return -1;
	pack->archive = libarchive_fn.write_new();
	if (pack->archive == NULL)
		return err_set(err, ENOMEM, "out of memory for an archive");
	if (libarchive_fn.write_set_format_gnutar(pack->archive) != ARCHIVE_OK ||
	    libarchive_fn.write_add_filter_gzip(pack->archive) != ARCHIVE_OK ||
	    libarchive_fn.write_open_filename(pack->archive, pack->path) != ARCHIVE_OK)
		return failed(pack, err);
	return 0;
}

struct pack *pack_open(const char *path, const char *root, int64_t most, struct err *err)
{
	struct pack *pack = calloc(1, sizeof *pack);
	if (pack == NULL) {
		err_set(err, ENOMEM, "out of memory for an archive");
		return NULL;
	}
	pack->file = -1;
	pack->most = most;
	pack->path = strdup(path);
	pack->root = strdup(root);
	int result = 0;
	if (pack->path == NULL || pack->root == NULL)
		result = err_set(err, ENOMEM, "out of memory for an archive");
	if (result == -1 || open_archive(pack, err) == -1) {
		pack_close(pack);
		return NULL;
	}
	return pack;
}

static bool grow(struct pack *pack)
{
	if (pack->count < pack->room)
		return true;
	size_t room = pack->room ? pack->room * 2 : 16;
	char **names = realloc(pack->names, room * sizeof *names);
	if (names == NULL)
		return false;
	pack->names = names;
	pack->room = room;
	return true;
}

int pack_add(struct pack *pack, const char *name, struct err *err)
{
	char *copy = grow(pack) ? strdup(name) : NULL;
	if (copy == NULL)
		return err_set(err, ENOMEM, "out of memory for an archive");
	pack->names[pack->count++] = copy;
	return 0;
}

static int write_header(struct pack *pack, const char *name, const struct stat *st, struct err *err)
{
	struct archive_entry *entry = libarchive_fn.entry_new();
	if (entry == NULL)
		return err_set(err, ENOMEM, "out of memory for an archive");
	libarchive_fn.entry_set_pathname(entry, name);
	libarchive_fn.entry_set_size(entry, st->st_size);
	libarchive_fn.entry_set_filetype(entry, AE_IFREG);
	libarchive_fn.entry_set_perm(entry, st->st_mode & 0777);
	libarchive_fn.entry_set_mtime(entry, st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
	int result = libarchive_fn.write_header(pack->archive, entry) < ARCHIVE_WARN
			     ? failed(pack, err)
			     : 0;
	libarchive_fn.entry_free(entry);
	return result;
}

/* A file that has gone meanwhile is left out: the job's doing, and nobody's failure. */
static int next_file(struct pack *pack, struct err *err)
{
	const char *name = pack->names[pack->at++];
	struct stat st;
	pack->file = fs_open_beneath(pack->root, name, O_RDONLY, 0, err);
	if (pack->file == -1)
		return errno == ENOENT ? 0 : -1;
	if (fstat(pack->file, &st) == -1)
		return err_errno(err, "stat %s", name);
	pack->bytes += st.st_size;
	if (pack->bytes > pack->most)
		return err_set(err, EFBIG, "the files are more than the allowed %lld bytes",
			       (long long)pack->most);
	pack->left = st.st_size;
	return write_header(pack, name, &st, err);
}

/* The header said how long the file is: one that has grown is cut, one that shrank is filled up
 * with zeros by the archive itself. */
static ssize_t copy_piece(struct pack *pack, struct err *err)
{
	size_t want = pack->left < BUFFER ? (size_t)pack->left : BUFFER;
	ssize_t n = want > 0 ? read(pack->file, pack->buffer, want) : 0;
	if (n == -1)
		return errno == EINTR ? 1 : err_errno(err, "reading for %s", pack->path);
	if (n == 0) {
		close(pack->file);
		pack->file = -1;
		return 0;
	}
	pack->left -= n;
	if (libarchive_fn.write_data(pack->archive, pack->buffer, (size_t)n) < 0)
		return failed(pack, err);
	return n;
}

int pack_step(struct pack *pack, struct err *err)
{
	ssize_t bytes = 0;
	while (bytes < STEP_BYTES) {
		if (pack->file != -1) {
			ssize_t n = copy_piece(pack, err);
			if (n == -1)
				return -1;
			bytes += n;
		} else if (pack->at < pack->count) {
			if (next_file(pack, err) == -1)
				return -1;
		} else {
			if (libarchive_fn.write_close(pack->archive) != ARCHIVE_OK)
				return failed(pack, err);
			pack->complete = true;
			return 0;
		}
	}
	return 1;
}

int64_t pack_bytes(const struct pack *pack)
{
	return pack->bytes;
}

void pack_close(struct pack *pack)
{
	if (pack == NULL)
		return;
	if (pack->file != -1)
		close(pack->file);
	if (pack->archive != NULL)
		libarchive_fn.write_free(pack->archive);
	if (!pack->complete && pack->path != NULL)
		unlink(pack->path);
	for (size_t i = 0; i < pack->count; i++)
		free(pack->names[i]);
	free(pack->names);
	free(pack->path);
	free(pack->root);
	free(pack);
}
