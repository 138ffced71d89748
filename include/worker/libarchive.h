/* libarchive.h -- libarchive, loaded when the first archive is met.  Floor 3.
 *
 * It brings a dozen libraries along that nothing else here needs.  Linked in, they would cost every
 * start some milliseconds and every worker some megabytes, most of which never see an archive.
 *
 *	if (libarchive_load(&err) == -1) ...
 *	struct archive *archive = libarchive_fn.read_new();	archive_read_new() of <archive.h>
 */
#ifndef WORKER_LIBARCHIVE_H
#define WORKER_LIBARCHIVE_H

#include <archive.h>
#include <archive_entry.h>

#include "worker/err.h"

/* What is used of it: its own names without "archive_" in front. */
#define LIBARCHIVE(X)                                                                              \
	X(error_string)                                                                            \
	X(read_new)                                                                                \
	X(read_support_format_tar)                                                                 \
	X(read_support_filter_gzip)                                                                \
	X(read_open_filename)                                                                      \
	X(read_next_header)                                                                        \
	X(read_data)                                                                               \
	X(read_free)                                                                               \
	X(write_new)                                                                               \
	X(write_set_format_gnutar)                                                                 \
	X(write_add_filter_gzip)                                                                   \
	X(write_open_filename)                                                                     \
	X(write_header)                                                                            \
	X(write_data)                                                                              \
	X(write_close)                                                                             \
	X(write_free)                                                                              \
	X(entry_new)                                                                               \
	X(entry_free)                                                                              \
	X(entry_filetype)                                                                          \
	X(entry_hardlink)                                                                          \
	X(entry_hardlink_utf8)                                                                     \
	X(entry_mtime)                                                                             \
	X(entry_mtime_nsec)                                                                        \
	X(entry_pathname)                                                                          \
	X(entry_pathname_utf8)                                                                     \
	X(entry_perm)                                                                              \
	X(entry_symlink)                                                                           \
	X(entry_symlink_utf8)                                                                      \
	X(entry_set_filetype)                                                                      \
	X(entry_set_mtime)                                                                         \
	X(entry_set_pathname)                                                                      \
	X(entry_set_perm)                                                                          \
	X(entry_set_size)

struct libarchive {
	__typeof__(archive_errno) *code; /* errno is a macro */
#define LIBARCHIVE_FIELD(name) __typeof__(archive_##name) *name;
	LIBARCHIVE(LIBARCHIVE_FIELD)
#undef LIBARCHIVE_FIELD
};

/* Filled once, for the whole process, by the loop's thread. */
extern struct libarchive libarchive_fn;

/* libarchive_load(err): 0, or -1 with a text that says what to install.  Before anything else. */
int libarchive_load(struct err *err);

#endif
