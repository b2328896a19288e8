/* What the SQLite store does about the folder it is given, about damage, and about space. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/store.h"
#include "tests/lib/testing.h"

static struct fault fault;

#define CALL(verb, ...) store->backend->verb(store, __VA_ARGS__)
#define OK(call) ck_assert_msg((call) == STATUS_OK, "%s: %s", #call, fault.detail)
#define FAILS(status, call) ck_assert_uint_eq(call, STATUS_##status)
#define SAYS(words) ck_assert_msg(strstr(fault.detail, words) != NULL, "%s", fault.detail)

static const char *path_in(const char *folder, const char *name)
{
    static char path[512];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static struct store *must_open(const char *folder)
{
    struct store *store = NULL;

    OK(store_open(folder, true, &store, &fault));
    return store;
}

static enum status try_open(const char *folder, bool create)
{
    struct store *store = NULL;
    enum status status = store_open(folder, create, &store, &fault);

    if (status == STATUS_OK)
        store_close(store);
    return status;
}

static void sql(const char *folder, const char *text)
{
    sqlite3 *db;

    ck_assert_int_eq(sqlite3_open(path_in(folder, "descent.db"), &db), SQLITE_OK);
    ck_assert_msg(sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(db));
    sqlite3_close(db);
}

START_TEST(absent_folder_is_made_only_when_asked)
{
    char folder[256];

    snprintf(folder, sizeof folder, "%s/new", testing_folder());
    FAILS(STORAGE_FAILED, try_open(folder, false));
    SAYS("No such file or directory");
    OK(try_open(folder, true));
    OK(try_open(folder, false));
    snprintf(folder, sizeof folder, "%s", testing_folder());
    FAILS(STORAGE_FAILED, try_open(folder, false)); /* a folder without a database */
    SAYS("descent.db cannot be opened");
}
END_TEST

START_TEST(second_process_is_refused_and_told_the_first_ones_number)
{
    const char *folder = testing_folder();
    struct store *store = must_open(folder);
    char words[64];
    int code;

    snprintf(words, sizeof words, "in use by process %ld.", (long)getpid());
    pid_t child = fork();
    if (child == 0)
        _exit(try_open(folder, true) != STATUS_STORAGE_FAILED ? 1
              : strstr(fault.detail, words) == NULL           ? 2
                                                              : 0);
    ck_assert_int_eq(waitpid(child, &code, 0), child);
    ck_assert_int_eq(code, 0);
    OK(CALL(begin, &fault)); /* the first is untouched */
    OK(CALL(commit, &fault));
    store_close(store);
    OK(try_open(folder, false));
}
END_TEST

START_TEST(owner_that_was_overtaken_writes_no_more)
{
    const char *folder = testing_folder();
    struct store *store = must_open(folder);

    OK(CALL(begin, &fault));
    OK(CALL(session_put, &(struct store_session){1, "mine", {0}}, &fault));
    OK(CALL(commit, &fault));
    ck_assert_int_eq(unlink(path_in(folder, "descent.lock")), 0);
    OK(try_open(folder, false)); /* the other one, come and gone */
    for (int i = 0; i < 2; i++) {
        FAILS(STORAGE_FAILED, CALL(begin, &fault));
        SAYS("taken over");
        FAILS(STORAGE_FAILED, CALL(maintain, NULL, &fault));
    }
    store_close(store);
}
END_TEST

START_TEST(newer_schema_is_refused)
{
    const char *folder = testing_folder();

    OK(try_open(folder, true));
    sql(folder, "PRAGMA user_version = 99");
    FAILS(STORAGE_FAILED, try_open(folder, true));
    SAYS("made by a newer descent (schema 99");
}
END_TEST

START_TEST(database_of_another_program_is_refused)
{
    const char *folder = testing_folder();

    sql(folder, "CREATE TABLE bookmarks (url TEXT)");
    FAILS(STORAGE_FAILED, try_open(folder, true));
    SAYS("another program");
    sql(folder, "INSERT INTO bookmarks VALUES ('still here')");
}
END_TEST

START_TEST(file_that_is_no_database_is_refused_and_left_alone)
{
    const char *folder = testing_folder();
    char text[4096];

    memset(text, 'x', sizeof text);
    int file = open(path_in(folder, "descent.db"), O_RDWR | O_CREAT, 0600);
    ck_assert_int_eq(write(file, text, sizeof text), sizeof text);
    FAILS(STORAGE_FAILED, try_open(folder, true));
    SAYS("is not a database");
    ck_assert_int_eq(pread(file, text, sizeof text, 0), sizeof text);
    ck_assert_int_eq(text[0], 'x');
    ck_assert_int_eq(text[4095], 'x');
    close(file);
}
END_TEST

/* The superuser may write anywhere: a child gives that up. It reaches the folder as ".", whatever
 * is above it. */
static int opened_without_rights(const char *folder)
{
    int code;
    pid_t child = fork();

    if (child == 0) {
        if (chdir(folder) != 0 || (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)))
            _exit(100);
        enum status status = try_open(".", true);
        _exit(status == STATUS_OK ? 1 : strstr(fault.detail, "Permission denied") == NULL ? 2 : 0);
    }
    ck_assert_int_eq(waitpid(child, &code, 0), child);
    ck_assert(WIFEXITED(code));
    return WEXITSTATUS(code);
}

START_TEST(read_only_folder_is_refused)
{
    const char *folder = testing_folder();

    ck_assert_int_eq(chmod(folder, 0555), 0);
    ck_assert_int_eq(opened_without_rights(folder), 0);
    ck_assert_int_eq(chmod(folder, 0700), 0);
}
END_TEST

/* --- damage --- */

/* Changes the first byte of every run of `size` bytes `mark` in the database file; returns how many
 * there were. */
static int damage(const char *folder, char mark, size_t size)
{
    int file = open(path_in(folder, "descent.db"), O_RDWR), found = 0;
    off_t length = lseek(file, 0, SEEK_END);
    char *bytes = malloc((size_t)length), *run = malloc(size);

    ck_assert_int_eq(pread(file, bytes, (size_t)length, 0), length);
    memset(run, mark, size);
    for (char *at = bytes; (at = memmem(at, (size_t)(bytes + length - at), run, size)) != NULL;
         at += size, found++)
        ck_assert_int_eq(pwrite(file, &(char){(char)(mark ^ 1)}, 1, at - bytes), 1);
    free(bytes);
    free(run);
    close(file);
    return found;
}

static enum status ignore_session(void *context, const struct store_session *session)
{
    (void)context;
    (void)session;
    return STATUS_OK;
}

static enum status ignore_checkpoint(void *context, const struct store_checkpoint *checkpoint)
{
    (void)context;
    (void)checkpoint;
    return STATUS_OK;
}

static enum status ignore_event(void *context, const struct store_event *event)
{
    (void)context;
    (void)event;
    return STATUS_OK;
}

static const struct store_visitor ignore = {NULL, ignore_session, ignore_checkpoint, ignore_event,
                                            NULL};

/* One of each, every blob a run of one letter. */
static void fill(const char *folder)
{
    static char letters[4][1031];
    struct store *store = must_open(folder);

    for (int i = 0; i < 4; i++)
        memset(letters[i], "RHBC"[i], sizeof letters[i]);
    const struct store_session session = {5, "m", span_of(letters[0], 1031)};
    const struct store_event event = {.lsn = 17,
                                      .session = 5,
                                      .kind = 1,
                                      .chunks = 1,
                                      .head = span_of(letters[1], 1031),
                                      .body = span_of(letters[2], 1031)};
    OK(CALL(begin, &fault));
    OK(CALL(session_put, &session, &fault));
    OK(CALL(event_append, &event, &fault));
    OK(CALL(checkpoint_put, 6, 5, 0, span_of(letters[3], 1031), &fault));
    OK(CALL(checkpoint_seal, &(struct store_checkpoint){6, 5, 17, 1, 1, 1031}, &fault));
    OK(CALL(commit, &fault));
    store_close(store);
}

START_TEST(damaged_blob_is_never_returned_and_named)
{
    static const struct {
        char letter;
        const char *words;
    } cases[] = {{'R', "session 5"}, {'H', "lsn 17"}, {'B', "lsn 17"}, {'C', "heckpoint 6"}};
    static unsigned char head[STORE_HEAD_BYTES], body[STORE_CHUNK_BYTES];
    const char *folder = testing_folder();
    struct store_event event;
    size_t size;

    fill(folder);
    ck_assert_int_eq(damage(folder, cases[_i].letter, 1031), 1);
    struct store *store = must_open(folder);
    memset(head, 1, sizeof head);
    memset(body, 1, sizeof body);
    enum status scanned = CALL(scan, &ignore, &fault);
    if (scanned == STATUS_OK) {
        enum status read = CALL(event_read, 17, head, body, &event, &fault);
        if (read == STATUS_OK) {
            memset(body, 1, sizeof body);
            read = CALL(checkpoint_read, 6, 0, body, &size, &fault);
        }
        scanned = read;
    }
    ck_assert_uint_eq(scanned, STATUS_STORAGE_FAILED);
    SAYS(cases[_i].words);
    ck_assert_int_eq(body[0], 1);
    store_close(store);
}
END_TEST

START_TEST(damaged_columns_are_noticed)
{
    static const struct {
        const char *change, *words;
    } cases[] = {
        {"UPDATE journal SET step = 9", "lsn 17"},
        {"UPDATE journal SET session = 9", "lsn 17"},
        {"UPDATE checkpoint SET lsn = 9", "heckpoint 6"},
        {"UPDATE session SET id = 'n'", "session 5"},
    };
    static unsigned char head[STORE_HEAD_BYTES], body[STORE_CHUNK_BYTES];
    const char *folder = testing_folder();
    struct store_event event;

    fill(folder);
    sql(folder, cases[_i].change);
    struct store *store = must_open(folder);
    enum status status = CALL(scan, &ignore, &fault);
    if (status == STATUS_OK)
        status = CALL(event_read, 17, head, body, &event, &fault);
    ck_assert_uint_eq(status, STATUS_STORAGE_FAILED);
    SAYS(cases[_i].words);
    store_close(store);
}
END_TEST

/* A row of before there was a checksum of its numbers alone. */
#define OLD_ROW "UPDATE journal SET kind = kind & 0xFFFFFFFF, "
static const struct {
    const char *change, *words;
} impossible[] = {
    {OLD_ROW "chunks = 0", "lsn 17"},
    {OLD_ROW "chunk = chunks", "lsn 17"},
    {"UPDATE journal SET kind = 0", "lsn 17"},
    {OLD_ROW "lsn = 0", "lsn 0"},
    {OLD_ROW "lsn = -1", "lsn 18446744073709551615"},
    {OLD_ROW "session = 0", "lsn 17"},
    {OLD_ROW "head = zeroblob(16385)", "lsn 17"},
    {OLD_ROW "chunks = 1000", "lsn 17"}, /* which could be dropped with it */
    {OLD_ROW "session = 4", "lsn 17"},   /* which would be nobody's */
    {OLD_ROW "step = 9", "lsn 17"},
};

START_TEST(scan_takes_rows_of_before_their_numbers_had_a_checksum)
{
    const char *folder = testing_folder();

    fill(folder);
    sql(folder, OLD_ROW "step = step");
    struct store *store = must_open(folder);
    OK(CALL(scan, &ignore, &fault));
    store_close(store);
}
END_TEST

START_TEST(scan_refuses_rows_that_cannot_be)
{
    const char *folder = testing_folder();

    fill(folder);
    sql(folder, impossible[_i].change);
    struct store *store = must_open(folder);
    FAILS(STORAGE_FAILED, CALL(scan, &ignore, &fault));
    SAYS(impossible[_i].words);
    store_close(store);
}
END_TEST

/* --- space --- */

static off_t file_size(const char *folder, const char *name)
{
    struct stat info;

    ck_assert_int_eq(stat(path_in(folder, name), &info), 0);
    return info.st_size;
}

static uint64_t append_events(struct store *store, uint64_t lsn, int count)
{
    static unsigned char body[STORE_CHUNK_BYTES];

    OK(CALL(begin, &fault));
    for (int i = 0; i < count; i++) {
        const struct store_event event = {
            .lsn = ++lsn, .session = 1, .kind = 1, .chunks = 1, .body = span_of(body, sizeof body)};
        OK(CALL(event_append, &event, &fault));
    }
    OK(CALL(commit, &fault));
    return lsn;
}

START_TEST(dropped_space_is_used_again)
{
    const char *folder = testing_folder();
    struct store *store = must_open(folder);
    uint64_t lsn = append_events(store, 0, 16);
    off_t size = file_size(folder, "descent.db");

    for (int round = 0; round < 8; round++) {
        OK(CALL(begin, &fault));
        OK(CALL(event_drop, 1, lsn - 8, &fault));
        OK(CALL(commit, &fault));
        lsn = append_events(store, lsn, 8);
    }
    ck_assert_int_le(file_size(folder, "descent.db"), size + (1 << 20));
    store_close(store);
}
END_TEST

START_TEST(maintain_gives_space_back)
{
    const char *folder = testing_folder();
    struct store *store = must_open(folder);
    uint64_t lsn = append_events(store, 0, 80);
    off_t size = file_size(folder, "descent.db");

    OK(CALL(begin, &fault));
    OK(CALL(event_drop, 1, lsn - 1, &fault));
    OK(CALL(commit, &fault));
    ck_assert_int_gt(size, 40 << 20);
    OK(CALL(maintain, NULL, &fault)); /* looks only */
    ck_assert_int_eq(file_size(folder, "descent.db"), size);
    for (bool more = true; more;) { /* slice by slice, and `more` is told to the end */
        more = false;
        OK(CALL(maintain, &more, &fault));
        ck_assert_int_lt(file_size(folder, "descent.db"), size);
        ck_assert_int_ge(file_size(folder, "descent.db"), size - (9 << 20));
        size = file_size(folder, "descent.db");
    }
    ck_assert_int_lt(size, 12 << 20);
    for (int i = 0; i < 3; i++) { /* what stays is used again: no shrinking and growing */
        bool more = true;
        lsn = append_events(store, lsn, 6);
        OK(CALL(begin, &fault));
        OK(CALL(event_drop, 1, lsn - 1, &fault));
        OK(CALL(commit, &fault));
        OK(CALL(maintain, &more, &fault));
        ck_assert(!more);
        ck_assert_int_eq(file_size(folder, "descent.db"), size);
    }
    ck_assert_int_le(file_size(folder, "descent.db-journal"), 16 << 20);
    store_close(store);
    OK(try_open(folder, false));
}
END_TEST

Suite *suite_store_folder(void);

Suite *suite_store_folder(void)
{
    Suite *suite = suite_create("store_folder");
    TCase *tcase = tcase_create("sqlite");

    tcase_add_test(tcase, absent_folder_is_made_only_when_asked);
    tcase_add_test(tcase, second_process_is_refused_and_told_the_first_ones_number);
    tcase_add_test(tcase, owner_that_was_overtaken_writes_no_more);
    tcase_add_test(tcase, newer_schema_is_refused);
    tcase_add_test(tcase, database_of_another_program_is_refused);
    tcase_add_test(tcase, file_that_is_no_database_is_refused_and_left_alone);
    tcase_add_test(tcase, read_only_folder_is_refused);
    tcase_add_loop_test(tcase, damaged_blob_is_never_returned_and_named, 0, 4);
    tcase_add_loop_test(tcase, damaged_columns_are_noticed, 0, 4);
    tcase_add_test(tcase, scan_takes_rows_of_before_their_numbers_had_a_checksum);
    tcase_add_loop_test(tcase, scan_refuses_rows_that_cannot_be, 0,
                        sizeof impossible / sizeof *impossible);
    tcase_add_test(tcase, dropped_space_is_used_again);
    tcase_add_test(tcase, maintain_gives_space_back);
    tcase_set_timeout(tcase, 30);
    suite_add_tcase(suite, tcase);
    return suite;
}
