/* A connection and the one request that is under way on it. */
#include "api/exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/config.h"
#include "api/router.h"
#include "service/core/clock.h"
#include "service/core/contract.h"
#include "service/core/log.h"

enum {
    CHUNKED_BYTES_FIRST = 64 * 1024,   /* a body of unknown length starts so large, and doubles */
    BODY_BYTES_PER_SECOND = 64 * 1024, /* the slowest upload or download we wait for */
};

/* A refused body is read and dropped up to twice what would have been accepted, since Python's
 * http.client and node's fetch see no answer before they have sent all. At least so much: */
static const uint64_t DROP_BYTES_MIN = 64u << 20;

static uint64_t drop_bytes_max(const struct exchange *exchange)
{
    uint64_t twice = exchange->commons->config->body_bytes_max * 2;

    return twice > DROP_BYTES_MIN ? twice : DROP_BYTES_MIN;
}

static uint64_t in_seconds(uint64_t seconds)
{
    return clock_monotonic_us() + seconds * 1000000;
}

/* For a body or a reply of `size` bytes that began at `start_us`. */
static uint64_t transfer_deadline(const struct exchange *exchange, uint64_t start_us, uint64_t size)
{
    uint64_t seconds = size / BODY_BYTES_PER_SECOND;

    if (seconds < exchange->commons->config->body_timeout_s)
        seconds = exchange->commons->config->body_timeout_s;
    return start_us + seconds * 1000000;
}

/* The client's X-Request-Id if it is a sane token, else our own: never twice in a process, hardly
 * twice in the world. */
static void choose_id(struct exchange *exchange)
{
    const char *given = request_header(&exchange->request, "X-Request-Id");

    if (given != NULL && strlen(given) <= REQUEST_ID_BYTES_MAX && guard_is_token(given)) {
        memcpy(exchange->id, given, strlen(given) + 1);
        return;
    }
    uint64_t number = atomic_fetch_add(&exchange->commons->id_next, 1);
    /* splitmix64 is a bijection: different numbers, different ids. */
    number = exchange->commons->id_seed + number * 0x9E3779B97F4A7C15u;
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9u;
    number = (number ^ (number >> 27)) * 0x94D049BB133111EBu;
    snprintf(exchange->id, sizeof exchange->id, "req_%016llx",
             (unsigned long long)(number ^ (number >> 31)));
}

/* Gives the body's memory back. */
static void release_body(struct exchange *exchange)
{
    buffer_release(exchange->request.body);
    exchange->request.body = NULL;
    exchange->body_used = 0;
    if (exchange->charged > 0)
        atomic_fetch_sub(&exchange->commons->inflight_bytes, exchange->charged);
    exchange->charged = 0;
}

/* Decides the reply before the body is there; `now`: without waiting for its end. */
static void refuse(struct exchange *exchange, const struct fault *fault, const char *allow,
                   bool now)
{
    const struct framing *framing = &exchange->framing;

    release_body(exchange);
    if (fault->status == STATUS_METHOD_NOT_ALLOWED && exchange->request.method == METHOD_OPTIONS)
        exchange->reply = reply_empty(204);
    else
        exchange->reply = reply_fault(&exchange->request, fault);
    reply_header(&exchange->reply, "Allow", allow);
    if (framing->length > drop_bytes_max(exchange) ||
        (framing->expects_continue && (framing->chunked || framing->length > 0)))
        now = true;
    exchange->stage = now ? STAGE_REPLY : STAGE_DROP;
}

/* Memory for a body of `size` bytes: exactly that when its length is known, else it grows
 * geometrically. */
static enum status reserve(struct exchange *exchange, uint64_t size, struct fault *fault)
{
    struct commons *commons = exchange->commons;
    struct buffer *body = exchange->request.body;
    uint64_t max = commons->config->body_bytes_max;

    if (size > max)
        return fault_set(fault, STATUS_TOO_LARGE, "", "the body has %s%llu bytes; at most %llu",
                         exchange->framing.chunked ? "more than " : "",
                         (unsigned long long)(exchange->framing.chunked ? max : size),
                         (unsigned long long)max);
    if (exchange->framing.chunked) {
        uint64_t wanted = body != NULL ? body->size * 2 : CHUNKED_BYTES_FIRST;
        size = wanted > size ? wanted : size;
        size = size < max ? size : max;
    }
    /* While a body moves, both copies are in memory. */
    uint64_t inflight = atomic_fetch_add(&commons->inflight_bytes, size) + size;
    exchange->charged += size;
    if (inflight > commons->config->inflight_bytes_max)
        return fault_set(fault, STATUS_OVERLOADED, "",
                         "too many bytes of request bodies are under way; try again");
    struct buffer *larger = buffer_new((size_t)size);
    if (larger == NULL)
        return fault_set(fault, STATUS_OVERLOADED, "",
                         "there is no memory for a body of %llu bytes; try again",
                         (unsigned long long)size);
    if (body != NULL) {
        memcpy(larger->data, body->data, exchange->body_used);
        exchange->charged -= body->size;
        atomic_fetch_sub(&commons->inflight_bytes, body->size);
        buffer_release(body);
    }
    exchange->request.body = larger;
    return STATUS_OK;
}

/* Finds the route and memory for the body. *allow is set for 405. */
static enum status find_route(struct exchange *exchange, const char *query, const char **allow,
                              struct fault *fault)
{
    struct request *request = &exchange->request;
    const struct framing *framing = &exchange->framing;
    struct match match;

    enum status status = router_find(request->arena, request->method, request->path, &match, fault);
    *allow = match.allow;
    if (status == STATUS_OK)
        status = guard_query(request, query, fault);
    if (status != STATUS_OK)
        return status;
    request->route = match.route;
    memcpy(request->path_parameters, match.parameters, sizeof match.parameters);
    if (framing->length == 0 && !framing->chunked)
        return STATUS_OK;
    if (!match.route->takes_body)
        return fault_set(fault, STATUS_INVALID_REQUEST, "", "%s %.200s takes no body",
                         method_name(request->method), request->path);
    return framing->chunked ? STATUS_OK : reserve(exchange, framing->length, fault);
}

static bool is_path(const struct exchange *exchange, const char *path)
{
    return strcmp(exchange->request.path, path) == 0;
}

/* What the state of the server forbids, whatever the request is. */
static enum status check_commons(const struct exchange *exchange, struct fault *fault)
{
    struct commons *commons = exchange->commons;
    bool about_life = is_path(exchange, "/livez"); /* true whatever else is */

    if (atomic_load(&commons->draining) && !about_life)
        return fault_set(fault, STATUS_DRAINING, "", "the server is stopping; try again soon");
    if (exchange->surplus)
        return fault_set(fault, STATUS_OVERLOADED, "",
                         "the server has %llu connections open, which is its limit; try again, "
                         "and use one connection for several requests",
                         (unsigned long long)commons->config->connections_max);
    if (commons->engine == NULL && !about_life && !is_path(exchange, "/readyz") &&
        !is_path(exchange, "/healthz"))
        return fault_set(fault, STATUS_DRAINING, "", "the server is recovering; try again soon");
    return STATUS_OK;
}

bool exchange_admit(struct exchange *exchange, const struct envelope *envelope)
{
    struct request *request = &exchange->request;
    struct fault fault;
    const char *allow = NULL;

    PRE(exchange->stage == STAGE_HEADER);
    atomic_fetch_add(&exchange->commons->running, 1);
    exchange->counted = true;
    exchange->started_us = clock_monotonic_us();
    choose_id(exchange);
    request->method = method_find(envelope->method);
    if (exchange->target == NULL) {
        fault_set(&fault, STATUS_OVERLOADED, "", "out of memory; try again");
        refuse(exchange, &fault, NULL, true);
        return true;
    }
    if (guard_check(envelope, request, &exchange->framing, &fault) != STATUS_OK) {
        refuse(exchange, &fault, NULL, true);
        return true;
    }
    char *query = exchange->target + strcspn(exchange->target, "?");
    if (*query == '?')
        *query++ = '\0'; /* request->path is the target up to here */
    if (!watch_set(&exchange->watched, WATCH_ANSWER,
                   transfer_deadline(exchange, exchange->started_us, exchange->framing.length)))
        return false;
    exchange->stage = STAGE_BODY;
    if (check_commons(exchange, &fault) != STATUS_OK)
        refuse(exchange, &fault, NULL, true);
    else if (find_route(exchange, query, &allow, &fault) != STATUS_OK)
        refuse(exchange, &fault, allow, false);
    return true;
}

static bool drop(struct exchange *exchange, size_t size)
{
    exchange->dropped += size;
    return exchange->dropped <= drop_bytes_max(exchange);
}

bool exchange_receive(struct exchange *exchange, const void *data, size_t size)
{
    struct buffer *body = exchange->request.body;
    struct fault fault;

    if (exchange->stage == STAGE_DROP)
        return drop(exchange, size);
    PRE(exchange->stage == STAGE_BODY);
    if (exchange->framing.chunked && (body == NULL || body->size - exchange->body_used < size)) {
        if (reserve(exchange, (uint64_t)exchange->body_used + size, &fault) != STATUS_OK) {
            exchange->dropped = exchange->body_used;
            exchange->framing.expects_continue = false; /* it was told to send: wait for the end */
            refuse(exchange, &fault, NULL, false);
            return drop(exchange, size);
        }
        body = exchange->request.body;
    }
    PRE(body != NULL && body->size - exchange->body_used >= size);
    memcpy(body->data + exchange->body_used, data, size);
    exchange->body_used += size;
    /* The length of a chunked body is not known before its end: every piece earns it time. */
    return !exchange->framing.chunked ||
           watch_set(&exchange->watched, WATCH_ANSWER,
                     transfer_deadline(exchange, exchange->started_us, exchange->body_used));
}

static void release_reply(struct exchange *exchange)
{
    const struct stream *stream = &exchange->reply.stream;

    buffer_release(exchange->reply.buffer);
    if (stream->close != NULL)
        stream->close(stream->context);
}

/* Where memory ran out there may be no ETag, or a preference that nobody read: an answer that lacks
 * something is not sent, whatever it says. */
static void distrust(struct exchange *exchange)
{
    struct fault fault;

    if (!exchange->arena.failed || exchange->reply.http >= 500)
        return;
    release_reply(exchange);
    fault_set(&fault, STATUS_INTERNAL, "",
              "the server ran out of memory while it answered; look whether it was done");
    exchange->reply = reply_fault(&exchange->request, &fault);
}

bool exchange_serve(struct exchange *exchange)
{
    struct request *request = &exchange->request;

    if (exchange->stage == STAGE_BODY) {
        if (request->body != NULL)
            buffer_shrink(request->body, exchange->body_used);
        if (!watch_set(&exchange->watched, WATCH_NONE, 0))
            return false;
        request->receive_ms = (double)(clock_monotonic_us() - exchange->started_us) / 1e3;
        exchange->reply = request->route->serve(exchange->commons->engine, request);
        distrust(exchange);
        /* Now, not when the reply has gone: who hears it may send the next body at once. */
        release_body(exchange);
    }
    exchange->stage = STAGE_REPLY;
    return true;
}

static void log_reply(const struct exchange *exchange, uint64_t bytes)
{
    unsigned http = exchange->reply.http;

    log_write(http >= 500   ? LOG_ERROR
              : http >= 400 ? LOG_INFO
                            : LOG_DEBUG,
              "%s %.200s %u %llu bytes %llu us %s", method_name(exchange->request.method),
              exchange->request.path, http, (unsigned long long)bytes,
              (unsigned long long)(clock_monotonic_us() - exchange->started_us), exchange->id);
}

bool exchange_send(struct exchange *exchange, struct span parts[RANGE_PARTS], size_t *count)
{
    struct reply *reply = &exchange->reply;
    struct range range = range_apply(&exchange->request, reply);
    bool cache_told = false;

    PRE(exchange->stage == STAGE_REPLY);
    for (size_t i = 0; i < reply->header_count; i++)
        cache_told |= strcasecmp(reply->headers[i].name, "Cache-Control") == 0;
    if (!cache_told)
        reply_header(reply, "Cache-Control", "no-store");
    reply_header(reply, "Request-Id", exchange->id);
    *count = range_cut(reply, &range, parts);
    bool known = reply->stream.close != NULL && reply->stream.size != STREAM_OPEN;
    log_reply(exchange, known ? reply->stream.size : range.size);
    return watch_set(&exchange->watched, WATCH_SILENT,
                     transfer_deadline(exchange, clock_monotonic_us(), range.size));
}

ptrdiff_t exchange_read(struct exchange *exchange, uint64_t at, void *out, size_t capacity)
{
    const struct stream *stream = &exchange->reply.stream;

    if (!watch_set(&exchange->watched, WATCH_NONE, 0))
        return -1;
    ptrdiff_t size = stream->read(stream->context, at, out, capacity);
    /* Every piece earns the time that the client may take for it. */
    if (!watch_set(&exchange->watched, WATCH_SILENT,
                   transfer_deadline(exchange, clock_monotonic_us(), capacity)))
        return -1;
    return size;
}

void exchange_begin(struct exchange *exchange, const char *target)
{
    exchange->target = arena_copy(&exchange->arena, target, strlen(target));
    exchange->request.path = exchange->target != NULL ? exchange->target : "";
    exchange->stage = STAGE_HEADER;
    watch_set(&exchange->watched, WATCH_ANSWER,
              in_seconds(exchange->commons->config->header_timeout_s));
}

/* As a connection has it between two requests. */
static void clear(struct exchange *exchange)
{
    exchange->stage = STAGE_IDLE;
    exchange->counted = false;
    exchange->target = NULL;
    exchange->dropped = 0;
    exchange->framing = (struct framing){.chunked = false};
    exchange->reply = reply_empty(500);
    exchange->id[0] = '\0';
    exchange->request.path = "";
    exchange->request.method = METHOD_OTHER;
    exchange->request.route = NULL;
    exchange->request.query_count = 0;
    exchange->request.header_count = 0;
}

void exchange_reset(struct exchange *exchange)
{
    release_reply(exchange);
    release_body(exchange);
    arena_reset(&exchange->arena);
    if (exchange->counted)
        atomic_fetch_sub(&exchange->commons->running, 1);
    clear(exchange);
    watch_set(&exchange->watched, WATCH_SILENT,
              in_seconds(exchange->commons->config->keepalive_timeout_s));
}

struct exchange *exchange_new(struct commons *commons, int fd)
{
    struct exchange *exchange = calloc(1, sizeof *exchange);

    if (exchange == NULL)
        return NULL;
    exchange->commons = commons;
    arena_init(&exchange->arena);
    exchange->request.arena = &exchange->arena;
    exchange->request.config = commons->config;
    exchange->request.id = exchange->id;
    exchange->surplus =
        atomic_fetch_add(&commons->connections, 1) >= commons->config->connections_max;
    clear(exchange);
    watch_add(commons->watch, &exchange->watched, fd, WATCH_ANSWER,
              in_seconds(commons->config->header_timeout_s));
    return exchange;
}

void exchange_free(struct exchange *take_exchange)
{
    watch_remove(take_exchange->commons->watch, &take_exchange->watched);
    atomic_fetch_sub(&take_exchange->commons->connections, 1);
    arena_close(&take_exchange->arena);
    free(take_exchange);
}
