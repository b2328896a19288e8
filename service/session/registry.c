/* The registry: all sessions of an engine, sorted by tenant and id. */
#include <stdlib.h>
#include <string.h>

#include "service/core/metric.h"
#include "service/session/session.h"

size_t registry_place(const struct engine *engine, const char *tenant, const char *id, bool *found)
{
    size_t low = 0, high = engine->count;

    *found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(tenant, engine->sessions[middle]->tenant->name);
        if (order == 0)
            order = strcmp(id, engine->sessions[middle]->id);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

enum status registry_enrol(struct engine *engine, struct session *session, struct fault *fault)
{
    bool found;
    size_t place = registry_place(engine, session->tenant->name, session->id, &found);

    if (found)
        return fault_set(fault, STATUS_SESSION_EXISTS, "",
                         "there is a session %s already; choose another id or delete it",
                         session->id);
    if (engine->count == engine->capacity) {
        size_t capacity = engine->capacity == 0 ? 64 : 2 * engine->capacity;
        struct session **sessions = realloc(engine->sessions, capacity * sizeof *sessions);
        if (sessions == NULL)
            return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
        engine->sessions = sessions;
        engine->capacity = capacity;
    }
    memmove(&engine->sessions[place + 1], &engine->sessions[place],
            (engine->count - place) * sizeof *engine->sessions);
    engine->sessions[place] = session;
    engine->count++;
    metric_move(GAUGE_SESSIONS, 0, 1);
    metric_move(GAUGE_PARAMETERS, 0, (int64_t)session->layout->count);
    session->tenant->sessions++;
    session->tenant->parameters += session->layout->count;
    return STATUS_OK;
}

void engine_forget(struct engine *engine, struct session *session)
{
    bool found;

    pthread_rwlock_wrlock(&engine->lock);
    size_t place = registry_place(engine, session->tenant->name, session->id, &found);
    if (found && engine->sessions[place] == session) {
        engine->count--;
        session->tenant->sessions--;
        session->tenant->parameters -= session->layout->count;
        memmove(&engine->sessions[place], &engine->sessions[place + 1],
                (engine->count - place) * sizeof *engine->sessions);
    } else {
        found = false;
    }
    pthread_rwlock_unlock(&engine->lock);
    if (!found)
        return;
    metric_move(GAUGE_SESSIONS, 0, -1);
    metric_move(GAUGE_PARAMETERS, 0, -(int64_t)session->layout->count);
    session_release(session);
}

enum status engine_find(struct engine *engine, const char *tenant, const char *id,
                        struct session **out, struct fault *fault)
{
    bool found;

    pthread_rwlock_rdlock(&engine->lock);
    size_t place = registry_place(engine, tenant, id, &found);
    if (found && !engine->sessions[place]->hidden)
        *out = session_retain(engine->sessions[place]);
    else
        found = false;
    pthread_rwlock_unlock(&engine->lock);
    if (!found)
        return fault_set(fault, STATUS_SESSION_NOT_FOUND, "",
                         "there is no session %.64s; create it with POST /v1/sessions", id);
    return STATUS_OK;
}

static bool is_of(const struct engine *engine, size_t place, const char *tenant)
{
    return place < engine->count && strcmp(engine->sessions[place]->tenant->name, tenant) == 0;
}

size_t engine_list(struct engine *engine, const char *tenant, const char *after,
                   struct session **out, size_t count, bool *more)
{
    bool found;
    size_t listed = 0;

    pthread_rwlock_rdlock(&engine->lock);
    size_t place = registry_place(engine, tenant, after, &found) + found;
    for (; is_of(engine, place, tenant) && listed < count; place++)
        if (!engine->sessions[place]->hidden)
            out[listed++] = session_retain(engine->sessions[place]);
    *more = is_of(engine, place, tenant);
    pthread_rwlock_unlock(&engine->lock);
    return listed;
}

size_t engine_session_count(struct engine *engine)
{
    size_t count = 0;

    pthread_rwlock_rdlock(&engine->lock);
    for (size_t i = 0; i < engine->count; i++)
        count += !engine->sessions[i]->hidden;
    pthread_rwlock_unlock(&engine->lock);
    return count;
}

struct session **engine_sessions(struct engine *engine, size_t *count)
{
    struct session **all;

    pthread_rwlock_rdlock(&engine->lock);
    all = malloc((engine->count + 1) * sizeof *all);
    *count = 0;
    for (size_t i = 0; all != NULL && i < engine->count; i++)
        if (!engine->sessions[i]->hidden)
            all[(*count)++] = session_retain(engine->sessions[i]);
    pthread_rwlock_unlock(&engine->lock);
    return all;
}
