/* Numbers in rows that no server wrote, under checksums that are right: the engine refuses them in
 * words, and nothing that it counts on is broken. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "service/session/event.h"
#include "service/session/session.h"
#include "storage/store.h"
#include "tests/lib/engines.h"
#include "tests/lib/faulty_store.h"
#include "tests/lib/testing.h"

enum { COUNT = 37, STEPS = 2 };

static struct faulty_store *faulty;
static struct store *store;
static struct fault fault;

static void set_up(void)
{
    faulty = faulty_store_new();
}

static void tear_down(void)
{
    faulty_store_free(faulty);
}

#define CALL(verb, ...) store_backend(store)->verb(store, __VA_ARGS__)
#define OK(call) ck_assert_msg((call) == STATUS_OK, "%s: %s", #call, fault.detail)
#define SAYS(words) ck_assert_msg(strstr(fault.detail, words) != NULL, "%s", fault.detail)

static void begin(void)
{
    store = faulty_store_open(faulty);
    OK(CALL(begin, &fault));
}

static void end(void)
{
    OK(CALL(commit, &fault));
    store_close(store);
}

/* --- what is counted up --- */

static enum status open_engine(void)
{
    struct engine_options options = engines_options();
    struct engine *engine;

    options.take_store = faulty_store_open(faulty);
    enum status status = engine_open(&options, &engine, &fault);
    if (status != STATUS_OK)
        return status;
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    session_release(engines_create(engine, "s", &spec, COUNT));
    engine_close(engine);
    return STATUS_OK;
}

static void put_event(uint64_t lsn, int64_t session)
{
    const struct store_event event = {.lsn = lsn, .session = session, .kind = 1, .chunks = 1};

    OK(CALL(event_append, &event, &fault));
}

static void put_checkpoint(uint64_t id, int64_t session, uint64_t lsn)
{
    const struct store_checkpoint seal = {id, session, lsn, 1, 1, 1};

    OK(CALL(checkpoint_put, id, session, 0, span_text("x"), &fault));
    OK(CALL(checkpoint_seal, &seal, &fault));
}

static const struct {
    uint64_t lsn, id;
    int64_t session;
    bool good;
} ends[] = {
    {.lsn = 1, .session = INT64_MAX},
    {.lsn = INT64_MAX, .session = 1},
    {.id = 1, .session = INT64_MAX},
    {.id = (UINT64_C(1) << 43) - 1, .session = 1},
    {.id = 1, .session = 1, .lsn = INT64_MAX},
    {.lsn = INT64_MAX / 2, .session = INT64_MAX / 2, .good = true},
    {.id = UINT64_C(1) << 42, .session = INT64_MAX / 2, .lsn = INT64_MAX / 2, .good = true},
};

START_TEST(a_number_at_its_end_is_refused)
{
    begin();
    if (ends[_i].id == 0)
        put_event(ends[_i].lsn, ends[_i].session);
    else
        put_checkpoint(ends[_i].id, ends[_i].session, ends[_i].lsn);
    end();
    enum status status = open_engine();
    ck_assert_msg(status == (ends[_i].good ? STATUS_OK : STATUS_STORAGE_FAILED), "%s",
                  fault.detail);
    if (!ends[_i].good)
        SAYS("no server came to");
}
END_TEST

/* --- what a replay is given --- */

static void make_session(const char *rule, size_t count)
{
    struct engine *engine = engines_open_store(faulty_store_open(faulty), NULL);
    struct spec spec = engines_spec(DTYPE_F32, rule);
    struct session *session = engines_create(engine, "s", &spec, count);
    struct buffer *gradient = engines_constant(count, 1);
    struct submission submission = engines_submission(gradient, DTYPE_F32);

    for (size_t i = 0; i < STEPS; i++)
        OK(engines_submit(session, &submission, NULL, NULL, &fault));
    buffer_release(gradient);
    session_release(session);
    engine_close(engine);
}

/* The state, and a step from there. */
static enum status load(size_t count)
{
    struct engine *engine = engines_open_store(faulty_store_open(faulty), NULL);
    struct session *session = engines_find(engine, "s");
    struct buffer *gradient = engines_constant(count, 1);
    struct submission submission = engines_submission(gradient, DTYPE_F32);
    enum status status = engines_submit(session, &submission, NULL, NULL, &fault);

    buffer_release(gradient);
    session_release(session);
    engine_close(engine);
    return status;
}

static enum status see_session(void *context, const struct store_session *row)
{
    ((struct store_checkpoint *)context)->session = row->key;
    return STATUS_OK;
}

static enum status see_checkpoint(void *context, const struct store_checkpoint *row)
{
    *(struct store_checkpoint *)context = *row;
    return STATUS_OK;
}

static enum status see_event(void *context, const struct store_event *row)
{
    struct store_checkpoint *newest = context;

    newest->lsn = row->lsn > newest->lsn ? row->lsn : newest->lsn;
    return STATUS_OK;
}

/* The newest checkpoint, with the journal's end in its lsn. */
static struct store_checkpoint look(void)
{
    struct store_checkpoint newest = {.id = 0};
    const struct store_visitor visitor = {&newest, see_session, see_checkpoint, see_event, NULL};

    store = faulty_store_open(faulty);
    OK(CALL(scan, &visitor, &fault));
    store_close(store);
    return newest;
}

static void append(const struct event *event, size_t count)
{
    static const float zeros[COUNT];
    struct store_checkpoint newest = look();
    struct packer head = {0};

    event_pack(&head, event);
    begin();
    OK(CALL(event_append,
            &(struct store_event){.lsn = newest.lsn + 1,
                                  .session = newest.session,
                                  .step = event->step,
                                  .kind = event->kind,
                                  .chunks = 1,
                                  .head = packer_span(&head),
                                  .body = span_of(zeros, count * sizeof *zeros)},
            &fault));
    end();
    packer_close(&head);
}

static struct event event_of(enum event_kind kind, uint64_t step)
{
    struct event event = event_make(kind, step);

    event.wire = DTYPE_F32;
    event.base_step = STEPS;
    event.grad_norm = 0;
    event.examples = 1;
    return event;
}

START_TEST(an_override_that_the_rule_does_not_have_is_refused)
{
    struct event event = event_of(EVENT_GRADIENT, STEPS + 1);

    make_session(_i == 0 ? "adam" : "sgd", COUNT); /* sgd keeps no velocity without momentum */
    event.momentum = _i < 2 ? 0.5 : (double)NAN;
    append(&event, COUNT);
    enum status status = load(COUNT);
    ck_assert_msg(status == (_i < 2 ? STATUS_STORAGE_FAILED : STATUS_OK), "%s", fault.detail);
    if (_i < 2)
        SAYS("step 3 overrides what");
}
END_TEST

START_TEST(a_shard_of_no_snapshot_is_nothing)
{
    struct event event = event_of(EVENT_SHARD, STEPS);

    event.seq = 1;
    make_session("sgd", COUNT);
    append(&event, COUNT);
    ck_assert_msg(load(COUNT) == STATUS_OK, "%s", fault.detail);
}
END_TEST

START_TEST(a_shard_without_a_gradient_is_refused)
{
    struct event event = event_of(EVENT_SHARD, STEPS);

    event.form = FORM_NONE;
    make_session("sgd", COUNT);
    append(&event, 0);
    ck_assert_uint_eq(load(COUNT), STATUS_STORAGE_FAILED);
    SAYS("damaged");
}
END_TEST

/* Records of format 3 had no word for it: their form was the first, and there is nothing of it. */
START_TEST(a_skip_has_no_gradient_whatever_its_form)
{
    enum { LARGE = 1 << 24 }; /* more than lies behind a body of no bytes */
    struct event event = event_of(EVENT_SKIP, STEPS + 1);

    event.grad_norm = (double)NAN;
    make_session("sgd", LARGE);
    append(&event, 0);
    ck_assert_msg(load(LARGE) == STATUS_OK, "%s", fault.detail);
}
END_TEST

START_TEST(an_event_of_another_kind_than_its_row_is_refused)
{
    struct event event = event_of(EVENT_SPEC, STEPS);

    make_session("sgd", COUNT);
    struct store_checkpoint newest = look();
    struct packer head = {0};
    event_pack(&head, &event);
    begin();
    OK(CALL(event_append,
            &(struct store_event){.lsn = newest.lsn + 1,
                                  .session = newest.session,
                                  .step = STEPS,
                                  .kind = EVENT_QUARANTINE,
                                  .chunks = 1,
                                  .head = packer_span(&head)},
            &fault));
    end();
    packer_close(&head);
    struct engine *engine = engines_open_store(faulty_store_open(faulty), NULL);
    struct session *session = engines_find(engine, "s");
    struct quarantined about;
    struct buffer *body;
    ck_assert_uint_eq(session_quarantined(session, newest.lsn + 1, &about, &body, &fault),
                      STATUS_STORAGE_FAILED);
    SAYS("damaged at lsn");
    session_release(session);
    engine_close(engine);
}
END_TEST

/* The head: its size; format, step, lineage, updates; ...; whether it has a hash, which would tell,
 * and that; the average norm, their number; two numbers of snapshots. */
START_TEST(a_counter_at_its_end_is_refused)
{
    enum { UPDATES_AT = 8 + 4 + 8 + 8, HASHED_BEFORE_END = 4 + 16 + 8 + 8 + 8 + 8 };
    static unsigned char body[STORE_CHUNK_BYTES];
    size_t size;

    make_session("sgd", COUNT);
    struct store_checkpoint newest = look();
    ck_assert_uint_eq(newest.chunks, 1);
    store = faulty_store_open(faulty);
    OK(CALL(checkpoint_read, newest.id, 0, body, &size, &fault));
    struct unpacker unpacker = {.data = body, .size = size};
    unsigned char *hashed = body + 8 + unpack_u64(&unpacker) - HASHED_BEFORE_END;
    ck_assert_uint_eq(*hashed, 1);
    *hashed = 0;
    memset(body + UPDATES_AT, 0xFF, 8);
    OK(CALL(begin, &fault));
    newest.id++;
    OK(CALL(checkpoint_put, newest.id, newest.session, 0, span_of(body, size), &fault));
    OK(CALL(checkpoint_seal, &newest, &fault));
    end();
    ck_assert_uint_eq(load(COUNT), STATUS_STORAGE_FAILED);
    SAYS("damaged");
}
END_TEST

Suite *suite_stored_numbers(void);
Suite *suite_stored_numbers(void)
{
    Suite *suite = suite_create("stored_numbers");
    TCase *cases = tcase_create("stored_numbers");

    tcase_set_timeout(cases, 120); /* a large session, under a sanitizer */
    tcase_add_checked_fixture(cases, set_up, tear_down);
    tcase_add_loop_test(cases, a_number_at_its_end_is_refused, 0, sizeof ends / sizeof *ends);
    tcase_add_loop_test(cases, an_override_that_the_rule_does_not_have_is_refused, 0, 3);
    tcase_add_test(cases, a_shard_of_no_snapshot_is_nothing);
    tcase_add_test(cases, a_shard_without_a_gradient_is_refused);
    tcase_add_test(cases, a_skip_has_no_gradient_whatever_its_form);
    tcase_add_test(cases, an_event_of_another_kind_than_its_row_is_refused);
    tcase_add_test(cases, a_counter_at_its_end_is_refused);
    suite_add_tcase(suite, cases);
    return suite;
}
