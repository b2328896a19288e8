/* Sessions made from presets: what the catalogue promises is what a session gets. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/refusal.h"

enum { TEST_TIMEOUT_S = 120, TEXT_BYTES = 4096 };

#define MODEL "\"parameters\": {\"w\": [[0, 0], [0, 0]]}"

static void start(void)
{
    refusal_start(NULL);
}

static struct answer get(const char *path)
{
    struct answer answer = api_send(refusal_server.port, "GET", path, "", NULL, 0);

    ck_assert_msg(answer.http.status == 200, "%s: %s", path, answer.http.body);
    return answer;
}

/* A new session with these settings. Close the answer. */
static struct answer create(json_t *take_settings)
{
    json_t *body = json_pack("{s:o, s:{s:[[ii][ii]]}}", "optimizer", take_settings, "parameters",
                             "w", 0, 0, 0, 0);
    char *text = json_dumps(body, JSON_REAL_PRECISION(17));
    struct answer answer = api_send_json(refusal_server.port, "POST", "/v1/sessions", text);

    free(text);
    json_decref(body);
    return answer;
}

static const json_t *shown(const struct answer *answer)
{
    return json_object_get(answer->json, "optimizer");
}

/* Every member of `part` is in the session's optimizer, with that value. */
static void check_has(const struct answer *answer, const json_t *part, const char *what)
{
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)part, name, value)
        ck_assert_msg(json_equal(json_object_get(shown(answer), name), value), "%s: %s: %s", what,
                      name, answer->http.body);
}

static const char *text_of(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

static struct answer all_presets(const json_t **presets)
{
    struct answer answer = get("/v1/presets");

    *presets = json_object_get(answer.json, "presets");
    ck_assert_uint_gt(json_array_size(*presets), 0);
    return answer;
}

START_TEST(every_preset_makes_a_session_of_its_rule_with_its_fields)
{
    const json_t *presets;
    struct answer catalogue = all_presets(&presets);

    for (size_t i = 0; i < json_array_size(presets); i++) {
        const json_t *preset = json_array_get(presets, i);
        const char *name = text_of(preset, "name");
        struct answer answer = create(json_pack("{s:s}", "preset", name));
        ck_assert_msg(answer.http.status == 201, "%s: %s", name, answer.http.body);
        ck_assert_str_eq(text_of(shown(&answer), "name"), text_of(preset, "optimizer"));
        check_has(&answer, json_object_get(preset, "fields"), name);
        check_has(&answer, json_object_get(preset, "fixed"), name);
        ck_assert_ptr_null(json_object_get(shown(&answer), "preset"));
        answer_close(&answer);
    }
    answer_close(&catalogue);
}
END_TEST

/* Another value for a hyperparameter as it is declared, or NULL when there is none to think of. */
static json_t *another_value(const json_t *hyper, const json_t *value)
{
    const char *type = text_of(hyper, "type");
    const json_t *choices = json_object_get(hyper, "choices");
    double number = json_number_value(value);

    if (strcmp(type, "boolean") == 0)
        return json_boolean(!json_is_true(value));
    if (strcmp(type, "integer") == 0)
        return json_integer((json_int_t)number + 1);
    if (strcmp(type, "number") == 0)
        return json_is_null(value) ? NULL : json_real(number == 0 ? 0.25 : number / 2);
    for (size_t i = 0; i < json_array_size(choices); i++)
        if (!json_equal(json_array_get(choices, i), value))
            return json_incref(json_array_get(choices, i));
    return NULL;
}

static const json_t *declared(const json_t *rule, const char *field)
{
    const json_t *hypers = json_object_get(rule, "hyperparameters");

    for (size_t i = 0; i < json_array_size(hypers); i++)
        if (strcmp(text_of(json_array_get(hypers, i), "name"), field) == 0)
            return json_array_get(hypers, i);
    ck_abort_msg("%s has no %s", text_of(rule, "name"), field);
    return NULL;
}

START_TEST(every_field_of_a_preset_can_be_set)
{
    const json_t *presets;
    struct answer catalogue = all_presets(&presets);
    size_t changed = 0;
    char path[128];

    for (size_t i = 0; i < json_array_size(presets); i++) {
        const json_t *preset = json_array_get(presets, i);
        const char *field, *name = text_of(preset, "name");
        json_t *value, *settings = json_pack("{s:s}", "preset", name);
        snprintf(path, sizeof path, "/v1/optimizers/%s", text_of(preset, "optimizer"));
        struct answer rule = get(path);
        json_object_foreach(json_object_get(preset, "fields"), field, value)
        {
            json_t *other = another_value(declared(rule.json, field), value);
            changed += other != NULL;
            if (other != NULL)
                json_object_set_new(settings, field, other);
        }
        json_incref(settings);
        struct answer answer = create(settings);
        ck_assert_msg(answer.http.status == 201, "%s: %s", name, answer.http.body);
        json_object_del(settings, "preset");
        check_has(&answer, settings, name);
        check_has(&answer, json_object_get(preset, "fixed"), name);
        json_decref(settings);
        answer_close(&answer);
        answer_close(&rule);
    }
    ck_assert_uint_gt(changed, json_array_size(presets));
    answer_close(&catalogue);
}
END_TEST

START_TEST(what_a_preset_fixes_is_refused_with_the_way_out)
{
    const json_t *presets;
    struct answer catalogue = all_presets(&presets);
    size_t count = 0;
    char pointer[96];

    for (size_t i = 0; i < json_array_size(presets); i++) {
        const json_t *preset = json_array_get(presets, i);
        const char *field, *name = text_of(preset, "name");
        json_t *value;
        json_object_foreach(json_object_get(preset, "fixed"), field, value)
        {
            struct answer answer = create(json_pack("{s:s, s:O}", "preset", name, field, value));
            answer_check_problem(&answer, 422, "unknown_field", name);
            snprintf(pointer, sizeof pointer, "/optimizer/%s", field);
            ck_assert_str_eq(answer_pointer(&answer), pointer);
            ck_assert_ptr_nonnull(strstr(answer_detail(&answer), "fixes"));
            ck_assert_ptr_nonnull(strstr(answer_detail(&answer), text_of(preset, "optimizer")));
            answer_close(&answer);
            count++;
        }
    }
    ck_assert_uint_gt(count, 0);
    answer_close(&catalogue);
}
END_TEST

START_TEST(a_preset_is_the_rule_with_its_fields)
{
    static const char preset[] = "{\"optimizer\": {\"preset\": \"torch.optim.Adam\"}, " MODEL "}";
    static const char rule[] = "{\"optimizer\": {\"name\": \"adam\", \"lr\": 0.001, \"beta1\": "
                               "0.9, \"beta2\": 0.999, \"eps\": 1e-8, \"weight_decay\": 0, "
                               "\"amsgrad\": false, \"eps_mode\": \"outside\", "
                               "\"weight_decay_mode\": \"l2\"}, " MODEL "}";
    static const char other[] =
        "{\"optimizer\": {\"preset\": \"torch.optim.Adam\", \"eps\": 1e-7}, " MODEL "}";
    struct answer answer = refusal_accept("PUT", "/v1/sessions/twice", "", preset, 201);

    answer_close(&answer);
    answer = refusal_accept("PUT", "/v1/sessions/twice", "", rule, 200);
    answer_close(&answer);
    refusal_check_json("PUT", "/v1/sessions/twice", other, 409, "session_exists", NULL, NULL);
    answer = refusal_accept("PATCH", "/v1/sessions/twice", "",
                            "{\"optimizer\": {\"eps_mode\": \"hat\"}}", 200);
    ck_assert_str_eq(text_of(shown(&answer), "eps_mode"), "hat"); /* it is plain adam now */
    answer_close(&answer);
}
END_TEST

START_TEST(words_of_other_frameworks_are_translated)
{
    static const struct {
        const char *settings, *code, *pointer, *words;
    } cases[] = {
        {"\"torch.optim.Adam\"", "unknown_optimizer", "/optimizer", "{\"preset\": "},
        {"{\"name\": \"torch.optim.Adam\"}", "unknown_optimizer", "/optimizer/name",
         "{\"preset\": "},
        {"{\"preset\": \"adam\"}", "unknown_optimizer", "/optimizer/preset", "{\"name\": "},
        {"{\"preset\": \"torch.Adam\"}", "unknown_optimizer", "/optimizer/preset",
         "nearest are torch.optim.Adam"},
        {"{\"preset\": \"TORCH.OPTIM.ADAM\"}", "unknown_optimizer", "/optimizer/preset",
         "nearest are torch.optim.Adam"},
        {"\"AdaM\"", "unknown_optimizer", "/optimizer", "there are adam,"},
        {"{\"preset\": 7}", "invalid_field", "/optimizer/preset", "GET /v1/presets"},
        {"{\"preset\": null}", "invalid_field", "/optimizer/preset", "GET /v1/presets"},
        {"{\"name\": \"adam\", \"preset\": \"torch.optim.Adam\"}", "invalid_field",
         "/optimizer/preset", "not both"},
        {"{\"preset\": \"torch.optim.Adam\", \"wd\": 1}", "unknown_field", "/optimizer/wd",
         "weight_decay"},
        {"{\"preset\": \"torch.optim.Adam\", \"betas\": [0.9, 0.99]}", "unknown_field",
         "/optimizer/betas", "beta1 and beta2"},
        {"{\"preset\": \"torch.optim.Adam\", \"maximize\": true}", "unknown_field",
         "/optimizer/maximize", "\"rescale\": -1"},
        {"{\"preset\": \"torch.optim.Adam\", \"momentum\": 0}", "unknown_field",
         "/optimizer/momentum", "it has lr, beta1"},
        {"{\"preset\": \"torch.optim.Adam\", \"a/b\": 0}", "unknown_field", "/optimizer/a~1b",
         NULL},
        {"{\"preset\": \"torch.optim.Adam\", \"lr\": -1}", "invalid_field", "/optimizer/lr", "-1"},
        {"{\"name\": \"adam\", \"learning_rate\": 1}", "unknown_field", "/optimizer/learning_rate",
         "called lr"},
        {"{\"name\": \"adam\", \"epsilon\": 1}", "unknown_field", "/optimizer/epsilon",
         "called eps"},
        {"{\"name\": \"adam\", \"clip_gradient\": 1}", "unknown_field", "/optimizer/clip_gradient",
         "clip_value"},
        {"{\"name\": \"adam\", \"rescale_grad\": 1}", "unknown_field", "/optimizer/rescale_grad",
         "rescale"},
        {"{\"name\": \"adam\", \"foreach\": true}", "unknown_field", "/optimizer/foreach",
         "leave it out"},
        /* sgd has no eps to be called so. */
        {"{\"name\": \"sgd\", \"epsilon\": 1}", "unknown_field", "/optimizer/epsilon", "it has lr"},
    };
    char text[TEXT_BYTES];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text, "{\"optimizer\": %s, " MODEL "}", cases[i].settings);
        refusal_check_json("POST", "/v1/sessions", text, 422, cases[i].code, cases[i].pointer,
                           cases[i].words);
    }
    refusal_check_json("PATCH", REFUSAL_SESSION,
                       "{\"optimizer\": {\"preset\": \"torch.optim.SGD\"}}", 422, "invalid_field",
                       "/optimizer/preset", "sgd");
    refusal_check_json("PATCH", REFUSAL_SESSION, "{\"optimizer\": {\"wd\": 0.1}}", 422,
                       "unknown_field", "/optimizer/wd", "weight_decay");
}
END_TEST

START_TEST(the_catalogues_are_printed_on_a_terminal)
{
    static const struct {
        const char *arguments[4];
        int status;
        const char *words;
    } cases[] = {
        {{"optimizers", NULL}, 0, "adam "},
        {{"optimizers", "adam", NULL}, 0, "second moment"},
        {{"optimizers", "torch.optim.Adam", NULL}, 0, "the rule adam"},
        {{"optimizers", "torch.optim.Adamm", NULL}, 1, "`descent optimizers`"},
        {{"presets", NULL}, 0, "torch.optim.Adam "},
        {{"presets", "torch.optim.Adam", NULL}, 0, "outside"},
        {{"presets", "adam", NULL}, 1, "`descent presets`"},
        {{"schedules", NULL}, 0, "constant "},
        {{"schedules", "constant", NULL}, 0, "warmup_steps"},
        {{"schedules", "cosinus", NULL}, 1, "`descent schedules`"},
        {{"schedules", "constant", "cosine", NULL}, 2, "one name"},
        {{"presets", "torch.optim.Adam", "mxnet.Adam", NULL}, 2, "one name"},
    };
    static char out[65536];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int status = live_server_run(cases[i].arguments, out, sizeof out);
        ck_assert_msg(status == cases[i].status && strstr(out, cases[i].words) != NULL,
                      "%s %s: %d %s", cases[i].arguments[0], cases[i].arguments[1], status, out);
    }
}
END_TEST

Suite *suite_preset_sessions(void);
Suite *suite_preset_sessions(void)
{
    Suite *suite = suite_create("preset_sessions");
    TCase *tests = tcase_create("preset_sessions");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, refusal_stop);
    tcase_add_test(tests, every_preset_makes_a_session_of_its_rule_with_its_fields);
    tcase_add_test(tests, every_field_of_a_preset_can_be_set);
    tcase_add_test(tests, what_a_preset_fixes_is_refused_with_the_way_out);
    tcase_add_test(tests, a_preset_is_the_rule_with_its_fields);
    tcase_add_test(tests, words_of_other_frameworks_are_translated);
    tcase_add_test(tests, the_catalogues_are_printed_on_a_terminal);
    suite_add_tcase(suite, tests);
    return suite;
}
