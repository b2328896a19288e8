/* The log: one line for each event, with a time, a level, words and fields,
 *
 *     2026-01-31T12:00:00.000000Z info stopped by=SIGTERM
 *     {"time":"2026-01-31T12:00:00.000000Z","level":"info","message":"stopped","by":"SIGTERM"}
 *
 * of at most LOG_LINE_BYTES, in one write, so that lines of threads and processes do not mix. What
 * others chose cannot forge a line or move a terminal's cursor: control characters, characters that
 * turn or break lines, and bytes that are not UTF-8 are escaped; what is too long ends in "...".
 *
 * Nobody waits for long: when the reader of a pipe does not keep up for LOG_WAIT_MS, lines are
 * dropped and counted until it does. Thread safe. */
#ifndef DESCENT_CORE_LOG_H
#define DESCENT_CORE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/core/status.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR, LOG_OFF };
enum log_format { LOG_TEXT, LOG_JSON };

enum { LOG_LINE_BYTES = 4096, LOG_WAIT_MS = 100 }; /* what a pipe takes whole or not at all */

struct log_field {
    const char *name; /* [a-z_]+ */
    const char *text; /* NULL: `number` counts */
    uint64_t number;
};

void log_set_level(enum log_level level); /* default LOG_INFO */
void log_set_format(enum log_format format);

/* Whether a line of that level is written: for who would have to gather its fields. */
bool log_wants(enum log_level level);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
void log_fields(enum log_level level, const char *words, const struct log_field *fields,
                size_t count);

#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, __VA_ARGS__)
#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)

/* Where lines go from now on: a file, at whose end they are put (made with mode 0640), or, path "",
 * stderr as before. INTERNAL: it cannot be opened; nothing changes then. `path` is copied. Before
 * other threads log. */
enum status log_open(const char *path, struct fault *fault);

/* Opens the file of log_open by its name again, after somebody has moved it away; no line is lost.
 * Does nothing without a file. When it cannot be opened the old one stays, and a line says so. */
void log_reopen(void);

#endif
