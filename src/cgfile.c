/* cgfile.c -- what the files of a job's control group say and take.  Floor 3.
 *
 * The names and units differ between v1 and v2, and between kernels; this is the only place that
 * knows them.  A file that is not there is a thing that is not known.
 */
#include "worker/cgfile.h"

#include <stdio.h>

#include "worker/cgdir.h"

#define CPU_PERIOD 100000 /* microseconds, the kernel's default */

/* --- limits --- */

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

unsigned cgfile_asked(const struct cgroup_limits *limits)
{
	return (limits->memory >= 0 ? CGROUP_MEMORY : 0u) | (limits->swap >= 0 ? CGROUP_SWAP : 0u) |
	       (limits->cpus >= 0 ? CGROUP_CPU : 0u) | (limits->pids >= 0 ? CGROUP_PIDS : 0u);
}

unsigned cgfile_limit(const struct cgplace_tree *tree, int dir, unsigned wanted,
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

/* --- usage --- */

static int64_t times(int64_t number, int64_t factor)
{
	return number < 0 ? -1 : number * factor;
}

void cgfile_cpu(const char *text, struct cgroup_usage *usage)
{
	usage->cpu_ns = times(cgdir_find(text, "usage_usec"), 1000);
	usage->cpu_user_ns = times(cgdir_find(text, "user_usec"), 1000);
	usage->cpu_system_ns = times(cgdir_find(text, "system_usec"), 1000);
	usage->throttled_ns = times(cgdir_find(text, "throttled_usec"), 1000);
}

static void usage_cpu_time(int dir, bool v2, struct cgroup_usage *usage)
{
	char text[CGFILE_TEXT];
	if (v2) {
		if (cgdir_read(dir, "cpu.stat", text, sizeof text) != -1)
			cgfile_cpu(text, usage);
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

void cgfile_usage(const struct cgplace_tree *tree, int dir, struct cgroup_usage *usage)
{
	if (tree->can & CGROUP_CPU_TIME)
		usage_cpu_time(dir, tree->v2, usage);
	if (tree->can & CGROUP_MEMORY)
		usage_memory(dir, tree->v2, usage);
	if (tree->can & CGROUP_PIDS)
		usage_pids(dir, usage);
	if ((tree->can & CGROUP_CPU) && !tree->v2)
		usage->throttled_ns = cgdir_field(dir, "cpu.stat", "throttled_time");
}
