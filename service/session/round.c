/* The open round and the mean that closes it. */
#include "service/session/round.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/point.h"

/* What came in a body beside the gradient (names, another of a pair) is not kept if it is more. */
enum { BESIDES_MAX = 64 * 1024 };

static void fill(struct contribution *out, const struct layout *layout, const struct event *event,
                 struct buffer *body, size_t body_offset)
{
    *out = (struct contribution){.about = {.seq = event->seq,
                                           .base_step = event->base_step,
                                           .examples = event->examples,
                                           .loss = event->loss,
                                           .grad_norm = event->grad_norm},
                                 .keyed = event->keyed,
                                 .key = event->key,
                                 .delta = event->delta,
                                 .gradient = {.form = FORM_NONE}};
    memcpy(out->about.worker, event->worker, sizeof out->about.worker);
    if (event->form == FORM_NONE)
        return;
    out->gradient = event_gradient(layout, event, body, body_offset);
    out->about.bytes = out->gradient.size;
}

struct contribution *contribution_new(const struct layout *layout, const struct event *event,
                                      struct buffer *body, size_t body_offset)
{
    struct contribution *contribution = malloc(sizeof *contribution);

    if (contribution == NULL)
        return NULL;
    fill(contribution, layout, event, body, body_offset);
    if (event->form == FORM_NONE)
        return contribution;
    size_t size = contribution->gradient.size;
    if (body->size - size <= BESIDES_MAX) {
        contribution->buffer = buffer_retain(body);
    } else if ((contribution->buffer = buffer_new(size)) != NULL) {
        memcpy(contribution->buffer->data, contribution->gradient.data, size);
        contribution->gradient.data = contribution->buffer->data;
    } else {
        free(contribution);
        return NULL;
    }
    return contribution;
}

void contribution_free(struct contribution *contribution)
{
    if (contribution == NULL)
        return;
    buffer_release(contribution->buffer);
    free(contribution);
}

void round_add(struct round *round, struct contribution *take_contribution, uint64_t created_us)
{
    if (round->count == 0) {
        round->end = &round->first;
        round->started_us = created_us;
    }
    take_contribution->place = round->count++;
    round->bytes += take_contribution->about.bytes;
    *round->end = take_contribution;
    round->end = &take_contribution->next;
}

bool round_has(const struct round *round, const char *worker)
{
    for (const struct contribution *at = round->first; at != NULL; at = at->next)
        if (strcmp(at->about.worker, worker) == 0)
            return true;
    return false;
}

void round_clear(struct round *round)
{
    while (round->first != NULL) {
        struct contribution *next = round->first->next;
        contribution_free(round->first);
        round->first = next;
    }
    *round = (struct round){.first = NULL};
}

void round_disown(const struct round *round, struct ledger *ledger)
{
    for (const struct contribution *at = round->first; at != NULL; at = at->next)
        ledger_forget(ledger, at->about.worker, at->about.seq, at->keyed ? &at->key : NULL);
}

struct gathering *gathering_new(size_t capacity)
{
    struct gathering *gathering = calloc(1, sizeof *gathering);

    if (gathering == NULL)
        return NULL;
    gathering->capacity = capacity;
    gathering->members = calloc(capacity, sizeof *gathering->members);
    gathering->lines = calloc(capacity, sizeof *gathering->lines);
    gathering->terms = calloc(capacity, sizeof *gathering->terms);
    gathering->rows = calloc(capacity, sizeof *gathering->rows);
    if (gathering->members != NULL && gathering->lines != NULL && gathering->terms != NULL &&
        gathering->rows != NULL)
        return gathering;
    gathering_free(gathering);
    return NULL;
}

void gathering_free(struct gathering *gathering)
{
    if (gathering == NULL)
        return;
    free(gathering->members);
    free(gathering->lines);
    free(gathering->terms);
    free(gathering->rows);
    free(gathering);
}

static int compare(const void *a, const void *b)
{
    const struct contribution *x = *(struct contribution *const *)a;
    const struct contribution *y = *(struct contribution *const *)b;
    int order = BUG(mean_by_arrival) ? 0 : strcmp(x->about.worker, y->about.worker);

    if (order != 0)
        return order;
    if (x->about.seq != y->about.seq && !BUG(mean_by_arrival))
        return x->about.seq < y->about.seq ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

static void gather(struct gathering *gathering, const struct round *round)
{
    size_t count = 0;

    PRE(gathering->capacity >= round->count + gathering->has_own);
    for (struct contribution *at = round->first; at != NULL; at = at->next)
        gathering->members[count++] = at;
    if (gathering->has_own) {
        gathering->own.place = count;
        gathering->members[count++] = &gathering->own;
    }
    gathering->count = count;
    gathering->bytes = 0;
    qsort(gathering->members, count, sizeof *gathering->members, compare);
    for (size_t i = 0; i < count; i++) {
        gathering->lines[i] = gathering->members[i]->about;
        gathering->bytes += gathering->lines[i].bytes;
    }
}

/* The mean of the losses that were told; NaN: none was. */
static double mean_loss(const struct gathering *gathering)
{
    double sum = 0, weight = 0;

    for (size_t i = 0; i < gathering->count; i++) {
        const struct member *about = &gathering->lines[i];
        if (isnan(about->loss))
            continue;
        sum += about->examples * about->loss;
        weight += about->examples;
    }
    return weight > 0 ? sum / weight : (double)NAN;
}

/* A power of two that leaves no weight above 1, so that what is weighed does not overflow where the
 * mean does not. It changes no bit of the mean. */
static double scale_of(const struct gathering *gathering)
{
    double largest = 0;
    int exponent;

    for (size_t i = 0; i < gathering->count; i++)
        largest = fmax(largest, gathering->lines[i].examples);
    frexp(largest, &exponent);
    return ldexp(1, -exponent);
}

static void take_mean(struct gathering *gathering, const struct spec *spec, void *out)
{
    double scale = scale_of(gathering);
    bool weighs = spec->aggregation.reduction == REDUCTION_MEAN;
    struct mean mean = {.members = gathering->terms,
                        .count = gathering->count,
                        .divisor = weighs ? 0 : 1,
                        .vote = spec->aggregation.vote};

    for (size_t i = 0; i < gathering->count; i++) {
        const struct contribution *member = gathering->members[i];
        double weight = weighs ? scale * member->about.examples : 1;
        gathering->terms[i].gradient = member->gradient;
        gathering->terms[i].weight = member->delta ? -weight : weight;
        if (weighs)
            mean.divisor += weight;
    }
    if (spec->dtype == DTYPE_F64)
        mean_take_f64(&mean, out);
    else
        mean_take_f32(&mean, out);
}

/* Whether every member sent rows: then those that nobody sent are not there. */
static bool all_rows(struct gathering *gathering)
{
    bool all = true;

    for (size_t i = 0; i < gathering->count && all; i++) {
        gathering->rows[i] = gathering->members[i]->gradient;
        all = gathering->rows[i].form == FORM_ROWS;
    }
    return all;
}

struct estimate gathering_take(struct gathering *gathering, const struct round *round,
                               const struct layout *layout, const struct spec *spec,
                               const struct event *event, struct buffer *body, size_t body_offset,
                               struct buffer *mean)
{
    struct estimate out = {.gradient = {.form = FORM_NONE}, .base_step = UINT64_MAX};
    bool skipped = false;

    gathering->has_own = event->kind == EVENT_SKIP || event->form != FORM_NONE;
    if (gathering->has_own)
        fill(&gathering->own, layout, event, body, body_offset);
    gather(gathering, round);
    for (size_t i = 0; i < gathering->count; i++) {
        const struct member *about = &gathering->lines[i];
        out.examples += about->examples;
        if (about->base_step < out.base_step)
            out.base_step = about->base_step;
        skipped |= gathering->members[i]->gradient.form == FORM_NONE;
    }
    out.loss = mean_loss(gathering);
    if (skipped)
        return out;
    if (gathering->count > 1 || spec->aggregation.vote) {
        take_mean(gathering, spec, mean->data);
        out.gradient = dense_gradient(mean->data, spec->dtype, layout->count);
        if (all_rows(gathering)) {
            out.gradient.rows = gathering->rows;
            out.gradient.rows_count = gathering->count;
        }
    } else { /* alone it is the mean, whatever its weight */
        out.gradient = gathering->members[0]->gradient;
        out.delta = gathering->members[0]->delta;
    }
    return out;
}

void round_settle(struct round *round, struct ledger *ledger, const struct receipt *receipt)
{
    for (const struct contribution *at = round->first; at != NULL; at = at->next)
        ledger_settle(ledger, at->about.worker, at->about.seq, at->keyed ? &at->key : NULL,
                      receipt);
    round_clear(round);
}
