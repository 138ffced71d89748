/* clock.c -- the two clocks, replaceable in specs.  Floor 1.  See worker/clock.h.
 *
 * The offset is the one file-level variable of the ground floors: time is the same for everybody
 * in a process, and a clock handed through every call would be noise.
 */
#include "worker/clock.h"

#include <stdio.h>
#include <time.h>

static int64_t clock_offset;

static int64_t clock_get(clockid_t id)
{
	struct timespec now;
	clock_gettime(id, &now);
	return (int64_t)now.tv_sec * CLOCK_SECOND + now.tv_nsec;
}

int64_t clock_real(void)
{
	return clock_get(CLOCK_MONOTONIC);
}

int64_t clock_mono(void)
{
	return clock_real() + clock_offset;
}

int64_t clock_wall(void)
{
	return clock_get(CLOCK_REALTIME) + clock_offset;
}

int64_t clock_files(void)
{
	return clock_get(CLOCK_REALTIME_COARSE);
}

void clock_jump(int64_t ns)
{
	clock_offset += ns;
}

size_t clock_iso(char out[CLOCK_ISO_SIZE], int64_t wall, int digits)
{
	time_t seconds = (time_t)(wall / CLOCK_SECOND);
	int64_t rest = wall % CLOCK_SECOND;
	if (rest < 0) {
		rest += CLOCK_SECOND;
		seconds--;
	}
	struct tm utc;
	gmtime_r(&seconds, &utc);
	size_t n = strftime(out, CLOCK_ISO_SIZE, "%Y-%m-%dT%H:%M:%S", &utc);
	if (digits > 0) {
		char fraction[16];
		snprintf(fraction, sizeof fraction, "%09d", (int)rest);
		if (digits > 9)
			digits = 9;
		n += (size_t)snprintf(out + n, CLOCK_ISO_SIZE - n, ".%.*s", digits, fraction);
	}
	n += (size_t)snprintf(out + n, CLOCK_ISO_SIZE - n, "Z");
	return n;
}
