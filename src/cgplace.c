/* cgplace.c -- where this worker's control groups are, and what they can do there.  Floor 3.
 *
 * Three texts of the kernel together give the place: /proc/self/cgroup says in which group we are,
 * per hierarchy; /proc/self/mountinfo says where that hierarchy is mounted, and from which group
 * on (a container sees a part).  Whether we may make groups there is found out by making one:
 * permission bits, read-only mounts, namespaces and security modules all have their say, and mkdir
 * asks them all.
 *
 * In the v2 tree a group with processes cannot hand controllers down.  If our group was
 * delegated to us, or holds nobody but us, we move into a leaf and switch the controllers on; if
 * others live in it, we leave it alone and say so.
 *
 * Groups of dead workers are recognised twice: the process in their name is not alive, and their
 * lock is free.  The name alone would be wrong across pid namespaces, the lock alone in the moment
 * between making a group and locking it.
 */
#include "worker/cgplace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "worker/cgdir.h"
#include "worker/proctree.h"

#define TEXT_CEILING   (256 * 1024)
#define STALE_PATIENCE 200 /* milliseconds for the groups of one dead worker */

static const struct controller {
	const char *name;
	unsigned v2, v1;
} controllers[] = {
	{"memory", CGROUP_MEMORY | CGROUP_SWAP | CGROUP_OOM_GROUP, CGROUP_MEMORY | CGROUP_SWAP},
	{"pids", CGROUP_PIDS, CGROUP_PIDS},
	{"cpu", CGROUP_CPU, CGROUP_CPU},
	{"cpuacct", 0, CGROUP_CPU_TIME},
};
#define CONTROLLERS (sizeof controllers / sizeof *controllers)

#define note(place, ...) ((void)buf_printf(&(place)->notes, __VA_ARGS__))

/* --- reading the kernel's texts --- */

static char *read_text(const char *path)
{
	char *text = malloc(TEXT_CEILING);
	if (text != NULL && cgdir_read(AT_FDCWD, path, text, TEXT_CEILING) == -1) {
		free(text);
		return NULL;
	}
	return text;
}

/* Is ${word} one of the words of ${text}, which are separated by commas? */
static bool listed(const char *text, const char *word)
{
	size_t n = strlen(word);
	for (const char *at = text; (at = strstr(at, word)) != NULL; at += n)
		if ((at == text || at[-1] == ',') && (at[n] == 0 || at[n] == ','))
			return true;
	return false;
}

/* The group we are in, in the hierarchy of ${controller} ("" for v2), cut out of ${text}. */
static bool own_group(const char *text, const char *controller, char *out, size_t room)
{
	char names[256], path[3072];
	int n = 0;
	for (const char *at = text; *at != 0; at += n) {
		names[0] = 0;
		n = 0;
		if (sscanf(at, "%*d:%255[^:\n]:%3071[^\n]\n%n", names, path, &n) < 2)
			if (sscanf(at, "%*d::%3071[^\n]\n%n", path, &n) < 1)
				return false;
		if (n == 0)
			n = (int)strlen(at);
		bool wanted = *controller ? listed(names, controller) : names[0] == 0;
		if (wanted) {
			snprintf(out, room, "%s", path);
			return true;
		}
	}
	return false;
}

struct mount {
	char root[1024], point[1024];
};

/* Where the hierarchy of ${controller} ("" for v2) is mounted. */
static bool find_mount(const char *text, const char *controller, struct mount *out)
{
	const char *type = *controller ? "cgroup" : "cgroup2";
	char kind[32], options[256];
	for (const char *at = text; at != NULL && *at != 0; at = strchr(at, '\n')) {
		at += *at == '\n';
		const char *dash = strstr(at, " - ");
		if (dash == NULL)
			return false;
		if (sscanf(at, "%*d %*d %*s %1023s %1023s", out->root, out->point) < 2)
			continue;
		options[0] = 0;
		if (sscanf(dash, " - %31s %*s %255s", kind, options) < 1)
			continue;
		if (strcmp(kind, type) == 0 && (!*controller || listed(options, controller)))
			return true;
	}
	return false;
}

/* The directory of our group: the mount may begin at a group of its own. */
static bool own_directory(const char *groups, const char *mounts, const char *controller, char *out,
			  size_t room)
{
	char group[3072];
	struct mount mount;
	if (!own_group(groups, controller, group, sizeof group) ||
	    !find_mount(mounts, controller, &mount))
		return false;
	const char *below = group;
	size_t n = strlen(mount.root);
	if (n > 1 && strncmp(group, mount.root, n) == 0)
		below += n;
	if (strncmp(below, "/..", 3) == 0 || strcmp(below, "/") == 0)
		below = "";
	snprintf(out, room, "%s%s", mount.point, below);
	if (access(out, F_OK) == -1) /* named from outside a container: the mount is what we have */
		snprintf(out, room, "%s", mount.point);
	return true;
}

/* --- groups of dead workers --- */

static void end_stale(int parent, const char *name, void *arg)
{
	const struct cgplace *place = arg;
	int pid, used = 0;
	unsigned long long start;
	if (sscanf(name, "worker-%d-%llu-%*x%n", &pid, &start, &used) != 2 || name[used] != 0 ||
	    strcmp(name, place->name) == 0 || proctree_start(pid) == start)
		return;
	int dir = cgdir_open(parent, name);
	if (dir == -1)
		return;
	if (flock(dir, LOCK_EX | LOCK_NB) == 0)
		cgdir_end(parent, name, STALE_PATIENCE);
	close(dir);
}

/* --- our own group --- */

static void tree_close(struct cgplace_tree *tree)
{
	if (tree->dir != -1)
		close(tree->dir);
	if (tree->parent != -1)
		close(tree->parent);
	if (tree->gate != -1)
		close(tree->gate);
	free(tree->path);
}

/* Everything below our group, and the group. */
static void tree_end(const struct cgplace *place, struct cgplace_tree *tree)
{
	(void)cgdir_end(tree->parent, place->name, 0);
	if (tree->moved)
		(void)cgdir_leave(tree->parent, place->name);
	tree_close(tree);
}

static const char *hint(int code)
{
	switch (code) {
	case EROFS:
		return " (mounted read-only, as in a container: give it --cgroupns=private and a "
		       "writable /sys/fs/cgroup)";
	case EACCES:
	case EPERM:
		return " (not permitted: run as a service with Delegate=yes, or below "
		       "systemd-run --user --scope -p Delegate=yes)";
	default:
		return "";
	}
}

static int tree_open(struct cgplace *place, struct cgplace_tree *tree, const char *path)
{
	size_t room = strlen(path) + sizeof place->name + 2;
	*tree = (struct cgplace_tree){.dir = -1, .gate = -1, .parent = cgdir_open(AT_FDCWD, path)};
	tree->path = malloc(room);
	if (tree->path != NULL && tree->parent != -1) {
		snprintf(tree->path, room, "%s/%s", path, place->name);
		cgdir_each(tree->parent, end_stale, place);
		if (mkdirat(tree->parent, place->name, 0755) == 0 || errno == EEXIST)
			tree->dir = cgdir_open(tree->parent, place->name);
	}
	if (tree->dir != -1 && flock(tree->dir, LOCK_EX | LOCK_NB) == 0)
		return 0;
	int why = errno;
	note(place, "no control group can be made below %s: %s%s\n", path, strerror(why),
	     hint(why));
	tree_close(tree);
	return -1;
}

/* --- v2: handing controllers down --- */

/* May we move everybody out of ${dir}?  Yes where systemd marked it as delegated, and where we are
 * alone in it. */
static bool group_is_ours(int dir)
{
	char text[64], self[16];
	if (fgetxattr(dir, "user.delegate", text, sizeof text) > 0 && text[0] == '1')
		return true;
	snprintf(self, sizeof self, "%d\n", (int)getpid());
	return cgdir_read(dir, "cgroup.procs", text, sizeof text) > 0 && strcmp(text, self) == 0;
}

/* A wrapper script that started us comes along; it is in the unit that was given to us. */
static bool move_into_leaf(struct cgplace_tree *tree)
{
	if (mkdirat(tree->dir, CGDIR_SPARE, 0755) == -1)
		return false;
	int leaf = cgdir_open(tree->dir, CGDIR_SPARE);
	if (leaf == -1)
		return false;
	cgdir_move(tree->parent, leaf);
	close(leaf);
	tree->moved = true;
	return true;
}

static bool switch_on(int dir, const char *controller)
{
	char text[32];
	if (cgdir_word(dir, "cgroup.subtree_control", controller))
		return true;
	snprintf(text, sizeof text, "+%s", controller);
	return cgdir_write(dir, "cgroup.subtree_control", text) == 0;
}

/* May controllers be switched on in the group we were born in?  The root may have processes and
 * children.  Elsewhere we have to be out of it first: for memory the kernel would refuse, but cpu
 * and pids it would switch on and make all groups below unfit for processes ("domain
 * invalid"). */
static bool can_hand_down(struct cgplace *place, struct cgplace_tree *tree)
{
	if (faccessat(tree->parent, "cgroup.type", F_OK, 0) == -1)
		return true;
	if (group_is_ours(tree->parent))
		return move_into_leaf(tree);
	note(place, "cgroup v2 controllers stay off: other processes live in our group (start the "
		    "worker as a service of its own, with Delegate=yes)\n");
	return false;
}

/* Hand ${controller} down to the groups of jobs: through the group we were born in and ours. */
static bool hand_down(struct cgplace *place, struct cgplace_tree *tree, const char *controller)
{
	if (switch_on(tree->parent, controller) && switch_on(tree->dir, controller))
		return true;
	int why = errno;
	note(place, "cgroup v2 cannot hand the %s controller to jobs: %s%s\n", controller,
	     strerror(why), hint(why));
	return false;
}

static void open_v2_controllers(struct cgplace *place, struct cgplace_tree *tree)
{
	unsigned there = 0, on = 0;
	for (size_t i = 0; i < CONTROLLERS; i++) {
		if (controllers[i].v2 == 0)
			continue;
		if (cgdir_word(tree->parent, "cgroup.controllers", controllers[i].name))
			there |= 1u << i;
		else
			note(place, "cgroup v2 has no %s controller here\n", controllers[i].name);
		if (cgdir_word(tree->parent, "cgroup.subtree_control", controllers[i].name))
			on |= 1u << i;
	}
	if (there != on && !can_hand_down(place, tree))
		there = on;
	for (size_t i = 0; i < CONTROLLERS; i++)
		if ((there & 1u << i) && hand_down(place, tree, controllers[i].name))
			tree->can |= controllers[i].v2;
}

/* A group below one that somebody made "threaded" takes no processes. */
static bool takes_processes(int dir)
{
	char type[32];
	return cgdir_read(dir, "cgroup.type", type, sizeof type) == -1 ||
	       strcmp(type, "domain\n") == 0 || strcmp(type, "domain threaded\n") == 0;
}

static void open_v2(struct cgplace *place, const char *path)
{
	struct cgplace_tree *tree = &place->trees[place->count];
	if (tree_open(place, tree, path) == -1)
		return;
	if (!takes_processes(tree->dir)) {
		note(place, "the control groups below %s are threaded and take no processes\n",
		     path);
		tree_end(place, tree);
		return;
	}
	tree->v2 = true;
	tree->can = CGROUP_BIRTH;
	if (cgdir_number(tree->dir, "cgroup.freeze") != -1 &&
	    faccessat(tree->dir, "cgroup.kill", W_OK, 0) == 0)
		tree->can |= CGROUP_KILL;
	else
		note(place,
		     "this kernel has no cgroup.kill (Linux 5.14 has): groups are ended by a "
		     "loop of signals\n");
	if (cgdir_field(tree->dir, "cpu.stat", "usage_usec") != -1)
		tree->can |= CGROUP_CPU_TIME;
	open_v2_controllers(place, tree);
	tree->gate = cgdir_hold(tree->moved ? tree->dir : tree->parent, "cgroup.procs");
	place->can |= tree->can;
	place->count++;
}

/* --- v1 --- */

/* Controllers that are mounted together share one tree. */
static struct cgplace_tree *known_tree(struct cgplace *place, const char *path)
{
	size_t n = strlen(path);
	for (size_t i = 0; i < place->count; i++) {
		struct cgplace_tree *tree = &place->trees[i];
		if (!tree->v2 && strncmp(tree->path, path, n) == 0 &&
		    strcmp(tree->path + n + 1, place->name) == 0)
			return tree;
	}
	return NULL;
}

static void open_v1(struct cgplace *place, size_t i, const char *path)
{
	unsigned gains = controllers[i].v1 & ~place->can;
	struct cgplace_tree *tree = known_tree(place, path);
	if (tree == NULL) {
		tree = &place->trees[place->count];
		if (tree_open(place, tree, path) == -1)
			return;
		place->count++;
	}
	/* Kernels before 5.11 count a group's children only when told to. */
	if (gains & CGROUP_MEMORY)
		(void)cgdir_write(tree->dir, "memory.use_hierarchy", "1");
	if ((gains & CGROUP_SWAP) &&
	    faccessat(tree->dir, "memory.memsw.limit_in_bytes", W_OK, 0) == -1)
		gains &= ~(unsigned)CGROUP_SWAP;
	tree->can |= gains;
	place->can |= gains;
}

static void open_v1_all(struct cgplace *place, const char *groups, const char *mounts)
{
	char path[4096];
	for (size_t i = 0; i < CONTROLLERS; i++) {
		if ((controllers[i].v1 & ~place->can) == 0)
			continue;
		if (own_directory(groups, mounts, controllers[i].name, path, sizeof path))
			open_v1(place, i, path);
	}
}

/* --- all together --- */

static void summarise(struct cgplace *place, enum cgroup_mode mode)
{
	static const struct {
		unsigned bit;
		const char *what;
	} limits[] = {{CGROUP_MEMORY, "memory"},
		      {CGROUP_PIDS, "number of processes"},
		      {CGROUP_CPU, "cpu"}};
	if (mode == CGROUP_V2 || mode == CGROUP_V1)
		note(place, "only cgroup v%d is used, as asked\n", mode == CGROUP_V2 ? 2 : 1);
	for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
		bool v1 = false;
		for (size_t t = 0; t < place->count; t++)
			v1 |= !place->trees[t].v2 && (place->trees[t].can & limits[i].bit);
		if (v1)
			note(place, "the %s of jobs is limited through cgroup v1\n",
			     limits[i].what);
		else if (!(place->can & limits[i].bit))
			note(place, "no control group can limit the %s of jobs here\n",
			     limits[i].what);
	}
	(void)buf_append(&place->notes, "", 1);
}

static void find_trees(struct cgplace *place, enum cgroup_mode mode)
{
	char path[4096];
	char *groups = read_text("/proc/self/cgroup"), *mounts = read_text("/proc/self/mountinfo");
	if (groups == NULL || mounts == NULL)
		note(place, "/proc does not say which control groups there are: %s\n",
		     strerror(errno));
	else {
		if (mode != CGROUP_V1 && own_directory(groups, mounts, "", path, sizeof path))
			open_v2(place, path);
		else if (mode != CGROUP_V1)
			note(place, "cgroup v2 is not mounted\n");
		if (mode != CGROUP_V2)
			open_v1_all(place, groups, mounts);
	}
	free(groups);
	free(mounts);
}

int cgplace_open(struct cgplace *place, enum cgroup_mode mode, struct err *err)
{
	*place = (struct cgplace){.count = 0};
	if (mode == CGROUP_NONE)
		return err_set(err, ENOTSUP, "control groups are switched off");
	buf_init(&place->notes, 16 * 1024);
	unsigned short salt = 0; /* for a second place in one process */
	(void)!getrandom(&salt, sizeof salt, 0);
	snprintf(place->name, sizeof place->name, "worker-%d-%llu-%04x", (int)getpid(),
		 (unsigned long long)proctree_start(getpid()), salt);
	find_trees(place, mode);
	summarise(place, mode);
	if (place->count > 0)
		return 0;
	err_set(err, ENOTSUP, "no control groups: %s", buf_head(&place->notes));
	buf_free(&place->notes);
	return -1;
}

/* Names of jobs are other people's; the kernel's own files are kept apart by the prefix. */
void cgplace_name(struct cgplace *place, const char *name, char *out, size_t room)
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
	snprintf(out, room, "job-%s-%llu", fit, (unsigned long long)++place->serial);
}

void cgplace_close(struct cgplace *place)
{
	for (size_t i = 0; i < place->count; i++)
		tree_end(place, &place->trees[i]);
	place->count = 0;
	buf_free(&place->notes);
}
