/* Tenants: every one has sessions of its own under names of its own, and nothing that it can ask
 * for shows those of another. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/session/session.h"
#include "service/tensor/layout.h"
#include "tests/lib/engines.h"
#include "tests/lib/gate.h"
#include "tests/lib/testing.h"

enum { TEST_TIMEOUT_S = 120 };

/* Names that stand in no text of the server. */
#define ONE "zz-first-zz"
#define TWO "zz-second-zz"

/* --- names --- */

START_TEST(stored_ids_have_two_parts)
{
    static const struct {
        const char *stored, *tenant, *id; /* tenant NULL: it is none */
    } cases[] = {
        {"a", "", "a"},
        {"a/b", "a", "b"},
        {"0-_/9-_", "0-_", "9-_"},
        {"a23456789012345678901234567890ab/x", "a23456789012345678901234567890ab", "x"},
        {"a23456789012345678901234567890abc/x", NULL, NULL},
        {"/x", NULL, NULL},
        {"a/", NULL, NULL},
        {"a/b/c", NULL, NULL},
        {"A/b", NULL, NULL},
        {"_a/b", NULL, NULL},
        {"a/B", NULL, NULL},
        {"", NULL, NULL},
    };
    char tenant[TENANT_BYTES + 1];
    const char *id;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool good = tenant_split(cases[i].stored, tenant, &id);
        ck_assert_msg(good == (cases[i].tenant != NULL), "%s", cases[i].stored);
        if (!good)
            continue;
        ck_assert_str_eq(tenant, cases[i].tenant);
        ck_assert_str_eq(id, cases[i].id);
    }
    ck_assert(!tenant_valid(""));
}
END_TEST

/* --- the engine --- */

static struct session *make(struct engine *engine, const char *tenant, const char *id, size_t count)
{
    struct owner owner = {.tenant = tenant};
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct layout *layout = layout_new();
    struct buffer *weights = engines_constant(count, 1);
    struct session_request request = {
        .id = id, .owner = &owner, .spec = &spec, .layout = layout, .weights = weights};
    struct session *session = NULL;
    struct fault fault;
    bool created = false;

    ck_assert_int_eq(layout_add(layout, "w", 1, 1, &count, &fault), STATUS_OK);
    ck_assert_int_eq(layout_seal(layout, &fault), STATUS_OK);
    enum status status = engine_create(engine, &request, &session, &created, &fault);
    ck_assert_msg(status == STATUS_OK && created, "%s/%s: %s", tenant, id, fault.detail);
    layout_release(layout);
    buffer_release(weights);
    return session;
}

/* Names between which others would sort, if the registry sorted by what is stored. */
static const char *const tenants[] = {"", "a", "a-b", "a0", "ab", "b"};
static const char *const ids[] = {"0", "a", "a-", "a0", "ab", "b", "zz"};
enum { TENANTS = sizeof tenants / sizeof *tenants, IDS = sizeof ids / sizeof *ids };

static void check_lists(struct engine *engine, size_t page_size)
{
    struct session *page[IDS];

    for (size_t t = 0; t < TENANTS; t++) {
        char after[SESSION_ID_BYTES + 1] = "";
        bool more = true;
        size_t seen = 0;
        while (more) {
            size_t count = engine_list(engine, tenants[t], after, page, page_size, &more);
            ck_assert_uint_gt(count, 0);
            for (size_t i = 0; i < count; i++) {
                struct session_view view = engines_view(page[i]);
                ck_assert_uint_lt(seen, IDS);
                ck_assert_str_eq(view.id, ids[seen]);
                /* The size says whose it is. */
                ck_assert_uint_eq(session_layout(page[i])->count, 1 + t * IDS + seen);
                strcpy(after, view.id);
                seen++;
                session_release(page[i]);
            }
        }
        ck_assert_uint_eq(seen, IDS);
    }
    bool more;
    ck_assert_uint_eq(engine_list(engine, "none", "", page, IDS, &more), 0);
    ck_assert(!more);
}

START_TEST(lists_are_of_one_tenant)
{
    char url[300];
    struct session *found;
    struct fault fault;

    snprintf(url, sizeof url, "sqlite:%s", testing_folder());
    struct engine *engine = engines_open(url, NULL);
    for (size_t i = IDS; i-- > 0;)
        for (size_t t = 0; t < TENANTS; t++)
            session_release(make(engine, tenants[t], ids[i], 1 + t * IDS + i));
    for (int opened = 0; opened < 2; opened++) {
        for (size_t size = 1; size <= IDS; size += 2)
            check_lists(engine, size);
        ck_assert_int_eq(engine_find(engine, "", "a/b", &found, &fault), STATUS_SESSION_NOT_FOUND);
        ck_assert_int_eq(engine_find(engine, "none", "a", &found, &fault),
                         STATUS_SESSION_NOT_FOUND);
        engine_close(engine);
        engine = engines_open(url, NULL);
    }
    engine_close(engine);
}
END_TEST

/* --- over HTTP --- */

static json_t *get(const struct pass *pass, const char *path)
{
    struct answer answer = gate_send(pass, "GET", path, NULL);

    ck_assert_msg(answer.http.status == 200, "%s: %s%s", path, answer.http.head, answer.http.body);
    json_t *json = json_incref(answer.json);
    answer_close(&answer);
    return json;
}

/* Everything that a tenant sees of its session "some". */
static json_t *all_of(const struct pass *pass)
{
    json_t *all = json_array();

    json_array_append_new(all, get(pass, "/v1/sessions"));
    json_array_append_new(all, get(pass, "/v1/sessions/some"));
    json_array_append_new(all, get(pass, "/v1/sessions/some/parameters"));
    json_array_append_new(all, get(pass, "/v1/sessions/some/steps"));
    json_array_append_new(all, get(pass, "/v1/sessions/some/checkpoints"));
    json_array_append_new(all, get(pass, "/v1/sessions/some/hash"));
    return all;
}

static void check_silent(const struct answer *answer, const char *what)
{
    static const char *const names[] = {ONE, TWO};

    for (size_t i = 0; i < 2; i++) {
        ck_assert_msg(strstr(answer->http.head, names[i]) == NULL, "%s: %s", what,
                      answer->http.head);
        ck_assert_msg(
            memmem(answer->http.body, answer->http.body_size, names[i], strlen(names[i])) == NULL,
            "%s: %s", what, answer->http.body);
    }
}

START_TEST(the_session_of_another_is_not_there)
{
    struct pass one = gate_member(ONE, SCOPE_ADMIN), two = gate_member(TWO, SCOPE_ADMIN);
    struct pass nobody = gate_member("", SCOPE_ADMIN);
    const struct pass *others[] = {&two, &nobody};
    static const char *const names[] = {"some", ONE "%2Fsome", "..%2F" ONE "%2Fsome"};
    const struct route *route;
    size_t count = 0;

    gate_must(201, &one, "PUT", "/v1/sessions/some", GATE_SESSION);
    gate_must(200, &one, "POST", "/v1/sessions/some/gradients", GATE_STEP);
    json_t *before = all_of(&one);
    for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
        if (strstr(route->pattern, "{id}") == NULL || strcmp(route->operation, "sessions_put") == 0)
            continue; /* which makes one of its own */
        for (size_t i = 0; i < 6; i++) {
            struct answer answer = gate_call_with(route, names[i % 3], others[i / 3]);
            answer_check_problem(&answer, 404, "session_not_found", route->operation);
            check_silent(&answer, route->operation);
            answer_close(&answer);
        }
        count++;
    }
    ck_assert_uint_gt(count, 0);
    for (size_t i = 0; i < 2; i++) {
        json_t *list = get(others[i], "/v1/sessions");
        ck_assert_uint_eq(json_array_size(json_object_get(list, "sessions")), 0);
        json_decref(list);
        gate_must(422, others[i], "GET", "/v1/sessions?page_token=" ONE "%2Fsome", NULL);
        gate_must(400, others[i], "PUT", "/v1/sessions/" ONE "%2Fsome", GATE_SESSION);
    }
    json_t *after = all_of(&one);
    ck_assert(json_equal(before, after));
    json_decref(before);
    json_decref(after);
}
END_TEST

/* Also what a tenant is told of its own: an id is what it has given, and no more. */
START_TEST(no_answer_names_a_tenant)
{
    struct pass one = gate_member(ONE, SCOPE_ADMIN), two = gate_member(TWO, SCOPE_ADMIN);
    const struct route *route;

    gate_must(201, &two, "PUT", "/v1/sessions/some", GATE_SESSION);
    for (int round = 0; round < 2; round++) /* the second time as a repeat */
        for (size_t r = 0; (route = router_at(r)) != NULL; r++) {
            struct answer made = gate_send(&one, "PUT", "/v1/sessions/some", GATE_SESSION);
            check_silent(&made, "PUT");
            answer_close(&made);
            struct answer answer = gate_call_with(route, "some", &one);
            check_silent(&answer, route->operation);
            answer_close(&answer);
        }
    struct answer answer = gate_send(&one, "PUT", "/v1/sessions/some",
                                     "{\"optimizer\": \"adam\", \"parameters\": {\"w\": [0]}}");
    check_silent(&answer, "the same id with another session");
    answer_close(&answer);
    gate_must(200, &two, "GET", "/v1/sessions/some", NULL);
}
END_TEST

static void check_step(const struct pass *pass, const char *id, json_int_t step)
{
    char path[128];

    snprintf(path, sizeof path, "/v1/sessions/%s", id);
    json_t *session = get(pass, path);
    ck_assert_int_eq(json_integer_value(json_object_get(session, "step")), step);
    ck_assert_str_eq(json_string_value(json_object_get(session, "id")), id);
    json_decref(session);
}

static void take_steps(const struct pass *pass, const char *id, int count)
{
    char path[128];

    snprintf(path, sizeof path, "/v1/sessions/%s/gradients", id);
    for (int i = 0; i < count; i++)
        gate_must(200, pass, "POST", path, GATE_STEP);
}

START_TEST(one_id_names_a_session_of_each)
{
    struct pass passes[] = {gate_member("", SCOPE_ADMIN), gate_member(ONE, SCOPE_ADMIN),
                            gate_member(TWO, SCOPE_ADMIN)};

    for (int i = 0; i < 3; i++) {
        gate_must(201, &passes[i], "PUT", "/v1/sessions/same", GATE_SESSION);
        take_steps(&passes[i], "same", 1 + i);
    }
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 3; i++)
            check_step(&passes[i], "same", 1 + i);
        if (round == 0)
            live_server_kill(&gate_server);
        else
            ck_assert_int_eq(live_server_stop(&gate_server), 0);
        live_server_restart(&gate_server);
    }
    gate_must(204, &passes[1], "DELETE", "/v1/sessions/same", NULL);
    gate_must(404, &passes[1], "GET", "/v1/sessions/same", NULL);
    check_step(&passes[0], "same", 1);
    check_step(&passes[2], "same", 3);
}
END_TEST

START_TEST(forks_and_restored_states_stay_with_their_tenant)
{
    struct pass one = gate_member(ONE, SCOPE_ADMIN), two = gate_member(TWO, SCOPE_ADMIN);
    char location[128], headers[256];

    gate_must(201, &one, "PUT", "/v1/sessions/parent", GATE_SESSION);
    take_steps(&one, "parent", 2);
    struct answer fork =
        gate_send(&one, "POST", "/v1/sessions/parent/forks", "{\"id\": \"child\", \"step\": 1}");
    ck_assert_uint_eq(fork.http.status, 201);
    http_response_header(&fork.http, "Location", location, sizeof location);
    ck_assert_str_eq(location, "/v1/sessions/child");
    const json_t *parent = json_object_get(fork.json, "parent");
    ck_assert_str_eq(json_string_value(json_object_get(parent, "id")), "parent");
    answer_close(&fork);
    gate_must(422, &one, "POST", "/v1/sessions/parent/forks", "{\"id\": \"" TWO "/x\"}");

    struct answer state = gate_send(&one, "GET", "/v1/sessions/child/state", NULL);
    ck_assert_uint_eq(state.http.status, 200);
    check_silent(&state, "a state");
    snprintf(headers, sizeof headers, "%sContent-Type: application/vnd.safetensors\r\n",
             gate_header(&two));
    struct answer made = api_send(gate_server.port, "PUT", "/v1/sessions/child", headers,
                                  state.http.body, state.http.body_size);
    ck_assert_msg(made.http.status == 201, "%s", made.http.body);
    answer_close(&made);
    answer_close(&state);
    take_steps(&two, "child", 1);
    live_server_kill(&gate_server);
    live_server_restart(&gate_server);
    check_step(&one, "child", 1);
    check_step(&two, "child", 2);
    gate_must(404, &two, "GET", "/v1/sessions/parent", NULL);
    json_t *list = get(&two, "/v1/sessions");
    ck_assert_uint_eq(json_array_size(json_object_get(list, "sessions")), 1);
    json_decref(list);
}
END_TEST

/* Commands that care for the folder know such ids, and whoever runs the server is told of them. */
START_TEST(a_folder_of_tenants_passes_verify)
{
    struct pass one = gate_member(ONE, SCOPE_ADMIN);
    char out[4096];

    gate_must(201, &one, "PUT", "/v1/sessions/some", GATE_SESSION);
    take_steps(&one, "some", 3);
    ck_assert_int_eq(live_server_stop(&gate_server), 0);
    const char *const arguments[] = {"verify", "--data", gate_server.folder, NULL};
    ck_assert_msg(live_server_run(arguments, out, sizeof out) == 0, "%s", out);
    ck_assert_ptr_nonnull(strstr(out, "sessions 1"));
    live_server_restart(&gate_server);
    take_steps(&one, "some", 1);
}
END_TEST

static void start(void)
{
    gate_start(NULL);
}

Suite *suite_tenants(void);
Suite *suite_tenants(void)
{
    Suite *suite = suite_create("tenants");
    TCase *engine = tcase_create("engine"), *tests = tcase_create("tenants");

    tcase_set_timeout(engine, TEST_TIMEOUT_S);
    tcase_add_test(engine, stored_ids_have_two_parts);
    tcase_add_test(engine, lists_are_of_one_tenant);
    suite_add_tcase(suite, engine);
    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_checked_fixture(tests, start, gate_stop);
    tcase_add_test(tests, the_session_of_another_is_not_there);
    tcase_add_test(tests, no_answer_names_a_tenant);
    tcase_add_test(tests, one_id_names_a_session_of_each);
    tcase_add_test(tests, forks_and_restored_states_stay_with_their_tenant);
    tcase_add_test(tests, a_folder_of_tenants_passes_verify);
    suite_add_tcase(suite, tests);
    return suite;
}
