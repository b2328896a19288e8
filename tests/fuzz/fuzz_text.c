/* libFuzzer target: the small readers of text: base64, UTF-8, patterns, and the writer of JSON
 * strings, of which jansson is the judge. */
#include "tests/fuzz/input.h"

#include <jansson.h>

#include "api/base64.h"
#include "api/json_text.h"
#include "service/core/glob.h"
#include "service/core/utf8.h"

static void try_base64(const uint8_t *data, size_t size)
{
    char *text = malloc(BASE64_SIZE(size) + 1);
    unsigned char *back = malloc(size + 1);

    PRE(text != NULL && back != NULL);
    base64_write(data, size, text);
    POST(base64_read(text, BASE64_SIZE(size), back, size));
    POST(size == 0 || memcmp(back, data, size) == 0);
    free(back);
    /* as base64 itself: what is read, written again, is the same text */
    for (size_t short_by = 0; short_by < 3 && size % 4 == 0 && size / 4 * 3 >= short_by;
         short_by++) {
        size_t wanted = size / 4 * 3 - short_by;
        back = malloc(wanted > 0 ? wanted : 1);
        PRE(back != NULL);
        if (base64_read((const char *)data, size, back, wanted)) {
            base64_write(back, wanted, text);
            POST(size == 0 || memcmp(text, data, size) == 0);
        }
        free(back);
    }
    free(text);
}

static bool is_utf8(const char *text, size_t size)
{
    for (size_t at = 0, one; at < size; at += one)
        if ((one = utf8_length(text + at, size - at)) == 0)
            return false;
    return true;
}

static void try_json(const char *value)
{
    struct arena arena;
    struct json_text text;
    json_error_t error;

    arena_init(&arena);
    json_text_init(&text, &arena);
    json_text_open(&text, '{');
    json_text_member_string(&text, "a", value);
    json_text_close(&text, '}');
    struct span span = json_text_end(&text);
    json_t *judge = json_loadb((const char *)span.data, span.size, 0, &error);
    POST(judge != NULL);
    POST(strcmp(json_string_value(json_object_get(judge, "a")), value) == 0);
    json_decref(judge);
    arena_close(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {.data = data, .size = size};
    char *pattern = input_text(&input, '\n'), *rest = input_text(&input, '\0');
    json_t *judge = json_stringn((const char *)data, size);

    POST((judge != NULL) == is_utf8((const char *)data, size));
    json_decref(judge);
    try_base64(data, size);
    if (is_utf8(pattern, strlen(pattern))) {
        try_json(pattern);
        POST(glob_match("*", pattern));
        if (strpbrk(pattern, "*?") == NULL)
            POST(glob_match(pattern, rest) == (strcmp(pattern, rest) == 0));
    }
    glob_match(pattern, rest);
    free(pattern);
    free(rest);
    return 0;
}
