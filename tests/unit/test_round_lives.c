/* Rounds over processes that die: what was acknowledged is there, each member once, and what is
 * lost with durability `interval` is the end, whole. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/store.h"
#include "tests/lib/engines.h"
#include "tests/lib/rounds.h"
#include "tests/lib/testing.h"

enum { COUNT = 61, WORKERS = 4 };

static const char *const names[WORKERS] = {"w1", "w0", "w3", "w2"};

static void assert_verified(const char *url)
{
    struct verify_report report;
    struct store *store;
    struct fault fault;

    if (store_open(url, false, &store, &fault) != STATUS_OK ||
        engine_verify(store, NULL, &report, &fault) != STATUS_OK)
        ck_abort_msg("verify: %s", fault.detail);
    store_close(store);
    ck_assert_uint_eq(report.findings, 0);
    ck_assert_uint_gt(report.sessions, 0);
}

static const char *sqlite_url(void)
{
    static char url[300];

    snprintf(url, sizeof url, "sqlite:%s", testing_folder());
    return url;
}

/* --- lives that end without a word ---
 *
 * Each is a process that opens the store, takes part in rounds at random and dies. What was
 * acknowledged is written down in memory that outlives it. */

enum { LIVES = 4, ACTIONS = 32, ENTRIES_MAX = LIVES * ACTIONS + 16 };

enum entry_kind { ENTRY_ROUND, ENTRY_RATE, ENTRY_REWIND };

struct entry {
    enum entry_kind kind;
    uint64_t value; /* of the rate; the step */
    size_t member_count;
    struct offer members[WORKERS];
};

struct diary {
    size_t entry_count;
    struct entry entries[ENTRIES_MAX];
    size_t open_count;
    struct offer open[WORKERS];
    uint64_t step, seq[WORKERS], random, repeats, late;
    bool done;
};

static struct entry *note(struct diary *diary, enum entry_kind kind, uint64_t value)
{
    struct entry *entry = &diary->entries[diary->entry_count++];

    *entry = (struct entry){.kind = kind, .value = value};
    return entry;
}

static void note_member(struct diary *diary, size_t worker, const struct offer *member)
{
    diary->seq[worker]++;
    diary->open[diary->open_count++] = *member;
    if (diary->open_count < WORKERS)
        return;
    struct entry *entry = note(diary, ENTRY_ROUND, 0);
    memcpy(entry->members, diary->open, sizeof diary->open);
    entry->member_count = WORKERS;
    diary->open_count = 0;
    diary->step++;
}

static bool is_in(const struct diary *diary, size_t worker)
{
    for (size_t i = 0; i < diary->open_count; i++)
        if (strcmp(diary->open[i].worker, names[worker]) == 0)
            return true;
    return false;
}

static void rewind_to(struct diary *diary, struct session *session, uint64_t to)
{
    struct fault fault;

    if (session_rewind(session, &(struct moment_query){.step = to}, &fault) != STATUS_OK)
        ck_abort_msg("rewind: %s", fault.detail);
    note(diary, ENTRY_REWIND, to);
    for (size_t i = 0; i < WORKERS; i++) /* what is dropped is free to come again */
        diary->seq[i] -= is_in(diary, i);
    diary->open_count = 0;
    diary->step = to;
}

static void act(struct diary *diary, struct session *session)
{
    uint64_t what = testing_random(&diary->random) % 32;
    size_t worker = testing_random(&diary->random) % WORKERS;
    struct offer mine = offer_draw(names[worker], diary->seq[worker] + 1, &diary->random);

    mine.based = testing_random(&diary->random) % 2 == 0;
    mine.base_step = diary->step;
    if (what == 0) {
        rounds_save(session);
    } else if (what == 1) {
        uint64_t rate = testing_random(&diary->random) % 9 + 1;
        rounds_patch(session, rounds_rate, rate);
        note(diary, ENTRY_RATE, rate);
    } else if (what == 2 && diary->step > 2) {
        rewind_to(diary, session, diary->step - 1 - testing_random(&diary->random) % 2);
    } else if (what == 3 && diary->step > 0 && !is_in(diary, worker)) {
        mine.based = true;
        mine.base_step = diary->step - 1;
        offer_refused(session, &mine, STATUS_STALE_GRADIENT);
        diary->late++;
    } else if (what < 8 && diary->open_count > 0) {
        offer_repeated(session, &diary->open[testing_random(&diary->random) % diary->open_count]);
        diary->repeats++;
    } else if (is_in(diary, worker)) {
        offer_refused(session, &mine, STATUS_ALREADY_CONTRIBUTED);
    } else {
        ck_assert_uint_eq(offer_make(session, &mine).received, diary->open_count + 1);
        note_member(diary, worker, &mine);
    }
}

static void live(struct diary *diary, const char *url)
{
    struct engine *own = engines_open(url, NULL);
    struct session *session = engines_find(own, "one");

    ck_assert_uint_eq(engines_view(session).step, diary->step);
    ck_assert_uint_eq(engines_view(session).round_received, diary->open_count);
    for (size_t i = 0; i < WORKERS; i++) {
        ck_assert_uint_eq(rounds_worker(session, names[i]).seq, diary->seq[i]);
        ck_assert(rounds_worker(session, names[i]).waiting == is_in(diary, i));
    }
    for (int i = 0; i < ACTIONS; i++)
        act(diary, session);
    diary->done = true;
}

static void tell(const struct diary *diary, const struct twin *twin)
{
    struct fault fault;

    for (size_t i = 0; i < diary->entry_count; i++) {
        const struct entry *entry = &diary->entries[i];
        if (entry->kind == ENTRY_ROUND)
            twin_step(twin, entry->members, entry->member_count, PLAIN_MEAN);
        else if (entry->kind == ENTRY_RATE)
            rounds_patch(twin->session, rounds_rate, entry->value);
        else if (session_rewind(twin->session, &(struct moment_query){.step = entry->value},
                                &fault) != STATUS_OK)
            ck_abort_msg("the twin's rewind: %s", fault.detail);
    }
}

/* The members of every step on the line to where it stands. */
static void hold_all_members(const struct diary *diary, struct session *session)
{
    const struct entry *made[ENTRIES_MAX] = {NULL};
    uint64_t step = 0;

    for (size_t i = 0; i < diary->entry_count; i++) {
        if (diary->entries[i].kind == ENTRY_ROUND)
            made[++step] = &diary->entries[i];
        else if (diary->entries[i].kind == ENTRY_REWIND)
            step = diary->entries[i].value;
    }
    for (uint64_t k = 1; k <= step; k++)
        rounds_hold_members(session, k, made[k]->members, made[k]->member_count);
}

START_TEST(lives_that_end_without_a_word_lose_no_member)
{
    struct diary *diary =
        mmap(NULL, sizeof *diary, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    static const char *const rules[] = {"sgd", "adam", "muon"};
    const char *url = sqlite_url();
    struct spec spec = rounds_spec(_i % 2 == 0 ? DTYPE_F64 : DTYPE_F32, rules[_i], WORKERS);
    struct layout *layout = rounds_layout(COUNT);

    ck_assert(diary != MAP_FAILED);
    *diary = (struct diary){.random = testing_seed() ^ (0xD1A0 + (uint64_t)_i)};
    spec.hyper[HYPER_LR] = 0.01;
    spec.gradient.clip_norm = 2; /* what a replay measures decides bits */
    struct engine *first = engines_open(url, NULL);
    session_release(rounds_create(first, "one", &spec, layout));
    engine_close(first); /* no thread is left when it forks */
    for (int number = 0; number < LIVES; number++) {
        int status;
        diary->done = false;
        fflush(NULL);
        pid_t child = fork();
        ck_assert_int_ge(child, 0);
        if (child == 0) {
            live(diary, url);
            raise(SIGKILL);
        }
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_msg(diary->done && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
                      "life %d did not come to its end", number);
    }
    ck_assert_uint_gt(diary->repeats, 0);
    assert_verified(url);
    struct engine *last = engines_open(url, NULL);
    struct session *session = engines_find(last, "one");
    ck_assert_uint_eq(engines_view(session).round_received, diary->open_count);
    struct twin twin = twin_open("one", &spec, layout);
    tell(diary, &twin);
    twin_hold(&twin, session);
    hold_all_members(diary, session);
    session_release(session);
    engine_close(last);
    assert_verified(url);
    twin_close(&twin);
    layout_release(layout);
    munmap(diary, sizeof *diary);
}
END_TEST

/* --- interval: what is lost is the end, whole --- */

static void live_quickly(const char *url, bool patient)
{
    struct engine *own = engines_open(url, NULL);
    struct session *session = engines_find(own, "one");
    uint64_t random = 7;

    for (uint64_t round = 1; round <= 5; round++)
        for (size_t i = 0; i < WORKERS; i++) {
            struct offer mine = offer_draw(names[i], round, &random);
            offer_make(session, &mine);
            if (round == 5 && i == 1) {
                usleep(patient ? 400000 : 0);
                raise(SIGKILL);
            }
        }
}

START_TEST(interval_rounds_lose_no_more_than_their_end)
{
    const char *url = sqlite_url();
    struct spec spec = rounds_spec(DTYPE_F64, "adam", WORKERS);
    struct layout *layout = rounds_layout(COUNT);
    uint64_t random = 7, counts = 0;
    int status;

    spec.durability.mode = DURABILITY_INTERVAL;
    spec.durability.seconds = 0.02;
    struct engine *own = engines_open(url, NULL);
    session_release(rounds_create(own, "one", &spec, layout));
    engine_close(own);
    fflush(NULL);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0)
        live_quickly(url, _i == 0);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    own = engines_open(url, NULL);
    struct session *session = engines_find(own, "one");
    struct twin twin = twin_open("one", &spec, layout);
    struct session_view view = engines_view(session);
    if (_i == 0) { /* all of it was on disk */
        ck_assert_uint_eq(view.step, 4);
        ck_assert_uint_eq(view.round_received, 2);
    }
    for (size_t i = 0; i < WORKERS; i++)
        counts += rounds_worker(session, names[i]).seq;
    ck_assert_uint_eq(counts, view.step * WORKERS + view.round_received);
    /* Everyone sends again from where it stands. */
    for (uint64_t round = 1; round <= 5; round++) {
        struct offer members[WORKERS];
        for (size_t i = 0; i < WORKERS; i++) {
            members[i] = offer_draw(names[i], round, &random);
            if (rounds_worker(session, names[i]).seq < round)
                offer_make(session, &members[i]);
        }
        twin_step(&twin, members, WORKERS, PLAIN_MEAN);
    }
    twin_hold(&twin, session);
    session_release(session);
    engine_close(own);
    assert_verified(url);
    twin_close(&twin);
    layout_release(layout);
}
END_TEST

Suite *suite_round_lives(void);
Suite *suite_round_lives(void)
{
    Suite *suite = suite_create("round_lives");
    TCase *lives = tcase_create("lives");

    tcase_set_timeout(lives, 120);
    tcase_add_loop_test(lives, lives_that_end_without_a_word_lose_no_member, 0, 3);
    tcase_add_loop_test(lives, interval_rounds_lose_no_more_than_their_end, 0, 2);
    suite_add_tcase(suite, lives);
    return suite;
}
