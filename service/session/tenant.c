/* Tenants: whose the sessions are. Each has names of its own: what is stored of a session is called
 * "tenant/id", or, of the default tenant, "id" as it has always been. Neither part can have a '/'.
 *
 * What a tenant's sessions take together is counted where it changes, so that a step pays one
 * addition for it and a limit is one comparison. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/metric.h"
#include "service/session/session.h"

bool tenant_valid(const char *name)
{
    size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-");

    return length > 0 && length <= TENANT_BYTES && name[length] == '\0' && name[0] != '_' &&
           name[0] != '-';
}

bool tenant_split(const char *stored, char tenant[TENANT_BYTES + 1], const char **id)
{
    const char *slash = strchr(stored, '/');
    size_t size = slash != NULL ? (size_t)(slash - stored) : 0;

    if (size > TENANT_BYTES)
        return false;
    memcpy(tenant, stored, size);
    tenant[size] = '\0';
    *id = slash != NULL ? slash + 1 : stored;
    return session_id_valid(*id) && (slash == NULL || tenant_valid(tenant));
}

/* Where the name is or belongs. */
static size_t place_of(const struct engine *engine, const char *name, bool *found)
{
    size_t low = 0, high = engine->tenant_count;

    *found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, engine->tenants[middle]->name);
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

struct tenant *engine_tenant(struct engine *engine, const char *name)
{
    bool found;
    size_t place = place_of(engine, name, &found);

    PRE(name[0] == '\0' || tenant_valid(name));
    if (found)
        return engine->tenants[place];
    struct tenant **grown =
        realloc(engine->tenants, (engine->tenant_count + 1) * sizeof *engine->tenants);
    if (grown == NULL)
        return NULL;
    engine->tenants = grown;
    struct tenant *tenant = calloc(1, sizeof *tenant);
    if (tenant == NULL)
        return NULL;
    memcpy(tenant->name, name, strlen(name) + 1);
    memmove(&grown[place + 1], &grown[place], (engine->tenant_count - place) * sizeof *grown);
    grown[place] = tenant;
    engine->tenant_count++;
    return tenant;
}

void engine_free_tenants(struct engine *engine)
{
    for (size_t i = 0; i < engine->tenant_count; i++)
        free(engine->tenants[i]);
    free(engine->tenants);
}

enum status tenant_check(const struct tenant *tenant, const struct owner *owner, size_t parameters,
                         struct fault *fault)
{
    enum status status = STATUS_OK;

    if (owner->sessions_max > 0 && tenant->sessions >= owner->sessions_max) {
        metric_count(COUNTER_QUOTA_REFUSALS, METRIC_QUOTA_SESSIONS, 1);
        status = fault_set(fault, STATUS_QUOTA_EXCEEDED, "",
                           "there are %llu sessions, and this token may have %llu: delete some",
                           (unsigned long long)tenant->sessions,
                           (unsigned long long)owner->sessions_max);
    } else if (owner->parameters_max > 0 &&
               (parameters > owner->parameters_max ||
                tenant->parameters > owner->parameters_max - parameters)) {
        metric_count(COUNTER_QUOTA_REFUSALS, METRIC_QUOTA_PARAMETERS, 1);
        status = fault_set(fault, STATUS_QUOTA_EXCEEDED, "",
                           "the sessions have %llu parameters, this one would have %zu more, and "
                           "this token may have %llu: delete some",
                           (unsigned long long)tenant->parameters, parameters,
                           (unsigned long long)owner->parameters_max);
    }
    return status == STATUS_OK ? status : fault_extra(fault, "retry_after_s", QUOTA_RETRY_S);
}

void session_count_bytes(struct session *session, uint64_t added, uint64_t gone)
{
    __atomic_add_fetch(&session->tenant->bytes, added - gone, __ATOMIC_RELAXED);
}

void engine_tenant_usage(struct engine *engine, const char *name, struct tenant_usage *out)
{
    bool found;

    *out = (struct tenant_usage){.sessions = 0};
    pthread_rwlock_rdlock(&engine->lock);
    size_t place = place_of(engine, name, &found);
    if (found) {
        const struct tenant *tenant = engine->tenants[place];
        out->sessions = tenant->sessions;
        out->parameters = tenant->parameters;
        out->bytes = __atomic_load_n(&tenant->bytes, __ATOMIC_RELAXED);
    }
    pthread_rwlock_unlock(&engine->lock);
}
