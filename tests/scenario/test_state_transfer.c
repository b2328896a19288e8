/* Whole states from one server to another, held against the session they were taken from. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/live_server.h"
#include "tests/lib/remote.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 300, HEADER_AT = 8 };

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

/* --- files, by jansson and not by the codec --- */

struct file {
    json_t *header, *about; /* about: descent_state */
    const unsigned char *data;
    size_t data_size;
};

static size_t header_size(const struct answer *answer)
{
    size_t size = 0;

    for (int i = 7; i >= 0; i--)
        size = size << 8 | (unsigned char)answer->http.body[i];
    return size;
}

static struct file file_open(const struct answer *answer)
{
    size_t size = header_size(answer);
    struct file file = {
        .header = json_loadb(answer->http.body + HEADER_AT, size, JSON_REJECT_DUPLICATES, NULL),
        .data = (const unsigned char *)answer->http.body + HEADER_AT + size,
        .data_size = answer->http.body_size - HEADER_AT - size};

    ck_assert_ptr_nonnull(file.header);
    const json_t *metadata = json_object_get(file.header, "__metadata__");
    const char *text = json_string_value(json_object_get(metadata, "descent_state"));
    ck_assert_ptr_nonnull(text);
    file.about = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    ck_assert_ptr_nonnull(file.about);
    return file;
}

static void file_close(struct file *file)
{
    json_decref(file->header);
    json_decref(file->about);
}

/* The file with what was changed; malloc'ed. */
static char *file_make(const struct file *file, size_t *size)
{
    char *about = json_dumps(file->about, JSON_COMPACT);
    json_object_set_new(json_object_get(file->header, "__metadata__"), "descent_state",
                        json_string(about));
    char *header = json_dumps(file->header, JSON_COMPACT);
    size_t length = strlen(header);
    char *out = malloc(HEADER_AT + length + file->data_size);

    ck_assert_ptr_nonnull(out);
    for (int i = 0; i < 8; i++)
        out[i] = (char)(length >> (8 * i));
    memcpy(out + HEADER_AT, header, length);
    memcpy(out + HEADER_AT + length, file->data, file->data_size);
    *size = HEADER_AT + length + file->data_size;
    free(about);
    free(header);
    return out;
}

/* --- there --- */

static void check_equal(const struct remote *one, const struct remote *other, const char *what)
{
    char mine[REMOTE_HASH_BYTES], theirs[REMOTE_HASH_BYTES];
    struct weights left = remote_weights(one, ""), right = remote_weights(other, "");

    remote_check_same(&left, &right, what);
    remote_hash(one, "", mine);
    remote_hash(other, "", theirs);
    ck_assert_msg(strcmp(mine, theirs) == 0, "%s: %s and %s", what, mine, theirs);
}

static const char *const sessions[] = {
    "\"optimizer\": \"adam\"",
    "\"optimizer\": {\"name\": \"adam\", \"amsgrad\": true}, \"dtype\": \"f64\"",
    "\"optimizer\": \"dcasgd\"",
    "\"optimizer\": \"adafactor\"",
    "\"optimizer\": \"nadam\"",
    ("\"optimizer\": {\"name\": \"momentum\", \"momentum\": 0.9}, \"ema\": {\"decay\": 0.9, "
     "\"debias\": true}, \"groups\": [{\"tensors\": [\"b\", \"s\"], \"lr_mult\": 0.5}, "
     "{\"tensors\": \"w\", \"weight_decay_mult\": 0}]"),
    ("\"optimizer\": {\"name\": \"sgd\", \"lr\": 0.1}, \"schedule\": {\"name\": \"cosine\", "
     "\"max_steps\": 60, \"warmup_steps\": 5}, \"gradient\": {\"clip_norm\": 2}"),
    "\"optimizer\": \"sgld\", \"seed\": 5",
    "\"optimizer\": \"muon\"",
};

START_TEST(a_restored_session_goes_on_to_the_same_bits)
{
    struct remote source = remote_create(here.port, "source", sessions[_i]);
    struct remote target = remote_other(&source, there.port, "target");
    struct remote past = remote_other(&source, there.port, "past");

    remote_steps(&source, 1, 20);
    struct answer file = remote_export(&source, "");
    struct answer early = remote_export(&source, "?step=7");
    struct answer answer = remote_import(&target, file.http.body, file.http.body_size);
    ck_assert_msg(answer.http.status == 201, "%s: %s", sessions[_i], answer.http.body);
    ck_assert_int_eq(answer_number(&answer, "step"), 20);
    answer_close(&answer);
    check_equal(&source, &target, sessions[_i]);

    /* Again is the same; another state is another session. */
    answer = remote_import(&target, file.http.body, file.http.body_size);
    ck_assert_msg(answer.http.status == 200, "%s", answer.http.body);
    answer_close(&answer);
    answer = remote_import(&target, early.http.body, early.http.body_size);
    answer_check_problem(&answer, 409, "session_exists", "another state");
    answer_close(&answer);

    remote_steps(&source, 21, 45);
    remote_steps(&target, 21, 45);
    live_server_kill(&there);
    live_server_restart(&there);
    target.port = past.port = there.port;
    remote_steps(&source, 46, 70);
    remote_steps(&target, 46, 70);
    check_equal(&source, &target, sessions[_i]);

    answer = remote_import(&past, early.http.body, early.http.body_size);
    ck_assert_msg(answer.http.status == 201, "%s", answer.http.body);
    answer_close(&answer);
    remote_steps(&past, 8, 70);
    check_equal(&source, &past, "from the past");
    answer_close(&file);
    answer_close(&early);
    stop();
}
END_TEST

START_TEST(a_file_says_what_it_is)
{
    char hash[REMOTE_HASH_BYTES];
    struct remote source = remote_create(here.port, "source", "\"optimizer\": \"adam\"");

    remote_steps(&source, 1, 3);
    struct answer answer = remote_export(&source, "");
    struct file file = file_open(&answer);
    struct weights weights = remote_weights(&source, "");
    static const char *const names[] = {"w", "b", "s", "slot/m/w", "slot/v/s"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        ck_assert_msg(json_object_get(file.header, names[i]) != NULL, "%s", names[i]);
    ck_assert_ptr_null(json_object_get(file.header, "none")); /* empty */
    const json_t *place = json_object_get(json_object_get(file.header, "w"), "data_offsets");
    json_int_t begin = json_integer_value(json_array_get(place, 0));
    ck_assert_mem_eq(file.data + begin, weights.bytes, 5 * 7 * 4);
    remote_hash(&source, "", hash);
    ck_assert_str_eq(json_string_value(json_object_get(file.about, "state_hash")), hash);
    ck_assert_str_eq(json_string_value(json_object_get(file.about, "session")), "source");
    ck_assert_str_eq(json_string_value(json_object_get(file.about, "optimizer")), "adam");
    ck_assert_str_eq(json_string_value(json_object_get(file.about, "prefix")), "");
    ck_assert_int_eq(json_integer_value(json_object_get(file.about, "step")), 3);
    file_close(&file);
    answer_close(&answer);
    answer = api_send(here.port, "GET", "/v1/sessions/source/state", "Accept: application/json\r\n",
                      NULL, 0);
    answer_check_problem(&answer, 406, "not_acceptable", "json");
    answer_close(&answer);
    stop();
}
END_TEST

/* A weight may have the name that a slot's tensor would have. */
START_TEST(names_that_meet_are_kept_apart)
{
    static const char request[] =
        "{\"optimizer\": \"adam\", \"parameters\": {\"w\": [1, 2], \"slot/m/w\": [3, 4], "
        "\"state/slot/m/w\": [5], \"average/w\": [6]}}";
    static const char gradients[] =
        "{\"gradients\": {\"w\": [0.5, -1], \"slot/m/w\": [1, 0.25], \"state/slot/m/w\": [2], "
        "\"average/w\": [-3]}}";
    struct remote source = {.port = here.port, .path = "/v1/sessions/source", .element = 4};
    struct remote target = {.port = there.port, .path = "/v1/sessions/target", .element = 4};
    char mine[REMOTE_HASH_BYTES], theirs[REMOTE_HASH_BYTES];
    struct answer answer = remote_send(&source, "PUT", "", request, 201);

    answer_close(&answer);
    answer = remote_send(&source, "POST", "/gradients", gradients, 200);
    answer_close(&answer);
    struct answer exported = remote_export(&source, "");
    struct file file = file_open(&exported);
    ck_assert_str_eq(json_string_value(json_object_get(file.about, "prefix")), "state/state/");
    ck_assert_ptr_nonnull(json_object_get(file.header, "state/state/slot/m/w"));
    ck_assert_ptr_nonnull(json_object_get(file.header, "state/state/slot/m/slot/m/w"));
    file_close(&file);
    answer = remote_import(&target, exported.http.body, exported.http.body_size);
    ck_assert_msg(answer.http.status == 201, "%s", answer.http.body);
    answer_close(&answer);
    for (int i = 0; i < 5; i++) {
        answer = remote_send(&source, "POST", "/gradients", gradients, 200);
        answer_close(&answer);
        answer = remote_send(&target, "POST", "/gradients", gradients, 200);
        answer_close(&answer);
    }
    remote_hash(&source, "", mine);
    remote_hash(&target, "", theirs);
    ck_assert_str_eq(mine, theirs);
    answer_close(&exported);
    stop();
}
END_TEST

/* --- what is refused --- */

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

static void refused_with(const struct answer *answer, void (*edit)(struct file *), unsigned status,
                         const char *code, const char *pointer, const char *what)
{
    struct file file = file_open(answer);
    size_t size;

    edit(&file);
    char *bytes = file_make(&file, &size);
    refused(bytes, size, status, code, pointer, what);
    free(bytes);
    file_close(&file);
}

static void other_format(struct file *file)
{
    json_object_set_new(file->about, "format", json_integer(2));
    json_object_set_new(file->about, "news", json_integer(2));
}

static void unknown_member(struct file *file)
{
    json_object_set_new(file->about, "news", json_integer(2));
}

static void no_record(struct file *file)
{
    json_object_del(file->about, "record");
}

static void no_base64(struct file *file)
{
    json_object_set_new(file->about, "head", json_string("====="));
}

static void other_head(struct file *file)
{
    json_object_set_new(file->about, "head", json_string("AAAAAAAA"));
}

static void other_hash(struct file *file)
{
    json_object_set_new(file->about, "state_hash", json_string("00000000000000000000000000000000"));
}

static void other_prefix(struct file *file)
{
    json_object_set_new(file->about, "prefix", json_string("state/"));
}

static void renamed(struct file *file)
{
    json_object_set(file->header, "slot/m/x", json_object_get(file->header, "slot/m/w"));
    json_object_del(file->header, "slot/m/w");
}

static void added(struct file *file)
{
    json_object_set_new(file->header, "more",
                        json_pack("{s:s,s:[i],s:[I,I]}", "dtype", "F32", "shape", 0, "data_offsets",
                                  (json_int_t)0, (json_int_t)0));
}

static void reshaped(struct file *file)
{
    json_object_set_new(json_object_get(file->header, "w"), "shape", json_pack("[i,i]", 7, 5));
}

static void retyped(struct file *file)
{
    json_object_set_new(json_object_get(file->header, "w"), "dtype", json_string("F16"));
    json_object_set_new(json_object_get(file->header, "w"), "shape", json_pack("[i,i]", 10, 7));
}

static void both(struct file *file)
{
    json_object_set_new(json_object_get(file->header, "__metadata__"), "descent",
                        json_string("{\"optimizer\": \"sgd\"}"));
}

START_TEST(files_that_are_not_as_exported_are_refused)
{
#define STATE "/__metadata__/descent_state"
    static const struct {
        void (*edit)(struct file *);
        const char *code, *pointer, *what;
    } cases[] = {
        {other_format, "invalid_field", STATE "/format", "another format"},
        {unknown_member, "unknown_field", STATE "/news", "an unknown member"},
        {no_record, "invalid_field", STATE "/record", "no record"},
        {no_base64, "invalid_field", STATE "/head", "no base64"},
        {other_hash, "invalid_field", STATE "/state_hash", "another hash"},
        {other_prefix, "missing_tensor", "/state~1slot~1m~1w", "another prefix"},
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

    struct file file = file_open(&answer);
    size_t size;
    other_head(&file);
    char *bytes = file_make(&file, &size);
    struct remote target = {.port = there.port, .path = "/v1/sessions/refused"};
    struct answer heard = remote_import(&target, bytes, size);
    answer_check_problem(&heard, 422, "invalid_field", "another head");
    answer_close(&heard);
    free(bytes);
    file_close(&file);

    /* Any byte of the data that is another gives another hash. */
    uint64_t random = testing_seed();
    size_t begin = HEADER_AT + header_size(&answer);
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

Suite *suite_state_transfer(void);
Suite *suite_state_transfer(void)
{
    Suite *suite = suite_create("state_transfer");
    TCase *tests = tcase_create("state_transfer");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, NULL);
    tcase_add_loop_test(tests, a_restored_session_goes_on_to_the_same_bits, 0,
                        (int)(sizeof sessions / sizeof *sessions));
    tcase_add_test(tests, a_file_says_what_it_is);
    tcase_add_test(tests, names_that_meet_are_kept_apart);
    tcase_add_test(tests, files_that_are_not_as_exported_are_refused);
    suite_add_tcase(suite, tests);
    return suite;
}
