/* Requests to a live server whose answers are JSON: one call each, on a connection of its own. */
#ifndef DESCENT_TESTS_API_CLIENT_H
#define DESCENT_TESTS_API_CLIENT_H

#include <jansson.h>
#include <stddef.h>

#include "tests/lib/http_client.h"

struct answer {
    struct http_response http;
    json_t *json; /* the body, where its type is JSON; else NULL */
};

/* Sends one request and reads its answer; fails the test when there is none. `headers` are lines
 * ("Name: value\r\n" each, or ""), body NULL: none. Close the answer. */
struct answer api_send(unsigned port, const char *method, const char *path, const char *headers,
                       const void *body, size_t body_size);

/* The same with a JSON text as the body. */
struct answer api_send_json(unsigned port, const char *method, const char *path, const char *json);

void answer_close(struct answer *answer);

/* Of a problem document: its code, its detail, the pointer of its first error ("" for none). */
const char *answer_code(const struct answer *answer);
const char *answer_detail(const struct answer *answer);
const char *answer_pointer(const struct answer *answer);

/* Fails the test unless the answer is a whole problem document of this status and code. `what` is
 * for the message. */
void answer_check_problem(const struct answer *answer, unsigned status, const char *code,
                          const char *what);

#endif
