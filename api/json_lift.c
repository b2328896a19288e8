/* The lifting pass. At every '[' the text is scanned ahead: when the array turns out to hold only
 * numbers it is cut out. When it does not, the arrays that are open at the offending place are
 * remembered as mixed, so that none of them is scanned again; those that were closed before it are
 * numeric and are scanned once more when the pass gets there. */
#include "api/json_lift.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "api/json_document.h"
#include "api/json_numbers.h"
#include "api/json_text.h"

struct pass {
    struct json_lift *lift;
    struct json_text envelope;
    struct arena *arena;
    struct fault *fault;
    const char *at, *end;
    const char *copied; /* the envelope has everything before it */
    size_t capacity;    /* of lift->pieces */
    size_t values, depth;
    const char *mixed[JSON_DEPTH_MAX]; /* arrays known not to be numeric, in order */
    size_t mixed_count, mixed_next;
};

enum status json_lift_fault(struct span text, size_t offset, struct fault *fault, const char *words)
{
    size_t line = 1, column = 1;

    for (size_t i = 0; i < offset && i < text.size; i++) {
        if (text.data[i] == '\n') {
            line++;
            column = 1;
        } else if ((text.data[i] & 0xC0) != 0x80) { /* columns are characters */
            column++;
        }
    }
    return fault_set(fault, STATUS_INVALID_JSON, "", "line %zu, column %zu (byte %zu): %s", line,
                     column, offset, words);
}

static enum status fail_at(struct pass *pass, const char *at, const char *words)
{
    return json_lift_fault(pass->lift->text, (size_t)(at - (const char *)pass->lift->text.data),
                           pass->fault, words);
}

static enum status out_of_memory(struct pass *pass)
{
    return fault_set(pass->fault, STATUS_INTERNAL, "", "no memory left to read the JSON text");
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static enum status number_fault(struct pass *pass, const char *at)
{
    const char *digit = at + (*at == '-');

    if (digit < pass->end && (*digit == 'I' || *digit == 'N'))
        return fail_at(pass, at, "JSON has no NaN and no Infinity; send a finite number");
    return fail_at(pass, at,
                   "this is not a JSON number: digits without leading zeros or a plus sign, "
                   "then maybe a fraction such as .5 and an exponent such as e-3");
}

/* Past the number at `at`, or NULL with the fault set. What follows it must end it: "01" and "1x"
 * are no numbers. */
static const char *skip_number(struct pass *pass, const char *at)
{
    const char *end = number_end(at, pass->end);

    if (end == NULL || (end < pass->end && *end != ',' && *end != ']' && *end != '}' &&
                        *end != ':' && !is_space(*end))) {
        number_fault(pass, at);
        return NULL;
    }
    return end;
}

static enum status too_deep(struct pass *pass, const char *at)
{
    return fail_at(pass, at, "more than 32 brackets are open here; nest less");
}

/* Scans the array at pass->at. *array_end: past it when it is numeric, NULL when it is mixed. */
static enum status scan_array(struct pass *pass, const char **array_end)
{
    const char *at = pass->at;
    const char *open[JSON_DEPTH_MAX];
    size_t count = 0;
    bool need_value = true, may_close = false;

    for (;;) {
        while (at < pass->end && is_space(*at))
            at++;
        if (at == pass->end)
            return fail_at(pass, open[count - 1],
                           "this array is not closed: the text ends before its ]");
        if (*at == ']' && may_close) {
            at++;
            count--;
            if (count == 0) {
                *array_end = at;
                return STATUS_OK;
            }
            need_value = false;
        } else if (!need_value) {
            if (*at != ',')
                return fail_at(pass, at, "a comma or ] was expected after the element of an array");
            at++;
            need_value = true;
            may_close = false;
            continue;
        } else if (*at == '[') {
            if (pass->depth + count == JSON_DEPTH_MAX)
                return too_deep(pass, at);
            open[count++] = at++;
            may_close = true;
            continue;
        } else if (*at == '-' || (*at >= '0' && *at <= '9')) {
            at = skip_number(pass, at);
            if (at == NULL)
                return STATUS_INVALID_JSON;
            need_value = false;
        } else if (strchr("\"{tfn", *at) != NULL && *at != '\0') {
            break;
        } else if (*at == 'N' || *at == 'I') {
            return number_fault(pass, at);
        } else {
            return fail_at(pass, at, "a value was expected here, an element of an array");
        }
        may_close = true;
    }
    memcpy(pass->mixed, open, count * sizeof *open);
    pass->mixed_count = count;
    pass->mixed_next = 0;
    *array_end = NULL;
    return STATUS_OK;
}

static enum status count_value(struct pass *pass)
{
    if (++pass->values > JSON_VALUES_MAX)
        return fault_set(
            pass->fault, STATUS_TOO_LARGE, "",
            "the JSON text holds more than %d values outside of number arrays; send fewer, "
            "or tensors in a binary media type",
            JSON_VALUES_MAX);
    return STATUS_OK;
}

/* Puts the index of a new piece in place of the text from pass->at to `end`. */
static enum status lift_piece(struct pass *pass, const char *end)
{
    struct json_lift *lift = pass->lift;
    char index[32];

    if (lift->piece_count == pass->capacity) {
        size_t capacity = pass->capacity * 2 + 16;
        struct span *pieces = arena_take(pass->arena, capacity * sizeof *pieces);
        if (pieces == NULL)
            return out_of_memory(pass);
        if (lift->piece_count > 0)
            memcpy(pieces, lift->pieces, lift->piece_count * sizeof *pieces);
        lift->pieces = pieces;
        pass->capacity = capacity;
    }
    size_t before = (size_t)(pass->at - pass->copied);
    size_t digits = (size_t)snprintf(index, sizeof index, *pass->at == '[' ? "[%zu]" : "%zu",
                                     lift->piece_count);
    char *out = json_text_reserve(&pass->envelope, before + digits);
    if (out == NULL)
        return out_of_memory(pass);
    memcpy(out, pass->copied, before);
    memcpy(out + before, index, digits);
    pass->envelope.used += before + digits;
    lift->pieces[lift->piece_count++] = span_of(pass->at, (size_t)(end - pass->at));
    pass->at = pass->copied = end;
    return count_value(pass);
}

static enum status enter(struct pass *pass)
{
    if (pass->depth == JSON_DEPTH_MAX)
        return too_deep(pass, pass->at);
    pass->depth++;
    pass->at++;
    return count_value(pass);
}

static enum status lift_array(struct pass *pass)
{
    const char *end = NULL;

    if (pass->mixed_next == pass->mixed_count || pass->mixed[pass->mixed_next] != pass->at) {
        enum status status = scan_array(pass, &end);
        if (status != STATUS_OK)
            return status;
    }
    if (end != NULL)
        return lift_piece(pass, end);
    pass->mixed_next++;
    return enter(pass);
}

static void skip_string(struct pass *pass)
{
    const char *at = pass->at + 1;

    while (at < pass->end && *at != '"')
        at += *at == '\\' && at + 1 < pass->end ? 2 : 1;
    pass->at = at < pass->end ? at + 1 : at; /* an open string is jansson's to report */
}

static enum status lift_next(struct pass *pass)
{
    char c = *pass->at;

    if (c == '"') {
        skip_string(pass);
        return STATUS_OK;
    }
    if (c == '[')
        return lift_array(pass);
    if (c == '{')
        return enter(pass);
    if (c == '-' || (c >= '0' && c <= '9')) {
        const char *end = skip_number(pass, pass->at);
        return end == NULL ? STATUS_INVALID_JSON : lift_piece(pass, end);
    }
    if (c == '\0') /* jansson passes over one after a literal */
        return fail_at(pass, pass->at, "a NUL byte cannot stand in JSON");
    pass->at++;
    if ((c == '}' || c == ']') && pass->depth > 0)
        pass->depth--;
    return c == ',' || c == ':' ? count_value(pass) : STATUS_OK;
}

enum status json_lift(struct arena *arena, struct span text, struct json_lift *out,
                      struct fault *fault)
{
    struct pass pass = {.lift = out, .arena = arena, .fault = fault};

    *out = (struct json_lift){.text = text};
    if (text.size == 0)
        return json_lift_fault(text, 0, fault, "the text is empty; JSON was expected");
    pass.at = pass.copied = (const char *)text.data;
    pass.end = pass.at + text.size;
    json_text_init(&pass.envelope, arena);
    while (pass.at < pass.end) {
        enum status status = lift_next(&pass);
        if (status != STATUS_OK)
            return status;
    }
    json_text_raw(&pass.envelope, span_of(pass.copied, (size_t)(pass.end - pass.copied)));
    out->envelope = json_text_end(&pass.envelope);
    return out->envelope.data == NULL ? out_of_memory(&pass) : STATUS_OK;
}

/* Bytes that stand in the envelope for the piece of that index. */
static size_t index_size(const struct span *piece, size_t index)
{
    size_t size = *piece->data == '[' ? 3 : 1;

    for (; index >= 10; index /= 10)
        size++;
    return size;
}

size_t json_lift_offset(const struct json_lift *lift, size_t envelope_offset)
{
    size_t in_envelope = 0, in_text = 0;

    for (size_t i = 0; i < lift->piece_count; i++) {
        const struct span *piece = &lift->pieces[i];
        size_t begin = (size_t)(piece->data - lift->text.data);
        size_t size = index_size(piece, i);
        in_envelope += begin - in_text;
        if (envelope_offset < in_envelope)
            return begin - (in_envelope - envelope_offset);
        if (envelope_offset < in_envelope + size)
            return begin;
        in_envelope += size;
        in_text = begin + piece->size;
    }
    return in_text + (envelope_offset - in_envelope);
}
