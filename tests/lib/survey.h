/* What a server keeps and answers, as text that is equal when it is the same. One server at a time.
 * What is asked here must not fail for good: a 5xx or a cut connection is asked again. */
#ifndef DESCENT_TESTS_SURVEY_H
#define DESCENT_TESTS_SURVEY_H

#include <stdbool.h>
#include <stddef.h>

#include "service/core/buffer.h"
#include "tests/lib/http_client.h"

enum { SURVEY_BYTES = 1 << 20 };

struct survey {
    size_t used;
    char data[SURVEY_BYTES]; /* NUL after it */
};

/* `durable`: durable_step counts, since every step is journaled before its answer. `quarantine`:
 * and what is in there. */
void survey_open(unsigned port, bool durable, bool quarantine);
void survey_close(void);

/* One request; body may be NULL. Again while the server says that it failed, for 20 s: storage that
 * failed is tried again after a second. */
struct http_response survey_ask(const char *method, const char *path, const char *headers,
                                const struct buffer *body);
/* The same; fails the test when it is refused. */
void survey_demand(const char *method, const char *path, const char *headers,
                   const struct buffer *body);

/* Adds an answer without what is fleeting: its status, what its header names, its body. */
void survey_add(struct survey *survey, const struct http_response *response);

/* Every session (at most a page of them) with its hash and the ledger of its steps; the caller
 * frees it. */
struct survey *survey_take(void);
void survey_delete(void); /* all sessions */

bool survey_same(const struct survey *a, const struct survey *b);

#endif
