/* libFuzzer target: any text as a target: path to the router, query to the guard. What was decoded
 * has no NUL and is UTF-8; encoded again and read again it is the same. */
#include "tests/fuzz/input.h"

#include <stdio.h>

#include "api/fields.h"
#include "api/guard.h"
#include "api/moment.h"
#include "api/percent.h"
#include "api/router.h"
#include "service/core/utf8.h"

static void check_text(const char *text)
{
    size_t size = strlen(text);

    for (size_t at = 0, one; at < size; at += one)
        POST((one = utf8_length(text + at, size - at)) > 0);
}

static void check_again(struct arena *arena, const char *text)
{
    size_t size = strlen(text);
    char *escaped = arena_take(arena, 3 * size + 1);
    const char *again;
    struct fault fault;

    PRE(escaped != NULL);
    for (size_t i = 0; i < size; i++)
        snprintf(escaped + 3 * i, 4, "%%%02x", (unsigned)(unsigned char)text[i]);
    POST(percent_decode(arena, escaped, 3 * size, &again, &fault) == STATUS_OK);
    POST(strcmp(again, text) == 0);
}

static void read_query(struct request *request)
{
    const struct moment_query *query;
    struct moment_choice choice;
    struct fault fault;

    for (size_t i = 0; i < request->query_count; i++) {
        check_text(request->query[i].name);
        check_text(request->query[i].value);
        check_again(request->arena, request->query[i].value);
        for (size_t k = 0; k < i; k++)
            POST(strcmp(request->query[i].name, request->query[k].name) != 0);
        POST(request_query(request, request->query[i].name) == request->query[i].value);
    }
    moment_read(request, &choice, &query, &fault);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {.data = data, .size = size};
    struct arena arena;
    struct request request = {.arena = &arena, .id = "", .method = METHOD_GET};
    struct match match;
    struct fault fault;
    char *target = input_text(&input, '\0');
    char *query = target + strcspn(target, "?");

    arena_init(&arena);
    if (*query == '?')
        *query++ = '\0';
    request.path = target;
    for (int method = 0; method <= METHOD_OTHER; method++) {
        enum status status = router_find(&arena, (enum method)method, target, &match, &fault);
        if (status == STATUS_OK)
            for (size_t i = 0; i < PATH_PARAMETERS_MAX && match.parameters[i] != NULL; i++)
                check_text(match.parameters[i]);
        POST(status == STATUS_OK || status_http(status) < 500);
    }
    if (guard_query(&request, query, &fault) == STATUS_OK)
        read_query(&request);
    else
        POST(strlen(fault.detail) > 0);
    free(target);
    arena_close(&arena);
    return 0;
}
