/* libFuzzer target: the state of a session as it comes from outside: a stored record, the head of a
 * checkpoint, numbers. The hash, that keeps damage out, is the one of what is there, as whoever
 * means harm would make it: what is taken must train, be saved, and be written again. */
#include "tests/fuzz/input.h"

#include <math.h>

#include "service/session/engine.h"
#include "service/session/session.h"
#include "service/session/state_hash.h"
#include "storage/store.h"

enum { RECORD_BYTES_MAX = 4096, PARAMETERS_MAX = 4096, MEMORY_MAX = 1 << 26 };

static struct engine *open_engine(void)
{
    struct engine_options options = {.sessions_max = 4,
                                     .parameters_max = PARAMETERS_MAX,
                                     .memory_bytes_max = MEMORY_MAX,
                                     .idle_s = 3600,
                                     .history_bytes_max = MEMORY_MAX};
    struct engine *engine;
    struct fault fault;

    PRE(store_open("memory:", true, &options.take_store, &fault) == STATUS_OK);
    PRE(engine_open(&options, &engine, &fault) == STATUS_OK);
    return engine;
}

/* What is left of the input, over and over. */
static void fill(struct input *input, struct image *image)
{
    for (size_t i = 0; i < image->vector_count; i++) {
        struct buffer *data = image->vectors[i].data;
        for (size_t k = 0; k < data->size; k++)
            data->data[k] = (unsigned char)input_byte(input);
    }
}

/* As if it had been exported with these numbers. */
static void forge_hash(struct image *image)
{
    /* the first members of what image.c keeps there */
    const struct {
        struct plan *plan;
        struct state *state;
    } *contents = image->internal;

    image->state_hash = state_hash(contents->state, contents->state->current, contents->plan);
}

static struct span take_record(struct input *input, unsigned char **out)
{
    size_t size = input_byte(input);

    size = (size << 8 | input_byte(input)) % RECORD_BYTES_MAX;
    *out = input_copy(input, size, &size);
    return span_of(*out, size);
}

static enum status change(void *context, struct spec *spec, struct fault *fault)
{
    (void)context;
    spec->keep_steps ^= 1;
    return spec_check(spec, fault);
}

static void step(struct session *session, const struct session_view *view, size_t count)
{
    struct submission submission = {
        .buffer = buffer_new_zeroed(count * sizeof(float)),
        .dtype = DTYPE_F32,
        .loss = (double)NAN,
        .examples = 1,
        .worker = "w",
        .lr = (double)NAN,
        .momentum = (double)NAN,
        .beta1 = (double)NAN,
        .beta2 = (double)NAN,
        .has_base_step = true,
        .base_step = view->step,
    };
    struct outcome outcome;
    struct fault fault;

    PRE(submission.buffer != NULL);
    for (size_t i = 0; i < count; i++)
        memcpy(submission.buffer->data + i * sizeof(float), &(float){(float)i}, sizeof(float));
    for (int i = 0; i < 2; i++)
        if (session_submit(session, &submission, &outcome, &fault) == STATUS_OK)
            revision_release(outcome.revision);
    buffer_release(submission.buffer);
}

/* Everything that is done to a session. */
static void use(struct engine *engine, struct session *session)
{
    struct session_view view;
    struct revision *revision;
    struct image *image;
    struct digest digest;
    struct moment moment;
    struct worker_view *workers;
    size_t count;
    struct fault fault;

    POST(session_view(session, false, &view, &fault) == STATUS_OK);
    POST(session_revision(session, &revision, &fault) == STATUS_OK);
    POST(revision->step == view.step && revision->lineage == view.lineage);
    count = revision->weights->size / dtype_size(view.spec.dtype);
    revision_release(revision);
    POST(session_hash(session, NULL, &moment, &digest, &fault) == STATUS_OK);
    step(session, &view, count);
    session_patch(session, change, NULL, &fault);
    if (session_workers(session, &workers, &count, &fault) == STATUS_OK)
        free(workers);
    if (session_export(session, NULL, &image, &fault) == STATUS_OK)
        image_free(image);
    session_checkpoint_now(session, &moment, &fault);
    engine_save(engine);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct engine *engine;
    struct input input = {.data = data, .size = size};
    unsigned char *bytes[2];
    struct image *image = NULL;
    struct session *session;
    bool created;
    struct fault fault;

    if (engine == NULL)
        engine = open_engine();
    struct span record = take_record(&input, &bytes[0]);
    struct span head = take_record(&input, &bytes[1]);
    if (engine_image(engine, record, head, &image, &fault) == STATUS_OK) {
        fill(&input, image);
        forge_hash(image);
        if (engine_import(engine, NULL, "fuzz", image, &session, &created, &fault) == STATUS_OK) {
            use(engine, session);
            POST(session_delete(engine, session, &fault) == STATUS_OK);
            session_release(session);
        }
    }
    free(bytes[0]);
    free(bytes[1]);
    return 0;
}
