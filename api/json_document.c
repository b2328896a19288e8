/* JSON documents: the lifting pass, then jansson on the envelope, then single numbers. Arrays are
 * read in json_tensor.c. */
#include "api/json_document.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/json_lift.h"
#include "api/json_numbers.h"
#include "service/core/contract.h"

/* --- errors of the envelope --- */

static bool is_word(unsigned char c)
{
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
}

/* Where the token begins that ends before `end`: jansson says where it stopped reading. */
static size_t token_begin(struct span envelope, size_t end)
{
    const unsigned char *text = envelope.data;
    size_t at = end;

    if (at == 0)
        return 0;
    at--;
    if (text[at] == '"') {
        while (at > 0) {
            size_t slashes = 0;
            at--;
            while (slashes < at && text[at - slashes - 1] == '\\')
                slashes++;
            if (text[at] == '"' && slashes % 2 == 0)
                return at;
        }
        return end - 1;
    }
    while (at > 0 && ((text[at] & 0xC0) == 0x80 || (is_word(text[at]) && is_word(text[at - 1]))))
        at--;
    return at;
}

/* jansson's words and ours. A token that does not fit is named by its begin, what is wrong inside a
 * string by the byte. */
static const struct expectation {
    const char *theirs, *ours;
    bool token;
} expectations[] = {
    {"string or '}' expected", "the name of a member in double quotes was expected", true},
    {"':' expected", "a colon was expected after the name of a member", true},
    {"'}' expected", "a comma or } was expected after the value of a member", true},
    {"']' expected", "a comma or ] was expected after the element of an array", true},
    {"end of file expected", "the text must end here: it holds one value only", true},
    {"unexpected token", "a value was expected here", true},
    {"invalid token",
     "a value was expected here: an object, an array, a string in double quotes, a number, true, "
     "false or null",
     true},
    {"premature end", "a string is not closed", false},
    {"unable to decode", "this byte is not UTF-8", false},
    {"\\u0000", "a string cannot hold the NUL character", false},
    {"control character",
     "a string cannot hold a bare control character; write \\n, \\t or \\u00XX", false},
    {"invalid Unicode", "a surrogate in a string has no partner", false},
    {"", "this is no escape that JSON knows", false},
};

static const struct expectation *find_expectation(const char *theirs)
{
    const struct expectation *each = expectations;

    while (strncmp(theirs, each->theirs, strlen(each->theirs)) != 0)
        each++; /* the last one fits everything */
    return each;
}

static enum status envelope_fault(const struct json_lift *lift, const json_error_t *error,
                                  struct fault *fault)
{
    char words[JSON_ERROR_TEXT_LENGTH + 64];
    size_t end = error->position < 0 ? 0 : (size_t)error->position;
    size_t begin = token_begin(lift->envelope, end);
    const unsigned char *token = lift->envelope.data + begin;
    const struct expectation *expectation = find_expectation(error->text);

    if (json_error_code(error) == json_error_duplicate_key) {
        size_t size = end - begin < 150 ? end - begin : 150;
        while (size < end - begin && (token[size] & 0xC0) == 0x80)
            size--;
        snprintf(words, sizeof words, "the member %.*s is there twice; send it once", (int)size,
                 token);
        return json_lift_fault(lift->text, json_lift_offset(lift, begin), fault, words);
    }
    if (strstr(error->text, "near end of file") != NULL ||
        strncmp(error->text, "premature end", 13) == 0) {
        snprintf(words, sizeof words, "the text ends too early: %s", expectation->ours);
        return json_lift_fault(lift->text, lift->text.size, fault, words);
    }
    if (expectation->token && begin < end && (*token == 'N' || *token == 'I'))
        return json_lift_fault(lift->text, json_lift_offset(lift, begin), fault,
                               "JSON has no NaN and no Infinity; send a finite number");
    return json_lift_fault(lift->text, json_lift_offset(lift, expectation->token ? begin : end),
                           fault, expectation->ours);
}

/* jansson takes a failed allocation for an error of the text, or loses a character of a string
 * without a word; what an escape lacks then it asserts to be there. It comes to escapes only with
 * another allocation: so after one that failed none succeeds, until the text is given up. */
static _Thread_local bool starved;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void *allocate(size_t size)
{
    void *memory = starved ? NULL : malloc(size);

    starved = memory == NULL;
    return memory;
}

static void set_allocator(void)
{
    json_set_alloc_funcs(allocate, free);
}

enum status json_read(struct arena *arena, struct span text, struct json_document *out,
                      struct fault *fault)
{
    struct json_lift lift;
    json_error_t error;
    enum status status = json_lift(arena, text, &lift, fault);

    *out = (struct json_document){.root = NULL};
    if (status != STATUS_OK)
        return status;
    pthread_once(&once, set_allocator);
    starved = false;
    out->root = json_loadb((const char *)lift.envelope.data, lift.envelope.size,
                           JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (starved) {
        starved = false;
        json_close(out);
        return fault_set(fault, STATUS_INTERNAL, "", "no memory left to read the JSON text");
    }
    if (out->root == NULL)
        return envelope_fault(&lift, &error, fault);
    out->lifted = lift.pieces;
    out->lifted_count = lift.piece_count;
    return STATUS_OK;
}

void json_close(struct json_document *document)
{
    json_decref(document->root);
    *document = (struct json_document){.root = NULL};
}

/* --- numbers --- */

bool json_is_number_array(const json_t *value)
{
    /* Numbers among other things are lifted one by one: only a numeric array has a lone index in
     * it. */
    return json_is_array(value) && json_array_size(value) == 1 &&
           json_is_integer(json_array_get(value, 0));
}

struct span json_piece(const struct json_document *document, const json_t *value)
{
    const json_t *index = json_is_array(value) ? json_array_get(value, 0) : value;

    PRE(json_is_number(value) || json_is_number_array(value));
    PRE((size_t)json_integer_value(index) < document->lifted_count);
    return document->lifted[json_integer_value(index)];
}

static enum status not_a_number(struct fault *fault)
{
    return fault_set(fault, STATUS_INVALID_FIELD, "", "a number is needed here");
}

enum status json_f64(const struct json_document *document, const json_t *value, double *out,
                     struct fault *fault)
{
    double number = 0;

    if (!json_is_number(value))
        return not_a_number(fault);
    struct span piece = json_piece(document, value);
    const char *text = (const char *)piece.data;
    POST(number_read_f64(text, text + piece.size, &number) == text + piece.size);
    if (isinf(number))
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "the number is beyond the largest double, 1.7976931348623157e308");
    *out = number;
    return STATUS_OK;
}

/* The value of valid number text when it is a whole number that fits: exact, digit by digit. */
static bool whole_value(struct span piece, uint64_t *out)
{
    const unsigned char *text = piece.data, *end = piece.data + piece.size;
    const unsigned char *exponent = text;
    long power = 0; /* of ten: of the digit that is read next, then of the last one */
    uint64_t value = 0;

    while (exponent < end && (*exponent | 32) != 'e')
        exponent++;
    if (exponent < end) {
        bool minus = exponent[1] == '-';
        for (const unsigned char *at = exponent + 1; at < end; at++)
            if (*at >= '0' && *at <= '9' && power < 100000000)
                power = power * 10 + (*at - '0');
        power = minus ? -power : power;
    }
    if (*text == '-')
        return false;
    for (const unsigned char *at = text; at < exponent && *at != '.'; at++)
        power++;
    for (; text < exponent; text++) {
        if (*text == '.')
            continue;
        unsigned digit = *text - '0';
        power--;
        if (power < 0 && digit != 0)
            return false;
        if (power >= 0 && (__builtin_mul_overflow(value, 10u, &value) ||
                           __builtin_add_overflow(value, digit, &value)))
            return false;
    }
    for (; power > 0 && value > 0; power--)
        if (__builtin_mul_overflow(value, 10u, &value))
            return false;
    *out = value;
    return true;
}

enum status json_u64(const struct json_document *document, const json_t *value, uint64_t *out,
                     struct fault *fault)
{
    if (!json_is_number(value))
        return not_a_number(fault);
    if (!whole_value(json_piece(document, value), out))
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "a whole number from 0 to 18446744073709551615 is needed here");
    return STATUS_OK;
}
