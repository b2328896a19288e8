/* From every rule to every other by a fork that keeps its state: what is kept is the same
 * quantity, so steps stay about as long as those of a fork that starts anew, and go downhill. */
#include <check.h>
#include <math.h>

#include "tests/lib/engines.h"

enum { COUNT = 37, BEFORE = 100, AFTER = 20 };

/* radam's first steps are short, adabelief's state of a constant gradient makes long ones. */
#define RATIO_MAX 3.5

static void settle(struct spec *spec)
{
    size_t momentum = optimizer_hyper(spec->rule, "momentum");

    spec->hyper[HYPER_LR] = 0.01;
    spec->hyper[HYPER_WEIGHT_DECAY] = 0;
    if (momentum < spec->rule->hyper_count)
        spec->hyper[momentum] = 0.9;
}

static enum status become(void *context, struct spec *spec, struct fault *fault)
{
    const struct optimizer *const *rule = context;

    (void)fault;
    spec_set_rule(spec, *rule);
    settle(spec);
    return STATUS_OK;
}

/* The length of a step; *along: the sum of its parts. */
static double step(struct session *session, struct buffer *gradient, double *along)
{
    struct submission submission = engines_submission(gradient, DTYPE_F32);
    struct revision *before, *after;
    struct fault fault;
    double sum = 0;

    ck_assert_int_eq(session_revision(session, &before, &fault), STATUS_OK);
    ck_assert_int_eq(engines_submit(session, &submission, NULL, NULL, &fault), STATUS_OK);
    ck_assert_int_eq(session_revision(session, &after, &fault), STATUS_OK);
    *along = 0;
    for (size_t i = 0; i < COUNT; i++) {
        double way = (double)((float *)(void *)after->weights->data)[i] -
                     (double)((float *)(void *)before->weights->data)[i];
        sum += way * way;
        *along += way;
    }
    revision_release(before);
    revision_release(after);
    return sqrt(sum);
}

static size_t kept(const struct fork_outcome *outcome)
{
    size_t count = 0;

    for (size_t i = 0; i < outcome->slot_count; i++)
        count += outcome->slots[i].fate == FORK_SLOT_KEPT;
    return count;
}

static void check_pair(struct session *session, const struct optimizer *rule,
                       struct buffer *gradient)
{
    struct fork_request request = {.change = become, .context = &rule, .state = FORK_KEEP};
    struct fork_outcome outcome, reset;
    struct session *fork, *fresh;
    double longest = 0, longest_anew = 0, along, other;
    struct fault fault;

    ck_assert_int_eq(session_fork(session, &request, &fork, &outcome, &fault), STATUS_OK);
    request.state = FORK_RESET;
    ck_assert_int_eq(session_fork(session, &request, &fresh, &reset, &fault), STATUS_OK);
    for (int i = 0; i < AFTER && kept(&outcome) > 0; i++) {
        longest = fmax(longest, step(fork, gradient, &along));
        longest_anew = fmax(longest_anew, step(fresh, gradient, &other));
        ck_assert_msg(along <= 0, "%s -> %s goes uphill", engines_view(session).spec.rule->name,
                      rule->name);
    }
    ck_assert_msg(longest <= RATIO_MAX * longest_anew, "%s -> %s: a step of %g where %g is usual",
                  engines_view(session).spec.rule->name, rule->name, longest, longest_anew);
    session_release(fork);
    session_release(fresh);
}

START_TEST(every_rule_goes_on_from_every_other)
{
    struct engine *engine = engines_open("memory:", NULL);
    struct buffer *gradient = engines_constant(COUNT, 0.01F);
    const struct optimizer *old, *rule;
    double along;

    for (size_t from = 0; (old = optimizer_at(from, DTYPE_F32)) != NULL; from++) {
        struct spec spec = engines_spec(DTYPE_F32, old->name);
        settle(&spec);
        struct session *session = engines_create(engine, old->name, &spec, COUNT);
        for (int i = 0; i < BEFORE; i++)
            step(session, gradient, &along);
        for (size_t to = 0; (rule = optimizer_at(to, DTYPE_F32)) != NULL; to++)
            check_pair(session, rule, gradient);
        session_release(session);
    }
    buffer_release(gradient);
    engine_close(engine);
}
END_TEST

Suite *suite_fork_rules(void);
Suite *suite_fork_rules(void)
{
    Suite *suite = suite_create("fork_rules");
    TCase *cases = tcase_create("fork_rules");

    tcase_set_timeout(cases, 120);
    tcase_add_test(cases, every_rule_goes_on_from_every_other);
    suite_add_tcase(suite, cases);
    return suite;
}
