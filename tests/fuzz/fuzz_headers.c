/* libFuzzer target: any header, `Name: value` a line, as that of a request: the guard that decides
 * how the body is framed, and whoever reads a field afterwards. What the guard lets pass has one
 * reading. */
#include "tests/fuzz/input.h"

#include <stdio.h>
#include <strings.h>

#include "api/codec.h"
#include "api/config.h"
#include "api/cors.h"
#include "api/guard.h"
#include "api/range.h"
#include "api/session_json.h"
#include "api/trace.h"
#include "api/waiting.h"

enum { LINES_MAX = 2 * HEADERS_MAX };

static size_t count_of(const struct request *request, const char *name)
{
    size_t count = 0;

    for (size_t i = 0; i < request->header_count; i++)
        count += strcasecmp(request->headers[i].name, name) == 0;
    return count;
}

/* What two readers could take for two things must not have passed. */
static void check_passed(const struct request *request, const struct framing *framing)
{
    const char *length = request_header(request, "Content-Length");

    POST(count_of(request, "Content-Length") + count_of(request, "Transfer-Encoding") <= 1);
    POST(count_of(request, "Host") == 1);
    POST(framing->chunked == (count_of(request, "Transfer-Encoding") == 1));
    if (length != NULL) {
        char *end;
        POST(strspn(length, "0123456789") == strlen(length));
        POST(strtoull(length, &end, 10) == framing->length && *end == '\0');
    }
    for (size_t i = 0; i < request->header_count; i++) {
        POST(guard_is_token(request->headers[i].name));
        POST(strpbrk(request->headers[i].value, "\r\n\x7F") == NULL);
    }
}

static void check_range(const struct request *request, uint64_t total)
{
    struct range range = range_find(request_header(request, "Range"),
                                    request_header(request, "If-Range"), "\"0-13\"", total);

    if (range.kind == RANGE_PART)
        POST(range.size > 0 && range.first < total && range.size <= total - range.first);
    else if (range.kind == RANGE_WHOLE)
        POST(range.first == 0 && range.size == total);
}

static void read_fields(const struct request *request)
{
    static const char *const preferences[] = {"return", "wait", "handling", ""};
    struct fault fault;
    bool named;

    for (size_t i = 0; i < sizeof preferences / sizeof *preferences; i++)
        request_prefer(request, preferences[i]);
    POST(waiting_preferred_s(request) <= request->config->wait_s_max);
    struct reply reply = reply_empty(204);
    cors_tell(request, &reply);
    if (cors_admit(request, true, &fault) == STATUS_OK)
        cors_admit(request, false, &fault);
    struct trace trace;
    const char *parent = request_header(request, "traceparent");
    if (parent != NULL && trace_parse(parent, &trace))
        POST(strspn(trace.trace_id, "0123456789abcdef") == TRACE_ID_CHARACTERS &&
             strlen(trace.trace_id) == TRACE_ID_CHARACTERS &&
             strncmp(parent + 3, trace.trace_id, TRACE_ID_CHARACTERS) == 0 &&
             strlen(trace.span_id) == SPAN_ID_CHARACTERS &&
             strspn(trace.span_id, "0123456789abcdef") == SPAN_ID_CHARACTERS);
    etag_none_match(request, "\"0-13\"");
    codec_negotiate(request_header(request, "Accept"), &named);
    if (request_header(request, "Content-Type") != NULL)
        codec_find(request_header(request, "Content-Type"));
    check_range(request, 0);
    check_range(request, 1);
    check_range(request, 1031);
    check_range(request, UINT64_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct config config = {
        .wait_s_max = 60, .cors_origins = "https://page.example", .hosts = "a.example"};
    struct input input = {.data = data, .size = size};
    struct arena arena;
    struct request request = {.arena = &arena, .config = &config, .id = "", .path = "/"};
    char *lines[LINES_MAX];
    size_t count = 0;
    struct framing framing;
    struct fault fault;

    arena_init(&arena);
    while (input.used < size && count < LINES_MAX)
        lines[count++] = input_text(&input, '\n');
    struct envelope envelope = {.method = "POST",
                                .target = "/",
                                .version = "HTTP/1.1",
                                .plain = true,
                                .header_count = count};
    for (size_t i = 0; i < count && i < HEADERS_MAX; i++) {
        char *value = lines[i] + strcspn(lines[i], ":");
        if (*value == ':')
            *value++ = '\0';
        value += strspn(value, " \t");
        request.headers[request.header_count++] = (struct header){lines[i], value};
    }
    if (guard_check(&envelope, &request, &framing, &fault) == STATUS_OK) {
        check_passed(&request, &framing);
        read_fields(&request);
    } else {
        POST(strlen(fault.detail) > 0 && status_http(fault.status) >= 400);
    }
    while (count > 0)
        free(lines[--count]);
    arena_close(&arena);
    return 0;
}
