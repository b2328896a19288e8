/* Time travel, rewinds, forks, images and proofs, against a diary that the test keeps itself: what
 * every revision's weights were when they were current. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/session/plan.h"
#include "storage/store.h"
#include "tests/lib/engines.h"
#include "tests/lib/testing.h"

enum { COUNT = 37, PAGES_MAX = 4096 };

/* --- the diary --- */

struct page {
    struct moment moment;
    struct digest weights, hash;
};

struct diary {
    struct page pages[PAGES_MAX];
    size_t count;
    uint64_t start[64], origin[64]; /* of each lineage: the step it began at, and where from */
    uint64_t lineage;
};

static struct digest weights_of(struct session *session, const struct revision *revision)
{
    return hash_bytes(revision->weights->data,
                      session_layout(session)->count * dtype_size(session_dtype(session)));
}

static void note(struct diary *diary, struct session *session)
{
    struct page *page = &diary->pages[diary->count++];
    struct revision *revision;
    struct fault fault;

    ck_assert_uint_le(diary->count, PAGES_MAX);
    ck_assert_int_eq(session_revision(session, &revision, &fault), STATUS_OK);
    page->moment = (struct moment){revision->lineage, revision->step};
    page->weights = weights_of(session, revision);
    revision_release(revision);
    ck_assert_int_eq(session_hash(session, NULL, &page->moment, &page->hash, &fault), STATUS_OK);
}

/* The page of a step on the line that leads to (lineage, step). */
static const struct page *page_of(const struct diary *diary, uint64_t lineage, uint64_t step)
{
    while (lineage > 0 && step <= diary->start[lineage])
        lineage = diary->origin[lineage];
    for (size_t i = diary->count; i-- > 0;)
        if (diary->pages[i].moment.lineage == lineage && diary->pages[i].moment.step == step)
            return &diary->pages[i];
    return NULL;
}

/* Reads a moment and holds it against the diary. */
static enum status check_moment(const struct diary *diary, struct session *session,
                                uint64_t lineage, uint64_t step)
{
    struct moment_query query = {true, lineage, step};
    const struct page *page = page_of(diary, lineage, step);
    struct revision *revision;
    struct moment moment;
    struct digest hash;
    struct fault fault;
    enum status status = session_revision_at(session, &query, &revision, &fault);

    if (status != STATUS_OK)
        return status;
    ck_assert_ptr_nonnull(page);
    ck_assert_uint_eq(revision->step, step);
    ck_assert_digest_eq(weights_of(session, revision), page->weights);
    revision_release(revision);
    ck_assert_int_eq(session_hash(session, &query, &moment, &hash, &fault), STATUS_OK);
    ck_assert_digest_eq(hash, page->hash);
    return STATUS_OK;
}

/* --- a session and its store --- */

static const char *url;
static struct engine *engine;
static struct engine_options options;
static struct diary *diary;

static void start(void)
{
    url = testing_folder();
    options = engines_options();
    engine = engines_open(url, &options);
    diary = calloc(1, sizeof *diary);
    ck_assert_ptr_nonnull(diary);
}

static void stop(void)
{
    engine_close(engine);
    free(diary);
}

static struct session *reopen(struct session *session, const char *id)
{
    session_release(session);
    engine_close(engine);
    engine = engines_open(url, &options);
    return engines_find(engine, id);
}

static void found_nothing(void *context, const char *sentence)
{
    (void)context;
    ck_abort_msg("%s", sentence);
}

/* Closes the engine; the folder must stand the proof. */
static struct verify_report verified(void)
{
    struct store_watch watch = {.finding = found_nothing};
    struct verify_report report;
    struct store *store;
    struct fault fault;

    engine_close(engine);
    ck_assert_int_eq(store_inspect(url, &store, &fault), STATUS_OK);
    ck_assert_msg(engine_verify(store, &watch, &report, &fault) == STATUS_OK, "%s", fault.detail);
    store_close(store);
    ck_assert_uint_eq(report.findings, 0);
    engine = engines_open(url, &options);
    return report;
}

static enum status rewind_to(struct session *session, uint64_t lineage, uint64_t step)
{
    struct moment_query query = {true, lineage, step};
    struct fault fault;
    enum status status = session_rewind(session, &query, &fault);

    if (status == STATUS_OK) {
        uint64_t own = lineage;
        while (own > 0 && step <= diary->start[own])
            own = diary->origin[own];
        diary->lineage++;
        diary->start[diary->lineage] = step;
        diary->origin[diary->lineage] = own;
    }
    return status;
}

/* --- tests --- */

static const struct {
    const char *rule;
    enum dtype dtype;
    bool ema;
} forms[] = {{"adam", DTYPE_F32, false},     {"momentum", DTYPE_F64, true},
             {"dcasgd", DTYPE_F32, false},   {"nadam", DTYPE_F64, false},
             {"adafactor", DTYPE_F32, true}, {"muon", DTYPE_F32, false},
             {"sgld", DTYPE_F32, false},     {"lbsgd", DTYPE_F64, false}};

static struct spec form_spec(int form)
{
    struct spec spec = engines_spec(forms[form].dtype, forms[form].rule);

    spec.ema.on = forms[form].ema;
    spec.hash_every = 3;
    spec.seed = 7;
    return spec;
}

/* Anything in any order; every moment stays what it was. */
START_TEST(every_moment_is_what_it_was)
{
    struct spec spec = form_spec(_i);
    uint64_t random = testing_seed() ^ 0x4157 ^ (uint64_t)_i;
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    struct fault fault;

    note(diary, session);
    for (int i = 0; i < 160; i++) {
        struct session_view view = engines_view(session);
        uint64_t lineage = testing_random(&random) % (view.lineage + 1);
        uint64_t step = testing_random(&random) % (view.step + 2);
        switch (testing_random(&random) % 12) {
        case 0:
            if (diary->lineage < 60 && page_of(diary, lineage, step) != NULL) {
                ck_assert_int_eq(rewind_to(session, lineage, step), STATUS_OK);
                note(diary, session);
            }
            break;
        case 1:
            session = reopen(session, "s");
            break;
        case 2: {
            struct moment moment;
            ck_assert_int_eq(session_checkpoint_now(session, &moment, &fault), STATUS_OK);
            ck_assert_uint_eq(moment.step, view.step);
            break;
        }
        case 3:
            engines_patch(session, "lr", 0.001 + 0.01 * testing_uniform(&random));
            break;
        case 4:
            if (page_of(diary, lineage, step) != NULL)
                ck_assert_int_eq(check_moment(diary, session, lineage, step), STATUS_OK);
            else
                ck_assert_int_eq(check_moment(diary, session, lineage, step), STATUS_NOT_FOUND);
            break;
        default:
            engines_step(session, &random);
            note(diary, session);
        }
    }
    for (size_t i = 0; i < diary->count; i++)
        ck_assert_int_eq(check_moment(diary, session, diary->pages[i].moment.lineage,
                                      diary->pages[i].moment.step),
                         STATUS_OK);
    session_release(session);
    struct verify_report report = verified();
    ck_assert_uint_gt(report.steps, 0);
    ck_assert_uint_gt(report.hashes, report.checkpoints);
}
END_TEST

struct lines {
    uint64_t steps[PAGES_MAX];
    uint64_t lineages[PAGES_MAX];
    struct digest hashes[PAGES_MAX];
    bool hashed[PAGES_MAX];
    size_t count;
};

static enum status collect(void *context, const struct step_line *line)
{
    struct lines *lines = context;

    ck_assert_uint_lt(lines->count, PAGES_MAX);
    lines->steps[lines->count] = line->receipt.step;
    lines->lineages[lines->count] = line->receipt.lineage;
    lines->hashed[lines->count] = line->receipt.hashed;
    lines->hashes[lines->count++] = line->receipt.state_hash;
    ck_assert_uint_eq(line->note_count, 1);
    ck_assert(line->notes[0].grad_norm > 0 && line->notes[0].weight_norm > 0);
    return STATUS_OK;
}

START_TEST(the_ledger_has_a_line_for_each_step_of_each_line)
{
    struct spec spec = form_spec(_i);
    uint64_t random = testing_seed() ^ 0x1edc ^ (uint64_t)_i, oldest;
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    struct lines *lines = calloc(1, sizeof *lines);
    struct fault fault;

    note(diary, session);
    for (int i = 0; i < 50; i++) {
        if (i == 20 || i == 31)
            ck_assert_int_eq(rewind_to(session, 0, 11), STATUS_OK);
        if (i % 7 == 3)
            session = reopen(session, "s");
        engines_step(session, &random);
        note(diary, session);
    }
    for (uint64_t lineage = 0; lineage < 3; lineage++) {
        struct moment_query query = {true, lineage, 0};
        uint64_t end = lineage == 0 ? 20 : lineage == 1 ? 22 : 30;
        lines->count = 0;
        ck_assert_int_eq(
            session_steps(session, &query, 1, UINT64_MAX, collect, lines, &oldest, &fault),
            STATUS_OK);
        ck_assert_uint_eq(oldest, 1);
        ck_assert_uint_eq(lines->count, end);
        for (size_t i = 0; i < lines->count; i++) {
            const struct page *page = page_of(diary, lineage, i + 1);
            ck_assert_uint_eq(lines->steps[i], i + 1);
            ck_assert_uint_eq(lines->lineages[i], page->moment.lineage);
            ck_assert_int_eq(lines->hashed[i], (i + 1) % 3 == 0);
            if (lines->hashed[i])
                ck_assert_digest_eq(lines->hashes[i], page->hash);
        }
    }
    struct moment_query query = {false, 0, 0};
    lines->count = 0;
    ck_assert_int_eq(session_steps(session, &query, 9, 14, collect, lines, &oldest, &fault),
                     STATUS_OK);
    ck_assert_uint_eq(lines->count, 6);
    ck_assert_uint_eq(lines->steps[0], 9);
    session_release(session);
    free(lines);
}
END_TEST

START_TEST(a_fork_goes_on_as_its_parent_would)
{
    struct spec spec = form_spec(_i);
    uint64_t random = testing_seed() ^ 0xf0c ^ (uint64_t)_i;
    struct session *session = engines_create(engine, "s", &spec, COUNT), *fork;
    struct moment_query query = {false, 0, 13};
    struct fork_request request = {.id = "fork", .query = &query, .state = FORK_KEEP};
    struct fork_outcome outcome;
    struct fault fault;

    for (int i = 0; i < 13; i++)
        engines_step(session, &random);
    uint64_t again = random;
    for (int i = 0; i < 9; i++)
        engines_step(session, &random);
    note(diary, session);
    ck_assert_msg(session_fork(session, &request, &fork, &outcome, &fault) == STATUS_OK, "%s",
                  fault.detail);
    ck_assert_int_eq(outcome.state, FORK_KEPT);
    ck_assert_str_eq(engines_view(fork).parent, "s");
    ck_assert_uint_eq(engines_view(fork).parent_moment.step, 13);
    fork = reopen(fork, "fork");
    for (int i = 0; i < 9; i++)
        engines_step(fork, &again);
    struct moment moment;
    struct digest hash;
    ck_assert_int_eq(session_hash(fork, NULL, &moment, &hash, &fault), STATUS_OK);
    ck_assert_digest_eq(hash, diary->pages[0].hash);
    session_release(fork);
    session_release(session);
    verified();
}
END_TEST

START_TEST(a_replaying_fork_is_where_its_parent_is)
{
    struct spec spec = form_spec(_i);
    uint64_t random = testing_seed() ^ 0xf01 ^ (uint64_t)_i;
    struct session *session = engines_create(engine, "s", &spec, COUNT), *fork;
    struct moment_query query = {false, 0, 4};
    struct fork_request request = {
        .id = "fork", .query = &query, .state = FORK_KEEP, .replay = true};
    struct fork_outcome outcome;
    struct fault fault;

    for (int i = 0; i < 17; i++)
        engines_step(session, &random);
    note(diary, session);
    ck_assert_msg(session_fork(session, &request, &fork, &outcome, &fault) == STATUS_OK, "%s",
                  fault.detail);
    ck_assert_uint_eq(outcome.replayed, 13);
    struct moment moment;
    struct digest hash;
    ck_assert_int_eq(session_hash(fork, NULL, &moment, &hash, &fault), STATUS_OK);
    ck_assert_uint_eq(moment.step, 17);
    ck_assert_digest_eq(hash, diary->pages[0].hash);
    session_release(fork);
    session_release(session);
    verified();
}
END_TEST

static enum status become_adamw(void *context, struct spec *spec, struct fault *fault)
{
    (void)context;
    (void)fault;
    spec_set_rule(spec, optimizer_find("adamw", spec->dtype));
    return STATUS_OK;
}

static enum status become_sgd(void *context, struct spec *spec, struct fault *fault)
{
    (void)context;
    (void)fault;
    spec_set_rule(spec, optimizer_find("sgd", spec->dtype));
    engines_hyper(spec, "momentum", 0.9);
    return STATUS_OK;
}

/* adamw without decay is adam: a fork that keeps its moments goes on with the same bits. */
START_TEST(moments_are_converted_where_they_are_the_same)
{
    struct spec spec = engines_spec(DTYPE_F64, "adam");
    uint64_t random = testing_seed() ^ 0xc0, again;
    struct session *session = engines_create(engine, "s", &spec, COUNT), *fork;
    struct fork_request request = {.id = "fork", .change = become_adamw, .state = FORK_KEEP};
    struct fork_outcome outcome;
    struct fault fault;

    for (int i = 0; i < 6; i++)
        engines_step(session, &random);
    ck_assert_int_eq(session_fork(session, &request, &fork, &outcome, &fault), STATUS_OK);
    ck_assert_int_eq(outcome.state, FORK_CONVERTED);
    ck_assert_uint_eq(outcome.slot_count, 2);
    ck_assert_int_eq(outcome.slots[0].fate, FORK_SLOT_KEPT);
    ck_assert_int_eq(outcome.slots[1].fate, FORK_SLOT_KEPT);
    engines_hyper(&spec, "lr", 0);
    again = random;
    for (int i = 0; i < 5; i++)
        engines_step(session, &random);
    engines_patch(fork, "weight_decay", 0);
    for (int i = 0; i < 5; i++)
        engines_step(fork, &again);
    struct revision *one, *other;
    ck_assert_int_eq(session_revision(session, &one, &fault), STATUS_OK);
    ck_assert_int_eq(session_revision(fork, &other, &fault), STATUS_OK);
    ck_assert_digest_eq(weights_of(session, one), weights_of(fork, other));
    revision_release(one);
    revision_release(other);
    session_release(fork);
    request = (struct fork_request){.id = "other", .change = become_sgd, .state = FORK_KEEP};
    ck_assert_int_eq(session_fork(session, &request, &fork, &outcome, &fault), STATUS_OK);
    ck_assert_uint_eq(outcome.slot_count, 3);
    ck_assert_int_eq(outcome.slots[0].fate, FORK_SLOT_FRESH);
    ck_assert_int_eq(outcome.slots[1].fate, FORK_SLOT_DROPPED);
    ck_assert_int_eq(outcome.slots[2].fate, FORK_SLOT_DROPPED);
    engines_step(fork, &random);
    session_release(fork);
    session_release(session);
    verified();
}
END_TEST

/* Out of one engine, as vectors and records, into another. */
START_TEST(an_image_goes_on_elsewhere)
{
    struct spec spec = form_spec(_i);
    uint64_t random = testing_seed() ^ 0x1a6e ^ (uint64_t)_i, again;
    struct session *session = engines_create(engine, "s", &spec, COUNT), *copy;
    struct engine *elsewhere = engines_open("memory:", &options);
    struct image *image, *made;
    struct fault fault;
    bool created;

    for (int i = 0; i < 8; i++)
        engines_step(session, &random);
    ck_assert_int_eq(session_export(session, NULL, &image, &fault), STATUS_OK);
    for (int round = 0; round < 2; round++) {
        ck_assert_msg(engine_image(elsewhere, image->record, image->head, &made, &fault) ==
                          STATUS_OK,
                      "%s", fault.detail);
        ck_assert_uint_eq(made->vector_count, image->vector_count);
        for (size_t i = 0; i < made->vector_count; i++) {
            ck_assert_str_eq(made->vectors[i].prefix, image->vectors[i].prefix);
            size_t numbers = 0;
            for (size_t k = 0; k < image->layout->tensor_count; k++)
                numbers += image->vectors[i].extent[k];
            memcpy(made->vectors[i].data->data, image->vectors[i].data->data,
                   numbers * dtype_size(spec.dtype));
        }
        ck_assert_msg(engine_import(elsewhere, NULL, "copy", made, &copy, &created, &fault) ==
                          STATUS_OK,
                      "%s", fault.detail);
        ck_assert_int_eq(created, round == 0);
        session_release(copy);
    }
    ck_assert_int_eq(engine_image(elsewhere, image->record, image->head, &made, &fault), STATUS_OK);
    for (size_t i = 0; i < made->vector_count; i++)
        memset(made->vectors[i].data->data, 0, made->vectors[i].data->size);
    ck_assert_int_eq(engine_import(elsewhere, NULL, "spoilt", made, &copy, &created, &fault),
                     STATUS_INVALID_FIELD);
    image_free(image);
    copy = engines_find(elsewhere, "copy");
    again = random;
    for (int i = 0; i < 12; i++) {
        engines_step(session, &random);
        engines_step(copy, &again);
    }
    struct moment moment;
    struct digest one, other;
    ck_assert_int_eq(session_hash(session, NULL, &moment, &one, &fault), STATUS_OK);
    ck_assert_int_eq(session_hash(copy, NULL, &moment, &other, &fault), STATUS_OK);
    ck_assert_digest_eq(one, other);
    ck_assert_digest_eq(engines_digest(session, true), engines_digest(copy, true));
    session_release(copy);
    session_release(session);
    engine_close(elsewhere);
}
END_TEST

static bool few_checkpoints(void *context)
{
    struct checkpoint_view views[1];

    return session_checkpoints(context, views, 1) <= 4;
}

START_TEST(what_is_not_kept_is_gone_and_says_so)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    uint64_t random = testing_seed() ^ 0x90e;
    struct moment moment;
    struct fault fault;

    spec.keep_steps = 20;
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    note(diary, session);
    for (int i = 0; i < 300; i++) {
        engines_step(session, &random);
        note(diary, session);
        if (i % 10 == 9)
            ck_assert_int_eq(session_checkpoint_now(session, &moment, &fault), STATUS_OK);
    }
    ck_assert(engines_await(few_checkpoints, session, 10));
    size_t gone = 0;
    for (uint64_t step = 0; step <= 300; step++) {
        enum status status = check_moment(diary, session, 0, step);
        ck_assert(status == STATUS_OK || (status == STATUS_HISTORY_GONE && step < 280));
        gone += status == STATUS_HISTORY_GONE;
    }
    ck_assert_uint_gt(gone, 200);
    ck_assert_int_eq(rewind_to(session, 0, 3), STATUS_HISTORY_GONE);
    ck_assert_int_eq(rewind_to(session, 0, 301), STATUS_NOT_FOUND);
    session_release(session);
    verified();
}
END_TEST

START_TEST(a_dry_run_tells_and_changes_nothing)
{
    struct spec spec = form_spec(_i);
    uint64_t random = testing_seed() ^ 0xd4 ^ (uint64_t)_i;
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    struct fault fault;

    engines_steps(session, 5, &random);
    struct digest before = engines_digest(session, true);
    struct buffer *gradient = engines_gradient(DTYPE_F32, COUNT, &random);
    struct submission submission = engines_submission(gradient, DTYPE_F32);
    struct outcome would, did;
    submission.dry_run = true;
    submission.key = "once";
    ck_assert_int_eq(session_submit(session, &submission, &would, &fault), STATUS_OK);
    ck_assert_digest_eq(engines_digest(session, true), before);
    submission.dry_run = false;
    ck_assert_int_eq(session_submit(session, &submission, &did, &fault), STATUS_OK);
    ck_assert_int_eq(did.replayed, false);
    ck_assert_uint_eq(would.receipt.step, did.receipt.step);
    ck_assert_double_eq(would.receipt.update_norm, did.receipt.update_norm);
    ck_assert_digest_eq(weights_of(session, would.revision), weights_of(session, did.revision));
    revision_release(would.revision);
    revision_release(did.revision);
    buffer_release(gradient);
    session_release(session);
    verified();
}
END_TEST

START_TEST(a_gradient_far_too_large_is_refused_and_kept)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    struct quarantined kept[QUARANTINE_MAX], about;
    struct fault fault;
    size_t count;

    spec.gradient.max_norm_ratio = 4;
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    struct buffer *plain = engines_constant(COUNT, 1), *large = engines_constant(COUNT, 5);
    struct submission submission = engines_submission(plain, DTYPE_F32);
    for (int i = 0; i < 10; i++)
        ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault), STATUS_OK);
    struct digest before = engines_digest(session, true);
    submission.buffer = large;
    for (int i = 0; i < 20; i++)
        ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault),
                         STATUS_ABNORMAL_GRADIENT);
    ck_assert_digest_eq(engines_digest(session, true), before);
    session = reopen(session, "s");
    ck_assert_int_eq(session_quarantine(session, kept, &count, &fault), STATUS_OK);
    ck_assert_uint_eq(count, QUARANTINE_MAX);
    ck_assert_uint_gt(kept[0].number, kept[1].number);
    struct buffer *read;
    ck_assert_int_eq(session_quarantined(session, kept[3].number, &about, &read, &fault),
                     STATUS_OK);
    ck_assert_mem_eq(read->data, large->data, COUNT * sizeof(float));
    buffer_release(read);
    ck_assert_int_eq(session_quarantined(session, 1, &about, &read, &fault), STATUS_NOT_FOUND);
    submission.buffer = plain;
    ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault), STATUS_OK);
    buffer_release(plain);
    buffer_release(large);
    session_release(session);
    verified();
}
END_TEST

/* What was applied once is not applied again on the next line. */
START_TEST(exactly_once_holds_over_rewinds)
{
    struct spec spec = engines_spec(DTYPE_F32, "sgd");
    uint64_t random = testing_seed() ^ 0x0ace;
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    struct buffer *gradient = engines_gradient(DTYPE_F32, COUNT, &random);
    struct submission keyed = engines_submission(gradient, DTYPE_F32), worked = keyed;
    struct receipt receipt;
    struct fault fault;
    bool replayed;

    keyed.key = "one";
    worked.worker = "w";
    worked.seq = 1;
    ck_assert_int_eq(engines_submit(session, &keyed, NULL, NULL, &fault), STATUS_OK);
    ck_assert_int_eq(engines_submit(session, &worked, NULL, NULL, &fault), STATUS_OK);
    ck_assert_int_eq(rewind_to(session, 0, 0), STATUS_OK);
    for (int round = 0; round < 2; round++) {
        ck_assert_int_eq(engines_submit(session, &keyed, &receipt, &replayed, &fault), STATUS_OK);
        ck_assert(replayed && receipt.step == 1 && receipt.lineage == 0);
        ck_assert_int_eq(engines_submit(session, &worked, &receipt, &replayed, &fault), STATUS_OK);
        ck_assert(replayed && receipt.step == 2 && receipt.lineage == 0);
        session = reopen(session, "s");
    }
    ck_assert_uint_eq(engines_view(session).step, 0);
    worked.seq = 2;
    ck_assert_int_eq(engines_submit(session, &worked, &receipt, &replayed, &fault), STATUS_OK);
    ck_assert(!replayed && receipt.step == 1 && receipt.lineage == 1);
    buffer_release(gradient);
    session_release(session);
    verified();
}
END_TEST

/* Finite numbers whose norm is not: the step is taken, and what comes after it is sound. */
START_TEST(a_norm_may_overflow)
{
    struct spec spec = engines_spec(DTYPE_F64, "signum");
    double numbers[COUNT];
    struct fault fault;

    spec.gradient.max_norm_ratio = 100;
    struct session *session = engines_create(engine, "s", &spec, COUNT);
    struct buffer *gradient = buffer_new(sizeof numbers);
    for (size_t i = 0; i < COUNT; i++)
        numbers[i] = 1e308;
    memcpy(gradient->data, numbers, sizeof numbers);
    struct submission submission = engines_submission(gradient, DTYPE_F64);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault), STATUS_OK);
        session = reopen(session, "s");
    }
    ck_assert_uint_eq(engines_view(session).step, 3);
    buffer_release(gradient);
    session_release(session);
    verified();
}
END_TEST

Suite *suite_history(void);
Suite *suite_history(void)
{
    Suite *suite = suite_create("history");
    TCase *cases = tcase_create("history");
    int count = sizeof forms / sizeof *forms;

    tcase_set_timeout(cases, 120);
    tcase_add_checked_fixture(cases, start, stop);
    tcase_add_loop_test(cases, every_moment_is_what_it_was, 0, count);
    tcase_add_loop_test(cases, the_ledger_has_a_line_for_each_step_of_each_line, 0, count);
    tcase_add_loop_test(cases, a_fork_goes_on_as_its_parent_would, 0, count);
    tcase_add_loop_test(cases, a_replaying_fork_is_where_its_parent_is, 0, count);
    tcase_add_loop_test(cases, an_image_goes_on_elsewhere, 0, count);
    tcase_add_loop_test(cases, a_dry_run_tells_and_changes_nothing, 0, count);
    tcase_add_test(cases, moments_are_converted_where_they_are_the_same);
    tcase_add_test(cases, what_is_not_kept_is_gone_and_says_so);
    tcase_add_test(cases, a_gradient_far_too_large_is_refused_and_kept);
    tcase_add_test(cases, a_norm_may_overflow);
    tcase_add_test(cases, exactly_once_holds_over_rewinds);
    suite_add_tcase(suite, cases);
    return suite;
}
