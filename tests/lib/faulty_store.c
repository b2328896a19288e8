/* The memory store with faults. */
#include "tests/lib/faulty_store.h"

#include <pthread.h>
#include <stdlib.h>

#include "storage/store.h"
#include "tests/lib/testing.h"

struct faulty_store {
    struct store store; /* first */
    struct store *inner;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct faulty_plan plan;
    uint64_t random;
    unsigned failures;
    bool broken; /* writes fail until maintain */
    bool hold, held;
};

static struct faulty_store *faulty(struct store *store)
{
    return (struct faulty_store *)(void *)store;
}

static const struct store_backend *inner(const struct faulty_store *store)
{
    return store->inner->backend;
}

/* Whether this call fails, and how. */
static enum status fate(struct faulty_store *store, enum faulty_verb verb, int64_t session,
                        struct fault *fault)
{
    struct faulty_plan *plan = &store->plan;
    enum status status = STATUS_OK;

    pthread_mutex_lock(&store->mutex);
    if (store->broken && verb == FAULTY_BEGIN) {
        status = STATUS_STORAGE_FAILED;
    } else if ((plan->verbs & (unsigned)verb) == 0 || plan->count == 0 ||
               (plan->session != 0 && plan->session != session)) {
        status = STATUS_OK;
    } else if (plan->skip > 0) {
        plan->skip--;
    } else if (plan->one_in == 0 || testing_random(&store->random) % plan->one_in == 0) {
        plan->count--;
        store->failures++;
        store->broken = plan->status == STATUS_STORAGE_FAILED;
        status = plan->status;
    }
    pthread_mutex_unlock(&store->mutex);
    return status == STATUS_OK ? status : fault_set(fault, status, "", "a fault of the test");
}

static void faulty_close(struct store *take_store)
{
    (void)take_store; /* what was committed stays; see faulty_store_free */
}

static enum status faulty_begin(struct store *store, struct fault *fault)
{
    enum status status = fate(faulty(store), FAULTY_BEGIN, 0, fault);

    return status != STATUS_OK ? status : inner(faulty(store))->begin(faulty(store)->inner, fault);
}

static void faulty_rollback(struct store *store)
{
    inner(faulty(store))->rollback(faulty(store)->inner);
}

static enum status faulty_commit(struct store *store, struct fault *fault)
{
    struct faulty_store *self = faulty(store);

    pthread_mutex_lock(&self->mutex);
    while (self->hold) {
        self->held = true;
        pthread_cond_broadcast(&self->changed);
        pthread_cond_wait(&self->changed, &self->mutex);
    }
    self->held = false;
    pthread_mutex_unlock(&self->mutex);
    enum status status = fate(self, FAULTY_COMMIT, 0, fault);
    if (status == STATUS_OK)
        return inner(self)->commit(self->inner, fault);
    inner(self)->rollback(self->inner);
    return status;
}

static enum status faulty_session_put(struct store *store, const struct store_session *session,
                                      struct fault *fault)
{
    enum status status = fate(faulty(store), FAULTY_SESSION_PUT, session->key, fault);

    return status != STATUS_OK
               ? status
               : inner(faulty(store))->session_put(faulty(store)->inner, session, fault);
}

static enum status faulty_session_drop(struct store *store, int64_t key, struct fault *fault)
{
    enum status status = fate(faulty(store), FAULTY_SESSION_DROP, key, fault);

    return status != STATUS_OK
               ? status
               : inner(faulty(store))->session_drop(faulty(store)->inner, key, fault);
}

static enum status faulty_event_append(struct store *store, const struct store_event *event,
                                       struct fault *fault)
{
    enum status status = fate(faulty(store), FAULTY_EVENT_APPEND, event->session, fault);

    return status != STATUS_OK
               ? status
               : inner(faulty(store))->event_append(faulty(store)->inner, event, fault);
}

static enum status faulty_event_drop(struct store *store, uint64_t first, uint64_t last,
                                     struct fault *fault)
{
    return inner(faulty(store))->event_drop(faulty(store)->inner, first, last, fault);
}

static enum status faulty_checkpoint_put(struct store *store, uint64_t id, int64_t session,
                                         uint32_t chunk, struct span body, struct fault *fault)
{
    struct faulty_store *self = faulty(store);
    enum status status = fate(self, FAULTY_CHECKPOINT_PUT, session, fault);

    return status != STATUS_OK
               ? status
               : inner(self)->checkpoint_put(self->inner, id, session, chunk, body, fault);
}

static enum status faulty_checkpoint_seal(struct store *store,
                                          const struct store_checkpoint *checkpoint,
                                          struct fault *fault)
{
    enum status status = fate(faulty(store), FAULTY_CHECKPOINT_SEAL, checkpoint->session, fault);

    return status != STATUS_OK
               ? status
               : inner(faulty(store))->checkpoint_seal(faulty(store)->inner, checkpoint, fault);
}

static enum status faulty_checkpoint_drop(struct store *store, uint64_t id, struct fault *fault)
{
    return inner(faulty(store))->checkpoint_drop(faulty(store)->inner, id, fault);
}

static enum status faulty_scan(struct store *store, const struct store_visitor *visitor,
                               struct fault *fault)
{
    return inner(faulty(store))->scan(faulty(store)->inner, visitor, fault);
}

static enum status faulty_event_read(struct store *store, uint64_t lsn,
                                     unsigned char head[STORE_HEAD_BYTES],
                                     unsigned char body[STORE_CHUNK_BYTES],
                                     struct store_event *event, struct fault *fault)
{
    return inner(faulty(store))->event_read(faulty(store)->inner, lsn, head, body, event, fault);
}

static enum status faulty_checkpoint_read(struct store *store, uint64_t id, uint32_t chunk,
                                          unsigned char body[STORE_CHUNK_BYTES], size_t *size,
                                          struct fault *fault)
{
    return inner(faulty(store))
        ->checkpoint_read(faulty(store)->inner, id, chunk, body, size, fault);
}

static enum status faulty_maintain(struct store *store, bool *more, struct fault *fault)
{
    struct faulty_store *self = faulty(store);

    pthread_mutex_lock(&self->mutex);
    bool ill = self->plan.count > 0 && self->plan.skip == 0 && self->plan.one_in == 0;
    enum status why = self->plan.status;
    if (!ill)
        self->broken = false;
    pthread_mutex_unlock(&self->mutex);
    return ill ? fault_set(fault, why, "", "a fault of the test")
               : inner(self)->maintain(self->inner, more, fault);
}

static enum status faulty_verify(struct store *store, const struct store_watch *watch,
                                 struct store_report *report, struct fault *fault)
{
    return inner(faulty(store))->verify(faulty(store)->inner, watch, report, fault);
}

static const struct store_backend backend = {
    .scheme = "faulty",
    .meaning = "fails when told to",
    .open = NULL, /* made by faulty_store_new */
    .close = faulty_close,
    .begin = faulty_begin,
    .commit = faulty_commit,
    .rollback = faulty_rollback,
    .session_put = faulty_session_put,
    .session_drop = faulty_session_drop,
    .event_append = faulty_event_append,
    .event_drop = faulty_event_drop,
    .checkpoint_put = faulty_checkpoint_put,
    .checkpoint_seal = faulty_checkpoint_seal,
    .checkpoint_drop = faulty_checkpoint_drop,
    .scan = faulty_scan,
    .event_read = faulty_event_read,
    .checkpoint_read = faulty_checkpoint_read,
    .maintain = faulty_maintain,
    .verify = faulty_verify,
};

struct faulty_store *faulty_store_new(void)
{
    struct faulty_store *store = calloc(1, sizeof *store);

    if (store == NULL || store_open("memory:", true, &store->inner, NULL) != STATUS_OK)
        abort();
    store->store.backend = &backend;
    store->random = testing_seed() ^ 0xFA017;
    pthread_mutex_init(&store->mutex, NULL);
    pthread_cond_init(&store->changed, NULL);
    return store;
}

void faulty_store_free(struct faulty_store *take_store)
{
    store_close(take_store->inner);
    pthread_mutex_destroy(&take_store->mutex);
    pthread_cond_destroy(&take_store->changed);
    free(take_store);
}

struct store *faulty_store_open(struct faulty_store *store)
{
    return &store->store;
}

void faulty_store_plan(struct faulty_store *store, struct faulty_plan plan)
{
    pthread_mutex_lock(&store->mutex);
    store->plan = plan;
    store->failures = 0;
    pthread_mutex_unlock(&store->mutex);
}

unsigned faulty_store_failures(struct faulty_store *store)
{
    pthread_mutex_lock(&store->mutex);
    unsigned failures = store->failures;
    pthread_mutex_unlock(&store->mutex);
    return failures;
}

void faulty_store_hold(struct faulty_store *store)
{
    pthread_mutex_lock(&store->mutex);
    store->hold = true;
    pthread_mutex_unlock(&store->mutex);
}

void faulty_store_await_held(struct faulty_store *store)
{
    pthread_mutex_lock(&store->mutex);
    while (!store->held)
        pthread_cond_wait(&store->changed, &store->mutex);
    pthread_mutex_unlock(&store->mutex);
}

void faulty_store_let_go(struct faulty_store *store)
{
    pthread_mutex_lock(&store->mutex);
    store->hold = false;
    pthread_cond_broadcast(&store->changed);
    pthread_mutex_unlock(&store->mutex);
}
