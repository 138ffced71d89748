/* http_file.c -- a downloaded file that is there whole or not at all.  Floor 3.
 *
 * See worker/http_file.h.  The temporary name begins with a dot and ends in random letters, in the
 * target's own directory, since a rename cannot cross file systems.
 */
#include "worker/http_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int http_file_names(struct http_file *file, const char *path, struct err *err)
{
	const char *slash = strrchr(path, '/');
	int dir = slash ? (int)(slash - path) + 1 : 0;
	int n = snprintf(file->temp, sizeof file->temp, "%.*s.%.200s.XXXXXX", dir, path,
			 path + dir);
	if (path[dir] == '\0' || n >= (int)sizeof file->temp) {
		file->temp[0] = '\0';
		return err_set(err, EINVAL, "'%.80s' is no name for a file", path);
	}
	memcpy(file->path, path, strlen(path) + 1); /* shorter than ${temp} */
	return 0;
}

/* mkostemp makes it for the owner alone; what is downloaded is an ordinary file. */
static mode_t http_file_mode(void)
{
	mode_t mask = umask(0);
	umask(mask);
	return 0666 & ~mask;
}

int http_file_open(struct http_file *file, const char *path, struct err *err)
{
	if (strlen(path) >= sizeof file->path || http_file_names(file, path, err) == -1)
		return err_set(err, EINVAL, "'%.80s' is no name for a file", path);
	file->fd = mkostemp(file->temp, O_CLOEXEC);
	if (file->fd == -1) {
		err_errno(err, "creating a file beside %s", path);
		file->temp[0] = '\0';
		return -1;
	}
	(void)fchmod(file->fd, http_file_mode());
	return 0;
}

/* Only close() tells of a write that failed late (quota, network file systems). */
int http_file_commit(struct http_file *file, struct err *err)
{
	int closed = close(file->fd);
	if (closed == 0 && rename(file->temp, file->path) == 0) {
		file->temp[0] = '\0';
		return 0;
	}
	err_errno(err, "finishing %s", file->path);
	(void)unlink(file->temp);
	file->temp[0] = '\0';
	return -1;
}

void http_file_discard(struct http_file *file)
{
	if (file->temp[0] == '\0')
		return;
	close(file->fd);
	(void)unlink(file->temp);
	file->temp[0] = '\0';
}
