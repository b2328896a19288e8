/* The past of a session at the engine: what reading, hashing, forking and going back cost, and how
 * fast steps are replayed beside taking them. */
#include <stdlib.h>
#include <string.h>

#include "service/session/event.h"
#include "service/session/session.h"
#include "service/session/state_hash.h"
#include "tests/bench/bench.h"
#include "tests/bench/past.h"

enum { ROUNDS = 5, RACES = 3 };

struct timing {
    struct past past;
    char folder[256];
    double live[RACES], replay[RACES];
};

/* --- replay beside live steps --- */

static double read_at(struct session *session, uint64_t step)
{
    struct moment_query query = {.step = step};
    struct revision *revision;
    struct fault fault;
    double began = bench_now();

    past_must(session_revision_at(session, &query, &revision, &fault), &fault);
    revision_release(revision);
    return bench_now() - began;
}

/* Seconds of a step, live and replayed; the checkpoint is not counted. In turns: each round has a
 * session of its own. */
static void race(void *context)
{
    struct timing *timing = context;
    struct past *past = &timing->past;
    struct buffer *gradient = past_gradient(past->count, past->wire);
    struct engine *engine = past_open(timing->folder);

    for (size_t i = 0; i < RACES; i++) {
        struct session *session = past_create(engine, bench_text("s%zu", i), past);
        double began = bench_now();
        past_steps(session, gradient, past->wire, past->steps);
        past_settle(session); /* what is taken is on disk some time */
        timing->live[i] = (bench_now() - began) / (double)past->steps;
        double all = 1e9, none = 1e9;
        for (int repeat = 0; repeat < 2; repeat++) {
            double one = read_at(session, past->steps - 1), two = read_at(session, 0);
            all = one < all ? one : all;
            none = two < none ? two : none;
        }
        timing->replay[i] = (all - none) / (double)(past->steps - 1);
        session_release(session);
    }
}

static void bench_race(const struct bench *bench, struct timing *timing)
{
    static const size_t counts[] = {1000, 100000, 1000000};
    static const enum durability modes[] = {DURABILITY_STEP, DURABILITY_INTERVAL};
    static const char *const names[] = {"step", "interval"};

    for (size_t i = 0; i < 6; i++) {
        size_t count = counts[i / 2], length = past_length(count, DTYPE_F32);
        *timing = (struct timing){.past = {.count = count,
                                           .wire = DTYPE_F32,
                                           .steps = length < 200 ? length : 200,
                                           .mode = modes[i % 2]}};
        snprintf(timing->folder, sizeof timing->folder, "%s/race%zu", bench->folder, i);
        past_apart(race, timing);
        double live = bench_minimum(timing->live, RACES);
        double replay = bench_minimum(timing->replay, RACES);
        bench_row(bench_text("replay, %s parameters", past_size(count)),
                  bench_text("%.0f steps/s (median %.0f)", 1 / replay,
                             1 / bench_median(timing->replay, RACES)),
                  bench_text("live, durability %s, %.0f steps/s (median %.0f)", names[i % 2],
                             1 / live, 1 / bench_median(timing->live, RACES)),
                  live / replay, count == 1000000 ? AIM_AT_LEAST : AIM_NONE, 3);
    }
}

/* --- reading the past, forks, rewinds --- */

struct past_figures {
    char folder[256];
    struct past past;
    double read[5]; /* at the distances */
    double export_now, export_past, hash_now, hash_past, plain;
    double fork_now, fork_past, fork_replay, rewind;
    double state_bytes;
};

static const double distances[] = {0, 0.25, 0.5, 0.75, 1};

static double best_of(double (*run)(struct session *session, uint64_t step),
                      struct session *session, uint64_t step)
{
    double times[ROUNDS];

    for (size_t i = 0; i < ROUNDS; i++)
        times[i] = run(session, step);
    return bench_minimum(times, ROUNDS);
}

static double export_at(struct session *session, uint64_t step)
{
    struct moment_query query = {.step = step};
    struct image *image;
    struct fault fault;
    double began = bench_now();

    past_must(session_export(session, &query, &image, &fault), &fault);
    began = bench_now() - began;
    image_free(image);
    return began;
}

static double hash_at(struct session *session, uint64_t step)
{
    struct moment_query query = {.step = step};
    struct moment moment;
    struct digest digest;
    struct fault fault;
    double began = bench_now();

    past_must(session_hash(session, &query, &moment, &digest, &fault), &fault);
    return bench_now() - began;
}

static double hash_plain(struct session *session, uint64_t step)
{
    const struct state *state = session->state;
    size_t size = session->layout->count * sizeof(float);
    volatile unsigned char sink = (unsigned char)step;
    double began = bench_now();

    sink ^= hash_bytes(state->current->weights->data, size).bytes[0];
    for (size_t k = 0; k < SLOTS_MAX; k++)
        if (state->slot[k] != NULL)
            sink ^= hash_bytes(state->slot[k]->data, size).bytes[0];
    return bench_now() - began;
}

static double fork_at(struct session *session, uint64_t step, bool replay)
{
    static unsigned number;
    struct moment_query query = {.step = step};
    struct fork_request request = {
        .id = bench_text("fork%u", number++), .query = &query, .replay = replay};
    struct fork_outcome outcome;
    struct session *fork;
    struct fault fault;
    double began = bench_now();

    past_must(session_fork(session, &request, &fork, &outcome, &fault), &fault);
    began = bench_now() - began;
    past_must(session_delete(session->engine, fork, &fault), &fault);
    session_release(fork);
    return began;
}

static double fork_plain(struct session *session, uint64_t step)
{
    return fork_at(session, step, false);
}

static double fork_replaying(struct session *session, uint64_t step)
{
    return fork_at(session, step, true);
}

static void look_back(void *context)
{
    struct past_figures *out = context;
    struct past *past = &out->past;
    struct engine *engine = past_open(out->folder);
    struct session *session = past_create(engine, "a", past);
    struct buffer *gradient = past_gradient(past->count, past->wire);
    uint64_t middle = past->steps / 2;
    struct moment_query query = {.step = middle};
    struct moment moment;
    struct fault fault;

    past_steps(session, gradient, past->wire, past->steps);
    past_settle(session);
    for (size_t i = 0; i < 5; i++)
        out->read[i] =
            best_of(read_at, session, (uint64_t)(distances[i] * (double)(past->steps - 1)));
    out->state_bytes = 3.0 * (double)past->count * sizeof(float);
    out->plain = best_of(hash_plain, session, 0);
    out->hash_now = best_of(hash_at, session, past->steps);
    out->hash_past = best_of(hash_at, session, middle);
    out->export_past = best_of(export_at, session, middle);
    out->fork_past = best_of(fork_plain, session, middle);
    out->fork_replay = best_of(fork_replaying, session, middle);
    past_must(session_checkpoint_now(session, &moment, &fault), &fault);
    out->export_now = best_of(export_at, session, past->steps);
    out->fork_now = best_of(fork_plain, session, past->steps);
    double began = bench_now();
    past_must(session_rewind(session, &query, &fault), &fault);
    out->rewind = bench_now() - began;
}

static void report_past(const struct past_figures *f)
{
    char size[16];
    size_t last = f->past.steps - 1, half = f->past.steps / 2;
    double replayed = f->read[2] - f->read[0];

    snprintf(size, sizeof size, "%s", past_size(f->past.count));
    bench_row(bench_text("reading a revision, %s parameters", size),
              bench_text("%.2f, %.2f, %.2f, %.2f, %.2f ms", f->read[0] * 1e3, f->read[1] * 1e3,
                         f->read[2] * 1e3, f->read[3] * 1e3, f->read[4] * 1e3),
              bench_text("0, 1/4, 1/2, 3/4, 1 x %zu steps after a checkpoint", last),
              f->read[4] / f->read[0], AIM_NONE, 0);
    bench_row(bench_text("state_hash, %s parameters", size),
              bench_text("%.2f ms, %.1f GB/s (%zu steps back of a checkpoint: %.2f ms)",
                         f->hash_now * 1e3, f->state_bytes / f->hash_now / 1e9, half,
                         f->hash_past * 1e3),
              bench_text("XXH3-128, one thread, %.1f GB/s", f->state_bytes / f->plain / 1e9),
              f->hash_now / f->plain, AIM_NONE, 0);
    bench_row(bench_text("export, %s parameters", size),
              bench_text("now %.2f ms, %zu steps after a checkpoint %.2f ms", f->export_now * 1e3,
                         half, f->export_past * 1e3),
              bench_text("reading that revision %.2f ms", f->read[2] * 1e3),
              f->export_past / f->read[2], AIM_NONE, 0);
    bench_row(bench_text("fork, %s parameters", size),
              bench_text("now %.2f ms, %zu steps after a checkpoint %.2f, with %zu replayed %.2f",
                         f->fork_now * 1e3, half, f->fork_past * 1e3, f->past.steps - half,
                         f->fork_replay * 1e3),
              bench_text("reading that revision %.2f ms", f->read[2] * 1e3),
              f->fork_past / f->read[2], AIM_NONE, 0);
    bench_row(
        bench_text("rewind, %s parameters, %zu steps after a checkpoint", size, half),
        bench_text("%.2f ms", f->rewind * 1e3),
        bench_text("reading it %.2f ms (%.2f of them replay)", f->read[2] * 1e3, replayed * 1e3),
        f->rewind / f->read[2], AIM_NONE, 0);
}

static void bench_look_back(const struct bench *bench)
{
    static const size_t counts[] = {1000, 100000, 1000000};
    struct past_figures *figures = past_shared(sizeof *figures);

    for (size_t i = 0; i < 3; i++) {
        size_t length = past_length(counts[i], DTYPE_F32);
        figures->past = (struct past){.count = counts[i],
                                      .wire = DTYPE_F32,
                                      .steps = length < 200 ? length : 200,
                                      .mode = DURABILITY_INTERVAL};
        snprintf(figures->folder, sizeof figures->folder, "%s/past%zu", bench->folder, i);
        past_apart(look_back, figures);
        report_past(figures);
    }
}

/* --- what hashes and notes cost a step --- */

enum { TURNS = 9 };

struct extras {
    char folder[256];
    size_t count;
    double plain, hashed;        /* seconds of a step that is not journaled */
    double measured, unmeasured; /* measuring and applying a gradient, with and without notes */
};

/* Measures and applies gradients as a step does, without a journal. */
static double apply_some(struct session *session, struct buffer *gradient,
                         struct tensor_note *notes, size_t times)
{
    struct state *state = session->state;
    struct sample *sample = state->sample;
    struct wire_gradient vector = dense_gradient(gradient->data, DTYPE_F32, session->layout->count);
    struct step_line line;
    double began = bench_now();

    if (notes == NULL)
        state->sample = NULL;
    for (size_t i = 0; i < times; i++) {
        struct event event = event_make(EVENT_GRADIENT, state->current->step + 1);
        struct revision *next = revision_new(vector.count * sizeof(float), false);
        if (next == NULL || !state_reserve(state, 1, 0))
            bench_fail("memory");
        event.base_step = state->current->step;
        event_measure(&session->spec, session->plan, &vector, &event, notes);
        event_apply(state, session->plan, &session->spec, &event, NULL, gradient, 0, notes, next,
                    &line);
        state_publish(state, &event, next, &line, NULL);
    }
    state->sample = sample;
    return (bench_now() - began) / (double)times;
}

static void weigh_extras(void *context)
{
    struct extras *out = context;
    struct past past = {.count = out->count, .wire = DTYPE_F32, .mode = DURABILITY_CHECKPOINT};
    struct engine *engine = past_open(out->folder);
    struct session *plain = past_create(engine, "plain", &past);
    past.hash_every = 1;
    struct session *hashed = past_create(engine, "hashed", &past);
    struct buffer *gradient = past_gradient(out->count, DTYPE_F32);
    double plains[TURNS], hashes[TURNS], with[TURNS], without[TURNS];
    size_t times = out->count < 100000 ? 2000 : out->count < 1000000 ? 200 : 20;
    struct tensor_note *notes;

    for (size_t i = 0; i < TURNS; i++) {
        plains[i] = past_steps(plain, gradient, DTYPE_F32, times) / (double)times;
        hashes[i] = past_steps(hashed, gradient, DTYPE_F32, times) / (double)times;
    }
    if (!notes_new(plain->layout, &notes))
        bench_fail("memory");
    for (size_t i = 0; i < TURNS; i++) {
        without[i] = apply_some(plain, gradient, NULL, times);
        with[i] = apply_some(plain, gradient, notes, times);
    }
    out->plain = bench_minimum(plains, TURNS);
    out->hashed = bench_minimum(hashes, TURNS);
    out->measured = bench_minimum(with, TURNS);
    out->unmeasured = bench_minimum(without, TURNS);
}

static void bench_extras(const struct bench *bench)
{
    static const size_t counts[] = {1000, 100000, 1000000};
    struct extras *extras = past_shared(sizeof *extras);

    for (size_t i = 0; i < 3; i++) {
        *extras = (struct extras){.count = counts[i]};
        snprintf(extras->folder, sizeof extras->folder, "%s/extras%zu", bench->folder, i);
        past_apart(weigh_extras, extras);
        const char *size = past_size(counts[i]);
        bench_row(bench_text("a step with hash_every 1, %s parameters, not journaled", size),
                  bench_text("%.1f us", extras->hashed * 1e6),
                  bench_text("without %.1f us", extras->plain * 1e6),
                  extras->hashed / extras->plain, AIM_NONE, 0);
        bench_row(bench_text("measuring and applying with notes, %s parameters", size),
                  bench_text("%.1f us", extras->measured * 1e6),
                  bench_text("without %.1f us", extras->unmeasured * 1e6),
                  extras->measured / extras->unmeasured, AIM_NONE, 0);
    }
}

void bench_past(const struct bench *bench)
{
    struct timing *timing = past_shared(sizeof *timing);

    bench_race(bench, timing);
    bench_look_back(bench);
    bench_extras(bench);
}
