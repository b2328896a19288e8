/* Files of whole states, by jansson. */
#include "tests/lib/state_document.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_AT = 8 };

size_t state_document_data_at(const struct answer *answer)
{
    size_t size = 0;

    for (int i = 7; i >= 0; i--)
        size = size << 8 | (unsigned char)answer->http.body[i];
    return HEADER_AT + size;
}

struct state_document state_document_open(const struct answer *answer)
{
    size_t begin = state_document_data_at(answer);
    struct state_document file = {.header =
                                      json_loadb(answer->http.body + HEADER_AT, begin - HEADER_AT,
                                                 JSON_REJECT_DUPLICATES, NULL),
                                  .data = (const unsigned char *)answer->http.body + begin,
                                  .data_size = answer->http.body_size - begin};

    ck_assert_ptr_nonnull(file.header);
    const json_t *metadata = json_object_get(file.header, "__metadata__");
    const char *text = json_string_value(json_object_get(metadata, "descent_state"));
    ck_assert_ptr_nonnull(text);
    file.about = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    ck_assert_ptr_nonnull(file.about);
    return file;
}

void state_document_close(struct state_document *file)
{
    json_decref(file->header);
    json_decref(file->about);
}

char *state_document_make(const struct state_document *file, size_t *size)
{
    char *about = json_dumps(file->about, JSON_COMPACT);
    json_object_set_new(json_object_get(file->header, "__metadata__"), "descent_state",
                        json_string(about));
    char *header = json_dumps(file->header, JSON_COMPACT);
    size_t length = strlen(header);
    char *out = malloc(HEADER_AT + length + file->data_size);

    ck_assert_ptr_nonnull(out);
    for (int i = 0; i < 8; i++)
        out[i] = (char)(length >> (8 * i));
    memcpy(out + HEADER_AT, header, length);
    memcpy(out + HEADER_AT + length, file->data, file->data_size);
    *size = HEADER_AT + length + file->data_size;
    free(about);
    free(header);
    return out;
}
