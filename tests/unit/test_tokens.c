/* The file of tokens: what is written reads back, what is not to the letter is refused, and two who
 * change it at once, or one who dies, lose nothing. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "api/config.h"
#include "api/tokens.h"
#include "service/core/clock.h"
#include "tests/lib/testing.h"

enum { CREATORS = 6, EACH = 8, TEST_TIMEOUT_S = 60 };

#define HASH "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define CREATED "\"created_at\": \"2026-01-31T12:00:00Z\""
#define REST "\"scopes\": [\"read\"], " CREATED ", \"sha256\": \"" HASH "\""
#define ONE "{\"id\": \"tok_a\", " REST "}"
#define FILE_OF(tokens) "{\"format\": 1, \"tokens\": [" tokens "]}"

static const char *path_in(const char *folder)
{
    static char path[300];

    snprintf(path, sizeof path, "%s/tokens.json", folder);
    return path;
}

static void write_file(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "w");

    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, size, file), size);
    ck_assert_int_eq(fclose(file), 0);
    ck_assert_int_eq(chmod(path, 0600), 0);
}

static char *read_all(const char *path, size_t *size)
{
    FILE *file = fopen(path, "r");
    char *text = calloc(1, 1 << 16);

    ck_assert_ptr_nonnull(file);
    *size = fread(text, 1, (1 << 16) - 1, file);
    fclose(file);
    return text;
}

static struct tokens read_good(const char *path)
{
    struct tokens tokens;
    struct tokens_mark mark;
    struct fault fault;
    enum status status = tokens_read(path, &tokens, &mark, &fault);

    ck_assert_msg(status == STATUS_OK, "%s", fault.detail);
    ck_assert(!tokens_changed(path, &mark));
    return tokens;
}

static const char *read_bad(const char *path)
{
    static struct fault fault;
    struct tokens tokens;
    struct tokens_mark mark;

    ck_assert_int_eq(tokens_read(path, &tokens, &mark, &fault), STATUS_INVALID_FIELD);
    ck_assert_msg(strstr(fault.detail, path) != NULL, "it names no file: %s", fault.detail);
    ck_assert(!tokens_changed(path, &mark));
    return fault.detail;
}

static enum status add(void *context, struct tokens *tokens, struct fault *fault)
{
    (void)fault;
    tokens->items[tokens->count++] = *(const struct token *)context;
    return STATUS_OK;
}

static enum status refuse(void *context, struct tokens *tokens, struct fault *fault)
{
    (void)context;
    tokens->count = 0;
    return fault_set(fault, STATUS_NOT_FOUND, "", "no");
}

static enum status keep(void *context, struct tokens *tokens, struct fault *fault)
{
    (void)context;
    (void)tokens;
    (void)fault;
    return STATUS_OK;
}

static struct token draw(char id[TOKEN_ID_BYTES + 1])
{
    char text[TOKEN_BYTES + 1];
    struct token token = {.id = id, .name = "", .tenant = "", .scope = SCOPE_READ};

    ck_assert(token_draw(text, token.hash) && token_draw_id(id));
    token.created_us = clock_unix_us();
    return token;
}

/* --- reading --- */

START_TEST(what_is_written_reads_back)
{
    const char *folder = testing_folder(), *path = path_in(folder);
    char id[TOKEN_ID_BYTES + 1], other_id[TOKEN_ID_BYTES + 1];
    struct token one = draw(id), two = draw(other_id);
    struct stat about;
    struct fault fault;

    one.name = "\xC3\xA9 \"quoted\" \\ /";
    one.tenant = "a-tenant_0";
    one.scope = SCOPE_STEP;
    one.quotas =
        (struct quotas){.sessions = 1, .parameters = 9007199254740991, .inflight = 1000000};
    one.expires_us = one.created_us + 1;
    two.scope = SCOPE_ADMIN;
    ck_assert_int_eq(tokens_edit(path, add, &one, &fault), STATUS_OK);
    ck_assert_int_eq(tokens_edit(path, add, &two, &fault), STATUS_OK);
    ck_assert_int_eq(stat(path, &about), 0);
    ck_assert_uint_eq(about.st_mode & 07777, 0600);
    struct tokens tokens = read_good(path);
    ck_assert_uint_eq(tokens.count, 2);
    for (size_t i = 0; i < 2; i++) {
        const struct token *wanted = i == 0 ? &one : &two, *got = &tokens.items[i];
        ck_assert_str_eq(got->id, wanted->id);
        ck_assert_str_eq(got->name, wanted->name);
        ck_assert_str_eq(got->tenant, wanted->tenant);
        ck_assert_int_eq(got->scope, wanted->scope);
        ck_assert_mem_eq(&got->quotas, &wanted->quotas, sizeof got->quotas);
        ck_assert_uint_eq(got->created_us, wanted->created_us);
        ck_assert_uint_eq(got->expires_us, wanted->expires_us);
        ck_assert_mem_eq(got->hash, wanted->hash, sizeof got->hash);
    }
    tokens_close(&tokens);
}
END_TEST

static const struct {
    const char *text;
    const char *says; /* NULL: it is good */
} files[] = {
    {FILE_OF(""), NULL},
    {FILE_OF(" "), NULL},
    {FILE_OF(ONE), NULL},
    {FILE_OF("{\"id\": \"tok_a\", \"quotas\": {\"sessions\": null}, \"expires_at\": null, " REST
             "}"),
     NULL},
    {"", "the text is empty"},
    {"[]", "JSON object"},
    {"{}", "/format: format must be 1"},
    {"{\"format\": 1}", "/tokens: tokens must be a list"},
    {"{\"format\": 2, \"tokens\": []}", "/format: format must be 1"},
    {"{\"format\": 1, \"tokens\": {}}", "/tokens: tokens must be a list"},
    {"{\"format\": 1, \"tokens\": [1]}", "/tokens: tokens must be a list"},
    {"{\"format\": 1, \"tokens\": [\"x\"]}", "/tokens/0: a token must be an object"},
    {"{\"format\": 1, \"tokens\": [], \"more\": 1}", "/more: there is no field \"more\""},
    {"{\"format\": 1, \"format\": 1, \"tokens\": []}", "format"},
    {FILE_OF(ONE ", " ONE), "/tokens/1/id: another token has this id"},
    {FILE_OF(ONE ", {\"id\": \"tok_b\", " REST "}"),
     "/tokens/1/sha256: another token has this sha256"},
    {FILE_OF(ONE ", {\"id\": \"tok_b\", \"more\": 1, " REST "}"), "/tokens/1/more"},
    {FILE_OF("{\"id\": \"tok_a\", \"id\": \"tok_a\", " REST "}"), "id"},
    {FILE_OF("{" REST "}"), "/tokens/0/id: id must be tok_"},
    {FILE_OF("{\"id\": \"a\", " REST "}"), "/tokens/0/id: id must be tok_"},
    {FILE_OF("{\"id\": \"tok_\", " REST "}"), "/tokens/0/id: id must be tok_"},
    {FILE_OF("{\"id\": \"tok_A\", " REST "}"), "/tokens/0/id: id must be tok_"},
    {FILE_OF("{\"id\": 7, " REST "}"), "/tokens/0/id"},
    {FILE_OF("{\"id\": \"tok_a\", \"name\": \"a\\nb\", " REST "}"), "/tokens/0/name"},
    {FILE_OF("{\"id\": \"tok_a\", \"name\": null, " REST "}"), "/tokens/0/name"},
    {FILE_OF("{\"id\": \"tok_a\", \"tenant\": \"A\", " REST "}"), "/tokens/0/tenant"},
    {FILE_OF("{\"id\": \"tok_a\", \"tenant\": \"a/b\", " REST "}"), "/tokens/0/tenant"},
    {FILE_OF("{\"id\": \"tok_a\", \"tenant\": \"-a\", " REST "}"), "/tokens/0/tenant"},
    {FILE_OF("{\"id\": \"tok_a\", \"tenant\": \"a23456789012345678901234567890123\", " REST "}"),
     "/tokens/0/tenant"},
    {FILE_OF("{\"id\": \"tok_a\", \"quotas\": {\"sessions\": 0}, " REST "}"),
     "/tokens/0/quotas/sessions"},
    {FILE_OF("{\"id\": \"tok_a\", \"quotas\": {\"sessions\": -1}, " REST "}"),
     "/tokens/0/quotas/sessions"},
    {FILE_OF("{\"id\": \"tok_a\", \"quotas\": {\"sessions\": 1.5}, " REST "}"),
     "/tokens/0/quotas/sessions"},
    {FILE_OF("{\"id\": \"tok_a\", \"quotas\": {\"speed\": 1}, " REST "}"),
     "/tokens/0/quotas/speed"},
    {FILE_OF("{\"id\": \"tok_a\", \"quotas\": {\"steps_per_s\": 1000001}, " REST "}"),
     "/tokens/0/quotas/steps_per_s"},
    {FILE_OF("{\"id\": \"tok_a\", \"expires_at\": \"tomorrow\", " REST "}"),
     "/tokens/0/expires_at"},
    {FILE_OF("{\"id\": \"tok_a\", \"scopes\": [], " CREATED ", \"sha256\": \"" HASH "\"}"),
     "/tokens/0/scopes"},
    {FILE_OF("{\"id\": \"tok_a\", " CREATED ", \"sha256\": \"" HASH "\"}"), "/tokens/0/scopes"},
    {FILE_OF("{\"id\": \"tok_a\", \"scopes\": \"read\", " CREATED ", \"sha256\": \"" HASH "\"}"),
     "/tokens/0/scopes"},
    {FILE_OF("{\"id\": \"tok_a\", \"scopes\": [\"root\"], " CREATED ", \"sha256\": \"" HASH "\"}"),
     "/tokens/0/scopes"},
    {FILE_OF("{\"id\": \"tok_a\", \"scopes\": [\"read\", \"read\"], " CREATED
             ", \"sha256\": \"" HASH "\"}"),
     "/tokens/0/scopes"},
    {FILE_OF("{\"id\": \"tok_a\", \"scopes\": [\"read\", 1], " CREATED ", \"sha256\": \"" HASH
             "\"}"),
     "/tokens/0/scopes"},
    {FILE_OF("{\"id\": \"tok_a\", \"scopes\": [\"read\"], \"sha256\": \"" HASH "\"}"),
     "/tokens/0/created_at"},
    {FILE_OF("{\"id\": \"tok_a\", \"scopes\": [\"read\"], " CREATED "}"), "/tokens/0/sha256"},
    {FILE_OF("{\"id\": \"tok_a\", \"scopes\": [\"read\"], " CREATED ", \"sha256\": \"" HASH "0\"}"),
     "/tokens/0/sha256"},
    {FILE_OF("{\"id\": \"tok_a\", \"scopes\": [\"read\"], " CREATED ", \"sha256\": \"\"}"),
     "/tokens/0/sha256"},
};

START_TEST(files_are_read_to_the_letter)
{
    const char *path = path_in(testing_folder());

    write_file(path, files[_i].text, strlen(files[_i].text));
    if (files[_i].says == NULL) {
        struct tokens tokens = read_good(path);
        tokens_close(&tokens);
        return;
    }
    const char *detail = read_bad(path);
    ck_assert_msg(strstr(detail, files[_i].says) != NULL, "it says: %s", detail);
    /* Nor is it overwritten by one who cannot read it. */
    struct fault fault;
    size_t size;
    ck_assert_int_eq(tokens_edit(path, keep, NULL, &fault), STATUS_INVALID_FIELD);
    char *left = read_all(path, &size);
    ck_assert_str_eq(left, files[_i].text);
    free(left);
}
END_TEST

START_TEST(no_file_is_no_tokens)
{
    const char *path = path_in(testing_folder());
    struct tokens tokens = read_good(path);
    struct fault fault;
    struct tokens_mark mark = {.known = true};

    ck_assert_uint_eq(tokens.count, 0);
    tokens_close(&tokens);
    ck_assert(!tokens_changed(path, &mark));
    ck_assert_int_eq(tokens_edit(path, keep, NULL, &fault), STATUS_OK);
    ck_assert(tokens_changed(path, &mark));
    tokens = read_good(path);
    ck_assert_uint_eq(tokens.count, 0);
    tokens_close(&tokens);
}
END_TEST

/* What is no fault of the file says nothing about it: it is looked at again. */
START_TEST(a_file_that_could_not_be_read_is_not_known)
{
    const char *path = path_in(testing_folder());
    struct rlimit limit, none;
    struct tokens tokens;
    struct tokens_mark mark;
    struct fault fault;

    write_file(path, FILE_OF(ONE), sizeof FILE_OF(ONE) - 1);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = limit.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    ck_assert_int_eq(tokens_read(path, &tokens, &mark, &fault), STATUS_INTERNAL);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    ck_assert_msg(strstr(fault.detail, strerror(EMFILE)) != NULL, "%s", fault.detail);
    ck_assert(tokens_changed(path, &mark));
    tokens = read_good(path);
    tokens_close(&tokens);
}
END_TEST

/* A file that was cut, or has a wrong byte, is refused or says something else in a name; it never
 * reads as a token with another digest, scope or tenant than is written. */
START_TEST(damage_is_refused)
{
    static const char text[] = FILE_OF(ONE);
    const char *path = path_in(testing_folder());
    struct tokens tokens;
    struct tokens_mark mark;
    struct fault fault;

    for (size_t size = 0; size < sizeof text - 1; size++) {
        write_file(path, text, size);
        ck_assert_msg(tokens_read(path, &tokens, &mark, &fault) == STATUS_INVALID_FIELD,
                      "cut at %zu", size);
    }
    for (size_t i = 0; i < sizeof text - 1; i++) {
        char spoilt[sizeof text];
        memcpy(spoilt, text, sizeof text);
        spoilt[i] = (char)(spoilt[i] ^ 0x80);
        write_file(path, spoilt, sizeof text - 1);
        ck_assert_msg(tokens_read(path, &tokens, &mark, &fault) == STATUS_INVALID_FIELD,
                      "a bit at %zu", i);
    }
}
END_TEST

START_TEST(files_have_limits)
{
    const char *path = path_in(testing_folder());
    FILE *file = fopen(path, "w");

    fputs("{\"format\": 1, \"tokens\": [", file);
    for (int i = 0; i <= TOKENS_MAX; i++)
        fprintf(file, "%s{}", i > 0 ? "," : "");
    fputs("]}", file);
    fclose(file);
    ck_assert_int_eq(chmod(path, 0600), 0);
    ck_assert_ptr_nonnull(strstr(read_bad(path), "at most 10000"));
    ck_assert_int_eq(truncate(path, (16 << 20) + 1), 0);
    ck_assert_ptr_nonnull(strstr(read_bad(path), "at most 16777216 bytes"));
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    ck_assert_ptr_nonnull(strstr(read_bad(path), "must be a file"));
    ck_assert_int_eq(rmdir(path), 0);
    ck_assert_int_eq(mkfifo(path, 0600), 0); /* and does not wait for a writer */
    ck_assert_ptr_nonnull(strstr(read_bad(path), "must be a file"));
}
END_TEST

START_TEST(what_others_may_write_is_not_trusted)
{
    const char *path = path_in(testing_folder());

    write_file(path, FILE_OF(ONE), strlen(FILE_OF(ONE)));
    ck_assert_int_eq(chmod(path, 0620), 0);
    ck_assert_ptr_nonnull(strstr(read_bad(path), "chmod go-w"));
    ck_assert_int_eq(chmod(path, 0602), 0);
    ck_assert_ptr_nonnull(strstr(read_bad(path), "chmod go-w"));
    ck_assert_int_eq(chmod(path, 0644), 0);
    struct tokens tokens = read_good(path);
    tokens_close(&tokens);
}
END_TEST

/* --- changing --- */

START_TEST(a_change_that_is_refused_leaves_the_file)
{
    const char *folder = testing_folder(), *path = path_in(folder);
    char id[TOKEN_ID_BYTES + 1], next[320];
    struct token token = draw(id);
    struct tokens tokens;
    struct tokens_mark mark;
    struct fault fault;

    ck_assert_int_eq(tokens_edit(path, add, &token, &fault), STATUS_OK);
    ck_assert_int_eq(tokens_read(path, &tokens, &mark, &fault), STATUS_OK);
    tokens_close(&tokens);
    ck_assert_int_eq(tokens_edit(path, refuse, NULL, &fault), STATUS_NOT_FOUND);
    ck_assert(!tokens_changed(path, &mark));
    snprintf(next, sizeof next, "%s.new", path);
    ck_assert_int_eq(access(next, F_OK), -1);
}
END_TEST

/* What stands where the new file goes is neither followed nor kept. */
START_TEST(what_a_killed_one_left_is_in_nobodys_way)
{
    const char *folder = testing_folder(), *path = path_in(folder);
    char id[TOKEN_ID_BYTES + 1], next[320], victim[320];
    struct token token = draw(id);
    struct fault fault;
    size_t size;

    snprintf(next, sizeof next, "%s.new", path);
    snprintf(victim, sizeof victim, "%s/victim", folder);
    write_file(victim, "mine", 4);
    ck_assert_int_eq(symlink(victim, next), 0);
    ck_assert_int_eq(tokens_edit(path, add, &token, &fault), STATUS_OK);
    char *left = read_all(victim, &size);
    ck_assert_str_eq(left, "mine");
    free(left);
    write_file(next, "half a f", 8);
    ck_assert_int_eq(tokens_edit(path, keep, NULL, &fault), STATUS_OK);
    struct tokens tokens = read_good(path);
    ck_assert_uint_eq(tokens.count, 1);
    tokens_close(&tokens);
}
END_TEST

START_TEST(a_folder_that_is_not_there_is_told)
{
    char path[320];
    struct fault fault;

    snprintf(path, sizeof path, "%s/none/tokens.json", testing_folder());
    ck_assert_int_eq(tokens_edit(path, keep, NULL, &fault), STATUS_STORAGE_FAILED);
    ck_assert_ptr_nonnull(strstr(fault.detail, "No such file"));
}
END_TEST

static void create_some(const char *path, int line)
{
    for (int i = 0; i < EACH; i++) {
        char id[TOKEN_ID_BYTES + 1] = "";
        struct token token = {.id = id, .name = "", .tenant = "", .scope = SCOPE_READ};
        char text[TOKEN_BYTES + 1];
        token.created_us = clock_unix_us();
        struct fault fault;
        if (!token_draw(text, token.hash) || !token_draw_id(id) ||
            tokens_edit(path, add, &token, &fault) != STATUS_OK ||
            write(line, id, sizeof id) != sizeof id)
            _exit(1);
    }
    _exit(0);
}

static bool has(const struct tokens *tokens, const char *id)
{
    for (size_t i = 0; i < tokens->count; i++)
        if (strcmp(tokens->items[i].id, id) == 0)
            return true;
    return false;
}

/* Processes that create at once, some killed on the way: what was acknowledged is there. */
START_TEST(creators_at_once_lose_nothing)
{
    const char *path = path_in(testing_folder());
    bool kills = _i == 1;
    pid_t children[CREATORS];
    int ends[2];
    char id[TOKEN_ID_BYTES + 1];
    size_t acknowledged = 0;
    uint64_t random = testing_seed() ^ 0x7045;

    ck_assert_int_eq(pipe(ends), 0);
    for (size_t i = 0; i < CREATORS; i++) {
        children[i] = fork();
        ck_assert_int_ge(children[i], 0);
        if (children[i] == 0)
            create_some(path, ends[1]);
    }
    close(ends[1]);
    for (size_t i = 0; i < CREATORS; i++) {
        int status;
        if (kills && i % 2 == 0) {
            struct timespec pause = {.tv_nsec = (long)(testing_random(&random) % 20000000)};
            nanosleep(&pause, NULL);
            kill(children[i], SIGKILL);
        }
        ck_assert_int_eq(waitpid(children[i], &status, 0), children[i]);
        ck_assert((kills && i % 2 == 0) || status == 0);
    }
    struct tokens tokens = read_good(path);
    while (read(ends[0], id, sizeof id) == sizeof id) {
        ck_assert_msg(has(&tokens, id), "%s is lost", id);
        acknowledged++;
    }
    ck_assert_uint_ge(acknowledged, kills ? CREATORS / 2 * EACH : CREATORS * EACH);
    /* One who was killed may not have said what he has done. */
    ck_assert_uint_le(tokens.count, acknowledged + (kills ? (CREATORS + 1) / 2 : 0));
    tokens_close(&tokens);
    close(ends[0]);
}
END_TEST

static void *let_go(void *context)
{
    const struct timespec pause = {.tv_nsec = 150000000};
    int *lock = context;

    nanosleep(&pause, NULL);
    flock(*lock, LOCK_UN);
    return NULL;
}

START_TEST(the_second_waits_for_the_first)
{
    const char *path = path_in(testing_folder());
    char lock_path[320];
    pthread_t thread;
    struct fault fault;

    snprintf(lock_path, sizeof lock_path, "%s.lock", path);
    int lock = open(lock_path, O_RDWR | O_CREAT, 0600);
    ck_assert_int_eq(flock(lock, LOCK_EX), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, let_go, &lock), 0);
    uint64_t began_us = clock_monotonic_us();
    ck_assert_int_eq(tokens_edit(path, keep, NULL, &fault), STATUS_OK);
    ck_assert_uint_ge(clock_monotonic_us() - began_us, 100000);
    pthread_join(thread, NULL);
    close(lock);
}
END_TEST

/* --- where it is --- */

START_TEST(the_options_say_where_it_is)
{
    static const struct {
        const char *data, *tokens, *path;
    } cases[] = {
        {"./descent-data", "", "./descent-data/tokens.json"},
        {"/d", "/else/where.json", "/else/where.json"},
        {"memory:", "t.json", "t.json"},
        {"memory:", "", NULL},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config config = {.data = cases[i].data, .tokens = cases[i].tokens};
        struct fault fault;
        char *path = NULL;
        enum status status = tokens_path(&config, &path, &fault);
        ck_assert_int_eq(status, cases[i].path != NULL ? STATUS_OK : STATUS_INVALID_FIELD);
        if (cases[i].path != NULL)
            ck_assert_str_eq(path, cases[i].path);
        else
            ck_assert_ptr_nonnull(strstr(fault.detail, "--tokens FILE"));
        free(path);
    }
}
END_TEST

Suite *suite_tokens(void);
Suite *suite_tokens(void)
{
    Suite *suite = suite_create("tokens");
    TCase *tests = tcase_create("tokens");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_test(tests, what_is_written_reads_back);
    tcase_add_loop_test(tests, files_are_read_to_the_letter, 0, sizeof files / sizeof *files);
    tcase_add_test(tests, no_file_is_no_tokens);
    tcase_add_test(tests, a_file_that_could_not_be_read_is_not_known);
    tcase_add_test(tests, damage_is_refused);
    tcase_add_test(tests, files_have_limits);
    tcase_add_test(tests, what_others_may_write_is_not_trusted);
    tcase_add_test(tests, a_change_that_is_refused_leaves_the_file);
    tcase_add_test(tests, what_a_killed_one_left_is_in_nobodys_way);
    tcase_add_test(tests, a_folder_that_is_not_there_is_told);
    tcase_add_loop_test(tests, creators_at_once_lose_nothing, 0, 2);
    tcase_add_test(tests, the_second_waits_for_the_first);
    tcase_add_test(tests, the_options_say_where_it_is);
    suite_add_tcase(suite, tests);
    return suite;
}
