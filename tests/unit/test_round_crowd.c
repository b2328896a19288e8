/* Rounds with everybody at once: threads that contribute, repeat and wait, beside others that save,
 * look and have the session leave memory. The ledger says who was in which round; the bits are
 * those of just these rounds, and nobody stands in two or in none. */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "service/session/session.h"
#include "tests/lib/engines.h"
#include "tests/lib/rounds.h"
#include "tests/lib/testing.h"

enum { COUNT = 129, WORKERS = 5, EACH = 24, STEPS_MAX = WORKERS * EACH };

static struct engine *engine;

static void set_up(void)
{
    engine = engines_open("memory:", NULL);
}

static void tear_down(void)
{
    engine_close(engine);
}

static atomic_size_t finished; /* workers */

struct worker {
    struct session *session;
    size_t number;
    uint64_t goal;        /* contributions */
    double wait_s;        /* 0: does not wait for its round */
    bool repeats;         /* sends what was taken again */
    uint64_t steps[EACH]; /* that each was told to lead to */
    enum status unexpected;
    char words[200];
    pthread_t thread;
};

static struct offer offer_of(size_t worker, uint64_t seq)
{
    uint64_t random = testing_seed() ^ (worker * 1000 + seq);
    char name[16];

    snprintf(name, sizeof name, "w%zu", (worker * 7) % 10);
    return offer_draw(name, seq, &random);
}

/* Contributes until every seq is taken, or is told that it must not now, which it tries again. */
static void *contribute(void *context)
{
    struct worker *worker = context;
    struct timespec moment = {.tv_nsec = 200000};
    uint64_t seq = 1;

    while (seq <= worker->goal && worker->unexpected == STATUS_OK) {
        struct offer offer = offer_of(worker->number, seq);
        struct submission submission = offer_submission(&offer, COUNT);
        struct receipt receipt = {0};
        struct fault fault;
        submission.wait_s = worker->wait_s;
        enum status status = engines_submit(worker->session, &submission, &receipt, NULL, &fault);
        if (status == STATUS_OK && worker->repeats && seq % 3 == 0) {
            struct receipt again = {0};
            bool replayed = false;
            status = engines_submit(worker->session, &submission, &again, &replayed, &fault);
            if (status == STATUS_OK && (!replayed || again.step != receipt.step))
                status = STATUS_INTERNAL;
        }
        buffer_release(submission.buffer);
        if (status == STATUS_OK) {
            worker->steps[seq++ - 1] = receipt.step;
        } else if (status == STATUS_ALREADY_CONTRIBUTED && atomic_load(&finished) == WORKERS - 1) {
            worker->goal = seq - 1; /* nobody is left to make a round with */
        } else if (status == STATUS_ALREADY_CONTRIBUTED || status == STATUS_TOO_FAR_AHEAD) {
            nanosleep(&moment, NULL);
        } else {
            worker->unexpected = status;
            memcpy(worker->words, fault.detail, sizeof worker->words - 1);
        }
    }
    atomic_fetch_add(&finished, 1);
    return NULL;
}

struct meddler {
    struct session *session;
    atomic_bool stop;
    pthread_t thread;
};

static enum status look(void *context, const struct step_line *line)
{
    size_t *members = context;

    *members += line->member_count;
    return STATUS_OK;
}

/* Saves, evicts and looks. */
static void *meddle(void *context)
{
    struct meddler *meddler = context;
    struct timespec moment = {.tv_nsec = 1000000};
    struct fault fault;

    while (!atomic_load(&meddler->stop)) {
        struct moment saved;
        struct worker_view *workers;
        struct session_view *view = malloc(sizeof *view);
        size_t count, members = 0;
        uint64_t oldest;
        session_checkpoint_now(meddler->session, &saved, &fault);
        session_evict(meddler->session);
        if (session_workers(meddler->session, &workers, &count, &fault) == STATUS_OK)
            free(workers);
        session_view(meddler->session, false, view, &fault);
        session_steps(meddler->session, NULL, 1, view->step, look, &members, &oldest, &fault);
        free(view);
        nanosleep(&moment, NULL);
    }
    return NULL;
}

/* --- what the ledger says --- */

struct history {
    struct worker *workers;
    uint64_t step;
    size_t seen[WORKERS][EACH]; /* how often */
    size_t counts[STEPS_MAX + 1];
    struct offer members[STEPS_MAX + 1][WORKERS];
};

static size_t number_of(const char *name)
{
    for (size_t k = 0; k < WORKERS; k++)
        if (strcmp(offer_of(k, 1).worker, name) == 0)
            return k;
    ck_abort_msg("there is no worker %s", name);
}

static void note(struct history *history, uint64_t step, const char *name, uint64_t seq)
{
    size_t worker = number_of(name);

    ck_assert(step <= STEPS_MAX && history->counts[step] < WORKERS && seq >= 1 && seq <= EACH);
    history->seen[worker][seq - 1]++;
    history->members[step][history->counts[step]++] = offer_of(worker, seq);
    if (history->workers[worker].steps[seq - 1] != step)
        ck_abort_msg("%s %llu was told step %llu and stands at %llu", name, (unsigned long long)seq,
                     (unsigned long long)history->workers[worker].steps[seq - 1],
                     (unsigned long long)step);
}

static enum status read_line(void *context, const struct step_line *line)
{
    struct history *history = context;
    uint64_t step = line->receipt.step;

    ck_assert_uint_eq(step, ++history->step);
    if (line->member_count == 0)
        note(history, step, line->worker, line->seq);
    for (size_t i = 0; i < line->member_count; i++)
        note(history, step, line->members[i].worker, line->members[i].seq);
    return STATUS_OK;
}

/* Everything that was told is in the ledger, or in the open round, and the bits are theirs. */
static void hold_history(struct session *session, const struct spec *spec, struct worker *workers)
{
    static struct history history;
    struct session_view view = engines_view(session);
    struct twin twin = twin_open("one", spec, (struct layout *)session_layout(session));
    uint64_t oldest;
    size_t open = 0;
    struct fault fault;

    history = (struct history){.workers = workers};
    if (session_steps(session, NULL, 1, view.step, read_line, &history, &oldest, &fault) !=
        STATUS_OK)
        ck_abort_msg("session_steps: %s", fault.detail);
    ck_assert_uint_eq(history.step, view.step);
    for (size_t k = 0; k < WORKERS; k++)
        for (uint64_t seq = 1; seq <= workers[k].goal; seq++) {
            bool waits = workers[k].steps[seq - 1] == view.step + 1;
            ck_assert_uint_eq(history.seen[k][seq - 1], !waits);
            open += waits;
        }
    ck_assert_uint_eq(open, view.round_received);
    for (uint64_t step = 1; step <= view.step; step++)
        twin_step(&twin, history.members[step], history.counts[step], PLAIN_MEAN);
    twin_hold(&twin, session);
    twin_close(&twin);
}

static const struct crowd {
    int mode;
    uint64_t workers, quorum, accumulate, staleness;
    double wait_s;
} crowds[] = {
    {AGGREGATION_SYNC, WORKERS, 0, 1, 3, 20}, {AGGREGATION_SYNC, WORKERS, 0, 1, 3, 0},
    {AGGREGATION_SYNC, WORKERS, 2, 1, 3, 0},  {AGGREGATION_ASYNC, 0, 0, 3, 3, 0},
    {AGGREGATION_SSP, 0, 0, 1, 2, 0},         {AGGREGATION_SSP, 0, 0, 4, 5, 0},
    {AGGREGATION_ASYNC, 0, 0, 1, 3, 0},
};

START_TEST(everyone_at_once)
{
    const struct crowd *crowd = &crowds[_i];
    static struct worker workers[WORKERS];
    struct spec spec = engines_spec(DTYPE_F64, _i == 1 ? "muon" : "adam");
    struct layout *layout = layout_new();
    struct meddler meddler = {.stop = false};
    struct fault fault;

    ck_assert_int_eq(layout_add(layout, "w", 1, 2, (size_t[]){3, COUNT / 3}, &fault), STATUS_OK);
    ck_assert_int_eq(layout_seal(layout, &fault), STATUS_OK);
    spec.aggregation.mode = crowd->mode;
    spec.aggregation.workers = crowd->workers;
    spec.aggregation.quorum = crowd->quorum;
    if (crowd->quorum > 0)
        spec.aggregation.timeout_s = 0;
    spec.aggregation.accumulate = crowd->accumulate;
    spec.aggregation.staleness = crowd->staleness;
    spec.aggregation.lease_s = 0.5; /* who has finished holds up nobody for long */
    struct session *session = rounds_create(engine, "one", &spec, layout);
    atomic_store(&finished, 0);
    for (size_t k = 0; k < WORKERS; k++) {
        workers[k] = (struct worker){.session = session,
                                     .number = k,
                                     .goal = EACH,
                                     .wait_s = crowd->wait_s,
                                     .repeats = _i % 2 == 1};
        ck_assert_int_eq(pthread_create(&workers[k].thread, NULL, contribute, &workers[k]), 0);
    }
    meddler.session = session;
    ck_assert_int_eq(pthread_create(&meddler.thread, NULL, meddle, &meddler), 0);
    for (size_t k = 0; k < WORKERS; k++) {
        pthread_join(workers[k].thread, NULL);
        if (workers[k].unexpected != STATUS_OK)
            ck_abort_msg("worker %zu: status %d, %s", k, (int)workers[k].unexpected,
                         workers[k].words);
    }
    atomic_store(&meddler.stop, true);
    pthread_join(meddler.thread, NULL);
    hold_history(session, &spec, workers);
    session_release(session);
    layout_release(layout);
}
END_TEST

Suite *suite_round_crowd(void);
Suite *suite_round_crowd(void)
{
    Suite *suite = suite_create("round_crowd");
    TCase *crowd = tcase_create("crowd");

    tcase_add_checked_fixture(crowd, set_up, tear_down);
    tcase_set_timeout(crowd, 120);
    tcase_add_loop_test(crowd, everyone_at_once, 0, (int)(sizeof crowds / sizeof *crowds));
    suite_add_tcase(suite, crowd);
    return suite;
}
