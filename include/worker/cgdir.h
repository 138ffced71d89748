/* cgdir.h -- one control group directory, v1 or v2: read, write, kill, remove.  Floor 3.
 *
 * Everything here is async-signal-safe: no allocation, no stdio, no locks, no loop.  So the keeper,
 * which is a fork of a process with threads, can use it too.  A directory is named by an open
 * fd, or by the fd of its parent and its name.
 */
#ifndef WORKER_CGDIR_H
#define WORKER_CGDIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Where a worker itself lives if "no internal processes" drove it out of its group. */
#define CGDIR_SPARE "main"

/* cgdir_open(parent, name): an fd, or -1 with errno. */
int cgdir_open(int parent, const char *name);

/* cgdir_hold(dir, file): an fd that does nothing but keep the file in the kernel's memory, or -1.
 * At a birth into a group the kernel asks whether the cgroup.procs of that group may be written to,
 * and that of the lowest group above both it and the parent's.  Where nobody holds these files it
 * makes each of them in memory, asks, and throws it away. */
int cgdir_hold(int dir, const char *file);

/* cgdir_write(dir, file, text): 0, or -1 with errno. */
int cgdir_write(int dir, const char *file, const char *text);
int cgdir_write_number(int dir, const char *file, int64_t number);

/* cgdir_read(dir, file, out, room): text with a NUL, cut at ${room}; its length, or -1. */
ssize_t cgdir_read(int dir, const char *file, char *out, size_t room);

/* cgdir_number(dir, file): -1 when the file is absent or says "max". */
int64_t cgdir_number(int dir, const char *file);

/* cgdir_field(dir, file, key): the number behind "key " in a file of such lines, or -1.
 * cgdir_find(text, key): the same in what was read of it, for more than one key. */
int64_t cgdir_field(int dir, const char *file, const char *key);
int64_t cgdir_find(const char *text, const char *key);

/* cgdir_word(dir, file, word): is ${word} among the words of the file? */
bool cgdir_word(int dir, const char *file, const char *word);

/* cgdir_each(dir, visit, arg): call ${visit}(dir, name, arg) for every group directly below. */
void cgdir_each(int dir, void (*visit)(int dir, const char *name, void *arg), void *arg);

/* cgdir_processes(dir, visit, arg): call ${visit}(pid, arg) for every process in this group and
 * below, but for this one and for those of other pid namespaces (they read as 0); returns how many
 * there were. */
size_t cgdir_processes(int dir, void (*visit)(pid_t pid, void *arg), void *arg);

/* cgdir_signal(dir, signo): to each of them; returns how many there were.  Signal 0 counts. */
size_t cgdir_signal(int dir, int signo);

/* cgdir_populated(dir): does anything live in this group or below? */
bool cgdir_populated(int dir);

/* cgdir_kill(dir): SIGKILL for all; one pass.  Where there is no cgroup.kill, forking is stopped
 * first (freezer or pids limit), so that a few passes are enough. Returns whether one was. */
bool cgdir_kill(int dir);

/* cgdir_remove(parent, name): rmdir, deepest first; 0, or -1 with errno (EBUSY: not empty yet).
 * A group that is not there is removed. */
int cgdir_remove(int parent, const char *name);

/* cgdir_end(parent, name, patience): kill and remove ${name} with all below, trying again for
 * ${patience} milliseconds.  A group CGDIR_SPARE directly below is not killed: the caller may live
 * there; the work is done when nothing else is left.  0, or -1 when it is not done yet. */
int cgdir_end(int parent, const char *name, int patience);

/* cgdir_move(from, to): every process of the one group into the other. */
void cgdir_move(int from, int to);

/* cgdir_leave(parent, name): who lives in ${name}/CGDIR_SPARE goes back to ${parent}, whose
 * controllers are switched off first (a group that hands them down takes no processes), and the
 * empty groups are removed.  0, or -1 where something still lives there. */
int cgdir_leave(int parent, const char *name);

#endif
