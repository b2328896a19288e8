/* Files of whole states that are not as they were exported. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/live_server.h"
#include "tests/lib/remote.h"
#include "tests/lib/state_document.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 300 };

static struct live_server here, there;

static void start(void)
{
    live_server_start(&here, testing_folder(), NULL);
    live_server_start(&there, testing_folder(), NULL);
}

static void stop(void)
{
    ck_assert_int_eq(live_server_stop(&here), 0);
    ck_assert_int_eq(live_server_stop(&there), 0);
}

static void refused(const void *file, size_t size, unsigned status, const char *code,
                    const char *pointer, const char *what)
{
    struct remote target = {.port = there.port, .path = "/v1/sessions/refused"};
    struct answer answer = remote_import(&target, file, size);

    answer_check_problem(&answer, status, code, what);
    ck_assert_msg(strcmp(answer_pointer(&answer), pointer) == 0, "%s: %s", what, answer.http.body);
    answer_close(&answer);
    answer = api_send(there.port, "GET", target.path, "", NULL, 0);
    ck_assert_msg(answer.http.status == 404, "%s: it was made", what);
    answer_close(&answer);
}

static void refused_with(const struct answer *answer, void (*edit)(struct state_document *),
                         unsigned status, const char *code, const char *pointer, const char *what)
{
    struct state_document file = state_document_open(answer);
    size_t size;

    edit(&file);
    char *bytes = state_document_make(&file, &size);
    refused(bytes, size, status, code, pointer, what);
    free(bytes);
    state_document_close(&file);
}

static void renamed(struct state_document *file)
{
    json_object_set(file->header, "slot/m/x", json_object_get(file->header, "slot/m/w"));
    json_object_del(file->header, "slot/m/w");
}

static void added(struct state_document *file)
{
    json_object_set_new(file->header, "more",
                        json_pack("{s:s,s:[i],s:[I,I]}", "dtype", "F32", "shape", 0, "data_offsets",
                                  (json_int_t)0, (json_int_t)0));
}

static void reshaped(struct state_document *file)
{
    json_object_set_new(json_object_get(file->header, "w"), "shape", json_pack("[i,i]", 7, 5));
}

static void retyped(struct state_document *file)
{
    json_object_set_new(json_object_get(file->header, "w"), "dtype", json_string("F16"));
    json_object_set_new(json_object_get(file->header, "w"), "shape", json_pack("[i,i]", 10, 7));
}

static void both(struct state_document *file)
{
    json_object_set_new(json_object_get(file->header, "__metadata__"), "descent",
                        json_string("{\"optimizer\": \"sgd\"}"));
}

/* What descent_state says must be of the state that comes with it. */
START_TEST(metadata_that_does_not_fit_is_refused)
{
#define STATE "/__metadata__/descent_state"
    static const struct {
        const char *member, *value; /* NULL: without it */
        const char *code, *pointer;
    } cases[] = {
        {"format", "2", "invalid_field", STATE "/format"},
        {"news", "2", "unknown_field", STATE "/news"},
        {"step", NULL, "invalid_field", STATE "/step"},
        {"step", "4", "invalid_field", STATE "/step"},
        {"lineage", NULL, "invalid_field", STATE "/lineage"},
        {"lineage", "1", "invalid_field", STATE "/lineage"},
        {"optimizer", NULL, "invalid_field", STATE "/optimizer"},
        {"optimizer", "\"adamw\"", "invalid_field", STATE "/optimizer"},
        {"dtype", NULL, "invalid_field", STATE "/dtype"},
        {"dtype", "\"f64\"", "invalid_field", STATE "/dtype"},
        {"state_hash", NULL, "invalid_field", STATE "/state_hash"},
        {"state_hash", "\"00000000000000000000000000000000\"", "invalid_field",
         STATE "/state_hash"},
        {"prefix", "\"state/\"", "missing_tensor", "/state~1slot~1m~1w"},
        {"record", NULL, "invalid_field", STATE "/record"},
        {"record", "\"AAAAAAAA\"", "invalid_field", STATE "/checksum"},
        {"head", NULL, "invalid_field", STATE "/head"},
        {"head", "\"=====\"", "invalid_field", STATE "/head"},
        {"head", "\"AAAAAAAA\"", "invalid_field", STATE "/checksum"},
        {"checksum", NULL, "invalid_field", STATE "/checksum"},
        {"checksum", "\"00000000000000000000000000000000\"", "invalid_field", STATE "/checksum"},
    };
    struct remote source = remote_create(here.port, "source", "\"optimizer\": \"adam\"");

    remote_steps(&source, 1, 3);
    struct answer answer = remote_export(&source, "");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct state_document file = state_document_open(&answer);
        size_t size;
        json_object_del(file.about, cases[i].member);
        if (cases[i].value != NULL)
            json_object_set_new(file.about, cases[i].member,
                                json_loads(cases[i].value, JSON_DECODE_ANY, NULL));
        char *bytes = state_document_make(&file, &size);
        refused(bytes, size, 422, cases[i].code, cases[i].pointer, cases[i].member);
        free(bytes);
        state_document_close(&file);
    }
    answer_close(&answer);
    stop();
}
END_TEST

/* One character of the record or the head is another: the checksum sees it. */
START_TEST(a_damaged_record_is_refused)
{
    static const char *const members[] = {"record", "head"};
    struct remote source = remote_create(here.port, "source", "\"optimizer\": \"adam\"");
    uint64_t random = testing_seed();

    remote_steps(&source, 1, 3);
    struct answer answer = remote_export(&source, "");
    for (int i = 0; i < 60; i++) {
        struct state_document file = state_document_open(&answer);
        size_t size;
        json_t *member = json_object_get(file.about, members[i % 2]);
        char *text = strdup(json_string_value(member));
        size_t at = testing_random(&random) % (strlen(text) - 4); /* before any padding */
        text[at] = text[at] == 'A' ? 'B' : 'A';
        json_string_set(member, text);
        char *bytes = state_document_make(&file, &size);
        refused(bytes, size, 422, "invalid_field", STATE "/checksum", members[i % 2]);
        free(bytes);
        free(text);
        state_document_close(&file);
    }
    answer_close(&answer);
    stop();
}
END_TEST

START_TEST(files_that_are_not_as_exported_are_refused)
{
    static const struct {
        void (*edit)(struct state_document *);
        const char *code, *pointer, *what;
    } cases[] = {
        {renamed, "missing_tensor", "/slot~1m~1w", "a vector of another name"},
        {added, "unknown_tensor", "/more", "one more"},
        {reshaped, "shape_mismatch", "/w", "another shape"},
        {retyped, "invalid_field", "/w", "another type"},
        {both, "invalid_field", "/__metadata__/descent", "a state and a request"},
    };
    struct remote source = remote_create(here.port, "source", "\"optimizer\": \"adam\"");

    remote_steps(&source, 1, 3);
    struct answer answer = remote_export(&source, "");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused_with(&answer, cases[i].edit, 422, cases[i].code, cases[i].pointer, cases[i].what);

    /* Any byte of the data that is another gives another hash. */
    struct remote target = {.port = there.port, .path = "/v1/sessions/refused"};
    struct answer heard;
    uint64_t random = testing_seed();
    size_t begin = state_document_data_at(&answer);
    for (int i = 0; i < 50; i++) {
        size_t at = begin + testing_random(&random) % (answer.http.body_size - begin);
        answer.http.body[at] ^= (char)(1 << (i % 8));
        heard = remote_import(&target, answer.http.body, answer.http.body_size);
        ck_assert_msg(heard.http.status == 422, "byte %zu: %s", at, heard.http.body);
        answer_close(&heard);
        answer.http.body[at] ^= (char)(1 << (i % 8));
    }
    heard = api_send(there.port, "POST", "/v1/sessions",
                     "Content-Type: application/vnd.safetensors\r\n", answer.http.body,
                     answer.http.body_size);
    answer_check_problem(&heard, 422, "invalid_field", "without an id");
    answer_close(&heard);
    heard = remote_import(&target, answer.http.body, answer.http.body_size);
    ck_assert_uint_eq(heard.http.status, 201);
    answer_close(&heard);
    answer_close(&answer);
    stop();
}
END_TEST

Suite *suite_state_refused(void);
Suite *suite_state_refused(void)
{
    Suite *suite = suite_create("state_refused");
    TCase *tests = tcase_create("state_refused");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, NULL);
    tcase_add_test(tests, metadata_that_does_not_fit_is_refused);
    tcase_add_test(tests, a_damaged_record_is_refused);
    tcase_add_test(tests, files_that_are_not_as_exported_are_refused);
    suite_add_tcase(suite, tests);
    return suite;
}
