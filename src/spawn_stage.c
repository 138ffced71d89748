/* spawn_stage.c -- the file descriptors that a child takes over.  Floor 3.  See
 * worker/spawn_stage.h.
 *
 * What the process was started with may lie among them or below: it is not ours to close, but no
 * child shall have it.
 */
#include "worker/spawn_stage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

#include "worker/spawn.h"

#define STAGE_NULL SPAWN_FDS

/* As 0, 1 and 2 they belong to the process. */
static int stage[SPAWN_FDS + 1];
static bool stage_is_open;
static rlim_t stage_limit = RLIM_INFINITY;

static void stage_raise_limit(void)
{
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) == -1)
		return;
	stage_limit = files.rlim_cur;
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
}

/* As each is the lowest that is free, the last one is the highest. */
void spawn_stage_open(void)
{
	stage[0] = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (size_t i = 1; i <= STAGE_NULL; i++)
		stage[i] = fcntl(stage[0], F_DUPFD_CLOEXEC, 0);
	for (int fd = 3; fd < stage[STAGE_NULL]; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	stage_is_open = stage[STAGE_NULL] != -1;
	stage_raise_limit();
}

int spawn_stage_put(size_t i, int fd)
{
	if (stage_is_open)
		return dup3(fd, stage[i], O_CLOEXEC);
	errno = EMFILE;
	return -1;
}

void spawn_stage_clear(size_t count)
{
	for (size_t i = 0; stage_is_open && i < count; i++)
		dup3(stage[STAGE_NULL], stage[i], O_CLOEXEC);
}

int spawn_stage_null(void)
{
	return stage[STAGE_NULL];
}

int spawn_stage_end(void)
{
	return stage[STAGE_NULL] + 1;
}

rlim_t spawn_stage_limit(void)
{
	return stage_limit;
}
