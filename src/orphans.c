/* orphans.c -- adopted processes, and the kill of a tree without control groups.  Floor 3.
 *
 * A child of ours and an adopted one look alike to wait(2).  So the pids that somebody else waits
 * for are in a table, and the reaper takes only the others.  Two subtleties:
 *
 *	A child can be dead before whoever cloned it has its pid in the table.  A hold, open from
 *	before the clone until the pid is in, postpones reaping; the last one to end sends us the
 *	SIGCHLD that was put off.
 *
 *	waitid(P_ALL, WNOWAIT) shows the same zombie again and again until it is reaped, and an
 *	owned one is reaped when its owner likes.  Behind it we ask our children one by one; the
 *	kernel lists them per thread.
 *
 * The table is static because what it describes is: wait(2), the subreaper bit and SIGCHLD exist
 * once per process, whatever number of loops there is.  A mutex guards it, as children are also
 * cloned from helper threads.
 */
#include "worker/orphans.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/cgdir.h"
#include "worker/clock.h"
#include "worker/proctree.h"

#define PAUSE_FIRST CLOCK_MS
#define PAUSE_LAST  (100 * CLOCK_MS)
#define REAP_AFTER  (20 * CLOCK_MS)

enum { OURS = 1, MEANT = 2 };

static struct {
	pthread_mutex_t lock;
	pid_t *owned;
	size_t count, room, holds;
	bool put_off; /* a SIGCHLD came while there was a hold */

	/* From here on only the loop's thread. */
	struct loop *loop;
	struct loop_fd deaths; /* a signalfd of SIGCHLD alone */
	struct loop_timer soon;
	struct list trees;
	uint64_t reaped, random, serial;
	size_t adopted; /* while they are being counted */
	bool listed;	/* the kernel lists the children of a thread */
	bool opened;
	bool foreign; /* there were children before us */
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* --- who is owned --- */

static size_t find_owned(pid_t pid)
{
	size_t i = 0;
	while (i < table.count && table.owned[i] != pid)
		i++;
	return i;
}

static bool is_owned(pid_t pid)
{
	pthread_mutex_lock(&table.lock);
	bool owned = find_owned(pid) < table.count;
	pthread_mutex_unlock(&table.lock);
	return owned;
}

int orphans_hold(struct err *err)
{
	int result = 0;
	pthread_mutex_lock(&table.lock);
	if (table.count + table.holds >= table.room) {
		size_t room = table.room ? table.room * 2 : 64;
		pid_t *owned = realloc(table.owned, room * sizeof *owned);
		if (owned == NULL)
			result = err_set(err, ENOMEM, "out of memory for another child");
		else {
			table.owned = owned;
			table.room = room;
		}
	}
	if (result == 0)
		table.holds++;
	pthread_mutex_unlock(&table.lock);
	return result;
}

void orphans_own(pid_t pid)
{
	pthread_mutex_lock(&table.lock);
	if (table.count < table.room && find_owned(pid) == table.count)
		table.owned[table.count++] = pid;
	pthread_mutex_unlock(&table.lock);
}

void orphans_release(void)
{
	pthread_mutex_lock(&table.lock);
	bool last = --table.holds == 0 && table.put_off;
	if (last)
		table.put_off = false;
	pthread_mutex_unlock(&table.lock);
	if (last)
		kill(getpid(), SIGCHLD);
}

void orphans_disown(pid_t pid)
{
	pthread_mutex_lock(&table.lock);
	size_t i = find_owned(pid);
	if (i < table.count)
		table.owned[i] = table.owned[--table.count];
	pthread_mutex_unlock(&table.lock);
}

size_t orphans_owned(void)
{
	pthread_mutex_lock(&table.lock);
	size_t count = table.count;
	pthread_mutex_unlock(&table.lock);
	return count;
}

uint64_t orphans_reaped(void)
{
	return table.reaped;
}

/* --- reaping --- */

static void reap(pid_t pid)
{
	siginfo_t info = {.si_pid = 0};
	if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG) == 0 && info.si_pid == pid)
		table.reaped++;
}

/* Call ${visit} for every child in the list of one thread; returns how many there were. */
static size_t each_child(const char *tid, void (*visit)(pid_t pid))
{
	char path[300], text[1024];
	size_t found = 0;
	pid_t pid = 0;
	snprintf(path, sizeof path, "/proc/self/task/%s/children", tid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;
	while (fd != -1 && (n = read(fd, text, sizeof text)) > 0) {
		for (ssize_t i = 0; i < n; i++) {
			if (text[i] != ' ') {
				pid = pid * 10 + (text[i] - '0');
				continue;
			}
			found++;
			if (visit != NULL)
				visit(pid);
			pid = 0;
		}
	}
	if (fd != -1)
		close(fd);
	return found;
}

static size_t each_child_of_all(void (*visit)(pid_t pid))
{
	size_t found = 0;
	DIR *tasks = opendir("/proc/self/task");
	const struct dirent *entry;
	while (tasks != NULL && (entry = readdir(tasks)) != NULL)
		if (entry->d_name[0] != '.')
			found += each_child(entry->d_name, visit);
	if (tasks != NULL)
		closedir(tasks);
	return found;
}

/* To be asked after a zombie was seen: with no hold now, it is in the table or it is nobody's.  A
 * hold that begins later is for a child that is not the one we saw. */
static bool must_wait(void)
{
	pthread_mutex_lock(&table.lock);
	bool wait = table.holds > 0;
	table.put_off = table.put_off || wait;
	pthread_mutex_unlock(&table.lock);
	return wait;
}

static void reap_unowned(pid_t pid)
{
	siginfo_t info = {.si_pid = 0};
	if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
	    info.si_pid == pid && !must_wait() && !is_owned(pid))
		reap(pid);
}

static void reap_strangers(void *arg)
{
	(void)arg;
	for (;;) {
		siginfo_t info = {.si_pid = 0};
		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == -1 || info.si_pid == 0)
			return;
		if (must_wait())
			return;
		if (is_owned(info.si_pid))
			break;
		reap(info.si_pid);
	}
	/* The kernel gives orphans to our first thread, so only its list is asked: what the other
	 * threads have cloned is owned. */
	char tid[16];
	snprintf(tid, sizeof tid, "%d", (int)getpid());
	each_child(tid, reap_unowned);
}

/* Taken back first: who dies from now on is a new event. */
static void look_due(void *arg)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	(void)sigtimedwait(&set, NULL, &(struct timespec){.tv_sec = 0});
	reap_strangers(arg);
}

/* Nearly every signal is for a child that somebody waits for.  A zombie can lie there for a moment;
 * so there is one look at all of them for the many that end within that time.  Until then the
 * signal stays pending, and while it is pending others like it are nothing to the kernel, nor to
 * us. */
static void child_died(void *arg, uint32_t events)
{
	(void)events;
	if (loop_timer_running(&table.soon))
		return;
	if (loop_timer_start_real(table.loop, &table.soon, REAP_AFTER, look_due, NULL) == -1)
		look_due(arg);
}

/* Watched for changes: a pending signal would come up turn after turn. */
static int watch_deaths(struct loop *loop, struct err *err)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd == -1)
		return err_errno(err, "signalfd");
	if (loop_fd_add(loop, &table.deaths, fd, EPOLLIN | EPOLLET, child_died, NULL, err) == -1) {
		close(fd);
		return -1;
	}
	loop_fd_standing(loop, &table.deaths);
	return 0;
}

int orphans_open(struct loop *loop, struct err *err)
{
	if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == -1)
		return err_errno(err, "becoming the reaper of what jobs leave behind");
	if (!table.deaths.registered && watch_deaths(loop, err) == -1)
		return -1;
	table.loop = loop;
	if (!table.opened)
		table.foreign = each_child_of_all(NULL) > orphans_owned();
	table.opened = true;
	if (!list_linked(&table.trees))
		list_init(&table.trees);
	reap_strangers(NULL); /* those that died before we listened */
	return 0;
}

void orphans_close(void)
{
	if (table.loop != NULL)
		loop_timer_stop(table.loop, &table.soon);
	if (table.deaths.registered) {
		loop_fd_forget(table.loop, &table.deaths);
		close(table.deaths.fd);
	}
	table.loop = NULL;
	pthread_mutex_lock(&table.lock);
	if (table.count + table.holds == 0) {
		free(table.owned);
		table.owned = NULL;
		table.room = 0;
	}
	pthread_mutex_unlock(&table.lock);
}

static void count_unowned(pid_t pid)
{
	table.adopted += !is_owned(pid);
}

/* The kernel gives the children of the dead to our first thread; what we clone ourselves from other
 * threads is not in its list.  A kernel without such lists has to be believed to have adopted. */
bool orphans_adopted(void)
{
	char tid[16], path[64];
	snprintf(tid, sizeof tid, "%d", (int)getpid());
	table.adopted = 0;
	each_child(tid, count_unowned);
	if (table.adopted > 0 || table.listed)
		return table.adopted > 0;
	snprintf(path, sizeof path, "/proc/self/task/%s/children", tid);
	table.listed = access(path, R_OK) == 0;
	return !table.listed;
}

/* --- trees without control groups --- */

static uint64_t worker_random(void)
{
	if (table.random == 0)
		(void)!getrandom(&table.random, sizeof table.random, 0);
	return table.random;
}

/* A worker that is itself the job of another one: its tags begin with the tag it has, so that who
 * ends it finds its jobs, too. */
static const char *outer_tag(void)
{
	const char *tag = getenv(ORPHANS_TAG);
	size_t n = tag != NULL ? strlen(tag) : 0;
	bool ours = n > 0 && n < ORPHANS_TAG_SIZE / 2 && tag[n - 1] == '.' &&
		    strspn(tag, "0123456789abcdef.") == n;
	return ours ? tag : "";
}

void orphans_tag_all(char out[ORPHANS_TAG_SIZE])
{
	snprintf(out, ORPHANS_TAG_SIZE, ORPHANS_TAG "=%s%016llx.", outer_tag(),
		 (unsigned long long)worker_random());
}

void orphans_tag(char out[ORPHANS_TAG_SIZE])
{
	/* The dot at the end keeps job 1 apart from job 12. */
	snprintf(out, ORPHANS_TAG_SIZE, ORPHANS_TAG "=%s%016llx.%llu.", outer_tag(),
		 (unsigned long long)worker_random(), (unsigned long long)++table.serial);
}

void orphans_tree_open(struct orphans_tree *tree, struct loop *loop, pid_t leader, const char *tag)
{
	tree->loop = loop;
	tree->leader = leader;
	tree->start = proctree_start(leader);
	snprintf(tree->tag, sizeof tree->tag, "%s", tag != NULL ? tag : "");
	if (!list_linked(&table.trees))
		list_init(&table.trees);
	list_append(&table.trees, &tree->link);
}

void orphans_tree_stop(struct orphans_tree *tree)
{
	if (!tree->waiting)
		return;
	tree->waiting = false;
	loop_timer_stop(tree->loop, &tree->timer);
	loop_outside(tree->loop, -1);
}

void orphans_tree_close(struct orphans_tree *tree)
{
	orphans_tree_stop(tree);
	list_remove(&tree->link);
}

static bool in_our_group(pid_t pid)
{
	char path[64], ours[4096], theirs[4096];
	snprintf(path, sizeof path, "/proc/%d/cgroup", (int)pid);
	return cgdir_read(AT_FDCWD, "/proc/self/cgroup", ours, sizeof ours) != -1 &&
	       cgdir_read(AT_FDCWD, path, theirs, sizeof theirs) != -1 && strcmp(ours, theirs) == 0;
}

/* After the snapshot was taken: a hold means that one of the children may be somebody's. */
static void mark_adopted(struct proctree *all)
{
	pthread_mutex_lock(&table.lock);
	bool held = table.holds > 0;
	pthread_mutex_unlock(&table.lock);
	if (held)
		return;
	for (size_t i = 0; i < all->count; i++) {
		struct proctree_process *process = &all->list[i];
		if (process->parent == getpid() && !(process->marks & MEANT) &&
		    !is_owned(process->pid) && in_our_group(process->pid))
			process->marks |= MEANT;
	}
}

size_t orphans_tree_signal(struct orphans_tree *tree, int signo)
{
	struct proctree all = {.list = NULL};
	size_t found = 0;
	if (proctree_read(&all) == 0) {
		struct proctree_process *self = proctree_find(&all, getpid());
		if (self != NULL)
			self->marks = OURS;
		proctree_spread(&all, OURS);
		proctree_mark_session(&all, tree->leader, tree->start, OURS, MEANT);
		proctree_spread(&all, MEANT);
		if (tree->tag[0] != 0)
			proctree_mark_tag(&all, tree->tag, OURS, MEANT);
		if (!table.foreign && table.trees.next == table.trees.prev)
			mark_adopted(&all);
		proctree_spread(&all, MEANT);
		found = proctree_signal(&all, MEANT, signo);
	}
	proctree_free(&all);
	return found;
}

static void kill_pass(void *arg)
{
	struct orphans_tree *tree = arg;
	if (orphans_tree_signal(tree, SIGKILL) == 0) {
		orphans_tree_stop(tree);
		tree->gone(tree->arg);
		return;
	}
	tree->pause = tree->pause * 2 < PAUSE_LAST ? tree->pause * 2 : PAUSE_LAST;
	/* Real time: processes do not die faster under a virtual clock. */
	if (loop_timer_start_real(tree->loop, &tree->timer, tree->pause, kill_pass, tree) == 0)
		return;
	orphans_tree_stop(tree);
	tree->gone(tree->arg);
}

void orphans_tree_kill(struct orphans_tree *tree, void (*gone)(void *arg), void *arg)
{
	orphans_tree_stop(tree);
	tree->gone = gone;
	tree->arg = arg;
	tree->pause = PAUSE_FIRST;
	orphans_tree_signal(tree, SIGKILL);
	if (loop_timer_start_real(tree->loop, &tree->timer, tree->pause, kill_pass, tree) == -1) {
		kill_pass(tree);
		return;
	}
	tree->waiting = true;
	loop_outside(tree->loop, 1);
}
