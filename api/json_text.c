/* Writing JSON into an arena. */
#include "api/json_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/json_numbers.h"
#include "service/core/contract.h"
#include "service/core/number.h"

void json_text_init(struct json_text *text, struct arena *arena)
{
    *text = (struct json_text){.arena = arena};
}

char *json_text_reserve(struct json_text *text, size_t size)
{
    if (text->failed)
        return NULL;
    if (text->data == NULL || text->capacity - text->used < size) {
        /* An arena cannot give back: doubling leaves at most as much behind as is in use. */
        size_t capacity = text->capacity + (text->capacity > size ? text->capacity : size) + 240;
        char *data = capacity > size ? arena_take(text->arena, capacity) : NULL;
        if (data == NULL) {
            text->failed = true;
            return NULL;
        }
        if (text->used > 0)
            memcpy(data, text->data, text->used);
        text->data = data;
        text->capacity = capacity;
    }
    return text->data + text->used;
}

static void put(struct json_text *text, const void *bytes, size_t size)
{
    char *end = json_text_reserve(text, size);

    if (end == NULL || size == 0)
        return;
    memcpy(end, bytes, size);
    text->used += size;
}

static void put_byte(struct json_text *text, char byte)
{
    put(text, &byte, 1);
}

/* Before a value or a key: the comma that it may need. After it the next one needs one. */
static void begin_value(struct json_text *text)
{
    if (text->comma)
        put_byte(text, ',');
    text->comma = true;
}

void json_text_open(struct json_text *text, char bracket)
{
    PRE(bracket == '{' || bracket == '[');
    begin_value(text);
    put_byte(text, bracket);
    text->comma = false;
}

void json_text_close(struct json_text *text, char bracket)
{
    PRE(bracket == '}' || bracket == ']');
    put_byte(text, bracket);
    text->comma = true;
}

static void put_escape(struct json_text *text, unsigned char byte)
{
    static const char short_names[] = "\"\"\\\\\bb\ff\nn\rr\tt"; /* pairs: the byte, its letter */
    char escape[8];

    for (const char *pair = short_names; *pair != '\0'; pair += 2) {
        if ((unsigned char)pair[0] == byte) {
            put_byte(text, '\\');
            put_byte(text, pair[1]);
            return;
        }
    }
    snprintf(escape, sizeof escape, "\\u%04x", (unsigned)byte);
    put(text, escape, 6);
}

static void put_quoted(struct json_text *text, const char *value)
{
    put_byte(text, '"');
    while (*value != '\0') {
        size_t plain = 0;
        while ((unsigned char)value[plain] >= ' ' && value[plain] != '"' && value[plain] != '\\')
            plain++;
        put(text, value, plain);
        value += plain;
        if (*value != '\0')
            put_escape(text, (unsigned char)*value++);
    }
    put_byte(text, '"');
}

void json_text_key(struct json_text *text, const char *key)
{
    begin_value(text);
    put_quoted(text, key);
    put_byte(text, ':');
    text->comma = false;
}

void json_text_string(struct json_text *text, const char *value)
{
    if (value == NULL) {
        json_text_null(text);
        return;
    }
    begin_value(text);
    put_quoted(text, value);
}

void json_text_f64(struct json_text *text, double value)
{
    if (!isfinite(value)) {
        json_text_null(text);
        return;
    }
    begin_value(text);
    char *end = json_text_reserve(text, NUMBER_TEXT_BYTES);
    if (end != NULL)
        text->used += (size_t)(number_write_f64(end, value) - end);
}

void json_text_member_f32(struct json_text *text, const char *key, float value)
{
    json_text_key(text, key);
    if (!isfinite(value)) {
        json_text_null(text);
        return;
    }
    begin_value(text);
    char *end = json_text_reserve(text, NUMBER_TEXT_BYTES);
    if (end != NULL)
        text->used += (size_t)(number_write_f32(end, value) - end);
}

void json_text_line(struct json_text *text)
{
    put_byte(text, '\n');
    text->comma = false;
}

void json_text_u64(struct json_text *text, uint64_t value)
{
    char digits[NUMBER_BYTES];

    begin_value(text);
    put(text, digits, number_digits(digits, value));
}

void json_text_bool(struct json_text *text, bool value)
{
    begin_value(text);
    put(text, value ? "true" : "false", value ? 4 : 5);
}

void json_text_null(struct json_text *text)
{
    begin_value(text);
    put(text, "null", 4);
}

void json_text_raw(struct json_text *text, struct span json)
{
    begin_value(text);
    put(text, json.data, json.size);
}

void json_text_member_string(struct json_text *text, const char *key, const char *value)
{
    json_text_key(text, key);
    json_text_string(text, value);
}

void json_text_member_f64(struct json_text *text, const char *key, double value)
{
    json_text_key(text, key);
    json_text_f64(text, value);
}

void json_text_member_u64(struct json_text *text, const char *key, uint64_t value)
{
    json_text_key(text, key);
    json_text_u64(text, value);
}

void json_text_member_bool(struct json_text *text, const char *key, bool value)
{
    json_text_key(text, key);
    json_text_bool(text, value);
}

struct span json_text_end(struct json_text *text)
{
    return text->failed ? span_of(NULL, 0) : span_of(text->data, text->used);
}
