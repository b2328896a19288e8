/* Backup, restore and compact on failing disks: operation n of SQLite's fails, n = 1, 2, 3 ...
 * until a run is not hit any more. What was there is there, whole; what is new is whole or not
 * there; and the next try is not hindered. Loop index _i: the way of failing. */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "service/core/log.h"
#include "storage/store.h"
#include "tests/lib/shim_vfs.h"
#include "tests/lib/testing.h"

enum { EVENTS = 8, EVENT_BYTES = 33 * 1024, OPERATIONS_MIN = 8 };

static struct fault fault;

#define CALL(verb, ...) store->backend->verb(store, __VA_ARGS__)
#define OK(call) ck_assert_msg((call) == STATUS_OK, "%s: %s", #call, fault.detail)

/* A database with a session, a checkpoint and events, the first half of them dropped. */
static void fill(const char *folder)
{
    static unsigned char body[EVENT_BYTES];
    struct store *store = NULL;

    OK(store_open(folder, true, &store, &fault));
    OK(CALL(begin, &fault));
    OK(CALL(session_put, &(struct store_session){5, "m", span_of(body, 1031)}, &fault));
    for (uint64_t lsn = 1; lsn <= EVENTS; lsn++) {
        memset(body, (int)lsn, sizeof body);
        const struct store_event event = {
            .lsn = lsn, .session = 5, .kind = 1, .chunks = 1, .body = span_of(body, sizeof body)};
        OK(CALL(event_append, &event, &fault));
    }
    OK(CALL(checkpoint_put, 6, 5, 0, span_of(body, sizeof body), &fault));
    OK(CALL(checkpoint_seal, &(struct store_checkpoint){6, 5, 3, 1, 1, sizeof body}, &fault));
    OK(CALL(commit, &fault));
    OK(CALL(begin, &fault));
    OK(CALL(event_drop, 1, EVENTS / 2, &fault));
    OK(CALL(commit, &fault));
    store_close(store);
}

static bool has_database(const char *folder)
{
    char path[512];

    snprintf(path, sizeof path, "%s/descent.db", folder);
    return access(path, F_OK) == 0;
}

/* It holds all that fill() left there, and nothing of it is damaged. */
static void check_whole(const char *folder, const char *what, uint64_t n)
{
    struct store_report report;
    struct store *store = NULL;

    ck_assert_msg(store_inspect(folder, &store, &fault) == STATUS_OK, "%s, n = %d: %s", what,
                  (int)n, fault.detail);
    OK(CALL(verify, NULL, &report, &fault));
    store_close(store);
    ck_assert_msg(report.findings == 0 && report.sessions == 1 && report.checkpoints == 1 &&
                      report.events == EVENTS / 2 &&
                      report.bytes == 1031 + (EVENTS / 2 + 1) * EVENT_BYTES,
                  "%s, n = %d: not what was there", what, (int)n);
}

static enum status backup(const char *folder, const char *target)
{
    uint64_t bytes;

    return store_backup(folder, target, NULL, &bytes, &fault);
}

static enum status restore(const char *folder, const char *target)
{
    struct store_report report;

    return store_restore(target, folder, NULL, &report, &fault);
}

static enum status compact(const char *folder, const char *target)
{
    uint64_t before = 0, after = 0;
    enum status status = store_compact(folder, NULL, &before, &after, &fault);

    (void)target;
    ck_assert(status != STATUS_OK || (after > 0 && after < before));
    return status;
}

static const struct {
    const char *name;
    enum status (*run)(const char *folder, const char *target);
    bool copies; /* into the target */
} works[] = {{"backup", backup, true}, {"restore", restore, true}, {"compact", compact, false}};

/* One run with operation n failing; false when n was beyond the last one. */
static bool hit(size_t work, enum shim_mode mode, uint64_t n, uint64_t seed)
{
    const char *name = works[work].name;
    char folder[256], target[256];

    snprintf(folder, sizeof folder, "%s", testing_folder());
    snprintf(target, sizeof target, "%s", testing_folder());
    fill(folder);
    shim_vfs_arm(mode, n, seed);
    enum status status = works[work].run(folder, target);
    bool fired = shim_vfs_fired();
    shim_vfs_arm(mode, 0, 0);
    ck_assert_msg(status == STATUS_OK || status == STATUS_STORAGE_FAILED ||
                      (status == STATUS_STORAGE_FULL && mode == SHIM_FULL),
                  "%s, n = %d: %s", name, (int)n, fault.detail);
    ck_assert_msg(fired || status == STATUS_OK, "%s: %s", name, fault.detail);
    check_whole(folder, name, n);
    if (works[work].copies) {
        ck_assert_msg(has_database(target) == (status == STATUS_OK), "%s, n = %d", name, (int)n);
        if (status != STATUS_OK)
            OK(works[work].run(folder, target));
        check_whole(target, name, n);
    } else if (status != STATUS_OK) {
        OK(works[work].run(folder, target));
        check_whole(folder, name, n);
    }
    return fired;
}

START_TEST(failing_disk_leaves_what_was_there)
{
    uint64_t seed = testing_seed() | 1;

    log_set_level(LOG_OFF);
    shim_vfs_install();
    for (size_t work = 0; work < sizeof works / sizeof *works; work++) {
        uint64_t n = 1;
        while (hit(work, (enum shim_mode)_i, n, seed))
            n++;
        /* A restore copies without SQLite. The others write every page through the shim. */
        ck_assert_uint_gt(n, works[work].run == restore ? 0 : OPERATIONS_MIN);
    }
}
END_TEST

/* Whether the folder has a journal that SQLite would roll back. */
static bool has_hot_journal(const char *folder)
{
    static const unsigned char magic[] = {0xD9, 0xD5, 0x05, 0xF9, 0x20, 0xA1, 0x63, 0xD7};
    unsigned char mark[sizeof magic] = {0};
    char path[512];

    snprintf(path, sizeof path, "%s/descent.db-journal", folder);
    int file = open(path, O_RDONLY);
    bool hot = file >= 0 && pread(file, mark, sizeof mark, 0) == sizeof mark &&
               memcmp(mark, magic, sizeof mark) == 0;
    if (file >= 0)
        close(file);
    return hot;
}

/* Drops every event, and dies at operation n. */
static enum status die_dropping(const char *folder, uint64_t n)
{
    struct store *store = NULL;

    OK(store_open(folder, false, &store, &fault));
    shim_vfs_arm(SHIM_EVER, n, 0);
    enum status status = CALL(begin, &fault);
    if (status == STATUS_OK && (status = CALL(event_drop, 1, EVENTS, &fault)) != STATUS_OK)
        store->backend->rollback(store);
    else if (status == STATUS_OK)
        status = CALL(commit, &fault);
    store_close(store);
    shim_vfs_arm(SHIM_EVER, 0, 0);
    return status;
}

/* The copy of a folder as a crash left it has a journal, which is rolled back with it. The last n
 * that leaves one is when every page has been written already. */
START_TEST(restore_takes_the_journal_of_a_crash_along)
{
    char folder[256], crashed[256] = "", target[256];
    uint64_t n = 0;
    enum status status;

    log_set_level(LOG_OFF);
    shim_vfs_install();
    do {
        snprintf(folder, sizeof folder, "%s", testing_folder());
        fill(folder);
        status = die_dropping(folder, ++n);
        if (status != STATUS_OK && has_hot_journal(folder))
            snprintf(crashed, sizeof crashed, "%s", folder);
    } while (status != STATUS_OK);
    ck_assert_msg(crashed[0] != '\0', "no operation left a journal");
    snprintf(target, sizeof target, "%s", testing_folder());
    OK(restore(crashed, target));
    check_whole(target, "restore", n);
}
END_TEST

Suite *suite_store_care(void);

Suite *suite_store_care(void)
{
    Suite *suite = suite_create("store_care");
    TCase *tcase = tcase_create("sqlite");

    tcase_add_loop_test(tcase, failing_disk_leaves_what_was_there, 0, SHIM_MODES);
    tcase_add_test(tcase, restore_takes_the_journal_of_a_crash_along);
    tcase_set_timeout(tcase, 60);
    suite_add_tcase(suite, tcase);
    return suite;
}
