/* What tests share. */
#include "tests/lib/testing.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static uint64_t seed;
static char root[64];
static pid_t owner;

void testing_init(void)
{
    const char *given = getenv("DESCENT_TEST_SEED");
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)now.tv_nsec;
    printf("seed: DESCENT_TEST_SEED=%llu\n", (unsigned long long)seed);
    const char *base = getenv("TMPDIR");
    snprintf(root, sizeof root, "%s/descent-tests-XXXXXX",
             base != NULL && strlen(base) < 32 ? base : "/tmp");
    if (mkdtemp(root) == NULL) {
        perror(root);
        exit(2);
    }
    owner = getpid();
}

void testing_close(void)
{
    char command[96];

    if (getpid() != owner)
        return;
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    if (system(command) != 0)
        fprintf(stderr, "could not remove %s\n", root);
}

uint64_t testing_seed(void)
{
    return seed;
}

const char *testing_folder(void)
{
    enum { FOLDERS = 256 };
    static char folders[FOLDERS][sizeof root + 40];
    static atomic_uint next;
    unsigned number = atomic_fetch_add(&next, 1);
    char *folder = folders[number % FOLDERS];

    /* Check forks for every test: the process number keeps names apart. */
    snprintf(folder, sizeof *folders, "%s/%ld-%u", root, (long)getpid(), number);
    if (mkdir(folder, 0700) != 0)
        abort();
    return folder;
}

void testing_pause(double seconds)
{
    nanosleep(&(struct timespec){.tv_sec = (time_t)seconds,
                                 .tv_nsec = (long)((seconds - floor(seconds)) * 1e9)},
              NULL);
}

uint64_t testing_random(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;

    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

double testing_uniform(uint64_t *state)
{
    return (double)(testing_random(state) >> 11) * 0x1p-53;
}

double testing_normal(uint64_t *state)
{
    double radius = sqrt(-2 * log(1 - testing_uniform(state)));

    return radius * cos(6.283185307179586 * testing_uniform(state));
}
