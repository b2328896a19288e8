/* Rounds by plain loops, and twins. */
#include "tests/lib/rounds.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/engines.h"
#include "tests/lib/testing.h"

struct offer offer_draw(const char *worker, uint64_t seq, uint64_t *random)
{
    static const double examples[] = {1, 1, 32, 0.3, 7.5, 1e6};
    struct offer out = {.seq = seq,
                        .seed = testing_random(random),
                        .examples = examples[testing_random(random) % 6],
                        .wire = (enum dtype)(testing_random(random) % DTYPE_COUNT),
                        .delta = testing_random(random) % 4 == 0};

    ck_assert_uint_lt(strlen(worker), sizeof out.worker);
    strcpy(out.worker, worker);
    return out;
}

struct submission offer_submission(const struct offer *offer, size_t count)
{
    uint64_t random = offer->seed;
    struct submission out =
        engines_submission(engines_gradient(offer->wire, count, &random), offer->wire);

    out.examples = offer->examples;
    out.delta = offer->delta;
    out.worker = offer->worker[0] == '\0' ? NULL : offer->worker;
    out.seq = offer->seq;
    out.has_base_step = offer->based;
    out.base_step = offer->base_step;
    return out;
}

enum status offer_try(struct session *session, const struct offer *offer, struct receipt *receipt,
                      bool *replayed, struct fault *fault)
{
    struct submission submission = offer_submission(offer, session_layout(session)->count);
    enum status status = engines_submit(session, &submission, receipt, replayed, fault);

    buffer_release(submission.buffer);
    return status;
}

struct receipt offer_make(struct session *session, const struct offer *offer)
{
    struct receipt receipt;
    struct fault fault;
    bool replayed;

    if (offer_try(session, offer, &receipt, &replayed, &fault) != STATUS_OK)
        ck_abort_msg("worker %s, seq %llu: %s", offer->worker, (unsigned long long)offer->seq,
                     fault.detail);
    ck_assert(!replayed);
    return receipt;
}

void offer_refused(struct session *session, const struct offer *offer, enum status status)
{
    struct digest before = engines_digest(session, true);
    uint64_t received = engines_view(session).round_received;
    struct fault fault;
    enum status got = offer_try(session, offer, NULL, NULL, &fault);

    if (got != status)
        ck_abort_msg("worker %s, seq %llu: status %d, not %d (%s)", offer->worker,
                     (unsigned long long)offer->seq, (int)got, (int)status,
                     got == STATUS_OK ? "it was taken" : fault.detail);
    ck_assert_digest_eq(engines_digest(session, true), before);
    ck_assert_uint_eq(engines_view(session).round_received, received);
}

struct receipt offer_repeated(struct session *session, const struct offer *offer)
{
    struct digest before = engines_digest(session, true);
    uint64_t received = engines_view(session).round_received;
    struct receipt receipt;
    struct fault fault;
    bool replayed;

    if (offer_try(session, offer, &receipt, &replayed, &fault) != STATUS_OK)
        ck_abort_msg("repeating worker %s, seq %llu: %s", offer->worker,
                     (unsigned long long)offer->seq, fault.detail);
    ck_assert(replayed);
    ck_assert_digest_eq(engines_digest(session, true), before);
    ck_assert_uint_eq(engines_view(session).round_received, received);
    return receipt;
}

/* --- plain loops --- */

/* A number of any wire type, exactly. */
static double read_wire(enum dtype wire, const void *data, size_t i)
{
    const unsigned char *bytes = data;

    if (wire == DTYPE_F64) {
        double value;
        memcpy(&value, bytes + 8 * i, 8);
        return value;
    }
    if (wire == DTYPE_F32) {
        float value;
        memcpy(&value, bytes + 4 * i, 4);
        return (double)value;
    }
    unsigned half = (unsigned)bytes[2 * i] | (unsigned)bytes[2 * i + 1] << 8;
    bool brain = wire == DTYPE_BF16;
    int fraction_bits = brain ? 7 : 10, bias = brain ? 127 : 15;
    int exponent = (int)((half & 0x7FFFu) >> fraction_bits);
    double fraction = (double)(half & ((1u << fraction_bits) - 1));
    double value = exponent == 0 ? ldexp(fraction, 1 - bias - fraction_bits)
                                 : ldexp(fraction + (double)(1u << fraction_bits),
                                         exponent - bias - fraction_bits);
    return (half & 0x8000u) != 0 ? -value : value;
}

static void sort_offers(struct offer *members, size_t member_count)
{
    for (size_t i = 1; i < member_count; i++)
        for (size_t k = i; k > 0; k--) {
            struct offer later = members[k];
            int order = strcmp(members[k - 1].worker, later.worker);
            if (order < 0 || (order == 0 && members[k - 1].seq <= later.seq))
                break;
            members[k] = members[k - 1];
            members[k - 1] = later;
        }
}

struct buffer *offers_plain(const struct offer *members, size_t member_count, enum plain plain,
                            enum dtype dtype, size_t count)
{
    struct offer sorted[OFFERS_MAX];
    double *sum = calloc(count, sizeof *sum), weight = 0;
    struct buffer *out = buffer_new(count * dtype_size(dtype));

    ck_assert(sum != NULL && out != NULL && member_count <= OFFERS_MAX);
    memcpy(sorted, members, member_count * sizeof *members);
    sort_offers(sorted, member_count);
    for (size_t k = 0; k < member_count; k++) {
        struct submission submission = offer_submission(&sorted[k], count);
        double n = member_count > 1 ? sorted[k].examples : 1; /* alone it is the mean */
        weight += n;
        for (size_t i = 0; i < count; i++) {
            double g = read_wire(sorted[k].wire, submission.buffer->data, i);
            if (dtype == DTYPE_F32)
                g = (double)(float)g;
            if (sorted[k].delta)
                g = -g;
            if (plain == PLAIN_MEAN)
                sum[i] += n * g;
            else if (plain == PLAIN_SUM)
                sum[i] += g;
            else
                sum[i] += g > 0 ? 1 : g < 0 ? -1 : 0;
        }
        buffer_release(submission.buffer);
    }
    for (size_t i = 0; i < count; i++) {
        double value = sum[i];
        if (plain == PLAIN_MEAN)
            value = sum[i] / weight;
        if (plain == PLAIN_VOTE)
            value = sum[i] > 0 ? 1 : sum[i] < 0 ? -1 : 0;
        if (dtype == DTYPE_F64)
            memcpy(out->data + i * sizeof value, &value, sizeof value);
        else
            memcpy(out->data + i * sizeof(float), &(float){(float)value}, sizeof(float));
    }
    free(sum);
    return out;
}

/* --- sessions --- */

struct spec rounds_spec(enum dtype dtype, const char *rule, uint64_t workers)
{
    struct spec spec = engines_spec(dtype, rule);

    spec.aggregation.mode = AGGREGATION_SYNC;
    spec.aggregation.workers = workers;
    return spec;
}

struct layout *rounds_layout(size_t count)
{
    struct layout *layout = layout_new();
    struct fault fault;

    ck_assert_ptr_nonnull(layout);
    if (layout_add(layout, "b", 1, 1, (size_t[]){count}, &fault) != STATUS_OK ||
        layout_add(layout, "a", 1, 2, (size_t[]){3, 5}, &fault) != STATUS_OK ||
        layout_add(layout, "c", 1, 0, NULL, &fault) != STATUS_OK ||
        layout_seal(layout, &fault) != STATUS_OK)
        ck_abort_msg("layout: %s", fault.detail);
    return layout;
}

struct session *rounds_create(struct engine *engine, const char *id, const struct spec *spec,
                              struct layout *layout)
{
    struct session *session;
    struct fault fault;
    bool created;

    if (engines_try_create_of(engine, id, spec, layout, &session, &created, &fault) != STATUS_OK)
        ck_abort_msg("engine_create: %s", fault.detail);
    ck_assert(created);
    return session;
}

struct twin twin_open(const char *id, const struct spec *spec, struct layout *layout)
{
    struct twin twin = {.engine = engines_open("memory:", NULL)};
    struct spec plain, copy = *spec;

    spec_init(&plain);
    copy.aggregation = plain.aggregation;
    twin.session = rounds_create(twin.engine, id, &copy, layout);
    return twin;
}

void twin_close(struct twin *twin)
{
    session_release(twin->session);
    engine_close(twin->engine);
}

struct receipt twin_step(const struct twin *twin, const struct offer *members, size_t member_count,
                         enum plain plain)
{
    enum dtype dtype = session_dtype(twin->session);
    struct buffer *mean =
        offers_plain(members, member_count, plain, dtype, session_layout(twin->session)->count);
    struct submission submission = engines_submission(mean, dtype);
    struct receipt receipt;
    struct fault fault;

    if (engines_submit(twin->session, &submission, &receipt, NULL, &fault) != STATUS_OK)
        ck_abort_msg("the twin: %s", fault.detail);
    buffer_release(mean);
    return receipt;
}

void twin_hold(const struct twin *twin, struct session *session)
{
    ck_assert_uint_eq(engines_view(session).step, engines_view(twin->session).step);
    ck_assert_digest_eq(engines_hash(session), engines_hash(twin->session));
}

void twin_hold_receipt(const struct receipt *twin, const struct receipt *receipt)
{
    const double left[] = {twin->lr, twin->grad_norm, twin->clip_scale, twin->update_norm,
                           twin->param_norm},
                 right[] = {receipt->lr, receipt->grad_norm, receipt->clip_scale,
                            receipt->update_norm, receipt->param_norm};

    ck_assert_uint_eq(receipt->kind, twin->kind);
    ck_assert_uint_eq(receipt->step, twin->step);
    ck_assert_mem_eq(right, left, sizeof left);
}

struct expected_members {
    struct offer sorted[OFFERS_MAX];
    size_t count, elements, lines;
};

static enum status hold_line(void *context, const struct step_line *line)
{
    struct expected_members *expected = context;

    expected->lines++;
    ck_assert_uint_eq(line->member_count, expected->count);
    for (size_t i = 0; i < expected->count; i++) {
        const struct member *member = &line->members[i];
        const struct offer *wanted = &expected->sorted[i];
        ck_assert_str_eq(member->worker, wanted->worker);
        ck_assert_uint_eq(member->seq, wanted->seq);
        ck_assert(member->examples == wanted->examples);
        ck_assert_uint_eq(member->bytes, expected->elements * dtype_size(wanted->wire));
        ck_assert(member->grad_norm > 0);
        if (wanted->based)
            ck_assert_uint_eq(member->base_step, wanted->base_step);
    }
    return STATUS_OK;
}

void rounds_hold_members(struct session *session, uint64_t step, const struct offer *members,
                         size_t member_count)
{
    struct expected_members expected = {.count = member_count,
                                        .elements = session_layout(session)->count};
    uint64_t oldest;
    struct fault fault;

    ck_assert_uint_le(member_count, OFFERS_MAX);
    memcpy(expected.sorted, members, member_count * sizeof *members);
    sort_offers(expected.sorted, member_count);
    if (session_steps(session, NULL, step, step, hold_line, &expected, &oldest, &fault) !=
        STATUS_OK)
        ck_abort_msg("session_steps: %s", fault.detail);
    ck_assert_uint_eq(expected.lines, 1);
}

struct worker_view rounds_worker(struct session *session, const char *name)
{
    struct worker_view *workers, found = {0};
    struct fault fault;
    size_t count;

    if (session_workers(session, &workers, &count, &fault) != STATUS_OK)
        ck_abort_msg("session_workers: %s", fault.detail);
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            ck_assert_int_lt(strcmp(workers[i - 1].name, workers[i].name), 0);
        if (strcmp(workers[i].name, name) == 0)
            found = workers[i];
    }
    free(workers);
    return found;
}

struct change {
    void (*change)(struct spec *spec, uint64_t value);
    uint64_t value;
};

static enum status make_change(void *context, struct spec *spec, struct fault *fault)
{
    const struct change *change = context;

    (void)fault;
    change->change(spec, change->value);
    return STATUS_OK;
}

void rounds_patch(struct session *session, void (*change)(struct spec *spec, uint64_t value),
                  uint64_t value)
{
    struct fault fault;

    if (session_patch(session, make_change, &(struct change){change, value}, &fault) != STATUS_OK)
        ck_abort_msg("session_patch: %s", fault.detail);
}

void rounds_rate(struct spec *spec, uint64_t value)
{
    spec->hyper[HYPER_LR] = 1 / (double)value;
}

void rounds_save(struct session *session)
{
    struct moment moment;
    struct fault fault;

    if (session_checkpoint_now(session, &moment, &fault) != STATUS_OK)
        ck_abort_msg("checkpoint: %s", fault.detail);
}
