/* Configurations and JSON that cannot be: each is refused with its code and place, and the session
 * stays as it was. */
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/refusal.h"

enum { TEST_TIMEOUT_S = 120, TEXT_BYTES = 16384 };

#define MODEL "\"parameters\": {\"w\": [0]}"

static void start(void)
{
    refusal_start(NULL);
}

static void check_create(const char *json, unsigned status, const char *code, const char *pointer,
                         const char *words)
{
    refusal_check_json("POST", "/v1/sessions", json, status, code, pointer, words);
    refusal_check_json("PUT", "/v1/sessions/another", json, status, code, pointer, words);
}

/* {"optimizer": <settings>, ...} */
static void check_optimizer(const char *settings, const char *code, const char *pointer,
                            const char *words)
{
    char text[TEXT_BYTES];

    snprintf(text, sizeof text, "{\"optimizer\": %s, " MODEL "}", settings);
    check_create(text, 422, code, pointer, words);
}

/* One member of a configuration: refused in a new session and, where it can be changed, in a PATCH.
 */
static void check_member(const char *member, bool changeable, const char *pointer)
{
    char text[TEXT_BYTES];

    snprintf(text, sizeof text, "{\"optimizer\": \"sgd\", " MODEL ", %s}", member);
    check_create(text, 422, "invalid_field", pointer, NULL);
    snprintf(text, sizeof text, "{%s}", member);
    refusal_check_json("PATCH", REFUSAL_SESSION, text, 422,
                       changeable ? "invalid_field" : "unknown_field", pointer, NULL);
}

static void check_parameters(const char *parameters, unsigned status, const char *code,
                             const char *pointer)
{
    char text[TEXT_BYTES];

    snprintf(text, sizeof text, "{\"optimizer\": \"sgd\", \"parameters\": %s}", parameters);
    check_create(text, status, code, pointer, NULL);
}

/* --- the optimizer --- */

START_TEST(unknown_optimizer_is_refused_with_the_list)
{
    check_optimizer("\"adamm\"", "unknown_optimizer", "/optimizer", "adam");
    check_optimizer("\"\"", "unknown_optimizer", "/optimizer", NULL);
    check_optimizer("{\"name\": \"ADAM\"}", "unknown_optimizer", "/optimizer/name", "adam");
    struct answer answer =
        api_send(refusal_server.port, "GET", "/v1/optimizers/adamm", "", NULL, 0);
    answer_check_problem(&answer, 404, "optimizer_not_found", "adamm");
    answer_close(&answer);
    answer = api_send(refusal_server.port, "GET", "/v1/optimizers/torch.optim.Adam", "", NULL, 0);
    answer_check_problem(&answer, 404, "optimizer_not_found", "torch.optim.Adam");
    ck_assert_ptr_nonnull(strstr(answer_detail(&answer), "GET /v1/presets"));
    answer_close(&answer);
}
END_TEST

START_TEST(optimizer_must_be_a_name_or_an_object_with_one)
{
    check_create("{" MODEL "}", 422, "invalid_field", "/optimizer", NULL);
    check_optimizer("7", "invalid_field", "/optimizer", NULL);
    check_optimizer("null", "invalid_field", "/optimizer", NULL);
    check_optimizer("[]", "invalid_field", "/optimizer", NULL);
    check_optimizer("{}", "invalid_field", "/optimizer/name", NULL);
    check_optimizer("{\"name\": 7}", "invalid_field", "/optimizer/name", NULL);
    check_optimizer("{\"lr\": 1}", "invalid_field", "/optimizer/name", NULL);
}
END_TEST

START_TEST(hyperparameters_have_names_types_and_ranges)
{
    static const struct {
        const char *settings, *code, *pointer, *words;
    } cases[] = {
        {"{\"name\": \"sgd\", \"lr\": -1}", "invalid_field", "/optimizer/lr", "-1"},
        {"{\"name\": \"sgd\", \"lr\": -1e-300}", "invalid_field", "/optimizer/lr", NULL},
        {"{\"name\": \"sgd\", \"lr\": 1e999}", "invalid_field", "/optimizer/lr", NULL},
        {"{\"name\": \"sgd\", \"lr\": 1e31}", "invalid_field", "/optimizer/lr", NULL},
        {"{\"name\": \"sgd\", \"lr\": \"0.1\"}", "invalid_field", "/optimizer/lr", NULL},
        {"{\"name\": \"sgd\", \"lr\": null}", "invalid_field", "/optimizer/lr", NULL},
        {"{\"name\": \"sgd\", \"lr\": [0.1]}", "invalid_field", "/optimizer/lr", NULL},
        {"{\"name\": \"sgd\", \"weight_decay\": -1}", "invalid_field", "/optimizer/weight_decay",
         NULL},
        {"{\"name\": \"sgd\", \"weight_decay_mode\": \"l3\"}", "invalid_field",
         "/optimizer/weight_decay_mode", "decoupled"},
        {"{\"name\": \"sgd\", \"momentum\": 1}", "invalid_field", "/optimizer/momentum", "below 1"},
        {"{\"name\": \"sgd\", \"momentum\": -0.1}", "invalid_field", "/optimizer/momentum", NULL},
        {"{\"name\": \"sgd\", \"beta1\": 0.9}", "unknown_field", "/optimizer/beta1", "momentum"},
        {"{\"name\": \"sgd\", \"a/b~\": 0}", "unknown_field", "/optimizer/a~1b~0", NULL},
        {"{\"name\": \"adam\", \"beta1\": 1}", "invalid_field", "/optimizer/beta1", "below 1"},
        {"{\"name\": \"adam\", \"beta2\": 1.5}", "invalid_field", "/optimizer/beta2", NULL},
        {"{\"name\": \"adam\", \"eps\": -1e-8}", "invalid_field", "/optimizer/eps", NULL},
        {"{\"name\": \"adam\", \"amsgrad\": 1}", "invalid_field", "/optimizer/amsgrad", NULL},
        {"{\"name\": \"adam\", \"eps_mode\": true}", "invalid_field", "/optimizer/eps_mode", "hat"},
        {"{\"name\": \"momentum\", \"dampening\": 1.1}", "invalid_field", "/optimizer/dampening",
         NULL},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_optimizer(cases[i].settings, cases[i].code, cases[i].pointer, cases[i].words);
}
END_TEST

START_TEST(a_patch_keeps_the_rule_and_its_ranges)
{
    refusal_check_json("PATCH", REFUSAL_SESSION, "{\"optimizer\": {\"name\": \"adam\"}}", 422,
                       "invalid_field", "/optimizer/name", "sgd");
    refusal_check_json("PATCH", REFUSAL_SESSION, "{\"optimizer\": \"sgd\"}", 422, "invalid_field",
                       "/optimizer", NULL);
    refusal_check_json("PATCH", REFUSAL_SESSION, "{\"optimizer\": {\"lr\": -1}}", 422,
                       "invalid_field", "/optimizer/lr", NULL);
    /* The first member is good: nothing is half applied. */
    refusal_check_json("PATCH", REFUSAL_SESSION, "{\"optimizer\": {\"lr\": 0.5, \"momentum\": 1}}",
                       422, "invalid_field", "/optimizer/momentum", NULL);
    refusal_check_json("PATCH", REFUSAL_SESSION,
                       "{\"labels\": {\"new\": \"v\"}, \"gradient\": {\"rescale\": 0}}", 422,
                       "invalid_field", "/gradient/rescale", NULL);
    refusal_check(&(struct refusal){.method = "PATCH",
                                    .path = REFUSAL_SESSION,
                                    .headers = "Content-Type: application/jsonx\r\n",
                                    .body = "{}",
                                    .size = 2,
                                    .status = 415,
                                    .code = "unsupported_media_type",
                                    .words = "merge-patch"});
    refusal_check_json("PATCH", REFUSAL_SESSION, "{\"parameters\": {}}", 422, "unknown_field",
                       "/parameters", NULL);
}
END_TEST

/* --- the rest of the configuration --- */

START_TEST(settings_have_types_and_ranges)
{
    static const struct {
        const char *member, *pointer;
        bool fixed; /* cannot be changed */
    } cases[] = {
        {"\"gradient\": {\"rescale\": 0}", "/gradient/rescale", false},
        {"\"gradient\": {\"rescale\": -0.0}", "/gradient/rescale", false},
        {"\"gradient\": {\"rescale\": null}", "/gradient/rescale", false},
        {"\"gradient\": {\"rescale\": 1e999}", "/gradient/rescale", false},
        {"\"gradient\": {\"clip_value\": 0}", "/gradient/clip_value", false},
        {"\"gradient\": {\"clip_value\": -1}", "/gradient/clip_value", false},
        {"\"gradient\": {\"clip_norm\": 0}", "/gradient/clip_norm", false},
        {"\"gradient\": {\"clip_norm\": \"1\"}", "/gradient/clip_norm", false},
        {"\"gradient\": {\"nonfinite\": \"ignore\"}", "/gradient/nonfinite", false},
        {"\"gradient\": {\"nonfinite\": null}", "/gradient/nonfinite", false},
        {"\"gradient\": []", "/gradient", false},
        {"\"aggregation\": {\"mode\": \"never\"}", "/aggregation/mode", false},
        {"\"durability\": {\"mode\": \"never\"}", "/durability/mode", false},
        {"\"durability\": {\"mode\": \"interval\", \"seconds\": 0}", "/durability/seconds", false},
        {"\"durability\": {\"seconds\": 3601}", "/durability/seconds", false},
        {"\"durability\": {\"steps\": 0}", "/durability/steps", false},
        {"\"durability\": {\"steps\": 1.5}", "/durability/steps", false},
        {"\"durability\": {\"steps\": 18446744073709551616}", "/durability/steps", false},
        {"\"history\": {\"keep_steps\": -1}", "/history/keep_steps", false},
        {"\"history\": {\"keep_steps\": 1e16}", "/history/keep_steps", false},
        {"\"labels\": []", "/labels", false},
        {"\"labels\": {\"a/b\": 7}", "/labels/a~1b", false},
        {"\"dtype\": \"f16\"", "/dtype", true},
        {"\"dtype\": 32", "/dtype", true},
        {"\"seed\": -1", "/seed", true},
        {"\"seed\": 9007199254740992", "/seed", true},
        {"\"seed\": \"7\"", "/seed", true},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_member(cases[i].member, !cases[i].fixed, cases[i].pointer);
}
END_TEST

START_TEST(labels_have_limits)
{
    static char text[TEXT_BYTES];
    size_t used = (size_t)snprintf(text, sizeof text, "\"labels\": {");

    for (int i = 0; i < 33; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s\"l%d\": \"\"",
                                 i > 0 ? ", " : "", i);
    snprintf(text + used, sizeof text - used, "}");
    check_member(text, true, "/labels");
    snprintf(text, sizeof text, "\"labels\": {\"l\": \"%02046d\"}", 0);
    check_member(text, true, "/labels");
    snprintf(text, sizeof text, "{\"labels\": {\"l\": \"%02045d\"}}", 0);
    struct answer answer = refusal_accept("PATCH", REFUSAL_SESSION, "", text, 200);
    answer_close(&answer);
}
END_TEST

START_TEST(an_id_has_a_grammar)
{
    static const char long_id[] = "0123456789012345678901234567890123456789"
                                  "0123456789012345678901234";
    static const char *const ids[] = {"A",      "-a", "_a",    "a.b",  "a%20b",
                                      "%C3%A9", "..", "a%2Fb", long_id};
    static const char json[] = "{\"optimizer\": \"sgd\", " MODEL "}";
    char path[128];

    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        snprintf(path, sizeof path, "/v1/sessions/%s", ids[i]);
        refusal_check_json("PUT", path, json, 400, "invalid_request", NULL, "a-z");
    }
}
END_TEST

/* --- queries beside binary bodies --- */

START_TEST(what_is_for_json_alone_is_no_query_parameter)
{
    static const struct {
        const char *method, *path, *words;
    } cases[] = {
        {"POST", REFUSAL_STEPS "?gradients=1", "\"gradients\""},
        {"POST", REFUSAL_STEPS "?loss=1&gradients=", "\"gradients\""},
        {"PUT", REFUSAL_WEIGHTS "?parameters=1", "\"parameters\""},
        {"PUT", REFUSAL_WEIGHTS "?step=1", "\"step\""},
        {"PUT", REFUSAL_WEIGHTS "?lineage=9", "\"lineage\""},
        {"PUT", REFUSAL_WEIGHTS "?average=x", "\"average\""},
    };
    static const char *const types[] = {"octet-stream", "x-npy", "vnd.safetensors"};
    static const float body[REFUSAL_COUNT] = {1};
    char header[80];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
            snprintf(header, sizeof header, "Content-Type: application/%s\r\n", types[k]);
            refusal_check(&(struct refusal){.method = cases[i].method,
                                            .path = cases[i].path,
                                            .headers = header,
                                            .body = body,
                                            .size = sizeof body,
                                            .status = 400,
                                            .code = "invalid_request",
                                            .words = cases[i].words});
        }
    struct answer answer = api_send(refusal_server.port, "GET", "/readyz", "", NULL, 0);
    ck_assert_uint_eq(answer.http.status, 200);
    answer_close(&answer);
}
END_TEST

/* --- parameters of a new session --- */

START_TEST(parameters_must_be_arrays_or_declared)
{
    static const struct {
        const char *parameters;
        unsigned status;
        const char *code, *pointer;
    } cases[] = {
        {"[]", 422, "invalid_field", "/parameters"},
        {"null", 422, "invalid_field", "/parameters"},
        {"{}", 422, "invalid_field", "/parameters"},
        {"{\"w\": []}", 422, "invalid_field", "/parameters"},
        {"{\"w\": \"zeros\"}", 422, "invalid_field", "/parameters/w"},
        {"{\"w\": [1, null]}", 422, "invalid_field", "/parameters/w"},
        {"{\"w\": [1, [2]]}", 422, "shape_mismatch", "/parameters/w"},
        {"{\"w\": [[1, 2], [3]]}", 422, "shape_mismatch", "/parameters/w"},
        {"{\"\": [1]}", 422, "invalid_field", "/parameters"},
        {"{\"__metadata__\": [1]}", 422, "invalid_field", "/parameters/__metadata__"},
        {"{\"w\": {}}", 422, "invalid_field", "/parameters/w"},
        {"{\"w\": {\"shape\": [1]}}", 422, "invalid_field", "/parameters/w"},
        {"{\"w\": {\"data\": [1]}}", 422, "invalid_field", "/parameters/w/shape"},
        {"{\"w\": {\"shape\": [1], \"data\": [1], \"init\": \"ones\"}}", 422, "invalid_field",
         "/parameters/w"},
        {"{\"w\": {\"shape\": [2], \"data\": [1]}}", 422, "shape_mismatch", "/parameters/w/data"},
        {"{\"w\": {\"shape\": [2], \"data\": [[1], [2]]}}", 422, "shape_mismatch",
         "/parameters/w/data"},
        {"{\"w\": {\"shape\": [1], \"data\": \"1\"}}", 422, "invalid_field", "/parameters/w/data"},
        {"{\"w\": {\"shape\": [1], \"data_b64\": 7}}", 422, "invalid_field",
         "/parameters/w/data_b64"},
        {"{\"w\": {\"shape\": [1], \"data_b64\": \"AAA-AA==\"}}", 422, "invalid_field",
         "/parameters/w/data_b64"},
        {"{\"w\": {\"shape\": [1], \"data_b64\": \"AAAAAB==\"}}", 422, "invalid_field",
         "/parameters/w/data_b64"},
        {"{\"w\": {\"shape\": [1], \"init\": \"random\"}}", 422, "invalid_field",
         "/parameters/w/init"},
        {"{\"w\": {\"shape\": [1], \"init\": {\"normal\": {\"std\": -1}}}}", 422, "invalid_field",
         "/parameters/w/init/normal/std"},
        {"{\"w\": {\"shape\": [1], \"init\": {\"normal\": {\"sigma\": 1}}}}", 422, "unknown_field",
         "/parameters/w/init/normal/sigma"},
        {"{\"w\": {\"shape\": [1], \"init\": {\"uniform\": {\"low\": 2}}}}", 422, "invalid_field",
         "/parameters/w/init/uniform"},
        {"{\"w\": {\"shape\": [1], \"init\": {\"normal\": {}, \"uniform\": {}}}}", 422,
         "invalid_field", "/parameters/w/init"},
        {"{\"w\": {\"shape\": [1], \"size\": 1}}", 422, "unknown_field", "/parameters/w/size"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_parameters(cases[i].parameters, cases[i].status, cases[i].code, cases[i].pointer);
}
END_TEST

START_TEST(sizes_whose_product_overflows_are_refused)
{
    static const struct {
        const char *shape;
        unsigned status;
        const char *code, *pointer;
    } cases[] = {
        {"[4294967296, 4294967296]", 413, "too_large", "/parameters/w"},
        {"[65536, 65536, 65536, 65536]", 413, "too_large", "/parameters/w"},
        {"[68719476736, 2]", 413, "too_large", "/parameters/w"},
        {"[68719476736]", 413, "too_large", "/parameters"},
        {"[68719476737]", 422, "invalid_field", "/parameters/w/shape"},
        {"[18446744073709551617]", 422, "invalid_field", "/parameters/w/shape"},
        {"[1e999]", 422, "invalid_field", "/parameters/w/shape/0"},
        {"[-1]", 422, "invalid_field", "/parameters/w/shape"},
        {"[0.5]", 422, "invalid_field", "/parameters/w/shape"},
        {"[[1]]", 422, "invalid_field", "/parameters/w/shape"},
        {"3", 422, "invalid_field", "/parameters/w/shape"},
        {"[1, 1, 1, 1, 1, 1, 1, 1, 1]", 422, "invalid_field", "/parameters/w/shape"},
    };
    char text[256];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text, "{\"w\": {\"shape\": %s, \"init\": \"zeros\"}}",
                 cases[i].shape);
        check_parameters(text, cases[i].status, cases[i].code, cases[i].pointer);
    }
    /* Each is allowed, their sum is not. */
    check_parameters("{\"v\": {\"shape\": [68719476736], \"init\": \"zeros\"}, "
                     "\"w\": {\"shape\": [68719476736], \"init\": \"zeros\"}}",
                     413, "too_large", "/parameters/w");
}
END_TEST

START_TEST(numbers_beyond_the_type_are_refused)
{
    check_parameters("{\"w\": [0, 1e999]}", 422, "invalid_field", "/parameters/w/1");
    check_parameters("{\"w\": [[0, -1e39]]}", 422, "invalid_field", "/parameters/w/0/1");
    check_parameters("{\"w\": 1e39}", 422, "invalid_field", "/parameters/w");
    refusal_check_json(
        "POST", REFUSAL_STEPS,
        "{\"gradients\": {\"w\": [[0, 0], [1e999, 0]], \"a/b\": [0, 0, 0], \"s\": 0}}", 422,
        "invalid_field", "/gradients/w/1/0", "f32");
    /* f64 holds it; what is too small to hold is 0. */
    struct answer answer = refusal_accept(
        "POST", "/v1/sessions", "",
        "{\"optimizer\": \"sgd\", \"dtype\": \"f64\", \"parameters\": {\"w\": [1e39, 1e-999]}}",
        201);
    answer_close(&answer);
}
END_TEST

/* --- JSON --- */

START_TEST(duplicate_members_are_refused_by_name)
{
    static const struct {
        const char *method, *path, *json, *words;
    } cases[] = {
        {"POST", REFUSAL_STEPS, "{\"gradients\": {}, \"gradients\": " REFUSAL_TENSORS "}",
         "\"gradients\""},
        {"POST", REFUSAL_STEPS,
         "{\"gradients\": {\"w\": [[1, 2], [3, 4]], \"w\": [[1, 2], [3, 4]], \"a/b\": [5, 6, 7], "
         "\"s\": 8}}",
         "\"w\""},
        {"POST", REFUSAL_STEPS,
         "{\"gradients\": {\"w\": [[1, 2], [3, 4]], \"\\u0077\": [[1, 2], [3, 4]], \"a/b\": [5, 6, "
         "7], \"s\": 8}}",
         "twice"},
        {"POST", "/v1/sessions", "{\"optimizer\": \"sgd\", " MODEL ", \"seed\": 1, \"seed\": 1}",
         "\"seed\""},
        {"POST", "/v1/sessions",
         "{\"optimizer\": {\"name\": \"sgd\", \"name\": \"adam\"}, " MODEL "}", "\"name\""},
        {"PATCH", REFUSAL_SESSION, "{\"labels\": {\"a\": \"1\", \"a\": \"2\"}}", "\"a\""},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refusal_check_json(cases[i].method, cases[i].path, cases[i].json, 400, "invalid_json", NULL,
                           cases[i].words);
}
END_TEST

START_TEST(what_is_no_json_is_refused_with_the_place)
{
    static const char *const texts[] = {
        "{",
        "}",
        "nul",
        "{\"a\": 1,}",
        "{\"a\" 1}",
        "{a: 1}",
        "{'a': 1}",
        "{\"a\": 1} x",
        "{\"a\": NaN}",
        "{\"a\": [1, NaN]}",
        "{\"a\": Infinity}",
        "{\"a\": -Infinity}",
        "{\"a\": [1, -]}",
        "{\"a\": 01}",
        "{\"a\": +1}",
        "{\"a\": .5}",
        "{\"a\": 1.}",
        "{\"a\": 0x10}",
        "{\"a\": 1e}",
        "{\"a\": [1,]}",
        "{\"a\": [1 2]}",
        "{\"a\": [1, 2}",
        "{\"a\": \"\\x\"}",
        "{\"a\": \"\\u12\"}",
        "{\"a\": \"\\ud800\"}",
        "{\"a\": \"\\u0000\"}",
        "{\"a\": \"\377\"}",
        "{\"a\": \"\300\200\"}",
        "{\"a\": \"b",
        "{\"a\": \"\n\"}",
        "\357\273\277{}",
        "{\"a\": [[1, 2], [3, 4]",
        "// no\n{}",
        "{}{}",
    };
    static const struct {
        const char *method, *path;
    } routes[] = {{"POST", "/v1/sessions"},
                  {"PUT", "/v1/sessions/another"},
                  {"PATCH", REFUSAL_SESSION},
                  {"POST", REFUSAL_STEPS},
                  {"PUT", REFUSAL_WEIGHTS}};

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        refusal_check_json(routes[i % 5].method, routes[i % 5].path, texts[i], 400, "invalid_json",
                           NULL, "line ");
    for (size_t i = 0; i < 5; i++) {
        refusal_check_json(routes[i].method, routes[i].path, " ", 400, "invalid_json", NULL, NULL);
        refusal_check_json(routes[i].method, routes[i].path, "[]", 400, "invalid_request", NULL,
                           "object");
        refusal_check_json(routes[i].method, routes[i].path, "null", 400, "invalid_request", NULL,
                           "object");
        refusal_check_json(routes[i].method, routes[i].path, "[1, 2]", 400, "invalid_request", NULL,
                           "object");
    }
}
END_TEST

Suite *suite_bad_fields(void);
Suite *suite_bad_fields(void)
{
    Suite *suite = suite_create("bad_fields");
    TCase *tests = tcase_create("bad_fields");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, refusal_stop);
    tcase_add_test(tests, unknown_optimizer_is_refused_with_the_list);
    tcase_add_test(tests, optimizer_must_be_a_name_or_an_object_with_one);
    tcase_add_test(tests, hyperparameters_have_names_types_and_ranges);
    tcase_add_test(tests, a_patch_keeps_the_rule_and_its_ranges);
    tcase_add_test(tests, settings_have_types_and_ranges);
    tcase_add_test(tests, what_is_for_json_alone_is_no_query_parameter);
    tcase_add_test(tests, labels_have_limits);
    tcase_add_test(tests, an_id_has_a_grammar);
    tcase_add_test(tests, parameters_must_be_arrays_or_declared);
    tcase_add_test(tests, sizes_whose_product_overflows_are_refused);
    tcase_add_test(tests, numbers_beyond_the_type_are_refused);
    tcase_add_test(tests, duplicate_members_are_refused_by_name);
    tcase_add_test(tests, what_is_no_json_is_refused_with_the_place);
    suite_add_tcase(suite, tests);
    return suite;
}
