/* log.c -- the worker's own log.  Floor 1.  See worker/log.h.
 *
 * A line is built in a buffer with a ceiling, secrets are replaced in the finished line, and one
 * write() sends it (a few for a long one).  Before each the fd is asked whether it takes anything:
 * a reader that has stopped must not stop the worker, so the line is dropped and counted instead.
 *
 * The state is file-level: there is one log in a process, and every floor writes to it.
 */
#include "worker/log.h"

#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/buf.h"
#include "worker/clock.h"
#include "worker/utf8.h"

#define LOG_LINE ((size_t)32 * 1024)
/* Values leave this much of a line to what closes it, so that a cut line still is JSON. */
#define LOG_TAIL 1024
/* A pipe that poll() calls writable takes this much without blocking, and not always more. */
#define LOG_PIECE	 4096
#define LOG_SECRET_LEAST 6

struct log_secret {
	char *text;
	size_t length;
};

static struct {
	int fd;
	int file; /* the fd where that is a file of our own; 0 for none */
	enum log_level level;
	enum log_format format;
	bool color;
	unsigned long dropped;
	bool torn; /* the last line has no end: its reader stopped in the middle */
	struct log_secret *secrets;
	size_t secret_count;
	char overlay[32]; /* takes the live lines off the terminal, while there are any */
} log_state = {.fd = STDERR_FILENO, .level = LOG_LEVEL_INFO};

static const char *const log_names[] = {"debug", "info", "warn", "error"};
static const char *const log_marks[] = {"debug  ", "", "warning ", "error  "};
static const char *const log_colors[] = {"\033[2m", "", "\033[33m", "\033[31m"};
static const int log_priorities[] = {7, 6, 4, 3};

void log_level_set(enum log_level level)
{
	log_state.level = level;
}

void log_format_set(enum log_format format)
{
	log_state.format = format;
}

void log_color_set(bool color)
{
	log_state.color = color;
}

void log_fd_set(int fd)
{
	log_state.fd = fd;
}

int log_output_set(const char *output, struct err *err)
{
	int file = 0, fd = STDERR_FILENO;
	if (strcmp(output, "stdout") == 0) {
		fd = STDOUT_FILENO;
	} else if (strcmp(output, "stderr") != 0) {
		/* O_NONBLOCK: opening a pipe that nobody reads must not wait. */
		fd = file = open(output,
				 O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
				 0640);
		if (fd == -1)
			return err_errno(err, "open the log %s", output);
	}
	if (log_state.file > 0)
		close(log_state.file);
	log_state.fd = fd;
	log_state.file = file;
	return 0;
}

bool log_enabled(enum log_level level)
{
	return level >= log_state.level;
}

/* --- secrets --- */

/* Longest first: a secret that begins with another one must not leave its end behind. */
static bool log_keep_secret(const char *text, size_t n)
{
	size_t at = 0;
	for (; at < log_state.secret_count && log_state.secrets[at].length >= n; at++)
		if (log_state.secrets[at].length == n &&
		    memcmp(log_state.secrets[at].text, text, n) == 0)
			return true;
	struct log_secret *secrets = realloc(log_state.secrets, (log_state.secret_count + 1) *
									sizeof *log_state.secrets);
	if (secrets == NULL)
		return false;
	log_state.secrets = secrets;
	char *copy = malloc(n);
	if (copy == NULL)
		return false;
	memcpy(copy, text, n);
	memmove(secrets + at + 1, secrets + at, (log_state.secret_count - at) * sizeof *secrets);
	secrets[at] = (struct log_secret){.text = copy, .length = n};
	log_state.secret_count++;
	return true;
}

void log_free(void)
{
	for (size_t i = 0; i < log_state.secret_count; i++) {
		explicit_bzero(log_state.secrets[i].text, log_state.secrets[i].length);
		free(log_state.secrets[i].text);
	}
	free(log_state.secrets);
	log_state.secrets = NULL;
	log_state.secret_count = 0;
}

static void log_redact(char *line, size_t *size)
{
	for (size_t i = 0; i < log_state.secret_count; i++) {
		const struct log_secret *secret = &log_state.secrets[i];
		char *at;
		while ((at = memmem(line, *size, secret->text, secret->length)) != NULL) {
			size_t rest = (size_t)(line + *size - at) - secret->length;
			memcpy(at, "***", 3);
			memmove(at + 3, at + secret->length, rest);
			*size -= secret->length - 3;
		}
	}
}

/* --- building a line --- */

/* How many bytes at ${text} are a control character: one of ASCII, or one of U+0080 to U+009F,
 * which terminals obey as well. */
static size_t log_control(const char *text, size_t n)
{
	unsigned char c = (unsigned char)text[0];
	if (c < 0x20 || c == 0x7f)
		return 1;
	return c == 0xc2 && n > 1 && (unsigned char)text[1] >= 0x80 && (unsigned char)text[1] < 0xa0
		       ? 2
		       : 0;
}

/* What neither a line nor a terminal should get as it is: bytes that are no text, and control
 * characters, which would let a job or a server write lines of its own into our log.  How many
 * bytes of ${text} were dealt with; 0 for an ordinary character. */
static size_t log_special(struct buf *line, const char *text, size_t n, bool json)
{
	int length = utf8_char(text, n);
	if (length < 0) {
		buf_append(line, "\xef\xbf\xbd", 3);
		return (size_t)-length;
	}
	size_t control = log_control(text, n);
	if (control == 2)
		buf_printf(line, "\\u%04x", (unsigned char)text[1]);
	else if (control == 1)
		buf_printf(line, json ? "\\u%04x" : "\\x%02x", (unsigned char)text[0]);
	return control;
}

static void log_escaped(struct buf *line, const char *text, size_t n, bool json)
{
	for (size_t i = 0, done; i < n && buf_left(line) > LOG_TAIL; i += done) {
		done = 1;
		if (text[i] == '"' || text[i] == '\\')
			buf_printf(line, "\\%c", text[i]);
		else if (text[i] == '\n')
			buf_append(line, "\\n", 2);
		else if (text[i] == '\t')
			buf_append(line, "\\t", 2);
		else if ((done = log_special(line, text + i, n - i, json)) == 0)
			buf_append(line, text + i, done = (size_t)utf8_char(text + i, n - i));
	}
}

static void log_plain(struct buf *line, const char *text, size_t n)
{
	for (size_t i = 0, done; i < n && buf_left(line) > LOG_TAIL; i += done) {
		done = 1;
		if (text[i] == '\n')
			buf_append(line, "\n  ", 3);
		else if (text[i] == '\t')
			buf_append(line, "\t", 1);
		else if ((done = log_special(line, text + i, n - i, false)) == 0)
			buf_append(line, text + i, done = (size_t)utf8_char(text + i, n - i));
	}
}

/* A secret is looked for in the finished line, where it may be written in any of these ways. */
bool log_secret(const char *text, size_t n)
{
	struct buf form;
	if (n < LOG_SECRET_LEAST || !log_keep_secret(text, n))
		return false;
	bool kept = true;
	for (int way = 0; way < 3; way++) {
		buf_init(&form, 8 * n + 2 * LOG_TAIL);
		if (way < 2)
			log_escaped(&form, text, n, way == 1);
		else
			log_plain(&form, text, n);
		kept = kept && buf_size(&form) >= LOG_SECRET_LEAST &&
		       log_keep_secret(buf_head(&form), buf_size(&form));
		if (form.data != NULL)
			explicit_bzero(form.data, form.room);
		buf_free(&form);
	}
	return kept;
}

static bool log_needs_quotes(const struct log_field *field)
{
	if (field->length == 0)
		return true;
	for (size_t i = 0; i < field->length; i++) {
		unsigned char c = (unsigned char)field->value[i];
		if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c == 0x7f)
			return true;
	}
	return false;
}

static void log_pair(struct buf *line, const struct log_field *field)
{
	bool quotes = log_needs_quotes(field);
	buf_printf(line, quotes ? " %s=\"" : " %s=", field->key);
	log_escaped(line, field->value, field->length, false);
	if (quotes)
		buf_append(line, "\"", 1);
}

static void log_json_string(struct buf *line, const char *key, const char *value, size_t n)
{
	buf_printf(line, ",\"%s\":\"", key);
	log_escaped(line, value, n, true);
	buf_append(line, "\"", 1);
}

static void log_json(struct buf *line, enum log_level level, const char *event, const char *message,
		     const struct log_field *fields, size_t count)
{
	char now[CLOCK_ISO_SIZE];
	clock_iso(now, clock_wall(), 3);
	buf_printf(line, "{\"ts\":\"%s\"", now);
	log_json_string(line, "level", log_names[level], strlen(log_names[level]));
	log_json_string(line, "event", event, strlen(event));
	log_json_string(line, "msg", message, strlen(message));
	for (size_t i = 0; i < count; i++) {
		if (fields[i].bare)
			buf_printf(line, ",\"%s\":%.*s", fields[i].key, (int)fields[i].length,
				   fields[i].value);
		else
			log_json_string(line, fields[i].key, fields[i].value, fields[i].length);
	}
	buf_append(line, "}\n", 2);
}

static void log_logfmt(struct buf *line, enum log_level level, const char *event,
		       const char *message, const struct log_field *fields, size_t count)
{
	char now[CLOCK_ISO_SIZE];
	clock_iso(now, clock_wall(), 3);
	buf_printf(line, "ts=%s level=%s event=%s", now, log_names[level], event);
	log_pair(line,
		 &(struct log_field){.key = "msg", .value = message, .length = strlen(message)});
	for (size_t i = 0; i < count; i++)
		log_pair(line, &fields[i]);
	buf_append(line, "\n", 1);
}

static void log_text(struct buf *line, enum log_level level, const char *message,
		     const struct log_field *fields, size_t count)
{
	bool journal = log_state.format == LOG_FORMAT_JOURNAL;
	char now[CLOCK_ISO_SIZE];
	clock_iso(now, clock_wall(), 0);
	if (journal)
		buf_printf(line, "<%d>", log_priorities[level]);
	else
		buf_printf(line, "%.8s ", now + 11);
	if (log_state.color)
		buf_append(line, log_colors[level], strlen(log_colors[level]));
	if (!journal)
		buf_append(line, log_marks[level], strlen(log_marks[level]));
	log_plain(line, message, strlen(message));
	/* The message says it all to a person; the fields are for who searches, or looks closer. */
	bool closer = journal || level == LOG_LEVEL_ERROR || log_enabled(LOG_LEVEL_DEBUG);
	for (size_t i = 0; closer && i < count; i++)
		log_pair(line, &fields[i]);
	if (log_state.color && log_colors[level][0] != '\0')
		buf_append(line, "\033[0m", 4);
	buf_append(line, "\n", 1);
}

/* --- writing it --- */

static bool log_ready(void)
{
	struct pollfd ready = {.fd = log_state.fd, .events = POLLOUT};
	return poll(&ready, 1, 0) == 1;
}

bool log_overlay_set(const char *erase)
{
	bool shown = log_state.overlay[0] != '\0';
	snprintf(log_state.overlay, sizeof log_state.overlay, "%s", erase);
	return shown;
}

/* Live lines at the bottom of the terminal give way to a log line; who drew them draws again. */
static void log_erase_overlay(void)
{
	if (log_state.overlay[0] == '\0')
		return;
	if (!log_ready() || write(log_state.fd, log_state.overlay, strlen(log_state.overlay)) < 0)
		log_state.dropped++;
	log_state.overlay[0] = '\0';
}

/* Piece by piece, asking before each.  A line that stops in the middle gets its end before the next
 * one. */
static void log_put(const char *text, size_t size)
{
	for (size_t done = 0; done < size;) {
		size_t piece = size - done < LOG_PIECE ? size - done : LOG_PIECE;
		ssize_t n = log_ready() ? write(log_state.fd, text + done, piece) : -1;
		if (n < 0) {
			log_state.torn = done > 0;
			log_state.dropped++;
			return;
		}
		done += (size_t)n;
	}
}

static void log_send(struct buf *line)
{
	size_t size = buf_size(line);
	if (size == 0)
		return;
	char *text = line->data + line->head;
	log_redact(text, &size);
	/* A line cut at the ceiling still ends as a line. */
	text[size - 1] = '\n';
	log_erase_overlay();
	if (log_state.torn && log_ready() && write(log_state.fd, "\n", 1) == 1)
		log_state.torn = false;
	log_put(text, size);
}

static void log_tell_dropped(void)
{
	if (log_state.dropped == 0 || !log_ready())
		return;
	char text[64];
	char count[24];
	snprintf(count, sizeof count, "%lu", log_state.dropped);
	snprintf(text, sizeof text, "%s log lines were dropped: stderr was full", count);
	log_state.dropped = 0;
	log_write(LOG_LEVEL_WARN, "log.dropped", text,
		  &(struct log_field){"lines", count, strlen(count), true}, 1);
}

void log_write(enum log_level level, const char *event, const char *message,
	       const struct log_field *fields, size_t count)
{
	if (!log_enabled(level))
		return;
	log_tell_dropped();
	struct buf line;
	buf_init(&line, LOG_LINE);
	if (log_state.format == LOG_FORMAT_JSON)
		log_json(&line, level, event, message, fields, count);
	else if (log_state.format == LOG_FORMAT_LOGFMT)
		log_logfmt(&line, level, event, message, fields, count);
	else
		log_text(&line, level, message, fields, count);
	log_send(&line);
	buf_free(&line);
}

void log_at(enum log_level level, const char *event, const char *fmt, ...)
{
	if (!log_enabled(level))
		return;
	char message[1024];
	va_list args;
	va_start(args, fmt);
	vsnprintf(message, sizeof message, fmt, args);
	va_end(args);
	log_write(level, event, message, NULL, 0);
}
