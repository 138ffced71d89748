/* cgkept.c -- a control group that serves one job after the other.  Floor 3.  See worker/cgkept.h.
 */
#include "worker/cgkept.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/cgdir.h"
#include "worker/cgfile.h"

static int kept_file(int dir, const char *name)
{
	return openat(dir, name, O_RDONLY | O_CLOEXEC);
}

static bool kept_read(int fd, char text[CGFILE_TEXT])
{
	ssize_t n = pread(fd, text, CGFILE_TEXT - 1, 0);
	if (n < 0)
		return false;
	text[n] = 0;
	return true;
}

/* The kernel keeps the time of a group's last change from the moment on that somebody has set it.
 */
static const struct timespec untouched[2];

bool cgkept_open(struct cgkept *kept, int dir)
{
	*kept = (struct cgkept){.told = kept_file(dir, "cgroup.events"),
				.spent = kept_file(dir, "cpu.stat"),
				.gate = cgdir_hold(dir, "cgroup.procs")};
	if (kept->told != -1 && kept->spent != -1 && futimens(dir, untouched) == 0)
		return true;
	cgkept_close(kept);
	return false;
}

void cgkept_close(struct cgkept *kept)
{
	if (kept->told != -1)
		close(kept->told);
	if (kept->spent != -1)
		close(kept->spent);
	if (kept->gate != -1)
		close(kept->gate);
	*kept = CGKEPT_NONE;
}

void cgkept_enter(struct cgkept *kept)
{
	kept->vacant = kept->over = false;
}

int cgkept_populated(struct cgkept *kept)
{
	char text[CGFILE_TEXT];
	if (!kept_read(kept->told, text))
		return -1;
	kept->vacant = cgdir_find(text, "populated") == 0;
	return !kept->vacant;
}

/* What is not known, now or before, is taken as it is. */
static int64_t since(int64_t before, int64_t now)
{
	return before > 0 && now >= before ? now - before : now;
}

void cgkept_usage(struct cgkept *kept, struct cgroup_usage *usage)
{
	char text[CGFILE_TEXT];
	const struct cgroup_usage *before = &kept->before, *after = &kept->after;
	if (!kept_read(kept->spent, text))
		return;
	cgfile_cpu(text, &kept->after);
	kept->over = kept->vacant;
	usage->cpu_ns = since(before->cpu_ns, after->cpu_ns);
	usage->cpu_user_ns = since(before->cpu_user_ns, after->cpu_user_ns);
	usage->cpu_system_ns = since(before->cpu_system_ns, after->cpu_system_ns);
	usage->throttled_ns = since(before->throttled_ns, after->throttled_ns);
}

/* What was removed, by somebody who tidies up what is not used, cannot be read. */
static bool kept_is_free(const struct cgkept *kept)
{
	char text[CGFILE_TEXT];
	return kept_read(kept->told, text) && cgdir_find(text, "populated") == 0 &&
	       cgdir_find(text, "frozen") <= 0;
}

/* What was seen empty is looked at again when the next one has it: that is when it matters. */
bool cgkept_may_rest(const struct cgkept *kept, int dir)
{
	struct stat st;
	return (kept->vacant || kept_is_free(kept)) && fstat(dir, &st) == 0 &&
	       st.st_mtim.tv_sec == untouched[1].tv_sec;
}

bool cgkept_renew(struct cgkept *kept)
{
	char text[CGFILE_TEXT];
	if (!kept_is_free(kept))
		return false;
	if (kept->over)
		kept->before = kept->after;
	else if (kept_read(kept->spent, text))
		cgfile_cpu(text, &kept->before);
	else
		return false;
	cgkept_enter(kept);
	return true;
}
