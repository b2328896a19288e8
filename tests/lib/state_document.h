/* Files of whole states, taken apart and put together by jansson and not by the product's codec. */
#ifndef DESCENT_TESTS_STATE_DOCUMENT_H
#define DESCENT_TESTS_STATE_DOCUMENT_H

#include <jansson.h>
#include <stddef.h>

#include "tests/lib/api_client.h"

struct state_document {
    json_t *header, *about;    /* about: descent_state */
    const unsigned char *data; /* in the answer */
    size_t data_size;
};

/* Where the tensors begin, in bytes from the start of the file. */
size_t state_document_data_at(const struct answer *answer);

/* Of an exported file, which must stay; fails the test when it is none. */
struct state_document state_document_open(const struct answer *answer);
void state_document_close(struct state_document *file);

/* The file with what was changed; malloc'ed. */
char *state_document_make(const struct state_document *file, size_t *size);

#endif
