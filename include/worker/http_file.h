/* http_file.h -- a downloaded file that is there whole or not at all.  Floor 3.
 *
 * The bytes go to a temporary file beside the target, which takes the target's name only when all
 * of them are there.  It is not synced to disk: after a crash of the machine the download can be
 * repeated, and waiting for the disk would hold up everybody else.
 */
#ifndef WORKER_HTTP_FILE_H
#define WORKER_HTTP_FILE_H

#include <stddef.h>

#include "worker/err.h"

#define HTTP_FILE_PATH 4096

/* Zeroed is closed; ${path} and ${temp} are empty then. */
struct http_file {
	int fd; /* valid while ${temp} is not empty */
	char path[HTTP_FILE_PATH], temp[HTTP_FILE_PATH];
};

/* http_file_open(file, path, err): begin.  0, or -1 and still closed. */
int http_file_open(struct http_file *file, const char *path, struct err *err);

/* http_file_commit(file, err): it is whole; replaces what was there.  Closed afterwards, also when
 * it failed. */
int http_file_commit(struct http_file *file, struct err *err);

/* http_file_discard(file): leave nothing behind.  May be called when closed. */
void http_file_discard(struct http_file *file);

#endif
