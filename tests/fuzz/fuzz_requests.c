/* libFuzzer target: any requests to a whole server but for its sockets: header, admission, body,
 * endpoint, reply. Requests are separated by byte 0x1e; each is `METHOD target`, header lines, an
 * empty line, the body, lines ending with LF. Host and the length of the body are added where they
 * are not said. A session `s` of adam and one `r` with rounds and SVRG are there at the start. */
#include "tests/fuzz/input.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <strings.h>
#include <unistd.h>

#include "api/config.h"
#include "api/exchange.h"
#include "api/guard.h"
#include "api/router.h"
#include "service/core/log.h"
#include "service/session/engine.h"
#include "storage/store.h"

enum {
    REQUESTS_MAX = 8,
    SESSIONS_MAX = 8,
    BODY_BYTES_MAX = 1 << 16,
    PARAMETERS_MAX = 1 << 14,
    MEMORY_MAX = 1 << 26,
    STREAM_MAX = 1 << 20,
    PIECE = 4096,
};

static const char first_requests[] = "PUT /v1/sessions/s\nContent-Type: application/json\n\n"
                                     "{\"optimizer\":\"adam\",\"parameters\":{\"w\":[[1,2],[3,4]],"
                                     "\"b\":0},\"ema\":{\"decay\":0.5}}\x1e"
                                     "PUT /v1/sessions/r\nContent-Type: application/json\n\n"
                                     "{\"optimizer\":\"sgd\",\"parameters\":{\"w\":[1,2]},\"svrg\":"
                                     "{},\"gradient\":{\"max_norm_ratio\":2},"
                                     "\"aggregation\":{\"mode\":\"sync\",\"workers\":2}}";

static struct config config;
static struct commons commons;
static struct exchange *exchange;

static void open_server(void)
{
    char *arguments[] = {NULL};
    struct engine_options options = {.sessions_max = SESSIONS_MAX,
                                     .parameters_max = PARAMETERS_MAX,
                                     .memory_bytes_max = MEMORY_MAX,
                                     .idle_s = 3600,
                                     .history_bytes_max = MEMORY_MAX};
    struct fault fault;

    log_set_level(LOG_OFF);
    PRE(config_read(arguments, &config, &fault) == STATUS_OK);
    config.cors_origins = "https://page.example";
    config.body_bytes_max = BODY_BYTES_MAX;
    config.sessions_max = SESSIONS_MAX;
    config.parameters_max = PARAMETERS_MAX;
    PRE(store_open("memory:", true, &options.take_store, &fault) == STATUS_OK);
    PRE(engine_open(&options, &commons.engine, &fault) == STATUS_OK);
    engine_drain(commons.engine); /* nobody waits: nothing comes later */
    PRE(watch_new(&commons.watch, &fault) == STATUS_OK);
    commons.config = &config;
    commons.loopback = true;
    exchange = exchange_new(&commons, open("/dev/null", O_RDWR), NULL);
    PRE(exchange != NULL);
}

/* --- one request --- */

static bool has_header(const struct request *request, const char *name)
{
    return request_header(request, name) != NULL;
}

static void add_header(struct request *request, const char *name, const char *value)
{
    if (request->header_count < HEADERS_MAX)
        request->headers[request->header_count++] = (struct header){name, value};
}

/* Cuts the text at its line ends; returns where the body begins. */
static char *read_head(char *text, char **method, char **target, struct request *request,
                       size_t *count)
{
    char *line = text, *next;

    *method = *target = NULL;
    for (; *line != '\0' && *line != '\n'; line = next) {
        next = line + strcspn(line, "\n");
        if (*next == '\n')
            *next++ = '\0';
        if (*method == NULL) {
            *method = line;
            *target = line + strcspn(line, " ");
            if (**target == ' ')
                *(*target)++ = '\0';
            continue;
        }
        char *value = line + strcspn(line, ":");
        if (*value == ':')
            *value++ = '\0';
        (*count)++;
        add_header(request, line, value + strspn(value, " \t"));
    }
    return *line == '\n' ? line + 1 : line;
}

static void check_stream(struct reply *reply)
{
    static unsigned char piece[PIECE];
    uint64_t at = 0;
    ptrdiff_t got;

    /* One that follows a session would wait for what is to come. */
    while (at < STREAM_MAX && reply->stream.follows &&
           (got = reply->stream.read(reply->stream.context, at, piece, sizeof piece)) > 0) {
        POST((size_t)got <= sizeof piece);
        at += (uint64_t)got;
    }
    while (at < STREAM_MAX && !reply->stream.follows &&
           (got = exchange_read(exchange, at, piece, sizeof piece)) > 0) {
        POST((size_t)got <= sizeof piece);
        at += (uint64_t)got;
        POST(reply->stream.size == STREAM_OPEN || at <= reply->stream.size);
    }
}

static void check_json(const struct span *parts, size_t count)
{
    char *text = NULL;
    size_t size = 0;
    json_error_t error;

    for (size_t i = 0; i < count; i++) {
        text = realloc(text, size + parts[i].size + 1);
        PRE(text != NULL);
        memcpy(text + size, parts[i].data, parts[i].size);
        size += parts[i].size;
    }
    json_t *judge = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    POST(judge != NULL);
    json_decref(judge);
    free(text);
}

static void check_reply(void)
{
    struct reply *reply = &exchange->reply;
    struct span parts[RANGE_PARTS];
    size_t count;

    POST(exchange_send(exchange, parts, &count));
    POST(reply->http >= 200 && reply->http < 600);
    bool plain = true;
    POST(reply->http != 500); /* nothing that a request says is a fault of ours */
    for (size_t i = 0; i < reply->header_count; i++) {
        POST(reply->headers[i].value != NULL && strpbrk(reply->headers[i].value, "\r\n") == NULL &&
             guard_is_token(reply->headers[i].name));
        plain &= strcasecmp(reply->headers[i].name, "Content-Encoding") != 0;
    }
    if (reply->stream.close != NULL)
        check_stream(reply);
    else if (plain && reply->http != 206 && reply->media_type != NULL && count > 0 &&
             strstr(reply->media_type, "json") != NULL && strstr(reply->media_type, "nd") == NULL)
        check_json(parts, count);
}

static void serve(char *text, size_t size)
{
    struct request *request = &exchange->request;
    char length[32], *method, *target;
    size_t count = 0;

    char *body = read_head(text, &method, &target, request, &count);
    size_t body_size = (size_t)(text + size - body);
    if (method == NULL)
        return;
    if (!has_header(request, "Host"))
        add_header(request, "Host", "fuzz");
    bool said = has_header(request, "Content-Length") || has_header(request, "Transfer-Encoding");
    snprintf(length, sizeof length, "%zu", body_size);
    if (!said && body_size > 0)
        add_header(request, "Content-Length", length);
    exchange_begin(exchange, target);
    struct envelope envelope = {.method = method,
                                .target = target,
                                .version = "HTTP/1.1",
                                .plain = true,
                                .header_count = count};
    POST(exchange_admit(exchange, &envelope));
    bool whole = true;
    if (exchange->stage != STAGE_REPLY) {
        const struct framing *framing = &exchange->framing;
        if (!framing->chunked && framing->length < body_size)
            body_size = framing->length; /* the rest is another request */
        whole = framing->chunked || framing->length == body_size;
        for (size_t at = 0; at < body_size && whole;) {
            size_t piece = body_size - at < PIECE ? body_size - at : PIECE;
            whole = exchange_receive(exchange, body + at, piece);
            at += piece;
        }
        if (whole)
            POST(exchange_serve(exchange));
    }
    if (whole)
        check_reply();
}

static void serve_all(const uint8_t *data, size_t size)
{
    struct input input = {.data = data, .size = size};

    for (int i = 0; i < REQUESTS_MAX && input.used < size; i++) {
        size_t from = input.used;
        char *text = input_text(&input, '\x1e');
        size_t used = input.used - from - (input.used < size || data[size - 1] == '\x1e');
        serve(text, used);
        exchange_reset(exchange, true);
        free(text);
    }
}

static void forget_all(void)
{
    struct session *sessions[SESSIONS_MAX + 1];
    struct fault fault;
    bool more;

    size_t count = engine_list(commons.engine, "", "", sessions, SESSIONS_MAX + 1, &more);
    POST(count <= SESSIONS_MAX);
    while (count > 0) {
        POST(session_delete(commons.engine, sessions[--count], &fault) == STATUS_OK);
        session_release(sessions[count]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (exchange == NULL)
        open_server();
    serve_all((const uint8_t *)first_requests, sizeof first_requests - 1);
    serve_all(data, size);
    forget_all();
    POST(atomic_load(&commons.inflight_bytes) == 0 && atomic_load(&commons.running) == 0);
    return 0;
}
