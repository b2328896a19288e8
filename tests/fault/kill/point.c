/* What the environment asks of points.def and bugs.def, in the flavour `points` only:
 *
 *     DESCENT_POINT=NAME:N[:MS]   kills the process when NAME is passed for the N-th time, MS
 *                                 milliseconds later, while the other threads go on
 *     DESCENT_BUG=NAME            breaks that promise
 *
 * A name that is not in the table ends the process at once: a test that asks for what there is not
 * would prove nothing. The points inside a commit need no line in storage/: what SQLite calls to
 * write and sync is found here first. */
#include "service/core/point.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const char *const points[] = {
#define POINT_NAME(name, meaning) #name,
#undef POINT
#define POINT POINT_NAME
#include "service/core/points.def"
#undef POINT
#define POINT(name) point_pass(POINT_##name)
};

static const char *const bugs[] = {
#undef BUG
#define BUG(name, promise, test) #name,
#include "service/core/bugs.def"
#undef BUG
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int armed = -1, wanted = -1;
static unsigned long passes_left, pause_ms;

static int find(const char *const *names, int count, const char *name, size_t size,
                const char *variable)
{
    for (int i = 0; i < count; i++)
        if (strlen(names[i]) == size && memcmp(names[i], name, size) == 0)
            return i;
    fprintf(stderr, "%s: there is no \"%s\"\n", variable, name);
    _exit(2);
}

static void read_environment(void)
{
    const char *point = getenv("DESCENT_POINT"), *bug = getenv("DESCENT_BUG");

    if (bug != NULL && *bug != '\0')
        wanted = find(bugs, BUG_COUNT, bug, strlen(bug), "DESCENT_BUG");
    if (point == NULL || *point == '\0')
        return;
    char *end = NULL;
    size_t size = strcspn(point, ":");
    int found = find(points, POINT_COUNT, point, size, "DESCENT_POINT");
    passes_left = point[size] == ':' ? strtoul(point + size + 1, &end, 10) : 1;
    if (end != NULL && *end == ':')
        pause_ms = strtoul(end + 1, &end, 10);
    if (passes_left == 0 || (end != NULL && *end != '\0')) {
        fprintf(stderr, "DESCENT_POINT: \"%s\" is not NAME:N[:MS]\n", point);
        _exit(2);
    }
    armed = found;
}

void point_pass(enum point point)
{
    pthread_once(&once, read_environment);
    if ((int)point != armed || __atomic_sub_fetch(&passes_left, 1, __ATOMIC_RELAXED) != 0)
        return;
    const struct timespec pause = {.tv_sec = (time_t)(pause_ms / 1000),
                                   .tv_nsec = (long)(pause_ms % 1000) * 1000000};
    nanosleep(&pause, NULL);
    kill(getpid(), SIGKILL);
    for (;;)
        nanosleep(&(struct timespec){.tv_sec = 1}, NULL); /* not a step further */
}

bool bug_wanted(enum bug bug)
{
    pthread_once(&once, read_environment);
    return (int)bug == wanted;
}

/* --- in place of the C library's, for SQLite too --- */

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset)
{
    size_t half = size / 2;

    if (half > 0) {
        long done = syscall(SYS_pwrite64, descriptor, data, half, offset);
        if (done != (long)half)
            return done;
        POINT(in_write);
    }
    long rest = syscall(SYS_pwrite64, descriptor, (const char *)data + half, size - half,
                        offset + (off64_t)half);
    return rest < 0 ? rest : (ssize_t)half + rest;
}

int fdatasync(int descriptor)
{
    POINT(before_sync);
    long code = syscall(SYS_fdatasync, descriptor);
    POINT(after_sync);
    return (int)code;
}
