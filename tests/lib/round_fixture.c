/* What the suites of rounds begin with. */
#include "tests/lib/round_fixture.h"

#include <check.h>

#include "tests/lib/engines.h"
#include "tests/lib/testing.h"

const char *const round_names[WORKERS] = {"w1", "w0", "w3", "w2"};
struct round_fixture fixture;

void fixture_open(uint64_t salt)
{
    struct faulty_store *store = faulty_store_new();

    fixture = (struct round_fixture){.store = store,
                                     .engine = engines_open_store(faulty_store_open(store), NULL),
                                     .layout = rounds_layout(61),
                                     .numbers = testing_seed() ^ salt};
}

void fixture_close(void)
{
    engine_close(fixture.engine);
    faulty_store_free(fixture.store);
    layout_release(fixture.layout);
}

struct session *fixture_create(const struct spec *spec)
{
    return rounds_create(fixture.engine, "one", spec, fixture.layout);
}

struct twin fixture_twin(const struct spec *spec)
{
    return twin_open("one", spec, fixture.layout);
}

struct session *fixture_restart(struct session *session, enum restart how)
{
    static const struct faulty_plan none,
        bare = {.verbs = FAULTY_CHECKPOINT_PUT, .count = 1000, .status = STATUS_STORAGE_FULL};

    if (how == RESTART_NONE)
        return session;
    session_release(session);
    faulty_store_plan(fixture.store, how == RESTART_BARE ? bare : none);
    engine_close(fixture.engine);
    faulty_store_plan(fixture.store, none);
    fixture.engine = engines_open_store(faulty_store_open(fixture.store), NULL);
    return engines_find(fixture.engine, "one");
}

struct offer fixture_draw(size_t worker, uint64_t seq)
{
    return offer_draw(round_names[worker], seq, &fixture.numbers);
}

struct receipt fixture_join(struct session *session, size_t worker, uint64_t seq)
{
    struct roll *roll = &fixture.open_round;
    struct offer mine = fixture_draw(worker, seq);

    ck_assert_uint_lt(roll->count, OFFERS_MAX);
    roll->members[roll->count++] = mine;
    return offer_make(session, &mine);
}

void fixture_hold(const struct twin *twin, struct session *session)
{
    struct roll *roll = &fixture.open_round;

    twin_step(twin, roll->members, roll->count, PLAIN_MEAN);
    twin_hold(twin, session);
    rounds_hold_members(session, engines_view(session).step, roll->members, roll->count);
    ck_assert_uint_eq(engines_view(session).round_received, 0);
    roll->count = 0;
}
