/* clock.h -- the two clocks, replaceable in specs.  Floor 1.
 *
 * All times in the core are signed 64-bit nanoseconds.  Nobody above this floor calls
 * clock_gettime: a virtual clock must be able to stand in.  The virtual clock is the real one
 * plus an offset that only clock_jump moves, so both clocks run on at real speed and a spec
 * that waits for an hour skips it.
 */
#ifndef WORKER_CLOCK_H
#define WORKER_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#define CLOCK_MS       INT64_C(1000000)
#define CLOCK_SECOND   INT64_C(1000000000)
#define CLOCK_ISO_SIZE 40

/* clock_mono(): time since some start; never goes back. */
int64_t clock_mono(void);

/* clock_real(): like clock_mono, but without the virtual offset: for what the kernel or a
 * library times by itself. */
int64_t clock_real(void);

/* clock_wall(): time since 1970-01-01 UTC. */
int64_t clock_wall(void);

/* clock_files(): what the kernel would write into a file now: the time since 1970-01-01 as of the
 * last tick, without the virtual offset. */
int64_t clock_files(void);

/* clock_jump(ns): move clock_mono and clock_wall forward. */
void clock_jump(int64_t ns);

/* clock_iso(out, wall, digits): RFC 3339 in UTC with ${digits} (0, 3, 6 or 9) fraction digits,
 * always of the same width: 2026-11-21T03:04:05.678Z. Returns the length. */
size_t clock_iso(char out[CLOCK_ISO_SIZE], int64_t wall, int digits);

#endif
