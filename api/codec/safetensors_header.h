/* The header of a safetensors file, read under every rule of the reference reader.
 *
 *   u64 n, little-endian | n bytes of JSON, spaces after it allowed | data
 *   {"__metadata__": {"k": "v"}, "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
 */
#ifndef DESCENT_API_CODEC_SAFETENSORS_HEADER_H
#define DESCENT_API_CODEC_SAFETENSORS_HEADER_H

#include "api/codec.h"
#include "api/json_document.h"

enum { SAFETENSORS_HEADER_BYTES_MAX = 16 << 20 };

struct safetensors_entry {
    const char *name; /* in the document */
    enum dtype dtype;
    unsigned rank;
    size_t shape[LAYOUT_RANK_MAX];
    size_t count;      /* elements */
    size_t begin, end; /* bytes of the data */
    size_t order;      /* in the header */
};

struct safetensors_header {
    struct json_document document;
    struct safetensors_entry
        *entries; /* in the order of their data, which they fill without holes; in the arena */
    size_t entry_count;
    const json_t *metadata; /* an object of strings, or NULL */
    size_t data_begin;      /* bytes from the begin of the file */
};

/* INVALID_REQUEST with what is wrong and the byte offset; INVALID_FIELD for a dtype that is none of
 * ours, naming the tensor; TOO_LARGE over a limit. On OK the caller closes it. `file` must outlive
 * it. */
enum status safetensors_header_read(struct arena *arena, struct span file,
                                    struct safetensors_header *out, struct fault *fault);
void safetensors_header_close(struct safetensors_header *header);

#endif
