/* The SQLite store under failing disks, power cuts and failing memory. A fixed script of
 * transactions runs once into the memory store, which gives the digest of the state after each;
 * then into SQLite with operation n failing, n = 1, 2, 3 ... until a run is not hit any more. After
 * each failure the state must be the one of the last commit that returned OK. */
#include <check.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/hash.h"
#include "service/core/log.h"
#include "storage/store.h"
#include "tests/lib/shim_vfs.h"
#include "tests/lib/testing.h"

enum { SCRIPT_LENGTH = 3, EVENTS_MAX = 32 };

static unsigned char noise[STORE_CHUNK_BYTES];
static struct digest after[SCRIPT_LENGTH + 1]; /* the state after so many transactions */

#define CALL(verb, ...) store->backend->verb(store, __VA_ARGS__)

/* --- the digest of everything that a store holds --- */

struct listing {
    struct hash *hash;
    struct store_checkpoint checkpoint[EVENTS_MAX];
    struct store_event event[EVENTS_MAX];
    size_t checkpoints, events;
};

static enum status list_session(void *context, const struct store_session *session)
{
    struct listing *listing = context;

    hash_add(listing->hash, &session->key, sizeof session->key);
    hash_add(listing->hash, session->id, strlen(session->id) + 1);
    hash_add(listing->hash, session->record.data, session->record.size);
    return STATUS_OK;
}

static enum status list_checkpoint(void *context, const struct store_checkpoint *checkpoint)
{
    struct listing *listing = context;

    ck_assert_uint_lt(listing->checkpoints, EVENTS_MAX);
    listing->checkpoint[listing->checkpoints++] = *checkpoint;
    return STATUS_OK;
}

static enum status list_event(void *context, const struct store_event *event)
{
    struct listing *listing = context;

    ck_assert_uint_lt(listing->events, EVENTS_MAX);
    listing->event[listing->events++] = *event;
    return STATUS_OK;
}

static void digest_event(struct store *store, struct hash *hash, uint64_t lsn)
{
    static unsigned char head[STORE_HEAD_BYTES], body[STORE_CHUNK_BYTES];
    struct store_event event;
    struct fault fault;

    ck_assert_msg(CALL(event_read, lsn, head, body, &event, &fault) == STATUS_OK, "%s",
                  fault.detail);
    hash_add(hash, &event.lsn, sizeof event.lsn);
    hash_add(hash, &event.chunk, sizeof event.chunk);
    hash_add(hash, head, event.head.size);
    hash_add(hash, body, event.body.size);
}

static struct digest digest_of(struct store *store)
{
    static unsigned char body[STORE_CHUNK_BYTES];
    struct listing listing = {.hash = hash_new()};
    const struct store_visitor visitor = {&listing, list_session, list_checkpoint, list_event,
                                          NULL};
    struct fault fault;
    size_t size;

    ck_assert_msg(CALL(scan, &visitor, &fault) == STATUS_OK, "%s", fault.detail);
    for (size_t i = 0; i < listing.checkpoints; i++)
        for (uint32_t k = 0; k < listing.checkpoint[i].chunks; k++) {
            uint64_t id = listing.checkpoint[i].id;
            ck_assert_msg(CALL(checkpoint_read, id, k, body, &size, &fault) == STATUS_OK, "%s",
                          fault.detail);
            hash_add(listing.hash, &id, sizeof id);
            hash_add(listing.hash, body, size);
        }
    for (size_t i = 0; i < listing.events; i++)
        for (uint32_t k = 0; k < listing.event[i].chunks; k++)
            digest_event(store, listing.hash, listing.event[i].lsn + k);
    return hash_end(listing.hash);
}

static int state_of(struct store *store)
{
    struct digest digest = digest_of(store);

    for (int i = 0; i <= SCRIPT_LENGTH; i++)
        if (memcmp(&digest, &after[i], sizeof digest) == 0)
            return i;
    return -1;
}

/* --- the script --- */

/* Transaction i of the script, 0 .. SCRIPT_LENGTH-1. Its numbers depend on i alone. */
static enum status script_write(struct store *store, int i, struct fault *fault)
{
    const uint64_t n = (uint64_t)i;
    const struct store_session session = {1 + i % 3, (const char *[]){"a", "b", "c"}[i % 3],
                                          span_of(noise + i, 1031)};
    const struct store_checkpoint sealed = {n + 1, 1, n * 10 + 4, n, 2, 9};
    enum status status = CALL(session_put, &session, fault);

    for (uint32_t k = 0; k < 3 && status == STATUS_OK; k++) {
        const struct store_event event = {.lsn = n * 10 + 1 + k,
                                          .session = 1,
                                          .step = n,
                                          .kind = 1,
                                          .chunk = k,
                                          .chunks = 3,
                                          .head = span_of(noise, k == 0 ? 7 : 0),
                                          .body = span_of(noise + i, k == 2 ? 1 : 33001)};
        status = CALL(event_append, &event, fault);
    }
    for (uint32_t k = 0; k < 2 && status == STATUS_OK; k++)
        status = CALL(checkpoint_put, n + 1, 1, k, span_of(noise + i, 20011), fault);
    if (status == STATUS_OK)
        status = CALL(checkpoint_seal, &sealed, fault);
    if (i >= 1 && status == STATUS_OK)
        status = CALL(event_drop, 1, n * 10, fault);
    if (i >= 1 && status == STATUS_OK)
        status = CALL(checkpoint_drop, n, fault);
    if (i == 2 && status == STATUS_OK)
        status = CALL(session_drop, 1, fault);
    return status;
}

static enum status script_step(struct store *store, int i, struct fault *fault)
{
    enum status status = CALL(begin, fault);

    if (status != STATUS_OK)
        return status;
    if ((status = script_write(store, i, fault)) != STATUS_OK) {
        store->backend->rollback(store);
        return status;
    }
    return CALL(commit, fault);
}

static void script_learn(void)
{
    struct store *store = NULL;
    struct fault fault;
    uint64_t state = testing_seed() ^ 0xFA;

    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (unsigned char)testing_random(&state);
    ck_assert_uint_eq(store_open("memory:", true, &store, &fault), STATUS_OK);
    for (int i = 0; i < SCRIPT_LENGTH; i++) {
        after[i] = digest_of(store);
        ck_assert_uint_eq(script_step(store, i, &fault), STATUS_OK);
    }
    after[SCRIPT_LENGTH] = digest_of(store);
    store_close(store);
    for (int i = 1; i <= SCRIPT_LENGTH; i++)
        ck_assert_mem_ne(&after[i], &after[i - 1], sizeof *after);
}

/* --- the sweep --- */

static struct store *must_open(const char *folder)
{
    struct store *store = NULL;
    struct fault fault;

    ck_assert_msg(store_open(folder, true, &store, &fault) == STATUS_OK, "%s", fault.detail);
    return store;
}

static struct fault fault; /* of the failure that ended a run */

/* Opens and runs the script until something fails. Returns the transactions that were committed;
 * *out is NULL when not even open passed. */
static int run_until_failure(const char *folder, struct store **out)
{
    int committed = 0;

    *out = NULL;
    fault = (struct fault){.status = STATUS_OK};
    if (store_open(folder, true, out, &fault) != STATUS_OK) {
        *out = NULL;
        return 0;
    }
    while (committed < SCRIPT_LENGTH && script_step(*out, committed, &fault) == STATUS_OK)
        committed++;
    return committed;
}

/* The disk is well again: the open store mends itself without losing or inventing anything, and the
 * script runs on. Returns false when it says that only a restart helps. */
static bool mends_itself(struct store *store, int committed, uint64_t n)
{
    struct fault why;
    enum status status = CALL(maintain, NULL, &why);

    if (status != STATUS_OK) {
        ck_assert_msg(strstr(why.detail, "Restart the server") != NULL, "n = %d: %s", (int)n,
                      why.detail);
        ck_assert_uint_eq(CALL(begin, &why), STATUS_STORAGE_FAILED);
        return false;
    }
    ck_assert_msg(state_of(store) == committed, "n = %d: state %d, committed %d", (int)n,
                  state_of(store), committed);
    for (int i = committed; i < SCRIPT_LENGTH; i++)
        ck_assert_msg(script_step(store, i, &why) == STATUS_OK, "n = %d: %s", (int)n, why.detail);
    ck_assert_int_eq(state_of(store), SCRIPT_LENGTH);
    return true;
}

/* A new open finds between `least` and `most` transactions, whole ones. */
static void check_reopened(const char *folder, int least, int most, uint64_t n)
{
    struct store *store = must_open(folder);
    int state = state_of(store);

    ck_assert_msg(state >= least && state <= most, "n = %d: state %d, not %d to %d", (int)n, state,
                  least, most);
    if (state < SCRIPT_LENGTH)
        ck_assert_msg(script_step(store, state, &fault) == STATUS_OK, "n = %d: %s", (int)n,
                      fault.detail);
    store_close(store);
}

static bool allowed(enum shim_mode mode, enum status status)
{
    return status == STATUS_STORAGE_FAILED || (mode == SHIM_FULL && status == STATUS_STORAGE_FULL);
}

/* One run with operation n failing; false when n was beyond the last operation. */
static bool hit(enum shim_mode mode, uint64_t n, uint64_t seed, uint64_t *doubts)
{
    const char *folder = testing_folder();
    struct store *store = NULL;
    int most;

    shim_vfs_arm(mode, n, seed);
    int committed = run_until_failure(folder, &store);
    bool fired = shim_vfs_fired();
    bool well = committed == SCRIPT_LENGTH; /* not hit, or where it did no harm */
    if (!well)
        ck_assert_msg(allowed(mode, fault.status), "n = %d: %s", (int)n, fault.detail);
    if (mode == SHIM_POWER || mode == SHIM_EVER) {
        /* Closed while the disk still fails: nothing can be tidied away. The last commit may have
         * arrived. */
        most = committed + (store != NULL && !well);
        store_close(store);
        shim_vfs_arm(mode, 0, 0);
        check_reopened(folder, committed, most, n);
        return fired;
    }
    shim_vfs_arm(mode, 0, 0);
    if (store != NULL && !well) {
        /* Doubt is never cried without need: what was reported as failed is there indeed. */
        bool mended = mends_itself(store, committed, n);
        committed = mended ? SCRIPT_LENGTH : committed + 1;
        *doubts += !mended;
    }
    store_close(store);
    check_reopened(folder, committed, committed, n);
    return fired;
}

static uint64_t sweep(enum shim_mode mode, uint64_t seed)
{
    uint64_t n = 1, doubts = 0;

    log_set_level(LOG_OFF);
    shim_vfs_install();
    script_learn();
    while (hit(mode, n, seed, &doubts))
        n++;
    ck_assert_uint_gt(n, 60); /* the script does far more than that: the shim is really in use */
    return doubts;
}

START_TEST(single_io_error_loses_nothing_and_is_mended)
{
    /* Only the very last sync of a commit leaves a doubt. */
    ck_assert_uint_eq(sweep(SHIM_ONCE, 0), SCRIPT_LENGTH);
}
END_TEST

START_TEST(death_in_the_middle_of_writing_loses_nothing)
{
    sweep(SHIM_EVER, 0);
}
END_TEST

START_TEST(full_disk_loses_nothing_and_work_goes_on_when_space_returns)
{
    sweep(SHIM_FULL, 0);
}
END_TEST

START_TEST(power_cut_that_forgets_every_unsynced_write_loses_no_commit)
{
    sweep(SHIM_POWER, 0);
}
END_TEST

START_TEST(power_cut_that_forgets_some_unsynced_writes_loses_no_commit)
{
    sweep(SHIM_POWER, testing_seed() | 1);
}
END_TEST

/* No maintain() needed: the very next transaction passes once there is space. */
START_TEST(full_disk_is_forgotten_at_once)
{
    log_set_level(LOG_OFF);
    shim_vfs_install();
    script_learn();
    struct store *store = must_open(testing_folder());
    ck_assert_uint_eq(script_step(store, 0, &fault), STATUS_OK);
    shim_vfs_arm(SHIM_FULL, 1, 0);
    ck_assert_uint_eq(script_step(store, 1, &fault), STATUS_STORAGE_FULL);
    ck_assert_uint_eq(script_step(store, 1, &fault), STATUS_STORAGE_FULL);
    shim_vfs_arm(SHIM_FULL, 0, 0);
    ck_assert_int_eq(state_of(store), 1);
    ck_assert_msg(script_step(store, 1, &fault) == STATUS_OK, "%s", fault.detail);
    ck_assert_int_eq(state_of(store), 2);
    store_close(store);
}
END_TEST

START_TEST(no_write_passes_between_an_io_error_and_the_check)
{
    log_set_level(LOG_OFF);
    shim_vfs_install();
    script_learn();
    struct store *store = must_open(testing_folder());
    shim_vfs_arm(SHIM_ONCE, 2, 0);
    ck_assert_uint_eq(script_step(store, 0, &fault), STATUS_STORAGE_FAILED);
    ck_assert_uint_eq(script_step(store, 0, &fault), STATUS_STORAGE_FAILED);
    ck_assert_int_eq(state_of(store), 0); /* reads go on */
    ck_assert_uint_eq(CALL(maintain, NULL, &fault), STATUS_OK);
    ck_assert_uint_eq(script_step(store, 0, &fault), STATUS_OK);
    store_close(store);
}
END_TEST

/* --- giving space back --- */

enum { HEAP_EVENTS = 80 }; /* 40 MB, four slices */

/* Much is written and dropped again, behind the script's first transaction. */
static uint64_t leave_free_pages(struct store *store, uint64_t lsn)
{
    uint64_t first = lsn + 1;

    ck_assert_uint_eq(CALL(begin, &fault), STATUS_OK);
    for (int i = 0; i < HEAP_EVENTS; i++) {
        const struct store_event event = {.lsn = ++lsn,
                                          .session = 1,
                                          .kind = 1,
                                          .chunks = 1,
                                          .body = span_of(noise, sizeof noise)};
        ck_assert_uint_eq(CALL(event_append, &event, &fault), STATUS_OK);
    }
    ck_assert_uint_eq(CALL(commit, &fault), STATUS_OK);
    ck_assert_uint_eq(CALL(begin, &fault), STATUS_OK);
    ck_assert_uint_eq(CALL(event_drop, first, lsn, &fault), STATUS_OK);
    ck_assert_uint_eq(CALL(commit, &fault), STATUS_OK);
    return lsn;
}

/* Operation n of a slice fails, n = 1, 2, ...: nothing is lost, and the next write passes. */
START_TEST(slice_that_fails_disturbs_nobody)
{
    const enum shim_mode mode = _i == 0 ? SHIM_ONCE : SHIM_FULL;
    struct store *store;
    bool more = false, fired = true;
    uint64_t lsn = 1000, hits = 0;

    log_set_level(LOG_OFF);
    shim_vfs_install();
    script_learn();
    store = must_open(testing_folder());
    ck_assert_uint_eq(script_step(store, 0, &fault), STATUS_OK);
    for (uint64_t n = 1; fired; n += 1 + n / 16) {
        while (!more) {
            lsn = leave_free_pages(store, lsn);
            ck_assert_uint_eq(CALL(maintain, &more, &fault), STATUS_OK);
        }
        shim_vfs_arm(mode, n, 0);
        enum status status = CALL(maintain, &more, &fault);
        fired = shim_vfs_fired();
        shim_vfs_arm(mode, 0, 0);
        if (mode == SHIM_ONCE)
            ck_assert_msg(status == STATUS_OK, "n = %d: %s", (int)n, fault.detail);
        else if (status != STATUS_OK) /* it was not the slice alone */
            ck_assert_msg(CALL(maintain, NULL, &fault) == STATUS_OK, "n = %d: %s", (int)n,
                          fault.detail);
        ck_assert_msg(CALL(begin, &fault) == STATUS_OK, "n = %d: %s", (int)n, fault.detail);
        ck_assert_uint_eq(CALL(session_put, &(struct store_session){9, "z", {0}}, &fault),
                          STATUS_OK);
        ck_assert_msg(CALL(commit, &fault) == STATUS_OK, "n = %d: %s", (int)n, fault.detail);
        ck_assert_uint_eq(CALL(begin, &fault), STATUS_OK);
        ck_assert_uint_eq(CALL(session_drop, 9, &fault), STATUS_OK);
        ck_assert_uint_eq(CALL(commit, &fault), STATUS_OK);
        ck_assert_int_eq(state_of(store), 1);
        hits += fired;
        more &= !fired;
    }
    ck_assert_uint_gt(hits, 10);
    store_close(store);
}
END_TEST

/* --- memory --- */

static sqlite3_mem_methods plain;
static uint64_t allocations, allocation_failing;

static bool allocation_fails(void)
{
    return ++allocations == allocation_failing;
}

static void *failing_malloc(int size)
{
    return allocation_fails() ? NULL : plain.xMalloc(size);
}

static void *failing_realloc(void *old, int size)
{
    return allocation_fails() ? NULL : plain.xRealloc(old, size);
}

START_TEST(failed_allocation_is_told_and_changes_nothing)
{
    uint64_t hits = 0;

    log_set_level(LOG_OFF);
    sqlite3_shutdown();
    ck_assert_int_eq(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &plain), SQLITE_OK);
    sqlite3_mem_methods failing = plain;
    failing.xMalloc = failing_malloc;
    failing.xRealloc = failing_realloc;
    ck_assert_int_eq(sqlite3_config(SQLITE_CONFIG_MALLOC, &failing), SQLITE_OK);
    shim_vfs_install(); /* for its quick syncs */
    script_learn();
    for (uint64_t n = 1;; n += 1 + n / 24) {
        const char *folder = testing_folder();
        struct store *store;
        allocations = 0;
        allocation_failing = n;
        int committed = run_until_failure(folder, &store);
        bool fired = allocations >= n;
        allocation_failing = 0;
        if (fired && committed < SCRIPT_LENGTH) {
            ck_assert_msg(fault.status == STATUS_INTERNAL, "n = %d: %s", (int)n, fault.detail);
            hits++;
        }
        if (store != NULL) {
            ck_assert_msg(mends_itself(store, committed, n), "n = %d", (int)n);
            committed = SCRIPT_LENGTH;
        }
        store_close(store);
        check_reopened(folder, committed, committed, n);
        if (!fired)
            break;
    }
    ck_assert_uint_gt(hits, 20);
}
END_TEST

Suite *suite_store_faults(void);

Suite *suite_store_faults(void)
{
    Suite *suite = suite_create("store_faults");
    TCase *tcase = tcase_create("sqlite");
    TCase *power = tcase_create("power");

    tcase_add_test(tcase, single_io_error_loses_nothing_and_is_mended);
    tcase_add_test(tcase, death_in_the_middle_of_writing_loses_nothing);
    tcase_add_test(tcase, full_disk_loses_nothing_and_work_goes_on_when_space_returns);
    tcase_add_test(power, power_cut_that_forgets_every_unsynced_write_loses_no_commit);
    tcase_add_test(power, power_cut_that_forgets_some_unsynced_writes_loses_no_commit);
    tcase_add_test(tcase, full_disk_is_forgotten_at_once);
    tcase_add_test(tcase, no_write_passes_between_an_io_error_and_the_check);
    tcase_add_loop_test(tcase, slice_that_fails_disturbs_nobody, 0, 2);
    tcase_add_test(tcase, failed_allocation_is_told_and_changes_nothing);
    tcase_set_timeout(tcase, 60);
    suite_add_tcase(suite, tcase);
    tcase_set_timeout(power, 60);
    suite_add_tcase(suite, power);
    return suite;
}
