/* What a server does with requests. libmicrohttpd calls log_target when it has the request line,
 * then handle: once when the header is complete, once for every piece of the body, once at the
 * end. A reply that is queued in the first call closes the connection, one at the end keeps it: so
 * whatever is decided early waits, where it can, until the body has been read and dropped
 * (exchange.h).
 *
 * libmicrohttpd refuses some requests itself, as HTML, and some of them with the header of its
 * answer written twice: a header line without a colon, a header beyond CONNECTION_BYTES, a
 * malformed chunk, a Content-Length that is no number. It tells its log before it answers, so
 * log_library answers in its place, with a problem document, and leaves it a socket that is shut.
 * What stays its own is what it says of a first line, for which nobody tells us the connection: no
 * HTTP/1.x (400, 505), longer than CONNECTION_BYTES (414); and a first line without a space, or
 * without a method, which it ends without an answer. */
#include "api/server_inside.h"

#include <microhttpd.h>
#include <stdio.h>
#include <string.h>

#include "api/config.h"
#include "api/router.h"
#include "api/tls.h"
#include "service/core/log.h"
#include "service/core/metric.h"
#include "service/core/point.h"

enum {
    JOINED_BYTES_MAX = 16384,  /* what is copied rather than sent apart */
    STREAM_BYTES = 256 * 1024, /* of a stream, in one piece */
    /* Half of it is the largest piece of a body in one call. libmicrohttpd clears all of it after
     * each request: twice as much costs a small step 4 %, and gains a large one nothing. */
    CONNECTION_BYTES = 64 * 1024,
};

/* The exchange whose request line this thread, which serves one connection, has read last. */
static _Thread_local struct exchange *reading;

/* --- the header, as libmicrohttpd has it --- */

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
    if (name != walk->next || strlen(name) != name_size || strlen(value) != value_size)
        walk->envelope->plain = false;
    walk->next = value + value_size + 2; /* CR LF */
    if (walk->envelope->header_count++ >= HEADERS_MAX)
        return MHD_YES;
    /* Spaces after "chunked" stay: libmicrohttpd does not know it with them, and would read the
     * chunks as they are up to the end of the connection. */
    if (value_size > 0 && strchr(blank, value[value_size - 1]) != NULL &&
        strcasecmp(name, "Transfer-Encoding") != 0) {
        while (value_size > 0 && strchr(blank, value[value_size - 1]) != NULL)
            value_size--;
        value = arena_copy(request->arena, value, value_size);
        if (value == NULL) {
            walk->exchange->target = NULL; /* what it is when memory ran out before */
            return MHD_NO;
        }
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
    MHD_get_connection_values_n(connection, MHD_HEADER_KIND, collect_header, &walk);
    if (size == NULL || walk.next + 2 != method + size->header_size)
        envelope->plain = false;
}

/* --- sending --- */

/* Small pieces become one: libmicrohttpd sends one in the same system call as the header, several
 * by another. Without memory they stay apart. */
static void join(struct arena *arena, struct span *parts, size_t *count)
{
    size_t total = 0, used = 0;

    for (size_t i = 0; i < *count; i++)
        total += parts[i].size;
    if (*count < 2 || total > JOINED_BYTES_MAX)
        return;
    char *joined = arena_take(arena, total);
    if (joined == NULL)
        return;
    for (size_t i = 0; i < *count; i++) {
        memcpy(joined + used, parts[i].data, parts[i].size);
        used += parts[i].size;
    }
    parts[0] = span_of(joined, total);
    *count = 1;
}

/* To a 304 libmicrohttpd 0.9.75 adds Content-Length: 0, which caches pass over (RFC 9111, 3.2);
 * without one it would close the connection, and what a 200 would have is not known before its
 * body is made. */
static struct MHD_Response *make_response(struct arena *arena, struct span *parts, size_t count)
{
    struct MHD_IoVec pieces[RANGE_PARTS];

    join(arena, parts, &count);
    if (count == 0)
        return MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (count == 1)
        return MHD_create_response_from_buffer(parts[0].size, (void *)(uintptr_t)parts[0].data,
                                               MHD_RESPMEM_PERSISTENT);
    for (size_t i = 0; i < count; i++)
        pieces[i] = (struct MHD_IoVec){.iov_base = parts[i].data, .iov_len = parts[i].size};
    return MHD_create_response_from_iovec(pieces, (unsigned)count, NULL, NULL);
}

static ssize_t read_stream(void *context, uint64_t at, char *out, size_t capacity)
{
    ptrdiff_t size = exchange_read(context, at, out, capacity);

    if (size > 0)
        return size;
    return size == 0 ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
}

static struct MHD_Response *make_stream(struct exchange *exchange)
{
    uint64_t size = exchange->reply.stream.size;
    struct MHD_Response *response = MHD_create_response_from_callback(
        size == STREAM_OPEN ? MHD_SIZE_UNKNOWN : size, STREAM_BYTES, read_stream, exchange, NULL);

    /* To HEAD libmicrohttpd sends the last chunk of what has none, which the client would take for
     * the next answer; without chunks it ends by closing the connection. */
    if (response != NULL && size == STREAM_OPEN && exchange->request.method == METHOD_HEAD)
        MHD_set_response_options(response, MHD_RF_HTTP_1_0_COMPATIBLE_STRICT, MHD_RO_END);
    return response;
}

/* Queues exchange->reply. Its bytes live until `completed`. */
static enum MHD_Result queue_reply(struct exchange *exchange, struct MHD_Connection *connection)
{
    const struct reply *reply = &exchange->reply;
    struct span parts[RANGE_PARTS];
    size_t count;

    if (!exchange_send(exchange, parts, &count))
        return MHD_NO;
    struct MHD_Response *response = reply->stream.close != NULL
                                        ? make_stream(exchange)
                                        : make_response(&exchange->arena, parts, count);
    enum MHD_Result result = response != NULL ? MHD_YES : MHD_NO;
    if (result == MHD_YES && reply->media_type != NULL)
        result = MHD_add_response_header(response, "Content-Type", reply->media_type);
    for (size_t i = 0; i < reply->header_count && result == MHD_YES; i++)
        result = MHD_add_response_header(response, reply->headers[i].name, reply->headers[i].value);
    /* libmicrohttpd takes much for the end of a chunk's line, and anything for an extension: where
     * another reader may have seen another end of the body, no further request is read. Nor where
     * there is one connection too many. */
    if ((exchange->framing.chunked || exchange->surplus) && result == MHD_YES)
        result = MHD_add_response_header(response, "Connection", "close");
    if (result == MHD_YES)
        result = MHD_queue_response(connection, reply->http, response);
    if (result != MHD_YES)
        log_error("a reply could not be sent: memory is out, or a header is malformed (%s)",
                  exchange->id);
    if (response != NULL)
        MHD_destroy_response(response);
    return result;
}

/* --- what libmicrohttpd calls --- */

/* The whole target, which libmicrohttpd unescapes in place after this call, and whose query it
 * would cut into pairs that live in the connection's memory: some thousand of them are too many,
 * and it would close without a word. The cutting is ours (guard.h), so it is left an empty
 * query. */
static void *log_target(void *context, const char *target, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct exchange *exchange = info->socket_context;

    (void)context;
    reading = exchange;
    if (exchange != NULL)
        exchange_begin(exchange, target != NULL ? target : "");
    char *query = target != NULL ? strchr(target, '?') : NULL;
    if (query != NULL)
        query[1] = '\0';
    return exchange;
}

static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *size, void **request_context)
{
    struct exchange *exchange = *request_context;
    struct envelope envelope;
    size_t received = *size;

    (void)context;
    (void)url;
    if (exchange == NULL)
        return MHD_NO;
    *size = 0;
    if (exchange->stage == STAGE_HEADER) {
        read_header(exchange, connection, method, version, &envelope);
        if (!exchange_admit(exchange, &envelope))
            return MHD_NO;
        /* Who waits for leave to send nothing would get it, and a request behind it would be taken
         * for the body. */
        if (exchange->framing.expects_continue && exchange->framing.length == 0 &&
            !exchange->framing.chunked && !exchange_serve(exchange))
            return MHD_NO;
        return exchange->stage == STAGE_REPLY ? queue_reply(exchange, connection) : MHD_YES;
    }
    /* A daemon that is being stopped drops a reply that was queued before the body, says yes, and
     * goes on with the body. */
    if (exchange->stage == STAGE_REPLY)
        return MHD_NO;
    if (received > 0)
        return exchange_receive(exchange, data, received) ? MHD_YES : MHD_NO;
    bool served = exchange_serve(exchange);
    POINT(before_reply);
    return served ? queue_reply(exchange, connection) : MHD_NO;
}

static void completed(void *context, struct MHD_Connection *connection, void **request_context,
                      enum MHD_RequestTerminationCode code)
{
    struct exchange *exchange = *request_context;

    (void)context;
    (void)connection;
    if (exchange == NULL)
        return;
    POINT(after_reply);
    reading = NULL;
    exchange_reset(exchange, code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
}

static void connection_changed(void *context, struct MHD_Connection *connection,
                               void **socket_context, enum MHD_ConnectionNotificationCode code)
{
    struct server *server = context;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
        void *session = server->tls != NULL && info != NULL ? info->tls_session : NULL;
        if (session != NULL)
            tls_attach(server->tls, session);
        info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        /* NULL: the first request ends the connection. */
        *socket_context = exchange_new(&server->commons, info->connect_fd, session);
    } else if (*socket_context != NULL) {
        exchange_free(*socket_context);
        *socket_context = NULL;
    }
}

/* What libmicrohttpd is about to answer, said in our words. */
static void answer_before_library(struct exchange *exchange, unsigned http, const char *page)
{
    struct fault fault;

    if (http == MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE || http == MHD_HTTP_URI_TOO_LONG)
        fault_set(&fault, STATUS_HEADERS_TOO_LARGE, "",
                  "the header, or what follows the last chunk, has more than %d bytes",
                  CONNECTION_BYTES);
    else if (http == MHD_HTTP_CONTENT_TOO_LARGE)
        fault_set(&fault, STATUS_TOO_LARGE, "", "the length of the body is beyond 64 bits");
    else if (http == MHD_HTTP_INTERNAL_SERVER_ERROR) /* the one place where it says so */
        fault_set(&fault, STATUS_TOO_LARGE, "", "a line between two chunks is too long");
    else if (strstr(page, "chunked") != NULL)
        fault_set(
            &fault, STATUS_INVALID_REQUEST, "",
            "a chunk is malformed: write its size in hexadecimal digits, CRLF, so many bytes, "
            "CRLF");
    else if (strstr(page, "Content-Length") != NULL)
        fault_set(&fault, STATUS_INVALID_REQUEST, "", "Content-Length is not a number");
    else
        fault_set(&fault, STATUS_INVALID_REQUEST, "", "a header line has no colon");
    exchange_break(exchange, &fault);
}

static void log_library(void *context, const char *format, va_list arguments)
{
    static const char refusal[] = "Error processing request (HTTP response code is %u ('%s')";
    char words[512];

    (void)context;
    if (strncmp(format, refusal, sizeof refusal - 1) == 0 && reading != NULL &&
        reading->stage != STAGE_IDLE) {
        unsigned http = va_arg(arguments, unsigned);
        answer_before_library(reading, http, va_arg(arguments, const char *));
        return;
    }
    vsnprintf(words, sizeof words, format, arguments);
    words[strcspn(words, "\n")] = '\0';
    log_debug("libmicrohttpd: %s", words);
}

/* --- life --- */

struct MHD_Daemon *server_daemon(struct server *server)
{
    /* Room beyond the limit, so that whoever exceeds it hears 503 and not just a closed door. */
    unsigned connections = (unsigned)server->commons.config->connections_max;

    metric_build(METRIC_BUILD_MICROHTTPD, MHD_get_version());
    unsigned flags = MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_ITC |
                     MHD_USE_ERROR_LOG;
    struct MHD_OptionItem secure[] = {{MHD_OPTION_END, 0, NULL},
                                      {MHD_OPTION_HTTPS_MEM_KEY, 0, NULL},
                                      {MHD_OPTION_HTTPS_PRIORITIES, 0, NULL},
                                      {MHD_OPTION_END, 0, NULL}};

    if (server->tls != NULL) {
        flags |= MHD_USE_TLS;
        secure[0].option = MHD_OPTION_HTTPS_MEM_CERT;
        /* libmicrohttpd takes void * and writes to none of them. */
        secure[0].ptr_value = (void *)(uintptr_t)tls_certificate(server->tls);
        secure[1].ptr_value = (void *)(uintptr_t)tls_key(server->tls);
        secure[2].ptr_value = (void *)(uintptr_t)tls_priorities;
    }
    connections += connections / 8 + 8;
    return MHD_start_daemon(
        flags, 0, NULL, NULL, handle, server, MHD_OPTION_EXTERNAL_LOGGER, log_library, NULL,
        MHD_OPTION_LISTEN_SOCKET, server->socket, MHD_OPTION_ARRAY, secure,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_CONNECTION_LIMIT,
        connections, MHD_OPTION_URI_LOG_CALLBACK, log_target, server, MHD_OPTION_NOTIFY_COMPLETED,
        completed, server, MHD_OPTION_NOTIFY_CONNECTION, connection_changed, server,
        MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
}
