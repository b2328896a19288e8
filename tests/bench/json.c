/* JSON: a million f32 of nine digits, read and written, beside jansson's own parse and dump. Best
 * of several rounds. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "api/codec.h"
#include "api/json_document.h"
#include "tests/bench/bench.h"

enum { COUNT = 1000000, ROUNDS = 7, NUMBER_BYTES = 24 };

static char *make_text(const float *values, size_t *size)
{
    char *text = malloc((size_t)COUNT * NUMBER_BYTES), *at = text;

    if (text == NULL)
        bench_fail("memory");
    at += sprintf(at, "{\"w\":[");
    for (size_t i = 0; i < COUNT; i++)
        at += sprintf(at, "%s%.9g", i > 0 ? "," : "", (double)values[i]);
    at += sprintf(at, "]}");
    *size = (size_t)(at - text);
    return text;
}

static double read_ours(const char *text, size_t size, const struct layout *layout, void *out)
{
    struct arena arena;
    struct json_document document;
    struct fault fault;
    double began = bench_now();

    arena_init(&arena);
    if (json_read(&arena, span_of(text, size), &document, &fault) != STATUS_OK ||
        json_tensors(&document, document.root, layout, DTYPE_F32, out, &fault) != STATUS_OK)
        bench_fail(fault.detail);
    json_close(&document);
    arena_close(&arena);
    return bench_now() - began;
}

static double write_ours(const struct layout *layout, const struct tensors *tensors)
{
    struct arena arena;
    struct encoded encoded;
    struct fault fault;
    double began = bench_now();

    arena_init(&arena);
    struct encode_request request = {.arena = &arena, .layout = layout, .tensors = tensors};
    if (codec_find("application/json")->encode(&request, &encoded, &fault) != STATUS_OK)
        bench_fail(fault.detail);
    arena_close(&arena);
    return bench_now() - began;
}

/* Times of jansson's parse and dump. */
static void run_jansson(const char *text, size_t size, double *parse, double *dump)
{
    double began = bench_now();
    json_t *root = json_loadb(text, size, 0, NULL);

    *parse = bench_now() - began;
    if (root == NULL)
        bench_fail("jansson did not parse");
    began = bench_now();
    char *again = json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(9));
    *dump = bench_now() - began;
    free(again);
    json_decref(root);
}

static void report(const char *what, double *ours, double *theirs, const char *limit)
{
    double mine = COUNT / bench_minimum(ours, ROUNDS) / 1e6;
    double other = COUNT / bench_minimum(theirs, ROUNDS) / 1e6;

    bench_row(what, bench_text("%.1f M numbers/s", mine),
              bench_text("%s %.1f M numbers/s", limit, other), mine / other, AIM_AT_LEAST, 8);
}

void bench_json(const struct bench *bench)
{
    struct layout *layout = layout_new();
    struct tensors tensors = {.buffer = buffer_new(COUNT * sizeof(float)), .dtype = DTYPE_F32};
    float *values = tensors.buffer == NULL ? NULL : (float *)(void *)tensors.buffer->data;
    float *back = malloc(COUNT * sizeof *back);
    double reads[ROUNDS], writes[ROUNDS], parses[ROUNDS], dumps[ROUNDS];
    const size_t shape[1] = {COUNT};
    struct fault fault;
    size_t size;

    (void)bench;
    if (layout == NULL || values == NULL || back == NULL ||
        layout_add(layout, "w", 1, 1, shape, &fault) != STATUS_OK ||
        layout_seal(layout, &fault) != STATUS_OK)
        bench_fail("memory");
    bench_fill(values, COUNT, 1);
    char *text = make_text(values, &size);
    for (size_t round = 0; round < ROUNDS; round++) {
        reads[round] = read_ours(text, size, layout, back);
        writes[round] = write_ours(layout, &tensors);
        run_jansson(text, size, &parses[round], &dumps[round]);
    }
    if (memcmp(values, back, COUNT * sizeof *back) != 0)
        bench_fail("what was read is not what was written");
    report("JSON read, 1 M f32", reads, parses, "jansson parses");
    report("JSON written, 1 M f32", writes, dumps, "jansson dumps");
    free(text);
    free(back);
    buffer_release(tensors.buffer);
    layout_release(layout);
}
