/* cgvictim.c -- which jobs the kernel ends first when memory runs out.  Floor 3.  See
 * worker/cgvictim.h.
 *
 * There is one timer for all: a group is marked at the second look after it came, so that the many
 * that are gone by then cost two steps in a list.
 *
 * A group forks while it is walked through, so it is looked at again until all have the score and
 * nobody was gone that might have had a child; and not more processes at a time than the loop can
 * spare the time for.  A number may be another process by the time its file is opened: so the files
 * are opened first, then the group is asked whether it still has these processes, and only then is
 * anything written.
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
#define AT_ONCE	   64  /* files open */
#define LOOK_MOST  256 /* processes at one look */
#define DONE_MOST  20  /* a group that is never at rest is not worth more */

/* --- the processes of one group --- */

struct marks {
	int score;
	size_t skip, seen, next; /* processes: not looked at, listed, looked at up to here */
	bool again;
	size_t count;
	struct mark {
		pid_t pid;
		int file;
		bool there;
	} list[AT_ONCE];
};

/* The file of a process whose score is too low, or -1; ${*failed}: nobody knows. */
static int open_low(pid_t pid, int score, bool *failed)
{
	char path[40], text[16] = "";
	snprintf(path, sizeof path, "/proc/%d/oom_score_adj", (int)pid);
	int file = open(path, O_RDWR | O_CLOEXEC);
	*failed = file == -1 || pread(file, text, sizeof text - 1, 0) <= 0;
	if (!*failed && atoi(text) < score)
		return file;
	if (file != -1)
		close(file);
	return -1;
}

static void find_low(pid_t pid, void *arg)
{
	struct marks *marks = arg;
	size_t at = marks->seen++;
	if (at < marks->skip || at >= marks->skip + LOOK_MOST || marks->count == AT_ONCE)
		return;
	bool failed;
	int file = open_low(pid, marks->score, &failed);
	if (file != -1)
		marks->list[marks->count++] = (struct mark){.pid = pid, .file = file};
	marks->again = marks->again || failed || file != -1;
	marks->next = at + 1;
}

static void confirm(pid_t pid, void *arg)
{
	struct marks *marks = arg;
	for (size_t i = 0; i < marks->count; i++)
		if (marks->list[i].pid == pid)
			marks->list[i].there = true;
}

static void write_score(const struct mark *mark, int score)
{
	char text[16];
	int n = snprintf(text, sizeof text, "%d", score);
	if (mark->there)
		(void)!pwrite(mark->file, text, (size_t)n, 0);
	close(mark->file);
}

/* Returns whether the group has to be looked at again. */
static bool mark_some(struct cgvictim *victim, int dir)
{
	struct marks marks = {.score = victim->score, .skip = victim->skip};
	cgdir_processes(dir, find_low, &marks);
	if (marks.count > 0)
		cgdir_processes(dir, confirm, &marks);
	for (size_t i = 0; i < marks.count; i++)
		write_score(&marks.list[i], victim->score);
	bool whole = marks.next >= marks.seen || marks.seen <= victim->skip;
	bool again = victim->again || marks.again;
	victim->skip = whole ? 0 : marks.next;
	victim->again = !whole && again;
	victim->done += whole;
	return !whole || (again && victim->done < DONE_MOST);
}

/* --- which groups, and when --- */

static void look(void *arg);

static void look_later(struct cgvictims *victims)
{
	(void)loop_timer_start_real(victims->loop, &victims->look, LOOK_EVERY, look, victims);
}

static void look_at(struct cgvictims *victims, struct cgvictim *victim)
{
	int dir = victims->directory(victim);
	if (dir == -1)
		return;
	if (mark_some(victim, dir))
		list_append(&victims->young, &victim->link);
	close(dir);
}

static void look(void *arg)
{
	struct cgvictims *victims = arg;
	struct list *node;
	while ((node = list_shift(&victims->grown)) != NULL)
		look_at(victims, container_of(node, struct cgvictim, link));
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
	victim->skip = victim->done = 0;
	victim->again = false;
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
