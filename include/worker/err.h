/* err.h -- what went wrong, on the caller's stack.  Floor 1.
 *
 * A function that can fail takes a trailing ${struct err *} and returns -1 (or NULL) after
 * filling it in.  The text is made where the failure is seen and gains context on the way up:
 *
 *	if ((fd = open(path, O_RDONLY)) == -1)
 *		return err_errno(err, "open %s", path);
 *	...
 *	if (config_read(path, err) == -1)
 *		return err_wrap(err, "loading the config");
 *
 * Nothing here allocates, so an error can be carried across a longjmp and never leaks.
 * A NULL ${err} is allowed everywhere: the caller does not care why.
 */
#ifndef WORKER_ERR_H
#define WORKER_ERR_H

struct err {
	int code;	/* an errno value, or 0 where no system call failed */
	char text[256]; /* one line for a person, cut (never overrun) when too long */
};

/* err_set(err, code, fmt, ...): fill in ${err}; returns -1 so that it can be returned. */
int err_set(struct err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* err_errno(err, fmt, ...): like err_set with the current errno, whose meaning is appended. */
int err_errno(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* err_wrap(err, fmt, ...): put "context: " in front of what ${err} already says; returns -1. */
int err_wrap(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
