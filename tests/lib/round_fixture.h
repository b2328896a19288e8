/* What the suites of rounds begin with: an engine over a store that fails when it is told to,
 * session "one" on it, and the round of it that is open. */
#ifndef DESCENT_TESTS_ROUND_FIXTURE_H
#define DESCENT_TESTS_ROUND_FIXTURE_H

#include "tests/lib/faulty_store.h"
#include "tests/lib/rounds.h"

enum { WORKERS = 4 };
extern const char *const round_names[WORKERS]; /* of the workers, not in their order */

/* Who is in the open round. */
struct roll {
    size_t count;
    struct offer members[OFFERS_MAX];
};

struct round_fixture {
    struct faulty_store *store; /* outlives the engine */
    struct engine *engine;
    struct layout *layout; /* of session "one" */
    uint64_t numbers;      /* the offers are drawn from */
    struct roll open_round;
};
extern struct round_fixture fixture;

/* For set_up, with a number of the suite's own for the seed, and for tear_down. */
void fixture_open(uint64_t salt);
void fixture_close(void);

struct session *fixture_create(const struct spec *spec);
struct twin fixture_twin(const struct spec *spec);

/* In order, with a checkpoint of what has changed; or without one, as after a crash. */
enum restart { RESTART_NONE, RESTART_IN_ORDER, RESTART_BARE };
/* Releases the session, closes the engine, opens another on the store and finds the session. */
struct session *fixture_restart(struct session *session, enum restart how);

struct offer fixture_draw(size_t worker, uint64_t seq);
/* Makes an offer that must be taken and counts it in. */
struct receipt fixture_join(struct session *session, size_t worker, uint64_t seq);
/* Fails unless the round closed last with just these, who are then forgotten. */
void fixture_hold(const struct twin *twin, struct session *session);

#endif
