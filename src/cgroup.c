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
 * A group that was freed belongs to the place: it is killed, waited for and removed by the loop.
 * A process in uninterruptible sleep can hold it for long, so the place gives up on removing after
 * some time; the next worker on this host ends it as that of a dead one.
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
#include "worker/cgplace.h"
#include "worker/clock.h"
#include "worker/log.h"

#define NAME_ROOM     80
#define CPU_PERIOD    100000 /* microseconds, the kernel's default */
#define POLL_FIRST    CLOCK_MS
#define POLL_LAST     (100 * CLOCK_MS)
#define REMOVE_TRIES  200 /* about 20 seconds */
#define CLOSE_SECONDS 2

struct cgroup_place {
	struct cgplace ground;
	struct loop *loop;
	struct list groups;
	size_t count;
	uint64_t serial;
};

struct cgroup {
	struct list link;
	struct cgroup_place *place;
	struct cgroup_entry entry;
	struct loop_fd events; /* v2: cgroup.events while somebody waits */
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

static bool has_v2(const struct cgroup *group)
{
	return group->place->ground.trees[0].v2;
}

/* --- making one --- */

/* Limits are written into the tree that was opened for them; one that cannot be written is told. */
static bool set_memory(int dir, bool v2, int64_t bytes)
{
	if (!v2)
		return cgdir_write_number(dir, "memory.limit_in_bytes", bytes) == 0;
	(void)cgdir_write(dir, "memory.oom.group", "1");
	return cgdir_write_number(dir, "memory.max", bytes) == 0;
}

/* v1 counts memory and swap together. */
static bool set_swap(int dir, bool v2, int64_t memory, int64_t swap)
{
	if (v2)
		return cgdir_write_number(dir, "memory.swap.max", swap) == 0;
	if (memory < 0 || swap > INT64_MAX - memory)
		return false;
	return cgdir_write_number(dir, "memory.memsw.limit_in_bytes", memory + swap) == 0;
}

static bool set_cpus(int dir, bool v2, int64_t thousandths)
{
	char text[64];
	int64_t quota = thousandths * (CPU_PERIOD / 1000);
	if (quota < 1000) /* the kernel takes no less than a millisecond */
		quota = 1000;
	if (!v2)
		return cgdir_write_number(dir, "cpu.cfs_period_us", CPU_PERIOD) == 0 &&
		       cgdir_write_number(dir, "cpu.cfs_quota_us", quota) == 0;
	snprintf(text, sizeof text, "%lld %d", (long long)quota, CPU_PERIOD);
	return cgdir_write(dir, "cpu.max", text) == 0;
}

static unsigned asked_for(const struct cgroup_limits *limits)
{
	return (limits->memory >= 0 ? CGROUP_MEMORY : 0u) | (limits->swap >= 0 ? CGROUP_SWAP : 0u) |
	       (limits->cpus >= 0 ? CGROUP_CPU : 0u) | (limits->pids >= 0 ? CGROUP_PIDS : 0u);
}

/* Set what tree ${tree} can of ${wanted}; returns the bits that were set. */
static unsigned set_limits(const struct cgplace_tree *tree, int dir, unsigned wanted,
			   const struct cgroup_limits *limits)
{
	unsigned set = 0;
	wanted &= tree->can;
	if ((wanted & CGROUP_MEMORY) && set_memory(dir, tree->v2, limits->memory))
		set |= CGROUP_MEMORY;
	if ((wanted & CGROUP_SWAP) && set_swap(dir, tree->v2, limits->memory, limits->swap))
		set |= CGROUP_SWAP;
	if ((wanted & CGROUP_CPU) && set_cpus(dir, tree->v2, limits->cpus))
		set |= CGROUP_CPU;
	if ((wanted & CGROUP_PIDS) && cgdir_write_number(dir, "pids.max", limits->pids) == 0)
		set |= CGROUP_PIDS;
	return set;
}

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
	group->unenforced &= ~set_limits(tree, dir, group->unenforced, limits);
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

/* Names of jobs are other people's; the kernel's own files are kept apart by the prefix. */
static void fit_name(struct cgroup *group, const char *name)
{
	char fit[48];
	size_t n = 0;
	for (; name[n] != 0 && n + 1 < sizeof fit; n++) {
		bool plain = (name[n] >= 'a' && name[n] <= 'z') ||
			     (name[n] >= 'A' && name[n] <= 'Z') ||
			     (name[n] >= '0' && name[n] <= '9') || name[n] == '-' || name[n] == '_';
		fit[n] = name[n];
		if (!plain)
			fit[n] = '_';
	}
	fit[n] = 0;
	snprintf(group->name, sizeof group->name, "job-%s-%llu", fit,
		 (unsigned long long)++group->place->serial);
}

static void forget(struct cgroup *group)
{
	struct cgroup_place *place = group->place;
	cgroup_entry_close(group);
	list_remove(&group->link);
	place->count--;
	free(group->path);
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

struct cgroup *cgroup_create(struct cgroup_place *place, const char *name,
			     const struct cgroup_limits *limits, struct err *err)
{
	static const struct cgroup_limits unlimited = CGROUP_UNLIMITED;
	struct cgroup *group = calloc(1, sizeof *group);
	size_t room = strlen(place->ground.trees[0].path) + NAME_ROOM + 2;
	char *path = malloc(room);
	if (group == NULL || path == NULL) {
		free(path);
		free(group);
		err_set(err, ENOMEM, "out of memory for a control group");
		return NULL;
	}
	limits = limits != NULL ? limits : &unlimited;
	group->place = place;
	group->entry.dir_fd = -1;
	group->unenforced = asked_for(limits);
	group->path = path;
	fit_name(group, name);
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
	return group;
}

unsigned cgroup_unenforced(const struct cgroup *group)
{
	return group->unenforced;
}

const struct cgroup_entry *cgroup_entry(const struct cgroup *group)
{
	return &group->entry;
}

static void close_fd(int *fd)
{
	if (*fd != -1)
		close(*fd);
	*fd = -1;
}

void cgroup_entry_close(struct cgroup *group)
{
	close_fd(&group->entry.dir_fd);
	while (group->entry.procs_count > 0)
		close(group->entry.procs_fd[--group->entry.procs_count]);
}

const char *cgroup_path_of(const struct cgroup *group)
{
	return group->path;
}

/* --- usage --- */

static int64_t times(int64_t number, int64_t factor)
{
	return number < 0 ? -1 : number * factor;
}

static void usage_cpu_time(int dir, bool v2, struct cgroup_usage *usage)
{
	char text[1024];
	if (v2) {
		if (cgdir_read(dir, "cpu.stat", text, sizeof text) == -1)
			return;
		usage->cpu_ns = times(cgdir_find(text, "usage_usec"), 1000);
		usage->cpu_user_ns = times(cgdir_find(text, "user_usec"), 1000);
		usage->cpu_system_ns = times(cgdir_find(text, "system_usec"), 1000);
		usage->throttled_ns = times(cgdir_find(text, "throttled_usec"), 1000);
		return;
	}
	usage->cpu_ns = cgdir_number(dir, "cpuacct.usage");
	usage->cpu_user_ns = cgdir_number(dir, "cpuacct.usage_user");
	usage->cpu_system_ns = cgdir_number(dir, "cpuacct.usage_sys");
}

static void usage_memory(int dir, bool v2, struct cgroup_usage *usage)
{
	usage->memory = cgdir_number(dir, v2 ? "memory.current" : "memory.usage_in_bytes");
	usage->memory_peak = cgdir_number(dir, v2 ? "memory.peak" : "memory.max_usage_in_bytes");
	usage->oom_kills =
		cgdir_field(dir, v2 ? "memory.events" : "memory.oom_control", "oom_kill");
}

static void usage_pids(int dir, struct cgroup_usage *usage)
{
	usage->pids = cgdir_number(dir, "pids.current");
	usage->pids_peak = cgdir_number(dir, "pids.peak");
	usage->pids_refused = cgdir_field(dir, "pids.events", "max");
}

void cgroup_usage(const struct cgroup *group, struct cgroup_usage *usage)
{
	const struct cgplace *ground = &group->place->ground;
	*usage = (struct cgroup_usage){-1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
	for (size_t i = 0; i < ground->count; i++) {
		const struct cgplace_tree *tree = &ground->trees[i];
		int dir = open_in(group, i);
		if (dir == -1)
			continue;
		if (tree->can & CGROUP_CPU_TIME)
			usage_cpu_time(dir, tree->v2, usage);
		if (tree->can & CGROUP_MEMORY)
			usage_memory(dir, tree->v2, usage);
		if (tree->can & CGROUP_PIDS)
			usage_pids(dir, usage);
		if ((tree->can & CGROUP_CPU) && !tree->v2)
			usage->throttled_ns = cgdir_field(dir, "cpu.stat", "throttled_time");
		close(dir);
	}
}

/* --- ending --- */

bool cgroup_populated(const struct cgroup *group)
{
	bool lives = false;
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

void cgroup_free(struct cgroup *group)
{
	if (group == NULL || group->freed)
		return;
	group->freed = true;
	cgroup_entry_close(group);
	cgroup_wait(group, NULL, NULL);
	/* The usual end: the kernel removes a group that nobody lives in, and only such a one. */
	if (remove_all(group) == 0) {
		forget(group);
		return;
	}
	cgroup_kill(group);
	cgroup_wait(group, freed_empty, group);
}

void cgroup_close(struct cgroup_place *place)
{
	int64_t end = clock_real() + CLOSE_SECONDS * CLOCK_SECOND;
	struct list *node = place->groups.next;
	while (node != &place->groups) {
		struct cgroup *group = container_of(node, struct cgroup, link);
		node = node->next;
		group->freed = true;
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
