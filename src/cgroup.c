/* cgroup.c -- one control group per job: limits, usage, and a kill nothing escapes.  Floor 3.
 *
 * A job's group is one directory of the same name in the trees of the place that it needs.  What v2
 * gives is taken from v2; a v1 tree is used for the limits it was opened for, when one of them is
 * asked for (without v2 all of them: they also measure).  A directory costs the kernel more than
 * the rest of a small job.  Files are named relative to the place's directories, so a group costs
 * few fds: its v2 directory, and the cgroup.procs files its first process comes in by.
 *
 * "Empty" is an event in v2 (cgroup.events is polled for EPOLLPRI) and a question asked again and
 * again in v1: every millisecond after a kill, ever more slowly otherwise.  Those timers are real
 * ones: processes die in real time, also under a virtual clock.
 *
 * A group without name and limits whose tree measures nothing but time serves one job after the
 * other: freed and empty it rests with its files open until the next one has it, if it is then as
 * it was made (see worker/cgkept.h).  Peaks of memory and pids cannot be set back everywhere.
 *
 * A group that was freed otherwise belongs to the place: it is killed, waited for and removed by
 * the loop. A process in uninterruptible sleep can hold it for long, so the place gives up on
 * removing after some time; the next worker on this host ends it as that of a dead one.
 */
#include "worker/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "worker/cgdir.h"
#include "worker/cgfile.h"
#include "worker/cgkept.h"
#include "worker/cgplace.h"
#include "worker/cgvictim.h"
#include "worker/clock.h"
#include "worker/log.h"

#define NAME_ROOM     80
#define POLL_FIRST    CLOCK_MS
#define POLL_LAST     (100 * CLOCK_MS)
#define REMOVE_TRIES  200 /* about 20 seconds */
#define CLOSE_SECONDS 2
#define LASTING_MOST  64 /* groups that keep their files open */

struct cgroup_place {
	struct cgplace ground;
	struct loop *loop;
	struct list groups, resting;
	struct cgvictims victims;
	size_t count;	/* of ${groups} */
	size_t lasting; /* of both */
};

struct cgroup {
	struct list link;
	struct cgroup_place *place; /* NULL: removed, and kept for who is on the way in */
	struct cgroup_entry entry;
	size_t entering;       /* children on their way in */
	struct loop_fd events; /* v2: cgroup.events while somebody waits */
	struct cgkept kept;    /* open where it may rest */
	struct cgvictim victim;
	struct loop_timer timer;
	struct loop_work soon;
	void (*empty)(void *arg);
	void *arg;
	int64_t poll;
	unsigned trees; /* it has a directory in tree i: bit i */
	unsigned unenforced, tries;
	bool waiting, killing, freed;
	char *path;
	char name[NAME_ROOM];
};

static int open_victim(const struct cgvictim *victim);

struct cgroup_place *cgroup_open(struct loop *loop, enum cgroup_mode mode, struct err *err)
{
	struct cgroup_place *place = calloc(1, sizeof *place);
	if (place == NULL) {
		err_set(err, ENOMEM, "out of memory for control groups");
		return NULL;
	}
	if (cgplace_open(&place->ground, mode, err) == -1) {
		free(place);
		return NULL;
	}
	place->loop = loop;
	list_init(&place->groups);
	list_init(&place->resting);
	cgvictim_open(&place->victims, loop, open_victim);
	return place;
}

unsigned cgroup_can(const struct cgroup_place *place)
{
	return place->ground.can;
}

const char *cgroup_notes(const struct cgroup_place *place)
{
	return buf_head(&place->ground.notes);
}

const char *cgroup_path(const struct cgroup_place *place, size_t index)
{
	return index < place->ground.count ? place->ground.trees[index].path : NULL;
}

size_t cgroup_count(const struct cgroup_place *place)
{
	return place->count;
}

/* The group's directory in tree ${i}, opened for a moment; -1 when it has none. */
static int open_in(const struct cgroup *group, size_t i)
{
	if (!(group->trees & 1u << i))
		return -1;
	return cgdir_open(group->place->ground.trees[i].dir, group->name);
}

static int open_victim(const struct cgvictim *victim)
{
	return open_in(container_of(victim, struct cgroup, victim), 0);
}

static bool has_v2(const struct cgroup *group)
{
	return group->place->ground.trees[0].v2;
}

/* --- making one --- */

/* Make the directory in tree ${i} and the ways into it. */
static int make_in(struct cgroup *group, size_t i, const struct cgroup_limits *limits)
{
	const struct cgplace_tree *tree = &group->place->ground.trees[i];
	if (mkdirat(tree->dir, group->name, 0755) == -1)
		return -1;
	group->trees |= 1u << i;
	int dir = open_in(group, i);
	if (dir == -1)
		return -1;
	group->unenforced &= ~cgfile_limit(tree, dir, group->unenforced, limits);
	if (tree->v2) {
		group->entry.dir_fd = dir;
		return 0;
	}
	int procs = openat(dir, "cgroup.procs", O_WRONLY | O_CLOEXEC);
	close(dir);
	if (procs == -1)
		return -1;
	group->entry.procs_fd[group->entry.procs_count++] = procs;
	return 0;
}

static void close_fd(int *fd)
{
	if (*fd != -1)
		close(*fd);
	*fd = -1;
}

/* Not while somebody is on the way in: the number would soon be another file's. */
static void close_entry(struct cgroup *group)
{
	if (group->entering > 0)
		return;
	close_fd(&group->entry.dir_fd);
	while (group->entry.procs_count > 0)
		close(group->entry.procs_fd[--group->entry.procs_count]);
}

static void close_files(struct cgroup *group)
{
	close_entry(group);
	if (!cgkept_is_open(&group->kept))
		return;
	cgkept_close(&group->kept);
	group->place->lasting--;
}

static void forget(struct cgroup *group)
{
	struct cgroup_place *place = group->place;
	close_files(group);
	list_remove(&group->link);
	place->count--;
	free(group->path);
	group->path = NULL;
	group->place = NULL;
	if (group->entering == 0)
		free(group);
}

static int remove_all(const struct cgroup *group)
{
	const struct cgplace *ground = &group->place->ground;
	int failed = 0;
	for (size_t i = 0; i < ground->count; i++)
		if ((group->trees & 1u << i) &&
		    cgdir_remove(ground->trees[i].dir, group->name) == -1)
			failed = -1;
	return failed;
}

static bool needs(const struct cgroup *group, size_t i)
{
	const struct cgplace_tree *tree = &group->place->ground.trees[i];
	return tree->v2 || !has_v2(group) || (tree->can & group->unenforced);
}

/* --- one that serves many jobs --- */

static void move(struct cgroup *group, struct list *to)
{
	list_remove(&group->link);
	list_append(to, &group->link);
}

/* Without the files it serves one job, which is as good. */
static void keep_files(struct cgroup *group)
{
	if (group->place->lasting >= LASTING_MOST)
		return;
	if (cgkept_open(&group->kept, group->entry.dir_fd))
		group->place->lasting++;
}

/* One that was killed is not used again: kernels that count the kills of a group (6.14 and later)
 * compare the target's count with that of the parent's own group, and kill whoever is born into it.
 */
static bool may_rest(const struct cgroup *group)
{
	return cgkept_is_open(&group->kept) && !group->killing && group->entering == 0 &&
	       cgkept_may_rest(&group->kept, group->entry.dir_fd);
}

static void give_up(struct cgroup *group);

static struct cgroup *wake(struct cgroup_place *place)
{
	while (!list_empty(&place->resting)) {
		struct cgroup *group = container_of(place->resting.prev, struct cgroup, link);
		move(group, &place->groups);
		place->count++;
		if (cgkept_renew(&group->kept)) {
			group->freed = false;
			return group;
		}
		give_up(group);
	}
	return NULL;
}

static bool may_last(const struct cgroup_place *place, const struct cgroup_limits *limits)
{
	const struct cgplace_tree *tree = &place->ground.trees[0];
	return tree->v2 && (tree->can & CGROUP_CPU_TIME) && cgfile_asked(limits) == 0 &&
	       !(tree->can & (CGROUP_MEMORY | CGROUP_PIDS));
}

static struct cgroup *make(struct cgroup_place *place, const char *name,
			   const struct cgroup_limits *limits, bool lasts, struct err *err)
{
	struct cgroup *group = calloc(1, sizeof *group);
	size_t room = strlen(place->ground.trees[0].path) + NAME_ROOM + 2;
	char *path = malloc(room);
	if (group == NULL || path == NULL) {
		free(path);
		free(group);
		err_set(err, ENOMEM, "out of memory for a control group");
		return NULL;
	}
	group->place = place;
	group->entry.dir_fd = -1;
	group->kept = CGKEPT_NONE;
	group->unenforced = cgfile_asked(limits);
	group->path = path;
	cgplace_name(&place->ground, name, group->name, sizeof group->name);
	snprintf(path, room, "%s/%s", place->ground.trees[0].path, group->name);
	list_append(&place->groups, &group->link);
	place->count++;
	for (size_t i = 0; i < place->ground.count; i++)
		if (needs(group, i) && make_in(group, i, limits) == -1) {
			err_errno(err, "making the control group %s in %s", group->name,
				  place->ground.trees[i].path);
			(void)remove_all(group);
			forget(group);
			return NULL;
		}
	if (lasts)
		keep_files(group);
	return group;
}

struct cgroup *cgroup_create(struct cgroup_place *place, const char *name,
			     const struct cgroup_limits *limits, struct err *err)
{
	static const struct cgroup_limits unlimited = CGROUP_UNLIMITED;
	limits = limits != NULL ? limits : &unlimited;
	bool lasts = name == NULL && may_last(place, limits);
	struct cgroup *group = lasts ? wake(place) : NULL;
	if (group == NULL)
		group = make(place, name != NULL ? name : "any", limits, lasts, err);
	if (group != NULL)
		group->victim.score = limits->oom_score_adj;
	return group;
}

unsigned cgroup_unenforced(const struct cgroup *group)
{
	return group->unenforced;
}

const struct cgroup_entry *cgroup_enter(struct cgroup *group)
{
	cgkept_enter(&group->kept);
	group->entering++;
	return &group->entry;
}

void cgroup_entered(struct cgroup *group)
{
	/* who asked meanwhile may have seen it empty */
	cgkept_enter(&group->kept);
	if (!group->freed)
		cgvictim_add(&group->place->victims, &group->victim);
	if (--group->entering > 0 || group->place != NULL)
		return;
	close_entry(group);
	free(group);
}

const char *cgroup_path_of(const struct cgroup *group)
{
	return group->path;
}

/* --- usage --- */

void cgroup_usage(struct cgroup *group, struct cgroup_usage *usage)
{
	const struct cgplace *ground = &group->place->ground;
	*usage = (struct cgroup_usage){-1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
	if (cgkept_is_open(&group->kept)) {
		cgkept_usage(&group->kept, usage);
		return;
	}
	for (size_t i = 0; i < ground->count; i++) {
		const struct cgplace_tree *tree = &ground->trees[i];
		int dir = open_in(group, i);
		if (dir == -1)
			continue;
		cgfile_usage(tree, dir, usage);
		close(dir);
	}
}

/* --- ending --- */

bool cgroup_populated(struct cgroup *group)
{
	int told = cgkept_is_open(&group->kept) ? cgkept_populated(&group->kept) : -1;
	bool lives = false;
	if (told != -1)
		return told == 1;
	/* Where there is a v2 group it holds everybody. */
	size_t count = has_v2(group) ? 1 : group->place->ground.count;
	for (size_t i = 0; i < count && !lives; i++) {
		int dir = open_in(group, i);
		if (dir == -1)
			continue;
		lives = cgdir_populated(dir);
		close(dir);
	}
	return lives;
}

size_t cgroup_signal(const struct cgroup *group, int signo)
{
	int dir = open_in(group, 0);
	if (dir == -1)
		return 0;
	size_t found = cgdir_signal(dir, signo);
	close(dir);
	return found;
}

static void kill_pass(struct cgroup *group)
{
	const struct cgplace *ground = &group->place->ground;
	/* All trees: a job that is root may have left one of them. */
	for (size_t i = 0; i < ground->count; i++) {
		int dir = open_in(group, i);
		if (dir == -1)
			continue;
		(void)cgdir_kill(dir);
		close(dir);
	}
}

static void poll_again(struct cgroup *group);

void cgroup_kill(struct cgroup *group)
{
	group->killing = true;
	kill_pass(group);
	group->poll = POLL_FIRST;
	bool watched = group->events.registered && (cgroup_can(group->place) & CGROUP_KILL);
	if (group->waiting && !watched)
		poll_again(group);
}

static void wait_end(struct cgroup *group)
{
	struct loop *loop = group->place->loop;
	if (!group->waiting)
		return;
	group->waiting = false;
	loop_outside(loop, -1);
	loop_timer_stop(loop, &group->timer);
	loop_defer_cancel(&group->soon);
	if (group->events.registered) {
		int fd = group->events.fd;
		loop_fd_del(loop, &group->events);
		close(fd);
	}
}

static void is_empty(struct cgroup *group)
{
	wait_end(group);
	void (*empty)(void *arg) = group->empty;
	group->empty = NULL;
	if (empty != NULL)
		empty(group->arg);
}

static void poll_due(void *arg)
{
	struct cgroup *group = arg;
	if (!cgroup_populated(group)) {
		is_empty(group);
		return;
	}
	if (group->killing)
		kill_pass(group);
	poll_again(group);
}

static void poll_again(struct cgroup *group)
{
	int64_t ns = group->poll;
	group->poll = ns * 2 < POLL_LAST ? ns * 2 : POLL_LAST;
	/* Out of memory for a timer: asked again in the next turn, at worst a busy loop. */
	if (loop_timer_start_real(group->place->loop, &group->timer, ns, poll_due, group) == -1)
		loop_defer(group->place->loop, &group->soon, poll_due, group);
}

static void events_ready(void *arg, uint32_t events)
{
	struct cgroup *group = arg;
	char text[256];
	(void)events;
	/* Reading is what arms the next event. */
	(void)!pread(group->events.fd, text, sizeof text, 0);
	if (!cgroup_populated(group))
		is_empty(group);
}

/* v2 tells; the poll stays only where the kill has to be repeated. */
static bool watch_events(struct cgroup *group)
{
	struct loop *loop = group->place->loop;
	if (!has_v2(group))
		return false;
	int dir = open_in(group, 0);
	int fd = dir == -1 ? -1 : openat(dir, "cgroup.events", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	close_fd(&dir);
	if (fd == -1)
		return false;
	if (loop_fd_add(loop, &group->events, fd, EPOLLPRI, events_ready, group, NULL) == -1) {
		close(fd);
		return false;
	}
	return true;
}

void cgroup_wait(struct cgroup *group, void (*empty)(void *arg), void *arg)
{
	wait_end(group);
	group->empty = empty;
	group->arg = arg;
	if (empty == NULL)
		return;
	group->waiting = true;
	group->poll = POLL_FIRST;
	loop_outside(group->place->loop, 1);
	/* Watch first, ask then: what happens in between is an event. */
	bool told = watch_events(group);
	if (!cgroup_populated(group))
		loop_defer(group->place->loop, &group->soon, poll_due, group);
	else if (!told || (group->killing && !(cgroup_can(group->place) & CGROUP_KILL)))
		poll_again(group);
}

/* Freed and empty: remove it, again and again while the kernel says it is still busy. */
static void removal_due(void *arg)
{
	struct cgroup *group = arg;
	struct loop *loop = group->place->loop;
	group->killing = group->killing || cgroup_populated(group);
	if (remove_all(group) == 0) {
		forget(group);
		return;
	}
	int why = errno;
	if (group->killing)
		kill_pass(group);
	bool again = group->tries++ < REMOVE_TRIES;
	group->poll = group->poll * 2 < POLL_LAST ? group->poll * 2 : POLL_LAST;
	if (again &&
	    loop_timer_start_real(loop, &group->timer, group->poll, removal_due, group) == 0)
		return;
	log_at(LOG_LEVEL_WARN, "cgroup.stuck",
	       "control group %s cannot be removed: %s; left behind", group->path, strerror(why));
	forget(group);
}

static void freed_empty(void *arg)
{
	struct cgroup *group = arg;
	group->poll = POLL_FIRST;
	removal_due(group);
}

/* The usual end: the kernel removes a group that nobody lives in, and only such a one. */
static void give_up(struct cgroup *group)
{
	close_files(group);
	if (remove_all(group) == 0) {
		forget(group);
		return;
	}
	cgroup_kill(group);
	cgroup_wait(group, freed_empty, group);
}

void cgroup_free(struct cgroup *group)
{
	if (group == NULL || group->freed)
		return;
	group->freed = true;
	cgvictim_remove(&group->place->victims, &group->victim);
	cgroup_wait(group, NULL, NULL);
	if (may_rest(group)) {
		move(group, &group->place->resting);
		group->place->count--;
		return;
	}
	give_up(group);
}

void cgroup_close(struct cgroup_place *place)
{
	int64_t end = clock_real() + CLOSE_SECONDS * CLOCK_SECOND;
	while (!list_empty(&place->resting)) {
		struct cgroup *group = container_of(place->resting.next, struct cgroup, link);
		move(group, &place->groups);
		place->count++;
	}
	struct list *node = place->groups.next;
	while (node != &place->groups) {
		struct cgroup *group = container_of(node, struct cgroup, link);
		node = node->next;
		group->freed = true;
		cgvictim_remove(&place->victims, &group->victim);
		cgroup_wait(group, NULL, NULL);
		loop_timer_stop(place->loop, &group->timer);
		cgroup_kill(group);
		while (remove_all(group) == -1 && clock_real() < end) {
			nanosleep(&(struct timespec){.tv_nsec = CLOCK_MS}, NULL);
			kill_pass(group);
		}
		forget(group);
	}
	cgplace_close(&place->ground);
	free(place);
}
