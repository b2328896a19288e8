/* What the system says of this process. */
#include "api/process.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "service/core/clock.h"

static uint64_t time_us(struct timeval time)
{
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_usec;
}

/* The file's beginning as text; "" when it cannot be read. */
static void read_text(const char *path, char *out, size_t size)
{
    FILE *file = fopen(path, "re");
    size_t used = 0;

    if (file != NULL) {
        used = fread(out, 1, size - 1, file);
        fclose(file);
    }
    out[used] = '\0';
}

/* `ticks`: when it started, in clock ticks since the system did. */
static uint64_t start_time(uint64_t ticks)
{
    uint64_t per_second = (uint64_t)sysconf(_SC_CLK_TCK);
    char text[64];
    double uptime_s = 0;

    read_text("/proc/uptime", text, sizeof text);
    if (sscanf(text, "%lf", &uptime_s) != 1)
        return 0;
    return clock_unix_us() - (uint64_t)(uptime_s * 1e6) + ticks * 1000000 / per_second;
}

/* Of /proc/self/stat, after the program's name, which may hold anything: the fields 20 (threads),
 * 22 (start) and 23, 24 (memory) of proc(5), the first of those behind it being 3. */
static void look_at_stat(struct process *out)
{
    static _Atomic uint64_t started_us; /* the clock may be set meanwhile: asked once */
    uint64_t threads = 0, ticks = 0, size = 0, pages = 0;
    char text[1024];

    read_text("/proc/self/stat", text, sizeof text);
    const char *after = strrchr(text, ')');
    if (after == NULL ||
        sscanf(after + 1,
               " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNu64
               " %*s %" SCNu64 " %" SCNu64 " %" SCNu64,
               &threads, &ticks, &size, &pages) != 4)
        return;
    out->threads = threads;
    out->virtual_bytes = size;
    out->resident_bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t known = 0, now = start_time(ticks);
    out->started_us = atomic_compare_exchange_strong(&started_us, &known, now) ? now : known;
}

static uint64_t count_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    uint64_t count = 0;

    if (folder == NULL)
        return 0;
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count - 1; /* the folder's own */
}

void process_look(struct process *out)
{
    struct rusage usage;
    struct rlimit limit;

    *out = (struct process){.descriptors = count_descriptors()};
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        out->cpu_us = time_us(usage.ru_utime) + time_us(usage.ru_stime);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        out->descriptors_max = limit.rlim_cur;
    look_at_stat(out);
}
