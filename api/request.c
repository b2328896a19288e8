/* What endpoints ask of a request, and the replies they make. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "api/accept.h"
#include "api/endpoint.h"
#include "service/core/contract.h"

const char *request_header(const struct request *request, const char *name)
{
    for (size_t i = request->header_count; i > 0; i--)
        if (strcasecmp(request->headers[i - 1].name, name) == 0)
            return request->headers[i - 1].value;
    return NULL;
}

size_t request_header_count(const struct request *request, const char *name, const char **value)
{
    size_t count = 0;

    *value = NULL;
    for (size_t i = 0; i < request->header_count; i++) {
        if (strcasecmp(request->headers[i].name, name) == 0) {
            *value = request->headers[i].value;
            count++;
        }
    }
    return count;
}

const char *request_list(const struct request *request, const char *name)
{
    const char *list = NULL;

    for (size_t i = 0; i < request->header_count; i++) {
        if (strcasecmp(request->headers[i].name, name) != 0)
            continue;
        const char *value = request->headers[i].value;
        if (list != NULL && (value = arena_format(request->arena, "%s, %s", list, value)) == NULL)
            return list;
        list = value;
    }
    return list;
}

const char *request_query(struct request *request, const char *name)
{
    for (size_t i = 0; i < request->query_count; i++) {
        if (strcmp(request->query[i].name, name) == 0) {
            request->query[i].used = true;
            return request->query[i].value;
        }
    }
    return NULL;
}

enum status request_query_end(const struct request *request, struct fault *fault)
{
    for (size_t i = 0; i < request->query_count; i++)
        if (!request->query[i].used)
            return fault_set(fault, STATUS_INVALID_REQUEST, "",
                             "this address has no query parameter \"%.100s\"; leave it out",
                             request->query[i].name);
    return STATUS_OK;
}

static const char *skip_space(const char *at)
{
    return at + strspn(at, " \t");
}

/* One preference at *at: `token [ = value ] *( ; parameter )`. Moves *at past it and its comma. */
static bool preference(const struct request *request, const char **at, const char *name,
                       const char **value)
{
    const char *token = skip_space(*at);
    size_t size = strcspn(token, " \t=;,");
    bool found = size == strlen(name) && strncasecmp(token, name, size) == 0;
    const char *after = skip_space(token + size);

    if (*after == '=') {
        const char *start = skip_space(after + 1);
        bool quoted = *start == '"';
        start += quoted;
        size_t length = strcspn(start, quoted ? "\"" : " \t;,");
        if (found)
            *value = arena_copy(request->arena, start, length);
        after = start + length + (quoted && start[length] == '"');
    } else if (found) {
        *value = "";
    }
    after += strcspn(after, ",");
    *at = *after == ',' ? after + 1 : after;
    return found;
}

/* RFC 7240: preferences are one list over all `Prefer` lines, the first of a name wins; without a
 * value it is "". */
const char *request_prefer(const struct request *request, const char *name)
{
    for (size_t i = 0; i < request->header_count; i++) {
        if (strcasecmp(request->headers[i].name, "Prefer") != 0)
            continue;
        for (const char *at = request->headers[i].value; *at != '\0';) {
            const char *value = NULL;
            if (preference(request, &at, name, &value))
                return value;
        }
    }
    return NULL;
}

enum status request_digest(const struct request *request, const char *except, struct digest *out,
                           struct fault *fault)
{
    const char *type = request_header(request, "Content-Type");
    struct hash *hash = hash_new();

    if (hash == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    if (type != NULL)
        hash_add(hash, type, strlen(type) + 1);
    for (size_t i = 0; i < request->query_count; i++) {
        if (strcmp(request->query[i].name, except) == 0)
            continue;
        hash_add(hash, request->query[i].name, strlen(request->query[i].name) + 1);
        hash_add(hash, request->query[i].value, strlen(request->query[i].value) + 1);
    }
    if (request->body != NULL)
        hash_add(hash, request->body->data, request->body->size);
    *out = hash_end(hash);
    return STATUS_OK;
}

struct reply reply_json(unsigned http, struct span json)
{
    static const char no_memory[] =
        "{\"type\":\"/problems/internal\",\"title\":\"The server failed\","
        "\"status\":500,\"detail\":\"out of memory\","
        "\"code\":\"internal\"}\n";

    if (json.data == NULL)
        return (struct reply){.http = 500,
                              .media_type = "application/problem+json",
                              .head = span_of(no_memory, sizeof no_memory - 1)};
    /* The newline is for people at a terminal. */
    return (struct reply){
        .http = http, .media_type = "application/json", .head = json, .tail = span_of("\n", 1)};
}

struct reply reply_empty(unsigned http)
{
    return (struct reply){.http = http};
}

void reply_header(struct reply *reply, const char *name, const char *value)
{
    if (value == NULL)
        return;
    PRE(reply->header_count < REPLY_HEADERS_MAX);
    reply->headers[reply->header_count++] = (struct header){.name = name, .value = value};
}

const char **reply_find(struct reply *reply, const char *name)
{
    for (size_t i = 0; i < reply->header_count; i++)
        if (strcasecmp(reply->headers[i].name, name) == 0)
            return &reply->headers[i].value;
    return NULL;
}

void reply_vary(struct reply *reply, struct arena *arena, const char *name)
{
    const char **vary = reply_find(reply, "Vary");
    struct span word;
    int quality;

    if (vary == NULL) {
        reply_header(reply, "Vary", name);
        return;
    }
    for (const char *at = *vary; accept_next(&at, &word, &quality);)
        if (accept_is(word, name))
            return;
    const char *both = arena_format(arena, "%s, %s", *vary, name);
    if (both != NULL) /* else the arena says that it failed, and so does the answer */
        *vary = both;
}
