/* W3C Trace Context, level 1: the header `traceparent`. */
#ifndef DESCENT_API_TRACE_H
#define DESCENT_API_TRACE_H

#include <stdbool.h>

enum { TRACE_ID_CHARACTERS = 32, SPAN_ID_CHARACTERS = 16 };

/* As lowercase hexadecimals. */
struct trace {
    char trace_id[TRACE_ID_CHARACTERS + 1];
    char span_id[SPAN_ID_CHARACTERS + 1]; /* of who asked: the parent of what we do */
};

/* Reads a value as "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01". What follows it is
 * allowed from version 01 on, after another "-". False for whatever the recommendation says is to
 * be ignored: version ff, ids of zeros, capitals, another length. *out is then undefined. */
bool trace_parse(const char *value, struct trace *out);

#endif
