/* spawn_order.c -- a request made into an order.  Floor 3.  See worker/spawn_order.h.
 *
 * The caller's strings may be gone before the thread gets to them, so everything is copied into
 * one allocation: the struct, then the pointers, then the text.  The same walk first counts, with
 * an arena that has no memory, and then copies; so the two can never disagree about the size.  The
 * files are duplicated for the same reason; those of the control group stay open for the order.
 *
 * The search through PATH is prepared here, as the list of paths that the child then tries in the
 * job's own directory: relative entries mean what they would mean to the job.
 */
#include "worker/spawn_order.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ORDER_PATH "/usr/local/bin:/usr/bin:/bin"

/* Copies strings and pointers into one allocation, or only counts what they need. */
struct arena {
	const char **pointers;
	char *text;
	size_t pointer_count, text_size;
};

/* Each of these returns NULL while only counting, so callers store results only with memory. */
static const char *arena_text(struct arena *arena, const char *text, size_t n)
{
	char *copy = arena->text;
	arena->text_size += n + 1;
	if (copy == NULL)
		return NULL;
	memcpy(copy, text, n);
	copy[n] = '\0';
	arena->text += n + 1;
	return copy;
}

static const char *arena_string(struct arena *arena, const char *text)
{
	return text ? arena_text(arena, text, strlen(text)) : NULL;
}

static const char **arena_pointers(struct arena *arena, size_t n)
{
	const char **pointers = arena->pointers;
	arena->pointer_count += n + 1;
	if (pointers != NULL) {
		arena->pointers += n + 1;
		pointers[n] = NULL;
	}
	return pointers;
}

/* The pointers come first, then the text they point to, as the two live in different areas. */
static const char **arena_vector(struct arena *arena, const char *const *strings)
{
	size_t n = 0;
	while (strings[n] != NULL)
		n++;
	const char **copy = arena_pointers(arena, n);
	for (size_t i = 0; i < n; i++) {
		const char *string = arena_string(arena, strings[i]);
		if (copy != NULL)
			copy[i] = string;
	}
	return copy;
}

static const char *arena_joined(struct arena *arena, const char *dir, size_t n, const char *name)
{
	/* An empty entry of a PATH means the current directory. */
	if (n == 0) {
		dir = ".";
		n = 1;
	}
	const char *path = arena_text(arena, dir, n);
	arena_string(arena, name);
	if (path != NULL)
		arena->text[-(ptrdiff_t)strlen(name) - 2] = '/';
	return path;
}

/* A name with a slash is the path itself, as in every shell. */
static const char **arena_paths(struct arena *arena, const char *name, const char *path)
{
	if (strchr(name, '/') != NULL) {
		const char *alone[] = {name, NULL};
		return arena_vector(arena, alone);
	}
	size_t count = 1, i = 0;
	for (const char *at = path; *at != '\0'; at++)
		count += *at == ':';
	const char **paths = arena_pointers(arena, count);
	for (const char *at = path;; at++) {
		size_t n = strcspn(at, ":");
		const char *candidate = arena_joined(arena, at, n, name);
		if (paths != NULL)
			paths[i++] = candidate;
		at += n;
		if (*at == '\0')
			return paths;
	}
}

static void order_fill(struct spawn_order *order, struct arena *arena,
		       const struct spawn_request *request)
{
	static const char *const nothing[] = {NULL};
	const char *path = request->path ? request->path : ORDER_PATH;
	order->argv = (char *const *)arena_vector(arena, request->argv);
	order->envp = (char *const *)arena_vector(arena, request->envp ? request->envp : nothing);
	order->searched = strchr(request->argv[0], '/') == NULL;
	order->paths = arena_paths(arena, request->argv[0], path);
	order->request.cwd = arena_string(arena, request->cwd);
	order->request.user = arena_string(arena, request->user);
	order->request.group = arena_string(arena, request->group);
	order->request.path = order->searched ? arena_string(arena, path) : NULL;
}

static bool order_fits(const struct spawn_request *request)
{
	size_t pipes = 0;
	for (size_t i = 0; i < request->fd_count && i < SPAWN_FDS; i++)
		pipes += request->fds[i].from == SPAWN_PIPE;
	return request->fd_count <= SPAWN_FDS && request->limit_count <= SPAWN_LIMITS &&
	       pipes <= SPAWN_PIPES &&
	       (request->fd_count == 0 || request->fds[0].from != SPAWN_SAME);
}

/* --- the files --- */

/* After a failure the rest are -1: what is not a copy must not be closed with the order. */
static void order_copy_file(int *fd, int *code)
{
	if (*fd < 0)
		return;
	*fd = *code == 0 ? fcntl(*fd, F_DUPFD_CLOEXEC, 3) : -1;
	if (*fd == -1 && *code == 0)
		*code = errno;
}

static int order_copy_files(struct spawn_request *request)
{
	int code = 0;
	for (size_t i = 0; i < request->fd_count; i++)
		order_copy_file(&request->fds[i].from, &code);
	errno = code;
	return code == 0 ? 0 : -1;
}

static void order_close_file(int fd)
{
	if (fd >= 0)
		close(fd);
}

void spawn_order_free(struct spawn_order *order)
{
	if (order == NULL)
		return;
	const struct spawn_request *request = &order->request;
	for (size_t i = 0; i < request->fd_count; i++)
		order_close_file(request->fds[i].from);
	if (order->entry != NULL)
		cgroup_entered(request->cgroup);
	free(order);
}

/* --- an order --- */

/* A request that cannot be carried out is refused before anything is done for it. */
struct spawn_order *spawn_order_new(const struct spawn_request *request, struct err *err)
{
	if (request->argv == NULL || request->argv[0] == NULL || request->argv[0][0] == '\0') {
		err_set(err, EINVAL, "there is no program to run");
		return NULL;
	}
	if (!order_fits(request)) {
		err_set(err, EINVAL, "too many files, groups or limits for one child");
		return NULL;
	}
	struct spawn_order measured; /* its pointers come to nothing */
	struct arena arena = {0};
	order_fill(&measured, &arena, request);

	size_t pointers = arena.pointer_count * sizeof(char *);
	struct spawn_order *order = malloc(sizeof *order + pointers + arena.text_size);
	if (order == NULL) {
		err_set(err, ENOMEM, "out of memory for a child's arguments");
		return NULL;
	}
	*order = (struct spawn_order){.request = *request, .pidfd = -1};
	arena = (struct arena){.pointers = (const char **)(void *)(order + 1)};
	arena.text = (char *)(order + 1) + pointers;
	order_fill(order, &arena, request);
	if (request->cgroup != NULL)
		order->entry = cgroup_enter(request->cgroup);
	if (order_copy_files(&order->request) == -1) {
		err_errno(err, "copy the files for a child");
		spawn_order_free(order);
		return NULL;
	}
	return order;
}

/* The kernel's word for it is true but often puzzling: a script whose interpreter is missing is "no
 * such file", a directory is "permission denied". */
static const char *order_hint(const struct spawn_order *order, char room[256])
{
	const char *path = order->paths[0], *cwd = order->request.cwd;
	struct stat status;
	if (order->failed == SPAWN_STEP_CHDIR && order->code == EACCES && order->set_uid)
		return " to the user it runs as (each folder above has to let others pass)";
	if (order->failed != SPAWN_STEP_EXEC)
		return "";
	if (order->code == E2BIG)
		return " (arguments and environment together, or one of them alone)";
	if (order->searched) {
		snprintf(room, 256, " in %s", order->request.path);
		return order->code == ENOENT ? room : "";
	}
	if (path[0] != '/' && cwd != NULL)
		snprintf(room, 256, "%s/%s", cwd, path);
	else
		snprintf(room, 256, "%s", path);
	if (stat(room, &status) == -1)
		return "";
	if (S_ISDIR(status.st_mode))
		return " (it is a directory)";
	return order->code == ENOENT ? " (the file is there, its interpreter is not)" : "";
}

void spawn_order_explain(const struct spawn_order *order, struct err *err)
{
	char room[256];
	err_set(err, order->code, "%s: %s%s", order->step, strerror(order->code),
		order_hint(order, room));
}
