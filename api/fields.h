/* JSON and query strings to structs and back, by declaration: one table a struct says name, type,
 * range and meaning; it reads (unknown, duplicate, wrong or out-of-range fields refused, naming the
 * place), and it writes. */
#ifndef DESCENT_API_FIELDS_H
#define DESCENT_API_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/json_document.h"
#include "api/json_text.h"
#include "service/core/status.h"

struct request;

enum field_kind {
    FIELD_F64,    /* double; nullable ones hold NaN for null */
    FIELD_U64,    /* uint64_t; nullable ones hold 0 for null, or UINT64_MAX */
    FIELD_FLAG,   /* bool */
    FIELD_TEXT,   /* const char *, in the arena; NULL for null or absent */
    FIELD_CHOICE, /* int, an index into choices */
    FIELD_OBJECT, /* a nested struct at the same base pointer, by its own table */
    FIELD_VALUE,  /* const json_t *: left to the caller (tensors, nested unions) */
};

struct field {
    const char *name;
    enum field_kind kind;
    size_t offset;   /* in the struct */
    double min, max; /* F64 and U64: inclusive unless open; TEXT: max bytes */
    bool min_open;   /* F64: greater than min */
    bool max_open;   /* F64: less than max */
    bool nullable;
    bool null_is_max;           /* U64: null is UINT64_MAX */
    bool json_only;             /* no query parameter */
    const char *const *choices; /* CHOICE: NULL-terminated */
    const struct field *fields; /* OBJECT: ends with a NULL name */
    size_t present; /* offset of a bool set true when the field was given; 0: none (put nothing at
                       offset 0) */
};

/* The index of `text` among the choices of `name` (NULL-terminated); NULL is none of them.
 * INVALID_FIELD, where = "", with all of them. */
enum status choice_read(const char *name, const char *const *choices, const char *text, int *out,
                        struct fault *fault);

/* Reads an object into *out, which holds the defaults. where of faults = "/name/...". */
enum status fields_read(struct arena *arena, const struct json_document *document,
                        const json_t *object, const struct field *fields, void *out,
                        struct fault *fault);

/* Reads the same fields from the query of a request: numbers, flags (true or false), texts and
 * choices that are not json_only. What has the name of another stays unread, so that
 * request_query_end refuses it. */
enum status fields_read_query(struct request *request, const struct field *fields, void *out,
                              struct fault *fault);

/* Writes every field as members of the object that is open in `text`; FIELD_VALUE is skipped, NULL
 * texts are written null. */
void fields_write(struct json_text *text, const struct field *fields, const void *in);

#endif
