/* The story: what is done, what must be there afterwards. */
#include "tests/fault/story.h"

#include <dirent.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "service/core/log.h"
#include "service/session/checkpoint.h"
#include "service/session/session.h"
#include "storage/store.h"
#include "tests/lib/shim_vfs.h"
#include "tests/lib/testing.h"

/* c create, s step, p PATCH, w new weights, d delete. */
static const struct plot {
    const char *id, *rule, *actions;
    enum dtype dtype;
    size_t count;
    enum durability mode;
} plots[STORY_SESSIONS] = {
    {"sure", "adam", "cssspswssss", DTYPE_F32, 1031, DURABILITY_STEP},
    {"later", "adam", "cssspswssss", DTYPE_F32, 20011, DURABILITY_INTERVAL},
    {"saved", "sgd", "cssspswssss", DTYPE_F64, 257, DURABILITY_CHECKPOINT},
    {"doomed", "sgd", "cssd", DTYPE_F32, 7, DURABILITY_STEP},
};

/* The state after so many actions. */
static struct known {
    struct digest digest;
    uint64_t step;
    bool there;
} known[STORY_SESSIONS][STORY_ACTIONS_MAX + 1];

static _Noreturn void story_wrong(const struct story *story, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Ends the process. */
static void story_wrong(const struct story *story, const char *format, ...)
{
    char words[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s, n = %llu, seed %llu: %s\n", story->what, (unsigned long long)story->number,
            (unsigned long long)story->seed, words);
    fflush(stderr);
    _exit(1);
}

void story_remove(const char *folder)
{
    DIR *listing = opendir(folder);
    struct dirent *entry;
    char path[512];

    while (listing != NULL && (entry = readdir(listing)) != NULL)
        if (entry->d_type == DT_REG) {
            snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
            unlink(path);
        }
    if (listing != NULL)
        closedir(listing);
    rmdir(folder);
}

static struct spec spec_of(size_t s)
{
    struct spec spec = engines_spec(plots[s].dtype, plots[s].rule);

    spec.durability.mode = (int)plots[s].mode;
    spec.durability.seconds = 0.005;
    spec.durability.steps = 3;
    return spec;
}

static struct buffer *numbers_of(size_t s, size_t k, enum dtype dtype)
{
    uint64_t random = testing_seed() ^ (1000 * s + k);

    return engines_gradient(dtype, plots[s].count, &random);
}

static enum status take_step(struct story *story, size_t s, size_t k, struct receipt *receipt,
                             bool *replayed, struct fault *fault)
{
    struct buffer *gradient = numbers_of(s, k, DTYPE_F32);
    struct submission submission = engines_submission(gradient, DTYPE_F32);
    char key[64], cursor[64];

    snprintf(key, sizeof key, "%s-%zu", plots[s].id, k);
    snprintf(cursor, sizeof cursor, "batch %zu", k);
    submission.cursor = cursor;
    if (plots[s].mode == DURABILITY_STEP) {
        submission.worker = "w";
        for (size_t i = 0; i <= k; i++)
            submission.seq += plots[s].actions[i] == 's';
    } else {
        submission.key = key;
    }
    enum status status = engines_submit(story->session[s], &submission, receipt, replayed, fault);
    buffer_release(gradient);
    return status;
}

static enum status take_weights(struct story *story, size_t s, size_t k, struct receipt *receipt,
                                struct fault *fault)
{
    struct buffer *weights = numbers_of(s, k, plots[s].dtype);
    struct outcome outcome;
    enum status status =
        session_replace(story->session[s], weights, &(struct precondition){0}, &outcome, fault);

    if (status == STATUS_OK) {
        *receipt = outcome.receipt;
        revision_release(outcome.revision);
    }
    buffer_release(weights);
    return status;
}

static enum status take_action(struct story *story, size_t s, struct receipt *receipt,
                               bool *replayed, struct fault *fault)
{
    struct spec spec = spec_of(s);
    size_t k = story->done[s];
    bool created;

    switch (plots[s].actions[k]) {
    case 'c':
        return engines_try_create(story->engine, plots[s].id, &spec, plots[s].count,
                                  &story->session[s], &created, fault);
    case 's':
        return take_step(story, s, k, receipt, replayed, fault);
    case 'p':
        return engines_try_patch(story->session[s], "lr", 0.25, fault);
    case 'w':
        return take_weights(story, s, k, receipt, fault);
    default:
        return session_delete(story->engine, story->session[s], fault);
    }
}

/* Saves all and sends it out of memory: the next action brings it back. A failure is nobody's. */
static void send_away(struct story *story)
{
    for (size_t s = 0; s < STORY_SESSIONS; s++) {
        struct fault fault;
        if (story->session[s] == NULL || session_enter(story->session[s], &fault) != STATUS_OK)
            continue;
        session_save(story->session[s], true, &fault);
        session_leave(story->session[s]);
        session_evict(story->session[s]);
    }
}

static struct known known_now(struct story *story, size_t s)
{
    if (story->session[s] == NULL)
        return (struct known){.there = false};
    return (struct known){.digest = engines_digest(story->session[s], false),
                          .step = engines_view(story->session[s]).step,
                          .there = true};
}

static bool same(const struct known *a, const struct known *b)
{
    return a->there == b->there && a->step == b->step &&
           memcmp(a->digest.bytes, b->digest.bytes, sizeof a->digest.bytes) == 0;
}

static void hold_against(struct story *story, size_t s, size_t k)
{
    struct known now = known_now(story, s);

    if (!same(&now, &known[s][k]))
        story_wrong(story, "%s is not as after action %zu (%.*s): step %llu, not %llu", plots[s].id,
                    k, (int)k, plots[s].actions, (unsigned long long)now.step,
                    (unsigned long long)known[s][k].step);
}

/* What an acknowledged action promises. */
static void note_done(struct story *story, size_t s, const struct receipt *receipt, bool replayed)
{
    size_t k = story->done[s]++;
    char action = plots[s].actions[k];

    if (action == 's' || action == 'w') {
        if (receipt->step != known[s][k + 1].step)
            story_wrong(story, "%s: action %zu was told step %llu", plots[s].id, k,
                        (unsigned long long)receipt->step);
        if (receipt->durable_step > receipt->step || receipt->durable_step < story->durable[s])
            story_wrong(story, "%s: durable_step %llu", plots[s].id,
                        (unsigned long long)receipt->durable_step);
        if (!replayed)
            story->durable[s] = receipt->durable_step;
        if (plots[s].mode == DURABILITY_STEP && receipt->durable_step != receipt->step)
            story_wrong(story, "%s: step %llu is not durable", plots[s].id,
                        (unsigned long long)receipt->step);
        if (replayed && !story->failed[s])
            story_wrong(story, "%s: action %zu was there before it was sent", plots[s].id, k);
    }
    if (action == 'd') {
        session_release(story->session[s]);
        story->session[s] = NULL;
    }
    /* What waits for the disk has all that came before it on the disk too. */
    if (plots[s].mode == DURABILITY_STEP || action == 'c' || action == 'p' || action == 'd')
        story->sure[s] = story->done[s];
    story->failed[s] = false;
}

static void check_clean(const struct story *story, const char *what, const struct fault *fault)
{
    if ((fault->status != STATUS_STORAGE_FAILED && fault->status != STATUS_STORAGE_FULL) ||
        fault->detail[0] == '\0')
        story_wrong(story, "%s: not a clean error: %s: %s", what, status_code(fault->status),
                    fault->detail);
}

/* The fault has passed: waits until writes work again. False when only a restart helps. */
static bool recovered(struct story *story)
{
    struct fault fault;

    for (int i = 0; i < 200; i++) {
        if (engine_ready(story->engine, &fault) == STATUS_OK)
            return true;
        if (strstr(fault.detail, "Restart the server") != NULL)
            return false;
        usleep(20000);
    }
    story_wrong(story, "no recovery: %s", fault.detail);
}

static bool act(struct story *story, size_t s, bool stop)
{
    struct receipt receipt = {0};
    struct fault fault = {.status = STATUS_OK};
    bool replayed = false;

    for (int i = 0; i < 400; i++) {
        if (take_action(story, s, &receipt, &replayed, &fault) == STATUS_OK) {
            note_done(story, s, &receipt, replayed);
            return true;
        }
        check_clean(story, plots[s].id, &fault);
        story->failures++;
        story->failed[s] = true;
        if (stop)
            return false;
        story->struck |= shim_vfs_fired();
        shim_vfs_arm(SHIM_ONCE, 0, 0); /* the disk is well again */
        hold_against(story, s, story->done[s]);
        if (!recovered(story)) {
            story->doubts++;
            story_close(story);
            story_open(story, true);
            story_take_up(story);
            /* It was stored, and is sent again: a step must be known. */
            if (story->done[s] == strlen(plots[s].actions))
                return true;
        } else {
            usleep(5000); /* what is kept to be written later is tried again by the second */
        }
    }
    story_wrong(story, "%s: refused for ever: %s", plots[s].id, fault.detail);
}

bool story_go(struct story *story, bool stop)
{
    bool going = true;

    for (size_t round = 0; going; round++) {
        going = false;
        for (size_t s = 0; s < STORY_SESSIONS; s++) {
            if (story->done[s] == strlen(plots[s].actions))
                continue;
            going = true;
            if (!act(story, s, stop))
                return false;
        }
        if (round % 4 == 2)
            send_away(story);
    }
    return true;
}

struct story story_begin(const char *folder, const char *what, uint64_t number, uint64_t seed)
{
    return (struct story){.what = what, .folder = folder, .number = number, .seed = seed};
}

bool story_open(struct story *story, bool must)
{
    struct engine_options options = engines_options();
    struct fault fault = {.status = STATUS_OK};
    struct store *store;

    enum status status = store_open(story->folder, true, &store, &fault);
    if (status == STATUS_OK) {
        options.take_store = store;
        status = engine_open(&options, &story->engine, &fault);
    }
    if (status == STATUS_OK)
        return true;
    story->engine = NULL;
    if (must)
        story_wrong(story, "it does not open: %s", fault.detail);
    check_clean(story, "opening", &fault);
    story->failures++;
    return false;
}

void story_close(struct story *story)
{
    for (size_t s = 0; s < STORY_SESSIONS; s++) {
        session_release(story->session[s]);
        story->session[s] = NULL;
    }
    if (story->engine != NULL)
        engine_close(story->engine);
    story->engine = NULL;
}

/* A step that failed and was stored all the same is told again when it is sent again, and is not
 * taken twice. */
static void send_again(struct story *story, size_t s)
{
    struct receipt receipt;
    struct fault fault;
    bool replayed = false;

    if (take_step(story, s, story->done[s] - 1, &receipt, &replayed, &fault) != STATUS_OK)
        story_wrong(story, "%s: the same again: %s", plots[s].id, fault.detail);
    if (!replayed || receipt.step != known[s][story->done[s]].step)
        story_wrong(story, "%s: a step that was stored was taken twice", plots[s].id);
    hold_against(story, s, story->done[s]);
}

void story_take_up(struct story *story)
{
    for (size_t s = 0; s < STORY_SESSIONS; s++) {
        struct fault fault;
        size_t most = story->done[s] + story->failed[s], k = most;
        if (engine_find(story->engine, "", plots[s].id, &story->session[s], &fault) != STATUS_OK)
            story->session[s] = NULL;
        struct known now = known_now(story, s);
        while (k > 0 && !same(&now, &known[s][k]))
            k--;
        if (!same(&now, &known[s][k]))
            story_wrong(story, "%s stands at step %llu, in no state it ever had", plots[s].id,
                        (unsigned long long)now.step);
        if (k < story->sure[s] || (now.there && now.step < story->durable[s]))
            story_wrong(story, "%s lost what was durable: it stands after %zu actions of %zu",
                        plots[s].id, k, story->done[s]);
        story->lost += k < story->done[s] ? (unsigned)(story->done[s] - k) : 0;
        story->done[s] = k;
        story->failed[s] = false;
        if (k > 0 && plots[s].actions[k - 1] == 's' && story->session[s] != NULL)
            send_again(story, s);
    }
}

void story_end(struct story *story)
{
    for (int i = 0; i < 2; i++) {
        for (size_t s = 0; s < STORY_SESSIONS; s++) {
            if (story->done[s] != strlen(plots[s].actions))
                story_wrong(story, "%s: the story is not at its end", plots[s].id);
            hold_against(story, s, story->done[s]);
        }
        unsigned lost = story->lost;
        story_close(story);
        if (i == 1)
            return;
        /* A stop right after an error may leave behind what was never told to be durable. */
        story_open(story, true);
        story_take_up(story);
        if (!story->struck && story->lost != lost)
            story_wrong(story, "an orderly stop lost %u actions", story->lost - lost);
        story_go(story, false);
    }
}

void story_learn(void)
{
    struct story story = story_begin("memory:", "learning", 0, testing_seed());

    log_set_level(LOG_OFF); /* faults are what is wanted */
    story_open(&story, true);
    for (size_t s = 0; s < STORY_SESSIONS; s++)
        for (size_t k = 1; plots[s].actions[k - 1] != '\0'; k++) {
            struct receipt receipt;
            struct fault fault;
            bool replayed;
            if (take_action(&story, s, &receipt, &replayed, &fault) != STATUS_OK)
                story_wrong(&story, "%s: %s", plots[s].id, fault.detail);
            if (plots[s].actions[k - 1] == 'd') {
                session_release(story.session[s]);
                story.session[s] = NULL;
            }
            story.done[s]++;
            known[s][k] = known_now(&story, s);
            for (size_t i = 0; i < k; i++)
                if (known[s][k].there && same(&known[s][i], &known[s][k]))
                    story_wrong(&story, "%s: two states are the same", plots[s].id);
        }
    story_close(&story);
}
