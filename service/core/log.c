/* The log: formatted into one buffer and written with one call, so that lines of threads do not
 * mix. */
#include "service/core/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "service/core/clock.h"

static atomic_int threshold = LOG_INFO;

void log_set_level(enum log_level level)
{
    atomic_store(&threshold, (int)level);
}

void log_write(enum log_level level, const char *format, ...)
{
    static const char *const names[] = {"debug", "info", "warning", "error"};
    char words[1024];
    char line[4 * sizeof words + 64];
    char time[32];
    va_list arguments;

    if ((int)level < atomic_load(&threshold) || level >= LOG_OFF)
        return;
    va_start(arguments, format);
    vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    size_t used = (size_t)snprintf(line, sizeof line, "%s %s ", clock_format(time, clock_unix_us()),
                                   names[level]);
    for (const char *c = words; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7F)
            used += (size_t)snprintf(line + used, 5, "\\x%02x", (unsigned)(unsigned char)*c);
        else
            line[used++] = *c;
    }
    line[used++] = '\n';
    if (write(STDERR_FILENO, line, used) < 0)
        return; /* nobody is left to tell */
}
