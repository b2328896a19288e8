/* Stores that are looked at: no write gets through, and no damage gets past verify. Loop index _i
 * is the backend, or a line of a table. */
#include <check.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "service/core/hash.h"
#include "service/core/log.h"
#include "storage/store.h"
#include "tests/lib/testing.h"

enum { LETTERS = 4, BLOB = 1031, FLIPS = 400, PAGE = 32768 };

static struct fault fault;
static unsigned char letters[LETTERS][STORE_CHUNK_BYTES]; /* records, heads, bodies, chunks */

#define CALL(verb, ...) store->backend->verb(store, __VA_ARGS__)
#define OK(call) ck_assert_msg((call) == STATUS_OK, "%s: %s", #call, fault.detail)
#define FAILS(status, call) ck_assert_uint_eq(call, STATUS_##status)
#define SAYS(words) ck_assert_msg(strstr(fault.detail, words) != NULL, "%s", fault.detail)

/* --- what a store is filled with: 2 sessions, 2 checkpoints of 2 chunks, 3 events of 1 or 2 --- */

static void append(struct store *store, uint64_t lsn, uint32_t chunk, uint32_t chunks, size_t size)
{
    const struct store_event event = {
        .lsn = lsn,
        .session = 5,
        .step = lsn,
        .kind = 1,
        .chunk = chunk,
        .chunks = chunks,
        .head = span_of(letters[1], chunk == 0 ? BLOB : 0),
        .body = span_of(letters[2], size),
    };

    OK(CALL(event_append, &event, &fault));
}

static void put_checkpoint(struct store *store, uint64_t id, bool seal)
{
    for (uint32_t i = 0; i < 2; i++)
        OK(CALL(checkpoint_put, id, 5, i, span_of(letters[3], BLOB), &fault));
    if (seal)
        OK(CALL(checkpoint_seal, &(struct store_checkpoint){id, 5, 17, 1, 2, 2 * BLOB}, &fault));
}

static void fill(struct store *store)
{
    for (int i = 0; i < LETTERS; i++)
        memset(letters[i], "RHBC"[i], sizeof letters[i]);
    OK(CALL(begin, &fault));
    OK(CALL(session_put, &(struct store_session){5, "m", span_of(letters[0], BLOB)}, &fault));
    OK(CALL(session_put, &(struct store_session){6, "n", span_of(letters[0], 0)}, &fault));
    append(store, 17, 0, 1, BLOB);
    append(store, 18, 0, 2, STORE_CHUNK_BYTES);
    append(store, 19, 1, 2, 7);
    append(store, 20, 0, 1, 3 * BLOB);
    put_checkpoint(store, 6, true);
    put_checkpoint(store, 7, true);
    OK(CALL(commit, &fault));
}

static const uint64_t filled_bytes =
    BLOB + 3 * BLOB + BLOB + STORE_CHUNK_BYTES + 7 + 3 * BLOB + 4 * BLOB;

static struct store *open_backend(int i, const char *folder, enum store_use use)
{
    const struct store_options options = {
        .folder = folder, .create = use == STORE_SERVE, .use = use};
    struct store *store = NULL;

    OK(store_backend_at((size_t)i)->open(&options, &store, &fault));
    return store;
}

/* A folder with a filled database that nobody has open. */
static const char *filled_folder(void)
{
    const char *folder = testing_folder();
    struct store *store = NULL;

    OK(store_open(folder, true, &store, &fault));
    fill(store);
    store_close(store);
    return folder;
}

static const char *path_in(const char *folder, const char *name)
{
    static char path[512];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void sql(const char *folder, const char *text)
{
    sqlite3 *db;

    ck_assert_int_eq(sqlite3_open(path_in(folder, "descent.db"), &db), SQLITE_OK);
    ck_assert_msg(sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(db));
    sqlite3_close(db);
}

static unsigned char *file_read(const char *folder, size_t *size)
{
    int file = open(path_in(folder, "descent.db"), O_RDONLY);
    off_t length = lseek(file, 0, SEEK_END);
    unsigned char *bytes = malloc((size_t)length);

    ck_assert_int_eq(pread(file, bytes, (size_t)length, 0), length);
    close(file);
    *size = (size_t)length;
    return bytes;
}

static void byte_write(const char *folder, size_t at, unsigned char byte)
{
    int file = open(path_in(folder, "descent.db"), O_WRONLY);

    ck_assert_int_eq(pwrite(file, &byte, 1, (off_t)at), 1);
    close(file);
}

/* --- what verify says --- */

struct told {
    char text[8192];
    uint64_t findings, done, calls;
};

static void told_finding(void *context, const char *sentence)
{
    struct told *told = context;
    size_t used = strlen(told->text);

    told->findings++;
    snprintf(told->text + used, sizeof told->text - used, "%s\n", sentence);
}

static void told_progress(void *context, const char *doing, uint64_t done, uint64_t total)
{
    struct told *told = context;

    ck_assert_uint_gt(strlen(doing), 0);
    ck_assert_uint_le(done, total);
    ck_assert_uint_ge(done, told->done);
    told->done = done;
    told->calls++;
}

static struct told told;

static struct store_report verify(struct store *store)
{
    const struct store_watch watch = {&told, told_progress, told_finding};
    struct store_report report = {0};

    told = (struct told){.findings = 0};
    OK(CALL(verify, &watch, &report, &fault));
    ck_assert_uint_eq(report.findings, told.findings);
    return report;
}

static struct store_report verify_folder(const char *folder)
{
    struct store *store = NULL;

    OK(store_inspect(folder, &store, &fault));
    struct store_report report = verify(store);
    store_close(store);
    return report;
}

START_TEST(verify_counts_and_finds_nothing_in_a_sound_store)
{
    struct store *store = open_backend(_i, testing_folder(), STORE_SERVE);
    struct store_report report = verify(store);

    ck_assert_uint_eq(report.sessions + report.checkpoints + report.events + report.bytes, 0);
    ck_assert_msg(report.findings == 0, "%s", told.text);
    fill(store);
    report = verify(store);
    ck_assert_msg(report.findings == 0, "%s", told.text);
    ck_assert_uint_eq(report.sessions, 2);
    ck_assert_uint_eq(report.checkpoints, 2);
    ck_assert_uint_eq(report.events, 3);
    ck_assert_uint_eq(report.bytes, filled_bytes);
    OK(CALL(verify, NULL, &report, &fault)); /* nobody watches */
    store_close(store);
}
END_TEST

START_TEST(unsealed_checkpoints_and_the_rest_of_a_trim_are_sound)
{
    struct store *store = open_backend(_i, testing_folder(), STORE_SERVE);

    fill(store);
    OK(CALL(begin, &fault));
    put_checkpoint(store, 9, false);
    OK(CALL(event_drop, 1, 18, &fault)); /* 19 is the second chunk of 18 */
    OK(CALL(commit, &fault));
    struct store_report report = verify(store);
    ck_assert_msg(report.findings == 0, "%s", told.text);
    ck_assert_uint_eq(report.checkpoints, 2);
    ck_assert_uint_eq(report.events, 1);
    store_close(store);
}
END_TEST

START_TEST(inspected_store_takes_no_writes)
{
    const char *folder = testing_folder();
    struct store *store = open_backend(_i, folder, STORE_SERVE);

    fill(store);
    store_close(store);
    store = open_backend(_i, folder, STORE_INSPECT);
    FAILS(STORAGE_FAILED, CALL(begin, &fault));
    SAYS("looked at only");
    FAILS(STORAGE_FAILED, CALL(maintain, NULL, &fault));
    struct store_report report = verify(store);
    ck_assert_uint_eq(report.events, store->backend->durable ? 3 : 0);
    store_close(store);
}
END_TEST

START_TEST(inspection_leaves_every_byte_as_it_was)
{
    const char *folder = testing_folder();
    struct store *store = NULL;
    size_t size, size_after;

    OK(store_open(folder, true, &store, &fault));
    fill(store);
    OK(CALL(begin, &fault));
    put_checkpoint(store, 9, false); /* the next server would drop it */
    OK(CALL(commit, &fault));
    store_close(store);
    unsigned char *before = file_read(folder, &size);
    ck_assert_uint_eq(verify_folder(folder).findings, 0);
    unsigned char *after = file_read(folder, &size_after);
    ck_assert_uint_eq(size, size_after);
    ck_assert(memcmp(before, after, size) == 0); /* not _mem_eq: megabytes */
    free(before);
    free(after);
}
END_TEST

START_TEST(inspection_makes_nothing_where_nothing_is)
{
    struct store *store = NULL;
    char folder[256];

    snprintf(folder, sizeof folder, "%s/absent", testing_folder());
    FAILS(STORAGE_FAILED, store_inspect(folder, &store, &fault));
    SAYS("There is no database in");
    ck_assert_int_ne(access(folder, F_OK), 0);
    snprintf(folder, sizeof folder, "%s", testing_folder());
    FAILS(STORAGE_FAILED, store_inspect(folder, &store, &fault));
    SAYS("There is no database in");
    ck_assert_int_ne(access(path_in(folder, "descent.lock"), F_OK), 0);
    sql(folder, "SELECT count(*) FROM sqlite_schema"); /* an empty file */
    FAILS(STORAGE_FAILED, store_inspect(folder, &store, &fault));
    SAYS("is empty");
}
END_TEST

START_TEST(inspection_is_refused_where_a_server_is)
{
    const char *folder = filled_folder();
    struct store *store = NULL, *other = NULL;
    char words[64];
    int code;

    OK(store_open(folder, false, &store, &fault));
    snprintf(words, sizeof words, "in use by process %ld.", (long)getpid());
    pid_t child = fork();
    if (child == 0)
        _exit(store_inspect(folder, &other, &fault) == STATUS_OK ? 1
              : strstr(fault.detail, words) == NULL              ? 2
                                                                 : 0);
    ck_assert_int_eq(waitpid(child, &code, 0), child);
    ck_assert_int_eq(code, 0);
    store_close(store);
    ck_assert_uint_eq(verify_folder(folder).findings, 0);
}
END_TEST

START_TEST(inspection_migrates_nothing)
{
    const char *folder = filled_folder();
    struct store *store = NULL;

    sql(folder, "PRAGMA user_version = 0");
    FAILS(STORAGE_FAILED, store_inspect(folder, &store, &fault));
    SAYS("made by an older descent");
    sql(folder, "PRAGMA user_version = 99");
    FAILS(STORAGE_FAILED, store_inspect(folder, &store, &fault));
    SAYS("made by a newer descent");
}
END_TEST

/* --- damage --- */

static const struct {
    const char *change;
    const char *words; /* the only finding */
} changes[] = {
    {"UPDATE journal SET step = 9 WHERE lsn = 18", "lsn 18 (session 5, step 9) is damaged"},
    {"UPDATE journal SET session = 9 WHERE lsn = 17", "lsn 17"},
    {"UPDATE journal SET kind = 9 WHERE lsn = 20", "lsn 20"},
    {"UPDATE journal SET body = x'00' WHERE lsn = 19", "lsn 19"},
    {"UPDATE journal SET head = x'00' WHERE lsn = 18", "lsn 18"},
    {"UPDATE journal SET checksum = checksum + 1 WHERE lsn = 20", "lsn 20"},
    {"UPDATE journal SET lsn = 21 WHERE lsn = 20", "lsn 21"},
    {"DELETE FROM journal WHERE lsn = 19", "before lsn 19 lacks its last 1 chunks"},
    {"DELETE FROM journal WHERE lsn >= 19", "before lsn 19 lacks its last 1 chunks"},
    {"UPDATE checkpoint SET lsn = 9 WHERE id = 7", "record of checkpoint 7"},
    {"UPDATE checkpoint SET sealed = 0 WHERE id = 6", "record of checkpoint 6"},
    {"UPDATE checkpoint SET sealed = 2 WHERE id = 6", "record of checkpoint 6"},
    {"DELETE FROM checkpoint_chunk WHERE place = (6 << 20) + 1", "Checkpoint 6 of session 5 has 1"},
    {"UPDATE checkpoint_chunk SET body = x'' WHERE place = 7 << 20", "Chunk 0 of checkpoint 7"},
    {"DELETE FROM checkpoint WHERE id = 6", "chunks of checkpoint 6, but no record"},
    {"UPDATE session SET id = 'o' WHERE key = 6", "record of session 6"},
    {"UPDATE session SET record = x'01' WHERE key = 6", "record of session 6"},
    {"UPDATE session SET key = 7 WHERE key = 6", "record of session 7"},
    {"DELETE FROM owner", "owner is missing"},
};

START_TEST(changed_column_is_the_one_finding)
{
    const char *folder = filled_folder();

    sql(folder, changes[_i].change);
    struct store_report report = verify_folder(folder);
    ck_assert_msg(report.findings == 1 && strstr(told.text, changes[_i].words) != NULL, "%s:\n%s",
                  changes[_i].change, told.text);
}
END_TEST

START_TEST(check_goes_on_after_a_finding)
{
    const char *folder = filled_folder();

    sql(folder, "UPDATE session SET record = x'01';"
                "UPDATE checkpoint SET step = 77;"
                "UPDATE checkpoint_chunk SET checksum = checksum + 1;"
                "UPDATE journal SET kind = 77");
    struct store_report report = verify_folder(folder);
    ck_assert_uint_eq(report.findings, 2 + 2 + 4 + 4);
    ck_assert_uint_eq(report.events, 3);
}
END_TEST

/* A flag in no checksum must not make the next start throw a sealed checkpoint away. */
START_TEST(checkpoint_that_lost_its_seal_is_not_dropped)
{
    const struct store_visitor none = {NULL, NULL, NULL, NULL, NULL};
    const char *folder = testing_folder();
    struct store *store = NULL;
    unsigned char *body = malloc(STORE_CHUNK_BYTES);
    size_t size;

    OK(store_open(folder, true, &store, &fault));
    OK(CALL(begin, &fault));
    put_checkpoint(store, 6, true);
    OK(CALL(commit, &fault));
    store_close(store);
    sql(folder, "UPDATE checkpoint SET sealed = 0");
    OK(store_open(folder, false, &store, &fault));
    FAILS(STORAGE_FAILED, CALL(scan, &none, &fault));
    SAYS("checkpoint 6");
    OK(CALL(checkpoint_read, 6, 1, body, &size, &fault));
    store_close(store);
    free(body);
}
END_TEST

/* Flips bits of the page that holds the first row of `table`. */
static void spoil_leaf(const char *folder, const char *table, size_t offset, unsigned char bits)
{
    char text[160];
    sqlite3_stmt *row;
    sqlite3 *db;

    ck_assert_int_eq(sqlite3_open(path_in(folder, "descent.db"), &db), SQLITE_OK);
    snprintf(text, sizeof text, "SELECT rootpage FROM sqlite_schema WHERE name = '%s'", table);
    ck_assert_int_eq(sqlite3_prepare_v2(db, text, -1, &row, NULL), SQLITE_OK);
    ck_assert_int_eq(sqlite3_step(row), SQLITE_ROW);
    size_t at = (size_t)(sqlite3_column_int64(row, 0) - 1) * PAGE;
    sqlite3_finalize(row);
    sqlite3_close(db);
    size_t size;
    unsigned char *bytes = file_read(folder, &size);
    while (bytes[at] == 5) { /* an inner page: the first cell's child */
        size_t cell = at + (size_t)(bytes[at + 12] << 8 | bytes[at + 13]);
        at = ((size_t)bytes[cell] << 24 | (size_t)bytes[cell + 1] << 16 |
              (size_t)bytes[cell + 2] << 8 | bytes[cell + 3]);
        at = (at - 1) * PAGE;
    }
    ck_assert_uint_eq(bytes[at], 13); /* a leaf */
    byte_write(folder, at + offset, bytes[at + offset] ^ bits);
    free(bytes);
}

START_TEST(page_that_cannot_be_read_hides_only_itself)
{
    const char *folder = testing_folder();
    struct store *store = NULL;
    enum { COUNT = 600 };

    OK(store_open(folder, true, &store, &fault));
    fill(store);
    OK(CALL(begin, &fault));
    for (uint64_t i = 0; i < COUNT; i++)
        append(store, 100 + i, 0, 1, BLOB);
    OK(CALL(commit, &fault));
    store_close(store);
    spoil_leaf(folder, "journal", 0, 0xEE);
    sql(folder, "PRAGMA writable_schema = ON; UPDATE session SET record = x'01' WHERE key = 6");
    struct store_report report = verify_folder(folder);
    ck_assert_msg(strstr(told.text, "The structure of the file is damaged") != NULL, "%s",
                  told.text);
    ck_assert_msg(strstr(told.text, "The table journal cannot be read before lsn") != NULL, "%s",
                  told.text);
    ck_assert_msg(strstr(told.text, "record of session 6") != NULL, "%s", told.text);
    ck_assert_uint_gt(report.events, COUNT - 40);
    ck_assert_uint_eq(report.sessions, 2);
    ck_assert_uint_eq(report.checkpoints, 2);
}
END_TEST

/* The number of rows on a page has no checksum: one less, and a session would be forgotten without
 * a word. */
START_TEST(row_that_vanished_from_its_page_is_noticed_at_the_start)
{
    static const char *const names[] = {"session", "checkpoint"};
    const char *folder = filled_folder();
    struct store *store = NULL;

    spoil_leaf(folder, names[_i], 4, 2 | 1);
    FAILS(STORAGE_FAILED, store_open(folder, false, &store, &fault));
    SAYS("is damaged");
    ck_assert_uint_gt(verify_folder(folder).findings, 0);
}
END_TEST

/* --- any byte --- */

static struct hash *hash;

static enum status hash_session(void *context, const struct store_session *session)
{
    (void)context;
    hash_add(hash, &session->key, sizeof session->key);
    hash_add(hash, session->id, strlen(session->id) + 1);
    hash_add(hash, session->record.data, session->record.size);
    return STATUS_OK;
}

static enum status hash_checkpoint(void *context, const struct store_checkpoint *checkpoint)
{
    const uint64_t words[] = {checkpoint->id,     (uint64_t)checkpoint->session,
                              checkpoint->lsn,    checkpoint->step,
                              checkpoint->chunks, checkpoint->bytes};

    (void)context;
    hash_add(hash, words, sizeof words);
    return STATUS_OK;
}

static enum status hash_event(void *context, const struct store_event *event)
{
    (void)context;
    hash_add(hash, &event->lsn, sizeof event->lsn);
    return STATUS_OK;
}

/* Everything that the store serves, in one number; false when it serves not all of it. */
static bool served(struct store *store, struct digest *out)
{
    static unsigned char head[STORE_HEAD_BYTES], body[STORE_CHUNK_BYTES];
    const struct store_visitor visitor = {NULL, hash_session, hash_checkpoint, hash_event, NULL};
    struct store_event event;
    size_t size;

    hash = hash_new();
    bool good = CALL(scan, &visitor, &fault) == STATUS_OK;
    for (uint64_t lsn = 17; lsn <= 20 && good; lsn++) {
        good = CALL(event_read, lsn, head, body, &event, &fault) == STATUS_OK;
        if (!good)
            break;
        const uint64_t words[] = {
            event.lsn, (uint64_t)event.session, event.step, event.kind, event.chunk, event.chunks};
        hash_add(hash, words, sizeof words);
        hash_add(hash, head, event.head.size);
        hash_add(hash, body, event.body.size);
    }
    for (uint64_t id = 6; id <= 7 && good; id++)
        for (uint32_t chunk = 0; chunk < 2 && good; chunk++) {
            good = CALL(checkpoint_read, id, chunk, body, &size, &fault) == STATUS_OK;
            if (good)
                hash_add(hash, body, size);
        }
    *out = hash_end(hash);
    return good;
}

/* A flipped bit is found by verify, or the file cannot be opened, or it changes nothing that the
 * store serves to whoever looks at it. Half of them where pages have their headers and cell
 * pointers. */
START_TEST(flipped_bit_anywhere_is_found_or_harmless)
{
    uint64_t random = testing_seed() ^ 0xF11B;
    const char *folder = filled_folder();
    struct digest sound, now;
    struct store *store = NULL;
    size_t size, refused = 0, found = 0, harmless = 0;
    unsigned char *bytes = file_read(folder, &size);

    OK(store_inspect(folder, &store, &fault));
    ck_assert(served(store, &sound));
    store_close(store);
    log_set_level(LOG_OFF);
    for (int i = 0; i < FLIPS; i++) {
        size_t at = testing_random(&random) % size;
        if (i % 2 == 1)
            at = at / PAGE * PAGE + testing_random(&random) % 64;
        unsigned char bit = (unsigned char)(1 << testing_random(&random) % 8);
        byte_write(folder, at, bytes[at] ^ bit);
        if (store_inspect(folder, &store, &fault) != STATUS_OK) {
            refused++;
        } else {
            uint64_t findings = verify(store).findings;
            bool all = served(store, &now), same = memcmp(&now, &sound, sizeof now) == 0;
            ck_assert_msg(findings > 0 || (all && same),
                          "bit %02x of byte %zu of page %zu: verify finds nothing; %s", bit,
                          at % PAGE, at / PAGE, all ? "other bytes are served" : fault.detail);
            found += findings > 0;
            harmless += findings == 0;
            store_close(store);
        }
        byte_write(folder, at, bytes[at]);
    }
    ck_assert_uint_eq(verify_folder(folder).findings, 0); /* every byte was put back */
    printf("of %d flipped bits %zu kept the file from opening, %zu were found, %zu are harmless\n",
           FLIPS, refused, found, harmless);
    ck_assert_uint_gt(found, FLIPS / 2);
    free(bytes);
}
END_TEST

Suite *suite_store_verify(void);

Suite *suite_store_verify(void)
{
    Suite *suite = suite_create("store_verify");
    TCase *tcase = tcase_create("every backend");
    int backends = 0;

    while (store_backend_at((size_t)backends) != NULL)
        backends++;
    tcase_add_loop_test(tcase, verify_counts_and_finds_nothing_in_a_sound_store, 0, backends);
    tcase_add_loop_test(tcase, unsealed_checkpoints_and_the_rest_of_a_trim_are_sound, 0, backends);
    tcase_add_loop_test(tcase, inspected_store_takes_no_writes, 0, backends);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("sqlite");
    tcase_add_test(tcase, inspection_leaves_every_byte_as_it_was);
    tcase_add_test(tcase, inspection_makes_nothing_where_nothing_is);
    tcase_add_test(tcase, inspection_is_refused_where_a_server_is);
    tcase_add_test(tcase, inspection_migrates_nothing);
    tcase_add_loop_test(tcase, changed_column_is_the_one_finding, 0,
                        (int)(sizeof changes / sizeof *changes));
    tcase_add_test(tcase, check_goes_on_after_a_finding);
    tcase_add_test(tcase, checkpoint_that_lost_its_seal_is_not_dropped);
    tcase_add_test(tcase, page_that_cannot_be_read_hides_only_itself);
    tcase_add_loop_test(tcase, row_that_vanished_from_its_page_is_noticed_at_the_start, 0, 2);
    tcase_add_test(tcase, flipped_bit_anywhere_is_found_or_harmless);
    tcase_set_timeout(tcase, 60);
    suite_add_tcase(suite, tcase);
    return suite;
}
