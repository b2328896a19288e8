/* Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats/
 *
 *     # HELP name words
 *     # TYPE name counter
 *     name{label="value"} number
 */
#include "api/metrics_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/router.h"
#include "service/core/contract.h"

enum { TEXT_BYTES_FIRST = 32 * 1024, NUMBER_BYTES = 32 };

/* Cell 0 is what is not here. */
static const uint16_t http_codes[] = {200, 201, 202, 204, 206, 304, 400, 401, 403, 404, 405,
                                      406, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417,
                                      422, 428, 429, 431, 500, 501, 503, 505, 507};
enum { HTTP_CODES = sizeof http_codes / sizeof *http_codes };

_Static_assert(HTTP_CODES < (int)METRIC_HTTP_VALUES,
               "metrics.def has too few places for HTTP statuses");

enum {
#define ROUTE(method, pattern, operation, takes_body, scope) ROUTE_##operation,
#include "api/routes.def"
#undef ROUTE
    ROUTES
};

_Static_assert(ROUTES < (int)METRIC_OPERATION_VALUES,
               "metrics.def has too few places for operations");

size_t metrics_operation(const struct route *route)
{
    /* Routes lie in one array, from the first on. */
    return route == NULL ? 0 : (size_t)(route - router_at(0)) + 1;
}

size_t metrics_http(unsigned http)
{
    for (size_t i = 0; i < HTTP_CODES; i++)
        if (http_codes[i] == http)
            return i + 1;
    return 0;
}

size_t metrics_status(enum status status)
{
    size_t first = 0;

    /* Several share a code. */
    while (strcmp(status_code((enum status)first), status_code(status)) != 0)
        first++;
    return first;
}

/* The text of a label's value, "" past the last; http: room for a number. */
static const char *value_text(enum metric_label_id label, size_t value, char http[8])
{
    const struct metric_label *about = metric_label(label);

    if (about->values != NULL)
        return about->values[value];
    switch (label) {
    case METRIC_LABEL_OPERATION:
        return value == 0 ? "none" : value <= ROUTES ? router_at(value - 1)->operation : "";
    case METRIC_LABEL_HTTP:
        if (value == 0)
            return "other";
        if (value > HTTP_CODES)
            return "";
        snprintf(http, 8, "%u", (unsigned)http_codes[value - 1]);
        return http;
    case METRIC_LABEL_STATUS:
        return status_code((enum status)value);
    default:
        return "";
    }
}

/* --- the text so far --- */

struct text {
    struct arena *arena;
    char *data; /* NULL: memory is out */
    size_t used, capacity;
};

static void put(struct text *text, const char *data, size_t size)
{
    if (text->data == NULL)
        return;
    if (text->capacity - text->used < size) {
        size_t capacity = 2 * (text->capacity + size);
        char *larger = arena_take(text->arena, capacity);
        if (larger != NULL)
            memcpy(larger, text->data, text->used);
        text->data = larger;
        text->capacity = capacity;
        if (larger == NULL)
            return;
    }
    memcpy(text->data + text->used, data, size);
    text->used += size;
}

static void put_text(struct text *text, const char *words)
{
    put(text, words, strlen(words));
}

/* A label's value between its quotes, or with `quote` false the words of a HELP line. */
static void put_escaped(struct text *text, const char *words, bool quote)
{
    for (; *words != '\0'; words++) {
        if (*words == '\n')
            put_text(text, "\\n");
        else if (*words == '\\' || (quote && *words == '"'))
            put(text, (char[]){'\\', *words}, 2);
        else
            put(text, words, 1);
    }
}

static void put_head(struct text *text, const char *name, const char *help, const char *type)
{
    put_text(text, "# HELP ");
    put_text(text, name);
    put_text(text, " ");
    put_escaped(text, help, false);
    put_text(text, "\n# TYPE ");
    put_text(text, name);
    put_text(text, " ");
    put_text(text, type);
    put_text(text, "\n");
}

/* --- numbers --- */

/* Microseconds as seconds: 2.5, 0.000025. */
static void format_seconds(char out[NUMBER_BYTES], uint64_t us)
{
    int used = snprintf(out, NUMBER_BYTES, "%" PRIu64 ".%06" PRIu64, us / 1000000, us % 1000000);

    while (out[used - 1] == '0')
        out[--used] = '\0';
    if (out[used - 1] == '.')
        out[--used] = '\0';
}

static void put_number(struct text *text, const struct metric_family *family, bool whole,
                       uint64_t number)
{
    char out[NUMBER_BYTES];
    int64_t negative = (int64_t)number;

    if (!whole && family->unit == METRIC_MICROSECONDS)
        format_seconds(out, number);
    else if (family->kind == METRIC_GAUGE && negative < 0)
        snprintf(out, sizeof out, "%" PRId64, negative);
    else
        snprintf(out, sizeof out, "%" PRIu64, number);
    put_text(text, out);
    put_text(text, "\n");
}

/* --- samples --- */

/* One label more, and the braces that are open already. */
static void put_label(struct text *text, bool *open, const char *name, const char *value)
{
    put_text(text, *open ? "," : "{");
    *open = true;
    put_text(text, name);
    put_text(text, "=\"");
    put_escaped(text, value, true);
    put_text(text, "\"");
}

static void put_labels(struct text *text, const struct metric_family *family, size_t cell,
                       bool *open)
{
    size_t second = metric_label(family->labels[1])->count;
    size_t values[2] = {cell / second, cell % second};
    char http[8];

    for (size_t i = 0; i < 2; i++)
        if (family->labels[i] != METRIC_LABEL_NONE)
            put_label(text, open, metric_label(family->labels[i])->name,
                      value_text(family->labels[i], values[i], http));
}

/* A line; le NULL: none; whole: it counts, whatever the unit is. */
static void put_sample(struct text *text, const struct metric_family *family, const char *suffix,
                       size_t cell, const char *le, bool whole, uint64_t number)
{
    bool open = false;

    put_text(text, family->name);
    put_text(text, suffix);
    put_labels(text, family, cell, &open);
    if (le != NULL)
        put_label(text, &open, "le", le);
    put_text(text, open ? "} " : " ");
    put_number(text, family, whole, number);
}

static void put_histogram(struct text *text, const struct metric_family *family, size_t cell,
                          const uint64_t *numbers)
{
    uint64_t count = 0;
    char le[NUMBER_BYTES] = "+Inf";

    for (size_t i = 0; i <= family->bound_count; i++) {
        count += numbers[i];
        if (i == family->bound_count)
            strcpy(le, "+Inf");
        else if (family->unit == METRIC_MICROSECONDS)
            format_seconds(le, family->bounds[i]);
        else
            snprintf(le, sizeof le, "%" PRIu64, family->bounds[i]);
        put_sample(text, family, "_bucket", cell, le, true, count);
    }
    put_sample(text, family, "_sum", cell, NULL, false, numbers[family->bound_count + 1]);
    put_sample(text, family, "_count", cell, NULL, true, count);
}

/* Of what has an open label, most values have no number. */
static bool is_sparse(const struct metric_family *family)
{
    return metric_label(family->labels[0])->values == NULL ||
           metric_label(family->labels[1])->values == NULL;
}

static void put_family(struct text *text, const struct metric_family *family,
                       const uint64_t *numbers)
{
    static const char *const types[] = {
        [METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge", [METRIC_HISTOGRAM] = "histogram"};
    size_t step = family->kind == METRIC_HISTOGRAM ? family->bound_count + 2 : 1;
    bool begun = false;

    for (size_t cell = 0; cell < family->cells; cell++) {
        const uint64_t *own = &numbers[family->start + cell * step];
        if (is_sparse(family) && *own == 0)
            continue;
        if (!begun)
            put_head(text, family->name, family->help, types[family->kind]);
        begun = true;
        if (family->kind == METRIC_HISTOGRAM)
            put_histogram(text, family, cell, own);
        else
            put_sample(text, family, "", cell, NULL, false, *own);
    }
}

static void put_build(struct text *text)
{
    static const char name[] = "descent_build_info";
    bool open = false;

    put_head(text, name, "What this server is made of; the value is 1.", "gauge");
    put_text(text, name);
    for (size_t i = 0; i < METRIC_BUILD_VALUES; i++)
        put_label(text, &open, metric_label(METRIC_LABEL_BUILD)->values[i], metric_build_text(i));
    put_text(text, "} 1\n");
}

struct span metrics_text(struct arena *arena, const uint64_t *numbers)
{
    struct text text = {
        .arena = arena, .data = arena_take(arena, TEXT_BYTES_FIRST), .capacity = TEXT_BYTES_FIRST};

    put_build(&text);
    for (size_t i = 0; i < FAMILY_COUNT; i++)
        put_family(&text, metric_family((enum family)i), numbers);
    return span_of(text.data, text.used);
}
