/* Writing JSON: a growing text in an arena. Members and elements are separated by the writer. After
 * memory ran out every call does nothing and json_text_end says so. */
#ifndef DESCENT_API_JSON_TEXT_H
#define DESCENT_API_JSON_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "service/core/arena.h"
#include "service/core/span.h"

struct json_text {
    struct arena *arena;
    char *data;
    size_t used, capacity;
    bool failed; /* out of memory */
    bool comma;  /* the next member or element needs one before it */
};

void json_text_init(struct json_text *text, struct arena *arena);

void json_text_open(struct json_text *text, char bracket);  /* '{' or '[' */
void json_text_close(struct json_text *text, char bracket); /* '}' or ']' */
void json_text_key(struct json_text *text, const char *key);

void json_text_string(struct json_text *text,
                      const char *value); /* NULL writes null; must be UTF-8 */
void json_text_f64(struct json_text *text,
                   double value); /* shortest round trip; NaN and infinity write null */
void json_text_u64(struct json_text *text, uint64_t value);
void json_text_bool(struct json_text *text, bool value);
void json_text_null(struct json_text *text);
void json_text_raw(struct json_text *text, struct span json); /* one value, already JSON */

/* The end of a line: what follows is a document of its own (application/x-ndjson). */
void json_text_line(struct json_text *text);

/* A member of an object: key and value. */
void json_text_member_string(struct json_text *text, const char *key, const char *value);
void json_text_member_f64(struct json_text *text, const char *key, double value);
void json_text_member_f32(struct json_text *text, const char *key, float value);
void json_text_member_u64(struct json_text *text, const char *key, uint64_t value);
void json_text_member_bool(struct json_text *text, const char *key, bool value);

/* Room for `size` more bytes at the end, for who writes in bulk and then adds to text->used; NULL
 * when memory ran out. */
char *json_text_reserve(struct json_text *text, size_t size);

/* Takes everything written so far as one span (NULL data when memory ran out). */
struct span json_text_end(struct json_text *text);

#endif
