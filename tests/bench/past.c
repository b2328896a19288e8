/* Sessions with a past. */
#include "tests/bench/past.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "service/core/crew.h"
#include "service/session/session.h"
#include "tests/bench/bench.h"

void *past_shared(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        bench_fail("memory");
    return memory;
}

void past_apart(void (*run)(void *context), void *context)
{
    int status;

    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        bench_fail("fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        crew_start();
        run(context);
        fflush(NULL);
        _exit(EXIT_SUCCESS);
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            bench_fail("wait");
    if (status != 0)
        exit(EXIT_FAILURE); /* it has said why */
}

void past_must(enum status status, const struct fault *fault)
{
    errno = 0;
    if (status != STATUS_OK)
        bench_fail(fault->detail);
}

size_t past_length(size_t count, enum dtype wire)
{
    size_t state = 3 * count * sizeof(float), limit = 16 * state;

    if (limit > (size_t)256 << 20)
        limit = (size_t)256 << 20;
    if (limit < 4 * state)
        limit = 4 * state;
    if (limit < (size_t)4 << 20)
        limit = (size_t)4 << 20;
    size_t length = (limit - 1) / (count * dtype_size(wire));
    return length < 4095 ? length : 4095;
}

struct engine *past_open(const char *folder)
{
    struct engine_options options = {.sessions_max = 1000,
                                     .parameters_max = (uint64_t)1 << 30,
                                     .memory_bytes_max = (uint64_t)1 << 40,
                                     .idle_s = 3600,
                                     .history_bytes_max = (uint64_t)1 << 40};
    struct engine *engine;
    struct fault fault;

    past_must(store_open(folder, true, &options.take_store, &fault), &fault);
    past_must(engine_open(&options, &engine, &fault), &fault);
    return engine;
}

struct session *past_create(struct engine *engine, const char *id, const struct past *past)
{
    struct layout *layout = layout_new();
    struct buffer *weights = past_gradient(past->count, DTYPE_F32);
    struct spec spec;
    struct session_request request = {
        .id = id, .spec = &spec, .layout = layout, .weights = weights};
    struct session *session;
    struct fault fault;
    bool created;

    spec_init(&spec);
    spec_set_rule(&spec, optimizer_find("adam", DTYPE_F32));
    spec.durability.mode = past->mode;
    spec.durability.seconds = 0.05;
    spec.durability.steps = 1000000;
    spec.keep_steps = 1000000;
    spec.hash_every = past->hash_every;
    past_must(layout_add(layout, "w", 1, 1, &past->count, &fault), &fault);
    past_must(layout_seal(layout, &fault), &fault);
    past_must(engine_create(engine, &request, &session, &created, &fault), &fault);
    layout_release(layout);
    buffer_release(weights);
    return session;
}

struct session *past_find(struct engine *engine, const char *id)
{
    struct session *session;
    struct fault fault;

    past_must(engine_find(engine, "", id, &session, &fault), &fault);
    return session;
}

struct buffer *past_gradient(size_t count, enum dtype wire)
{
    struct buffer *numbers = buffer_new(count * sizeof(float)), *out = numbers;

    if (numbers == NULL)
        bench_fail("memory");
    bench_fill((float *)(void *)numbers->data, count, 1);
    if (wire != DTYPE_F32) {
        if ((out = buffer_new(count * dtype_size(wire))) == NULL)
            bench_fail("memory");
        dtype_convert(wire, out->data, DTYPE_F32, numbers->data, count);
        buffer_release(numbers);
    }
    return out;
}

double past_steps(struct session *session, struct buffer *gradient, enum dtype wire, size_t steps)
{
    double nothing = (double)NAN;
    struct submission submission = {.buffer = gradient,
                                    .dtype = wire,
                                    .loss = 1,
                                    .examples = 1,
                                    .lr = nothing,
                                    .momentum = nothing,
                                    .beta1 = nothing,
                                    .beta2 = nothing};
    struct outcome outcome;
    struct fault fault;
    double began = bench_now();

    for (size_t i = 0; i < steps; i++) {
        past_must(session_submit(session, &submission, &outcome, &fault), &fault);
        revision_release(outcome.revision);
    }
    return bench_now() - began;
}

void past_settle(struct session *session)
{
    struct session_view view;
    struct fault fault;

    for (;;) {
        past_must(session_view(session, true, &view, &fault), &fault);
        if (view.durable_step == view.step)
            return;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static void make(void *context)
{
    const struct past *past = context;
    struct session *session = past_create(past_open(past->folder), "a", past);

    past_steps(session, past_gradient(past->count, past->wire), past->wire, past->steps);
    past_settle(session);
}

void past_crash(const struct past *past)
{
    struct past copy = *past;

    past_apart(make, &copy);
}

struct cutting {
    uint64_t oldest; /* checkpoint */
    uint64_t ids[1000];
    size_t count;
    uint64_t steps, first, last; /* lsns that go */
};

static enum status skip_session(void *context, const struct store_session *session)
{
    (void)context;
    (void)session;
    return STATUS_OK;
}

static enum status list_checkpoint(void *context, const struct store_checkpoint *checkpoint)
{
    struct cutting *cutting = context;

    if (cutting->oldest == 0 || checkpoint->id < cutting->oldest)
        cutting->oldest = checkpoint->id;
    if (cutting->count < sizeof cutting->ids / sizeof *cutting->ids)
        cutting->ids[cutting->count++] = checkpoint->id;
    return STATUS_OK;
}

static enum status list_event(void *context, const struct store_event *event)
{
    struct cutting *cutting = context;

    if (event->step > cutting->steps && cutting->first == 0)
        cutting->first = event->lsn;
    cutting->last = event->lsn + event->chunks - 1;
    return STATUS_OK;
}

void past_cut(const char *folder, size_t steps)
{
    struct cutting cutting = {.steps = steps};
    const struct store_visitor visitor = {&cutting, skip_session, list_checkpoint, list_event,
                                          NULL};
    struct store *store;
    struct fault fault;

    past_must(store_open(folder, false, &store, &fault), &fault);
    const struct store_backend *backend = store_backend(store);
    past_must(backend->scan(store, &visitor, &fault), &fault);
    past_must(backend->begin(store, &fault), &fault);
    if (cutting.first > 0)
        past_must(backend->event_drop(store, cutting.first, cutting.last, &fault), &fault);
    for (size_t i = 0; i < cutting.count; i++)
        if (cutting.ids[i] != cutting.oldest)
            past_must(backend->checkpoint_drop(store, cutting.ids[i], &fault), &fault);
    past_must(backend->commit(store, &fault), &fault);
    store_close(store);
}

const char *past_size(size_t count)
{
    return count < 1000000 ? bench_text("%zu K", count / 1000)
                           : bench_text("%zu M", count / 1000000);
}
