/* libFuzzer target: any bytes as a JSON document. jansson alone is the judge of what is JSON: what
 * json_read takes it must take, and the other way round but for our limits. Then every piece is
 * read in every way. */
#include <jansson.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/json_document.h"
#include "service/core/contract.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_array(const struct json_document *document, const json_t *value)
{
    unsigned rank = 0;
    size_t shape[LAYOUT_RANK_MAX], count = 1;
    struct fault fault;

    if (json_shape(document, value, &rank, shape, &fault) != STATUS_OK)
        return;
    for (unsigned i = 0; i < rank; i++)
        count *= shape[i];
    float *single = malloc((count + 1) * sizeof *single); /* exact, for the sanitizer */
    double *real = malloc((count + 1) * sizeof *real);
    if (single != NULL && real != NULL) {
        enum status narrow = json_tensor(document, value, rank, shape, DTYPE_F32, single, &fault);
        enum status wide = json_tensor(document, value, rank, shape, DTYPE_F64, real, &fault);
        POST(narrow == STATUS_OK || narrow == STATUS_INVALID_FIELD);
        POST(wide == STATUS_OK || wide == STATUS_INVALID_FIELD);
        if (rank > 0) {
            shape[0]++;
            POST(json_tensor(document, value, rank, shape, DTYPE_F64, NULL, &fault) != STATUS_OK);
        }
    }
    free(single);
    free(real);
}

static void read_value(const struct json_document *document, json_t *value)
{
    struct fault fault;
    double number;
    uint64_t whole;
    const char *key;
    json_t *member;
    size_t index;

    if (json_is_number(value) || json_is_number_array(value)) {
        if (json_f64(document, value, &number, &fault) == STATUS_OK &&
            json_u64(document, value, &whole, &fault) == STATUS_OK && number < 0x1p53)
            POST(number == (double)whole || fabs(number - (double)whole) < 1e-9);
        read_array(document, value);
        return;
    }
    json_object_foreach(value, key, member) read_value(document, member);
    json_array_foreach(value, index, member) read_value(document, member);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    struct json_document document;
    struct fault fault = {.status = STATUS_OK};
    json_error_t error;

    arena_init(&arena);
    enum status status = json_read(&arena, span_of(data, size), &document, &fault);
    json_t *judge =
        json_loadb((const char *)data, size,
                   JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, &error);
    if (status == STATUS_OK) {
        POST(memchr(data, '\0', size) == NULL);
        /* jansson refuses numbers beyond a double, which we do only where they are read */
        POST(judge != NULL || json_error_code(&error) == json_error_numeric_overflow);
        read_value(&document, document.root);
        json_close(&document);
    } else {
        POST(judge == NULL || strstr(fault.detail, "more than") != NULL ||
             memchr(data, '\0', size) != NULL); /* jansson passes over a NUL after a literal */
        POST(strlen(fault.detail) > 0 && fault.status == status);
    }
    json_decref(judge);
    arena_close(&arena);
    return 0;
}
