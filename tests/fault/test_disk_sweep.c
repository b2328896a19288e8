/* The whole engine over a disk that fails at its n-th operation, n = 1, 2, 3 ... until nothing
 * fails; and over one that loses its power then (tests/lib/shim_vfs.h says what is left of it).
 * DESCENT_FAULT_LONG: every n, and many seeds of what a power cut leaves; else a part of the n,
 * from one on that the seed chooses. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "service/core/clock.h"
#include "tests/fault/story.h"
#include "tests/lib/shim_vfs.h"
#include "tests/lib/testing.h"

/* Waiting is most of the time: what is kept for later is tried again by the second. */
enum { WORKERS = 16, WRITES_MIN = 400, READS_MIN = 80 };

/* What the workers have seen, in memory they share. */
struct tally {
    uint64_t runs, fired, last, failures, doubts, lost, opening_us, openings;
};

static bool is_long(void)
{
    const char *text = getenv("DESCENT_FAULT_LONG");

    return text != NULL && strcmp(text, "1") == 0;
}

/* Goes through the story, and what the first fault left unfinished. */
static bool run(enum shim_mode mode, uint64_t n, uint64_t seed, const char *what,
                struct tally *tally)
{
    const char *folder = testing_folder();
    struct story story = story_begin(folder, what, n, seed);
    bool stop = mode == SHIM_EVER || mode == SHIM_POWER;

    shim_vfs_arm(mode, n, seed);
    bool open = story_open(&story, false);
    bool ended = open && story_go(&story, stop);
    if (!ended || stop) {
        /* Closed while the disk still fails: nothing can be tidied away. */
        story_close(&story);
        story.struck |= shim_vfs_fired();
        shim_vfs_arm(SHIM_ONCE, 0, 0);
        uint64_t begun = clock_monotonic_us();
        story_open(&story, true);
        story_take_up(&story);
        tally->opening_us += clock_monotonic_us() - begun;
        tally->openings++;
        story_go(&story, false);
    }
    story.struck |= shim_vfs_fired();
    shim_vfs_arm(SHIM_ONCE, 0, 0);
    story_end(&story);
    story_remove(folder);
    tally->runs++;
    tally->fired += story.struck;
    tally->failures += story.failures;
    tally->doubts += story.doubts;
    tally->lost += story.lost;
    if (story.struck && n > tally->last)
        tally->last = n;
    return story.struck;
}

/* n = first, first + stride ..., shared among processes, until nothing fails. */
static struct tally sweep(enum shim_mode mode, const char *what, uint64_t first, uint64_t stride,
                          uint64_t seed)
{
    struct tally *tallies = mmap(NULL, WORKERS * sizeof *tallies, PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct tally all = {0};
    pid_t workers[WORKERS];
    bool well = true;

    ck_assert_ptr_ne(tallies, MAP_FAILED);
    shim_vfs_install();
    story_learn();
    for (size_t w = 0; w < WORKERS; w++) {
        fflush(stdout);
        ck_assert_int_ge(workers[w] = fork(), 0);
        if (workers[w] == 0) {
            uint64_t n = first + stride * w;
            while (run(mode, n, seed == 0 ? 0 : seed + n, what, &tallies[w]))
                n += stride * WORKERS;
            _exit(0);
        }
    }
    for (size_t w = 0; w < WORKERS; w++) {
        int state;
        ck_assert_int_eq(waitpid(workers[w], &state, 0), workers[w]);
        if (!WIFEXITED(state) || WEXITSTATUS(state) != 0) {
            printf("%s: worker %zu ended with %x after %d runs from n = %d by %d\n", what, w,
                   (unsigned)state, (int)tallies[w].runs, (int)(first + stride * w),
                   (int)(stride * WORKERS));
            well = false;
        }
        const uint64_t *from = (const uint64_t *)&tallies[w];
        uint64_t *to = (uint64_t *)&all;
        for (size_t i = 0; i < sizeof all / sizeof *to; i++)
            if (to + i != &all.last)
                to[i] += from[i];
            else if (from[i] > all.last)
                all.last = from[i];
    }
    munmap(tallies, WORKERS * sizeof *tallies);
    ck_assert_msg(well, "%s", what);
    printf("  %s: n = %d, %d ... %d, seed %llu: %d runs, %d of them hit, %d actions failed, "
           "%d restarts asked for, %d actions undone (none durable)",
           what, (int)first, (int)(first + stride), (int)all.last, (unsigned long long)seed,
           (int)all.runs, (int)all.fired, (int)all.failures, (int)all.doubts, (int)all.lost);
    if (all.openings > 0)
        printf(", back after %.1f ms", 1e-3 * (double)all.opening_us / (double)all.openings);
    printf("\n");
    /* The shim is in use. */
    ck_assert_uint_ge(all.last + stride, mode == SHIM_READ ? READS_MIN : WRITES_MIN);
    ck_assert_uint_gt(all.failures, 0);
    return all;
}

/* In the short form one n of so many, from a random one on. */
static struct tally sweep_part(enum shim_mode mode, const char *what, uint64_t stride)
{
    uint64_t random = testing_seed() ^ (uint64_t)mode;

    return is_long() ? sweep(mode, what, 1, 1, 0)
                     : sweep(mode, what, 1 + testing_random(&random) % stride, stride, 0);
}

START_TEST(one_error_at_any_operation)
{
    struct tally tally = sweep_part(SHIM_ONCE, "one I/O error", 7);

    ck_assert_uint_gt(tally.doubts + !is_long(), 0); /* the last sync of a commit */
}
END_TEST

START_TEST(one_write_cut_short)
{
    sweep_part(SHIM_SHORT, "one short write", 13);
}
END_TEST

START_TEST(one_read_that_fails)
{
    sweep_part(SHIM_READ, "one failed read", 9);
}
END_TEST

START_TEST(disk_dead_from_an_operation_on)
{
    sweep_part(SHIM_EVER, "a dead disk", 13);
}
END_TEST

START_TEST(disk_full_from_an_operation_on)
{
    sweep_part(SHIM_FULL, "a full disk", 13);
}
END_TEST

START_TEST(power_cut_that_forgets_all_that_was_not_synced)
{
    sweep_part(SHIM_POWER, "power cut, all unsynced lost", 17);
}
END_TEST

START_TEST(power_cut_that_tears_and_reorders_unsynced_writes)
{
    uint64_t random = testing_seed() ^ 0x70, rounds = is_long() ? 25 : 1;

    for (uint64_t i = 0; i < rounds; i++)
        sweep(SHIM_POWER, "power cut, torn and reordered", 1, is_long() ? 1 : 5,
              testing_random(&random) | 1);
}
END_TEST

Suite *suite_disk_sweep(void);

Suite *suite_disk_sweep(void)
{
    Suite *suite = suite_create("disk_sweep");
    TCase *tcase = tcase_create("the n-th operation");

    tcase_set_timeout(tcase, is_long() ? 1800 : 120);
    tcase_add_test(tcase, one_error_at_any_operation);
    tcase_add_test(tcase, one_write_cut_short);
    tcase_add_test(tcase, one_read_that_fails);
    tcase_add_test(tcase, disk_dead_from_an_operation_on);
    tcase_add_test(tcase, disk_full_from_an_operation_on);
    tcase_add_test(tcase, power_cut_that_forgets_all_that_was_not_synced);
    tcase_add_test(tcase, power_cut_that_tears_and_reorders_unsynced_writes);
    suite_add_tcase(suite, tcase);
    return suite;
}
