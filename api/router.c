/* The route table and its search: segment by segment on the raw path, so that %2F stays inside its
 * segment. */
#include "api/router.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "api/percent.h"
#include "service/core/contract.h"

enum { SEGMENTS_MAX = 8, ALLOW_BYTES = 64 };

static const struct route routes[] = {
#define ROUTE(verb, path, name, body, needs)                                                       \
    {.method = METHOD_##verb,                                                                      \
     .pattern = path,                                                                              \
     .serve = serve_##name,                                                                        \
     .operation = #name,                                                                           \
     .takes_body = body,                                                                           \
     .scope = SCOPE_##needs},
#include "api/routes.def"
#undef ROUTE
};

enum { ROUTE_COUNT = sizeof routes / sizeof *routes };

static const char *const method_names[] = {
    [METHOD_GET] = "GET",         [METHOD_HEAD] = "HEAD",   [METHOD_POST] = "POST",
    [METHOD_PUT] = "PUT",         [METHOD_PATCH] = "PATCH", [METHOD_DELETE] = "DELETE",
    [METHOD_OPTIONS] = "OPTIONS", [METHOD_OTHER] = "?",
};

const char *method_name(enum method method)
{
    PRE(method <= METHOD_OTHER);
    return method_names[method];
}

enum method method_find(const char *name)
{
    for (enum method i = METHOD_GET; i < METHOD_OTHER; i++)
        if (strcmp(method_names[i], name) == 0)
            return i;
    return METHOD_OTHER;
}

const struct route *router_at(size_t index)
{
    return index < ROUTE_COUNT ? &routes[index] : NULL;
}

/* Cuts a path that starts with '/' into decoded segments. A path of too many fits no pattern: count
 * is 0 then. */
static enum status split(struct arena *arena, const char *path, const char *segments[SEGMENTS_MAX],
                         size_t *count, struct fault *fault)
{
    *count = 0;
    for (const char *at = path; *at == '/';) {
        size_t size = strcspn(++at, "/");
        if (*count == SEGMENTS_MAX) {
            *count = 0;
            return STATUS_OK;
        }
        enum status status = percent_decode(arena, at, size, &segments[*count], fault);
        if (status != STATUS_OK)
            return status;
        ++*count;
        at += size;
    }
    return STATUS_OK;
}

/* Whether the segments fit the pattern; the values of its {names} go to `parameters`. */
static bool fits(const char *pattern, const char *const *segments, size_t count,
                 const char *parameters[PATH_PARAMETERS_MAX])
{
    size_t index = 0, taken = 0;

    for (const char *at = pattern; *at == '/'; index++) {
        size_t size = strcspn(++at, "/");
        if (index == count)
            return false;
        if (*at == '{') {
            PRE(taken < PATH_PARAMETERS_MAX);
            if (segments[index][0] == '\0')
                return false;
            parameters[taken++] = segments[index];
        } else if (strlen(segments[index]) != size || memcmp(segments[index], at, size) != 0) {
            return false;
        }
        at += size;
    }
    return index == count;
}

static void allow_add(char *allow, const char *name)
{
    size_t used = strlen(allow);

    snprintf(allow + used, ALLOW_BYTES - used, "%s%s", used > 0 ? ", " : "", name);
}

enum status router_find(struct arena *arena, enum method method, const char *path,
                        struct match *match, struct fault *fault)
{
    const char *segments[SEGMENTS_MAX];
    const char *parameters[PATH_PARAMETERS_MAX] = {NULL};
    size_t count;
    enum method wanted = method == METHOD_HEAD ? METHOD_GET : method;

    *match = (struct match){.route = NULL};
    enum status status = split(arena, path, segments, &count, fault);
    if (status != STATUS_OK)
        return status;

    char *allow = arena_take(arena, ALLOW_BYTES);
    if (allow == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    allow[0] = '\0';
    for (size_t i = 0; i < ROUTE_COUNT; i++) {
        if (!fits(routes[i].pattern, segments, count, parameters))
            continue;
        if (routes[i].method == wanted) {
            match->route = &routes[i];
            memcpy(match->parameters, parameters, sizeof parameters);
            return STATUS_OK;
        }
        allow_add(allow, method_names[routes[i].method]);
        if (routes[i].method == METHOD_GET)
            allow_add(allow, "HEAD");
    }
    if (allow[0] == '\0')
        return fault_set(fault, STATUS_NOT_FOUND, "",
                         "there is nothing at %.200s; GET /openapi.json lists every address", path);
    allow_add(allow, "OPTIONS");
    match->allow = allow;
    return fault_set(fault, STATUS_METHOD_NOT_ALLOWED, "", "%.200s takes %s", path, allow);
}
