/* What the system says of this process. */
#include "api/process.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "service/core/clock.h"

static uint64_t started_us;

void process_started(void)
{
    started_us = clock_unix_us();
}

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

/* Of /proc/self/stat, after the program's name, which may hold anything: the fields 20 (threads),
 * 23 and 24 (memory) of proc(5), the first of those behind it being 3. */
static void look_at_stat(struct process *out)
{
    uint64_t threads = 0, size = 0, pages = 0;
    char text[1024];

    read_text("/proc/self/stat", text, sizeof text);
    const char *after = strrchr(text, ')');
    if (after == NULL ||
        sscanf(after + 1,
               " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNu64
               " %*s %*s %" SCNu64 " %" SCNu64,
               &threads, &size, &pages) != 3)
        return;
    out->threads = threads;
    out->virtual_bytes = size;
    out->resident_bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE);
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

    *out = (struct process){.started_us = started_us, .descriptors = count_descriptors()};
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        out->cpu_us = time_us(usage.ru_utime) + time_us(usage.ru_stime);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        out->descriptors_max = limit.rlim_cur;
    look_at_stat(out);
}
