/* log.h -- the worker's own log.  Floor 1.
 *
 * A line has a level, a stable event name ("job.finished", for programs), a message (for people,
 * free to change) and fields.  Formats: text for a terminal, logfmt, JSON, journal (text with the
 * <N> priority prefix of systemd).  Registered secrets are replaced by *** in every format.
 * Writing never blocks: a line that does not fit into a full pipe is dropped, and the next one
 * that fits says how many were.
 */
#ifndef WORKER_LOG_H
#define WORKER_LOG_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/err.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR, LOG_LEVEL_OFF };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_LOGFMT, LOG_FORMAT_JSON, LOG_FORMAT_JOURNAL };

struct log_field {
	const char *key;
	const char *value;
	size_t length;
	bool bare; /* a number or true/false: no quotes in JSON */
};

/* log_at(level, event, fmt, ...): one line without fields. */
void log_at(enum log_level level, const char *event, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* log_write(level, event, message, fields, count): one line with fields. */
void log_write(enum log_level level, const char *event, const char *message,
	       const struct log_field *fields, size_t count);

/* log_level_set / log_format_set / log_color_set: how the log looks; text, info, no colour at
 * first. */
void log_level_set(enum log_level level);
void log_format_set(enum log_format format);
void log_color_set(bool color);
bool log_enabled(enum log_level level);

/* log_overlay_set(erase): somebody has drawn live lines on the terminal; ${erase} takes them off
 * and is written before the next log line, once.  "" when they are gone.  Returns whether the
 * lines of before were still there. */
bool log_overlay_set(const char *erase);

/* log_fd_set(fd): where lines go; 2 at first. */
void log_fd_set(int fd);

/* log_output_set(output, err): where lines go by name: "stderr", "stdout", or the path of a file,
 * which is made or appended to.  The same path again opens it anew: somebody may have moved the
 * file away.  On failure (-1) lines go where they went. */
int log_output_set(const char *output, struct err *err);

/* log_secret(text, n): never print these bytes. Shorter than 6 bytes is not registered (returns
 * false): masking "1" everywhere would destroy the log. */
bool log_secret(const char *text, size_t n);

/* log_free(): forget the secrets. */
void log_free(void);

#endif
