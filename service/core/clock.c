/* Time. */
#include "service/core/clock.h"

#include <string.h>
#include <time.h>

#include "service/core/number.h"

static uint64_t read_us(clockid_t id)
{
    struct timespec now;

    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t clock_unix_us(void)
{
    return read_us(CLOCK_REALTIME);
}

uint64_t clock_monotonic_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

char *clock_format(char out[32], uint64_t unix_us)
{
    static _Thread_local char text[24]; /* of a second: a thread often asks for the same again */
    static _Thread_local size_t text_size;
    static _Thread_local time_t text_of;
    time_t seconds = (time_t)(unix_us / 1000000);
    uint64_t rest = unix_us % 1000000 + 1000000; /* a 1 before its six digits */
    struct tm parts;

    if (text_size == 0 || text_of != seconds) {
        gmtime_r(&seconds, &parts);
        text_size = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
        text_of = seconds;
    }
    size_t used = text_size;
    memcpy(out, text, used);
    used += number_digits(out + used, rest);
    out[used - 7] = '.';
    out[used] = 'Z';
    out[used + 1] = '\0';
    return out;
}
