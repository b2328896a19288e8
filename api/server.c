/* The HTTP server, and the only user of libmicrohttpd: guards, body collection, deadlines,
 * dispatch, send, log.
 *
 * libmicrohttpd calls log_target when it has the request line, then handle: once when the header is
 * complete, once for every piece of the body, once at the end. A reply that is queued in the first
 * call closes the connection, one at the end keeps it: so whatever is decided early waits
 * (`refused`) until the body has been read and dropped, unless the end of the body cannot be
 * trusted or is too far away. What libmicrohttpd answers itself, as HTML, before any of our code
 * runs: a header line without a colon, a header beyond CONNECTION_BYTES (431, 414), an unknown HTTP
 * version (505), a Content-Length that is not a number (400) or beyond 64 bits (413), a malformed
 * chunk (400). */
#include "api/server.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "api/address.h"
#include "api/config.h"
#include "api/guard.h"
#include "api/range.h"
#include "api/router.h"
#include "api/watch.h"
#include "service/core/arena.h"
#include "service/core/buffer.h"
#include "service/core/clock.h"
#include "service/core/contract.h"
#include "service/core/log.h"

enum {
    CONNECTION_BYTES = 256 * 1024,     /* half of it is the largest piece of a body in one call */
    CHUNKED_BYTES_FIRST = 64 * 1024,   /* a body of unknown length starts so large, and doubles */
    BODY_BYTES_PER_SECOND = 64 * 1024, /* the slowest upload or download we wait for */
    REQUEST_ID_BYTES_MAX = 64,
    STOP_POLL_MS = 5,
};

/* A refused body is read and dropped up to twice what would have been accepted, since Python's
 * http.client and node's fetch see no answer before they have sent all. At least so much: */
static const uint64_t DROP_BYTES_MIN = 64u << 20;

struct server {
    const struct config *config;
    struct engine *engine;
    struct MHD_Daemon *daemon;
    struct watch *watch;
    int socket;
    char address[ADDRESS_BYTES];
    uint64_t id_seed;
    _Atomic uint64_t id_next;
    atomic_bool draining;
    _Atomic uint64_t connections;
    _Atomic uint64_t running; /* requests whose header has come and whose reply has not gone */
    _Atomic uint64_t inflight_bytes; /* bodies in memory */
};

enum stage { STAGE_IDLE, STAGE_HEADER, STAGE_BODY, STAGE_DROP, STAGE_REPLY };

/* A connection and the one request that is under way on it. */
struct exchange {
    struct watched watched;
    struct server *server;
    enum stage stage;
    bool surplus; /* opened beyond connections_max: it hears 503 */
    bool counted; /* in server->running */
    struct arena arena;
    struct request request;
    char *target;
    struct framing framing;
    uint64_t started_us;
    size_t body_used;
    uint64_t dropped; /* bytes of a refused body */
    uint64_t charged; /* bytes of server->inflight_bytes */
    bool refused;     /* `reply` says why; it is sent when the body has been dropped */
    struct reply reply;
    char id[REQUEST_ID_BYTES_MAX + 1];
};

/* --- time
 * -----------------------------------------------------------------------------------------------------------
 */

static uint64_t in_seconds(uint64_t seconds)
{
    return clock_monotonic_us() + seconds * 1000000;
}

/* For a body or a reply of `size` bytes that began at `start_us`. */
static uint64_t transfer_deadline(const struct exchange *exchange, uint64_t start_us, uint64_t size)
{
    uint64_t seconds = size / BODY_BYTES_PER_SECOND;

    if (seconds < exchange->server->config->body_timeout_s)
        seconds = exchange->server->config->body_timeout_s;
    return start_us + seconds * 1000000;
}

/* --- replies
 * --------------------------------------------------------------------------------------------------------
 */

static uint64_t drop_bytes_max(const struct exchange *exchange)
{
    uint64_t twice = exchange->server->config->body_bytes_max * 2;

    return twice > DROP_BYTES_MIN ? twice : DROP_BYTES_MIN;
}

static bool has_header(const struct reply *reply, const char *name)
{
    for (size_t i = 0; i < reply->header_count; i++)
        if (strcasecmp(reply->headers[i].name, name) == 0)
            return true;
    return false;
}

static const char *reply_etag(const struct reply *reply)
{
    for (size_t i = 0; i < reply->header_count; i++)
        if (strcasecmp(reply->headers[i].name, "ETag") == 0)
            return reply->headers[i].value;
    return NULL;
}

static uint64_t reply_total(const struct reply *reply)
{
    return (uint64_t)reply->head.size + reply->size + reply->tail.size;
}

/* Replaces a reply that did not become one. */
static void reply_replace(struct exchange *exchange, const struct fault *fault)
{
    buffer_release(exchange->reply.buffer);
    exchange->reply = reply_fault(&exchange->request, fault);
}

/* Narrows the range to what the request asks for, turning the reply into 206 or 416. */
static struct range apply_range(struct exchange *exchange)
{
    struct reply *reply = &exchange->reply;
    const struct request *request = &exchange->request;
    uint64_t total = reply_total(reply);
    struct range range = {.kind = RANGE_WHOLE, .size = total};
    struct fault fault;

    if (!reply->ranges || reply->http != 200)
        return range;
    if (request->method == METHOD_GET) /* RFC 9110, 14.2: Range means nothing to any other method */
        range = range_find(request_header(request, "Range"), request_header(request, "If-Range"),
                           reply_etag(reply), total);
    if (range.kind == RANGE_PART) {
        reply->http = 206;
        reply_header(reply, "Content-Range",
                     arena_format(request->arena, "bytes %llu-%llu/%llu",
                                  (unsigned long long)range.first,
                                  (unsigned long long)(range.first + range.size - 1),
                                  (unsigned long long)total));
    } else if (range.kind == RANGE_OUTSIDE) {
        fault_set(&fault, STATUS_RANGE_NOT_SATISFIABLE, "", "there are %llu bytes",
                  (unsigned long long)total);
        reply_replace(exchange, &fault);
        reply_header(reply, "Content-Range",
                     arena_format(request->arena, "bytes */%llu", (unsigned long long)total));
        return (struct range){.kind = RANGE_WHOLE, .size = reply_total(reply)};
    }
    reply_header(reply, "Accept-Ranges", "bytes");
    return range;
}

/* The parts of a reply that lie in the range; returns how many. */
static unsigned cut(const struct reply *reply, const struct range *range, struct MHD_IoVec out[3])
{
    const struct span parts[3] = {
        reply->head,
        span_of(reply->buffer != NULL ? reply->buffer->data + reply->offset : NULL, reply->size),
        reply->tail,
    };
    uint64_t begin = range->first, end = range->first + range->size, at = 0;
    unsigned count = 0;

    for (size_t i = 0; i < 3; at += parts[i++].size) {
        uint64_t from = begin > at ? begin - at : 0;
        uint64_t to = end < at + parts[i].size ? end - at : parts[i].size;
        if (end <= at || from >= to)
            continue;
        out[count++] =
            (struct MHD_IoVec){.iov_base = parts[i].data + from, .iov_len = (size_t)(to - from)};
    }
    return count;
}

static void log_request(const struct exchange *exchange, const struct reply *reply)
{
    const struct request *request = &exchange->request;
    enum log_level level = reply->http >= 500   ? LOG_ERROR
                           : reply->http >= 400 ? LOG_INFO
                                                : LOG_DEBUG;

    log_write(level, "%s %.200s %u %llu bytes %llu us %s", method_name(request->method),
              request->path, reply->http, (unsigned long long)reply_total(reply),
              (unsigned long long)(clock_monotonic_us() - exchange->started_us), request->id);
}

static bool add_headers(const struct exchange *exchange, struct MHD_Response *response)
{
    const struct reply *reply = &exchange->reply;
    bool good = true;

    if (reply->media_type != NULL)
        good = MHD_add_response_header(response, "Content-Type", reply->media_type) == MHD_YES;
    for (size_t i = 0; i < reply->header_count && good; i++)
        good = MHD_add_response_header(response, reply->headers[i].name, reply->headers[i].value) ==
               MHD_YES;
    if (good && !has_header(reply, "Cache-Control"))
        good = MHD_add_response_header(response, "Cache-Control", "no-store") == MHD_YES;
    return good && MHD_add_response_header(response, "Request-Id", exchange->id) == MHD_YES;
}

/* Queues exchange->reply. Its memory lives until `completed`. */
static enum MHD_Result send_reply(struct exchange *exchange, struct MHD_Connection *connection)
{
    struct range range = apply_range(exchange);
    struct reply *reply = &exchange->reply;
    struct MHD_IoVec parts[3];

    exchange->stage = STAGE_REPLY;
    if (!watch_set(&exchange->watched, WATCH_SILENT,
                   transfer_deadline(exchange, clock_monotonic_us(), range.size)))
        return MHD_NO;
    struct MHD_Response *response =
        MHD_create_response_from_iovec(parts, cut(reply, &range, parts), NULL, NULL);
    enum MHD_Result result = MHD_NO;
    if (response != NULL && add_headers(exchange, response)) {
        log_request(exchange, reply);
        result = MHD_queue_response(connection, reply->http, response);
    } else {
        log_error("a reply could not be made: out of memory or a bad header (%s)", exchange->id);
    }
    if (response != NULL)
        MHD_destroy_response(response);
    return result;
}

/* --- the header
 * ------------------------------------------------------------------------------------------------------
 */

/* The client's X-Request-Id if it is a sane token, else our own: unpredictable per process, never
 * twice in it. */
static void choose_id(struct exchange *exchange)
{
    const char *given = request_header(&exchange->request, "X-Request-Id");

    if (given != NULL && strlen(given) <= REQUEST_ID_BYTES_MAX && guard_is_token(given)) {
        memcpy(exchange->id, given, strlen(given) + 1);
        return;
    }
    uint64_t number = atomic_fetch_add(&exchange->server->id_next, 1);
    /* splitmix64 is a bijection: different numbers, different ids. */
    number = exchange->server->id_seed + number * 0x9E3779B97F4A7C15u;
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9u;
    number = (number ^ (number >> 27)) * 0x94D049BB133111EBu;
    snprintf(exchange->id, sizeof exchange->id, "req_%016llx",
             (unsigned long long)(number ^ (number >> 31)));
}

struct header_walk {
    struct exchange *exchange;
    struct envelope *envelope;
    const char *next; /* where the next line must begin */
};

static enum MHD_Result collect_header(void *context, enum MHD_ValueKind kind, const char *name,
                                      size_t name_size, const char *value, size_t value_size)
{
    static const char blank[] = " \t";
    struct header_walk *walk = context;
    struct request *request = &walk->exchange->request;

    (void)kind;
    if (value == NULL)
        value = "";
    if (name != walk->next)
        walk->envelope->plain = false;
    walk->next = value + value_size + 2; /* CR LF */
    if (strlen(name) != name_size || strlen(value) != value_size)
        walk->envelope->plain = false;
    if (walk->envelope->header_count++ >= HEADERS_MAX)
        return MHD_YES;
    if (value_size > 0 && strchr(blank, value[value_size - 1]) != NULL) {
        while (value_size > 0 && strchr(blank, value[value_size - 1]) != NULL)
            value_size--;
        const char *copy = arena_copy(&walk->exchange->arena, value, value_size);
        value = copy != NULL ? copy : value;
    }
    request->headers[request->header_count++] = (struct header){.name = name, .value = value};
    return MHD_YES;
}

/* Fills the request's headers and the envelope. libmicrohttpd cuts the header in place, in one
 * block of memory from the method to the empty line, and hides what it tolerates: bare LF, folded
 * lines, NULs, spare spaces. All of them show as a line that does not begin where the one before
 * must end, so `plain` needs no parser of our own. */
static void read_header(struct exchange *exchange, struct MHD_Connection *connection,
                        const char *method, const char *version, struct envelope *envelope)
{
    const union MHD_ConnectionInfo *size =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    struct header_walk walk = {.exchange = exchange, .envelope = envelope};

    *envelope = (struct envelope){.method = method, .version = version, .plain = true};
    envelope->target = exchange->target != NULL ? exchange->target : "";
    walk.next = version + strlen(version) + 2;
    if (method + strlen(method) + 1 + strlen(envelope->target) + 1 != version)
        envelope->plain = false;
    exchange->request.header_count = 0;
    MHD_get_connection_values_n(connection, MHD_HEADER_KIND, collect_header, &walk);
    if (size == NULL || walk.next + 2 != method + size->header_size)
        envelope->plain = false;
}

/* Gives the body's memory back. */
static void release_body(struct exchange *exchange)
{
    buffer_release(exchange->request.body);
    exchange->request.body = NULL;
    exchange->body_used = 0;
    if (exchange->charged > 0)
        atomic_fetch_sub(&exchange->server->inflight_bytes, exchange->charged);
    exchange->charged = 0;
}

/* Decides the reply before the body is there. It goes out at once, closing the connection, when the
 * body's end cannot be trusted or is too far away, or when the client waits for permission to send;
 * else when the body has been dropped. */
static enum MHD_Result refuse(struct exchange *exchange, struct MHD_Connection *connection,
                              const struct fault *fault, const char *allow, bool close_now)
{
    const struct framing *framing = &exchange->framing;

    release_body(exchange);
    exchange->reply = reply_fault(&exchange->request, fault);
    if (fault->status == STATUS_METHOD_NOT_ALLOWED && exchange->request.method == METHOD_OPTIONS)
        exchange->reply = reply_empty(204);
    reply_header(&exchange->reply, "Allow", allow);
    exchange->refused = true;
    if (close_now || framing->length > drop_bytes_max(exchange) ||
        (framing->expects_continue && (framing->chunked || framing->length > 0)))
        return send_reply(exchange, connection);
    exchange->stage = STAGE_DROP;
    return MHD_YES;
}

/* Memory for the body: all of it when its length is known. */
static enum status reserve(struct exchange *exchange, uint64_t size, struct fault *fault)
{
    struct server *server = exchange->server;
    struct buffer *body = exchange->request.body;

    if (size > server->config->body_bytes_max) {
        fault_set(
            fault, STATUS_TOO_LARGE, "", "the body has %s%llu bytes; at most %llu",
            exchange->framing.chunked ? "more than " : "",
            (unsigned long long)(exchange->framing.chunked ? server->config->body_bytes_max : size),
            (unsigned long long)server->config->body_bytes_max);
        return STATUS_TOO_LARGE;
    }
    if (exchange->framing.chunked) { /* grow geometrically, never beyond the limit */
        uint64_t wanted = body != NULL ? body->size * 2 : CHUNKED_BYTES_FIRST;
        size = wanted > size ? wanted : size;
        size = size < server->config->body_bytes_max ? size : server->config->body_bytes_max;
    }
    /* While a body moves, both copies are in memory. */
    uint64_t charged = atomic_fetch_add(&server->inflight_bytes, size) + size;
    exchange->charged += size;
    if (charged > server->config->inflight_bytes_max)
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
        atomic_fetch_sub(&server->inflight_bytes, body->size);
        buffer_release(body);
    }
    exchange->request.body = larger;
    return STATUS_OK;
}

/* Finds the route and whether the request may go on. `allow` is set for 405. */
static enum status admit(struct exchange *exchange, char *query, const char **allow,
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

static bool is_health(const struct request *request)
{
    return strcmp(request->path, "/livez") == 0 || strcmp(request->path, "/readyz") == 0 ||
           strcmp(request->path, "/healthz") == 0;
}

/* What the state of the server forbids, whatever the request is. */
static enum status check_server(const struct exchange *exchange, struct fault *fault)
{
    struct server *server = exchange->server;

    if (atomic_load(&server->draining) && strcmp(exchange->request.path, "/livez") != 0)
        return fault_set(fault, STATUS_DRAINING, "", "the server is stopping; try again soon");
    if (exchange->surplus)
        return fault_set(fault, STATUS_OVERLOADED, "",
                         "the server has %llu connections open, which is its limit; try again, "
                         "and keep connections open for several requests",
                         (unsigned long long)server->config->connections_max);
    if (server->engine == NULL && !is_health(&exchange->request))
        return fault_set(fault, STATUS_DRAINING, "", "the server is recovering; try again soon");
    return STATUS_OK;
}

/* The first call: the header is complete. */
static enum MHD_Result receive_header(struct exchange *exchange, struct MHD_Connection *connection,
                                      const char *method, const char *version)
{
    static char no_query[1];
    struct request *request = &exchange->request;
    struct envelope envelope;
    struct fault fault;
    const char *allow = NULL;

    atomic_fetch_add(&exchange->server->running, 1);
    exchange->counted = true;
    exchange->started_us = clock_monotonic_us();
    read_header(exchange, connection, method, version, &envelope);
    choose_id(exchange);
    request->method = method_find(method);
    if (exchange->target == NULL) {
        fault_set(&fault, STATUS_OVERLOADED, "", "out of memory; try again");
        return refuse(exchange, connection, &fault, NULL, true);
    }
    if (guard_check(&envelope, request, &exchange->framing, &fault) != STATUS_OK)
        return refuse(exchange, connection, &fault, NULL, true);

    char *query = strchr(exchange->target, '?');
    if (query != NULL)
        *query++ = '\0'; /* request->path is the target up to here */
    if (check_server(exchange, &fault) != STATUS_OK)
        return refuse(exchange, connection, &fault, NULL, true);
    if (!watch_set(&exchange->watched, WATCH_ANSWER,
                   transfer_deadline(exchange, exchange->started_us, exchange->framing.length)))
        return MHD_NO;
    if (admit(exchange, query != NULL ? query : no_query, &allow, &fault) != STATUS_OK)
        return refuse(exchange, connection, &fault, allow, false);
    exchange->stage = STAGE_BODY;
    return MHD_YES;
}

/* --- the body
 * --------------------------------------------------------------------------------------------------------
 */

/* Drops a piece of a refused body. Beyond the limit the answer, too late for libmicrohttpd, is a
 * closed connection. */
static enum MHD_Result drop(struct exchange *exchange, size_t size)
{
    exchange->dropped += size;
    return exchange->dropped > drop_bytes_max(exchange) ? MHD_NO : MHD_YES;
}

static enum MHD_Result receive_body(struct exchange *exchange, const char *data, size_t size)
{
    struct buffer *body = exchange->request.body;
    struct fault fault;

    if (exchange->framing.chunked && (body == NULL || body->size - exchange->body_used < size)) {
        if (reserve(exchange, (uint64_t)exchange->body_used + size, &fault) != STATUS_OK) {
            exchange->dropped = exchange->body_used;
            release_body(exchange);
            exchange->reply = reply_fault(&exchange->request, &fault);
            exchange->refused = true;
            exchange->stage = STAGE_DROP;
            return drop(exchange, size);
        }
        body = exchange->request.body;
    }
    PRE(body != NULL && body->size - exchange->body_used >= size);
    memcpy(body->data + exchange->body_used, data, size);
    exchange->body_used += size;
    /* The length of a chunked body is not known before its end: every piece earns it time. */
    if (exchange->framing.chunked)
        watch_set(&exchange->watched, WATCH_ANSWER,
                  transfer_deadline(exchange, exchange->started_us, exchange->body_used));
    return MHD_YES;
}

/* The last call: the whole request is there. */
static enum MHD_Result answer(struct exchange *exchange, struct MHD_Connection *connection)
{
    struct request *request = &exchange->request;

    if (!exchange->refused) {
        if (request->body != NULL)
            buffer_shrink(request->body, exchange->body_used);
        if (!watch_set(&exchange->watched, WATCH_NONE, 0))
            return MHD_NO;
        exchange->reply = request->route->serve(exchange->server->engine, request);
        /* Now, not when the reply has gone: who hears it may send the next body at once. */
        release_body(exchange);
    }
    return send_reply(exchange, connection);
}

/* --- what libmicrohttpd calls
 * ---------------------------------------------------------------------------------------- */

static void *log_target(void *context, const char *target, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct exchange *exchange = info->socket_context;

    (void)context;
    if (exchange == NULL)
        return NULL;
    /* The whole target, since it is unescaped in place after this call. */
    exchange->target = target != NULL ? arena_copy(&exchange->arena, target, strlen(target)) : NULL;
    exchange->request.path = exchange->target != NULL ? exchange->target : "";
    exchange->stage = STAGE_HEADER;
    watch_set(&exchange->watched, WATCH_ANSWER,
              in_seconds(exchange->server->config->header_timeout_s));
    return exchange;
}

static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *size, void **request_context)
{
    struct exchange *exchange = *request_context;
    enum MHD_Result result = MHD_NO;

    (void)context;
    (void)url;
    if (exchange == NULL)
        return MHD_NO;
    if (exchange->stage == STAGE_HEADER)
        result = receive_header(exchange, connection, method, version);
    else if (*size == 0)
        result = answer(exchange, connection);
    else if (exchange->stage == STAGE_BODY)
        result = receive_body(exchange, data, *size);
    else
        result = drop(exchange, *size);
    *size = 0;
    return result;
}

/* Makes the exchange ready for the next request of its connection. */
static void exchange_reset(struct exchange *exchange)
{
    struct server *server = exchange->server;

    buffer_release(exchange->reply.buffer);
    release_body(exchange);
    arena_close(&exchange->arena);
    if (exchange->counted)
        atomic_fetch_sub(&server->running, 1);
    exchange->stage = STAGE_IDLE;
    exchange->counted = false;
    exchange->target = NULL;
    exchange->dropped = 0;
    exchange->refused = false;
    exchange->framing = (struct framing){.chunked = false};
    exchange->reply = reply_empty(500);
    exchange->request.path = "";
    exchange->request.route = NULL;
    exchange->request.query_count = 0;
    exchange->request.header_count = 0;
}

static void completed(void *context, struct MHD_Connection *connection, void **request_context,
                      enum MHD_RequestTerminationCode code)
{
    struct exchange *exchange = *request_context;

    (void)context;
    (void)connection;
    if (exchange == NULL)
        return;
    if (code != MHD_REQUEST_TERMINATED_COMPLETED_OK)
        log_debug("%s %.200s was cut off (%d) %s", method_name(exchange->request.method),
                  exchange->request.path, (int)code, exchange->id);
    exchange_reset(exchange);
    watch_set(&exchange->watched, WATCH_SILENT,
              in_seconds(exchange->server->config->keepalive_timeout_s));
}

static void connection_changed(void *context, struct MHD_Connection *connection,
                               void **socket_context, enum MHD_ConnectionNotificationCode code)
{
    struct server *server = context;
    struct exchange *exchange = *socket_context;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        exchange = calloc(1, sizeof *exchange);
        *socket_context = exchange; /* NULL: the first request ends the connection */
        if (exchange == NULL)
            return;
        exchange->server = server;
        arena_init(&exchange->arena);
        exchange->request.arena = &exchange->arena;
        exchange->request.config = server->config;
        exchange->request.id = exchange->id;
        exchange_reset(exchange);
        exchange->surplus =
            atomic_fetch_add(&server->connections, 1) >= server->config->connections_max;
        watch_add(server->watch, &exchange->watched, info->connect_fd, WATCH_ANSWER,
                  in_seconds(server->config->header_timeout_s));
    } else if (exchange != NULL) {
        watch_remove(server->watch, &exchange->watched);
        atomic_fetch_sub(&server->connections, 1);
        free(exchange);
        *socket_context = NULL;
    }
}

static void log_library(void *context, const char *format, va_list arguments)
{
    char words[512];

    (void)context;
    vsnprintf(words, sizeof words, format, arguments);
    words[strcspn(words, "\n")] = '\0';
    log_debug("libmicrohttpd: %s", words);
}

/* --- life
 * ------------------------------------------------------------------------------------------------------------
 */

static struct MHD_Daemon *start_daemon(struct server *server)
{
    /* Room beyond the limit, so that whoever exceeds it hears 503 and not just a closed door. */
    unsigned connections = (unsigned)server->config->connections_max;

    connections += connections / 8 + 8;
    return MHD_start_daemon(MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_THREAD_PER_CONNECTION |
                                MHD_USE_ITC | MHD_USE_ERROR_LOG,
                            0, NULL, NULL, handle, server, MHD_OPTION_EXTERNAL_LOGGER, log_library,
                            NULL, MHD_OPTION_LISTEN_SOCKET, server->socket,
                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
                            MHD_OPTION_CONNECTION_LIMIT, connections, MHD_OPTION_URI_LOG_CALLBACK,
                            log_target, server, MHD_OPTION_NOTIFY_COMPLETED, completed, server,
                            MHD_OPTION_NOTIFY_CONNECTION, connection_changed, server,
                            MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
}

enum status server_start(const struct config *config, struct engine *engine, struct server **out,
                         struct fault *fault)
{
    struct server *server = calloc(1, sizeof *server);
    bool loopback = true;

    if (server == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    server->config = config;
    server->engine = engine;
    server->socket = -1;
    server->id_seed = clock_unix_us() * 0xD1342543DE82EF95u ^ (uint64_t)getpid() << 40;
    enum status status =
        address_listen(config->listen, &server->socket, server->address, &loopback, fault);
    if (status != STATUS_OK)
        goto done;
    status = watch_new(&server->watch, fault);
    if (status != STATUS_OK)
        goto done;
    server->daemon = start_daemon(server);
    if (server->daemon == NULL) {
        status = fault_set(fault, STATUS_INTERNAL, "", "cannot serve %.200s: %s", config->listen,
                           strerror(errno));
        goto done;
    }
    if (!loopback)
        log_warning("%s can be reached from other machines, and there is neither TLS nor a "
                    "password: put a proxy before it that has both",
                    server->address);
    *out = server;
    server = NULL;
done:
    if (server != NULL) {
        if (server->watch != NULL)
            watch_free(server->watch);
        if (server->socket >= 0)
            close(server->socket);
        free(server);
    }
    return status;
}

const char *server_address(const struct server *server)
{
    return server->address;
}

void server_drain(struct server *server)
{
    if (atomic_exchange(&server->draining, true))
        return;
    int socket = MHD_quiesce_daemon(server->daemon);
    if (socket != MHD_INVALID_SOCKET)
        close(socket);
}

bool server_stop(struct server *take_server)
{
    const struct timespec pause = {.tv_nsec = STOP_POLL_MS * 1000000L};
    uint64_t deadline_us = in_seconds(take_server->config->drain_timeout_s);

    server_drain(take_server);
    while (atomic_load(&take_server->running) > 0) {
        if (clock_monotonic_us() > deadline_us)
            return false;
        nanosleep(&pause, NULL);
    }
    MHD_stop_daemon(take_server->daemon);
    watch_free(take_server->watch);
    free(take_server);
    return true;
}
