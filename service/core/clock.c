/* Time. */
#include "service/core/clock.h"

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
    time_t seconds = (time_t)(unix_us / 1000000);
    uint64_t rest = unix_us % 1000000 + 1000000; /* a 1 before its six digits */
    struct tm parts;

    gmtime_r(&seconds, &parts);
    size_t used = strftime(out, 24, "%Y-%m-%dT%H:%M:%S", &parts);
    used += number_digits(out + used, rest);
    out[used - 7] = '.';
    out[used] = 'Z';
    out[used + 1] = '\0';
    return out;
}
