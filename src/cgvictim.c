/* cgvictim.c -- which jobs the kernel ends first when memory runs out.  Floor 3.  See
 * worker/cgvictim.h.
 *
 * There is one timer for all: a group is marked at the second look after it came, so that the many
 * that are gone by then cost two steps in a list.
 *
 * A group forks while it is walked through, so the walk is repeated until it finds nobody whose
 * score is too low.  And a number may be another process by the time its file is opened: so the
 * files are opened first, then the group is asked whether it still has these processes, and only
 * then is anything written.
 */
#include "worker/cgvictim.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "worker/cgdir.h"
#include "worker/clock.h"

#define LOOK_EVERY (100 * CLOCK_MS)
#define AT_ONCE	   64 /* files open */
#define WALKS	   64 /* a group that forks faster than this is not worth more */

/* --- the processes of one group --- */

struct marks {
	int score;
	size_t count;
	struct mark {
		pid_t pid;
		int file;
		bool there;
	} list[AT_ONCE];
};

/* The file of a process whose score is too low, or -1. */
static int open_low(pid_t pid, int score)
{
	char path[40], text[16] = "";
	snprintf(path, sizeof path, "/proc/%d/oom_score_adj", (int)pid);
	int file = open(path, O_RDWR | O_CLOEXEC);
	if (file == -1)
		return -1;
	if (pread(file, text, sizeof text - 1, 0) > 0 && atoi(text) < score)
		return file;
	close(file);
	return -1;
}

static void find_low(pid_t pid, void *arg)
{
	struct marks *marks = arg;
	int file = marks->count < AT_ONCE ? open_low(pid, marks->score) : -1;
	if (file != -1)
		marks->list[marks->count++] = (struct mark){.pid = pid, .file = file};
}

static void confirm(pid_t pid, void *arg)
{
	struct marks *marks = arg;
	for (size_t i = 0; i < marks->count; i++)
		if (marks->list[i].pid == pid)
			marks->list[i].there = true;
}

/* Returns whether the file took it. */
static bool write_score(const struct mark *mark, int score)
{
	char text[16];
	int n = snprintf(text, sizeof text, "%d", score);
	bool written = mark->there && pwrite(mark->file, text, (size_t)n, 0) == n;
	close(mark->file);
	return written;
}

void cgvictim_mark(int dir, int score)
{
	bool again = true;
	for (int walks = 0; again && walks < WALKS; walks++) {
		struct marks marks = {.score = score};
		again = false;
		cgdir_processes(dir, find_low, &marks);
		if (marks.count > 0)
			cgdir_processes(dir, confirm, &marks);
		for (size_t i = 0; i < marks.count; i++)
			again = write_score(&marks.list[i], score) || again;
	}
}

/* --- which groups, and when --- */

static void look(void *arg);

static void look_later(struct cgvictims *victims)
{
	(void)loop_timer_start_real(victims->loop, &victims->look, LOOK_EVERY, look, victims);
}

static void look(void *arg)
{
	struct cgvictims *victims = arg;
	struct list *node;
	while ((node = list_shift(&victims->grown)) != NULL) {
		const struct cgvictim *victim = container_of(node, struct cgvictim, link);
		int dir = victims->directory(victim);
		if (dir == -1)
			continue;
		cgvictim_mark(dir, victim->score);
		close(dir);
	}
	list_splice(&victims->grown, &victims->young);
	if (!list_empty(&victims->grown))
		look_later(victims);
}

void cgvictim_open(struct cgvictims *victims, struct loop *loop,
		   int (*directory)(const struct cgvictim *victim))
{
	victims->loop = loop;
	victims->directory = directory;
	list_init(&victims->young);
	list_init(&victims->grown);
}

void cgvictim_add(struct cgvictims *victims, struct cgvictim *victim)
{
	if (victim->score == 0 || list_linked(&victim->link))
		return;
	list_append(&victims->young, &victim->link);
	if (!loop_timer_running(&victims->look))
		look_later(victims);
}

void cgvictim_remove(struct cgvictims *victims, struct cgvictim *victim)
{
	if (!list_linked(&victim->link))
		return;
	list_remove(&victim->link);
	if (list_empty(&victims->young) && list_empty(&victims->grown))
		loop_timer_stop(victims->loop, &victims->look);
}
