/* lock.c -- a file that one process holds.  Floor 3.  See worker/lock.h. */
#include "worker/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Who says to hold the lock; 0 when the file does not tell. */
static long lock_holder(int fd)
{
	char text[24];
	ssize_t n = pread(fd, text, sizeof text - 1, 0);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	return strtol(text, NULL, 10);
}

static void lock_sign(int fd)
{
	char text[24];
	int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
	/* Only for people: a full disk must not keep us from locking.  A file that is never empty
	 * keeps its block. */
	if (ftruncate(fd, pwrite(fd, text, (size_t)n, 0) == n ? n : 0) == -1)
		return;
}

static int lock_refused(int fd, const char *path, struct err *err)
{
	if (errno != EAGAIN && errno != EACCES)
		return err_errno(err, "locking %s", path);
	long holder = lock_holder(fd);
	if (holder > 0)
		return err_set(err, EBUSY, "%s is held by process %ld", path, holder);
	return err_set(err, EBUSY, "%s is held by another process", path);
}

int lock_take(int dir, const char *path, bool shared, struct err *err)
{
	int fd = openat(dir, path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (fd == -1)
		return err_errno(err, "opening %s", path);
	struct flock lock = {.l_type = shared ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
	if (fcntl(fd, F_OFD_SETLK, &lock) == -1) {
		lock_refused(fd, path, err);
		close(fd);
		return -1;
	}
	if (!shared)
		lock_sign(fd);
	return fd;
}
