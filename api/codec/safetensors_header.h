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

/* What the elements of an entry are. Only compressed gradients have other than floats. */
enum safetensors_kind { KIND_FLOAT, KIND_I8, KIND_U8, KIND_I32, KIND_I64, KIND_U32, KIND_U64 };

struct safetensors_entry {
    const char *name; /* in the document */
    enum safetensors_kind kind;
    enum dtype dtype; /* KIND_FLOAT */
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
    const char *codec;      /* that of the metadata; NULL: none, or it was not asked for */
    size_t data_begin;      /* bytes from the begin of the file */
};

/* compressed: the file may hold a compressed gradient. INVALID_REQUEST with what is wrong and the
 * byte offset; INVALID_FIELD for a dtype that is none of ours, naming the tensor; TOO_LARGE over a
 * limit. On OK the caller closes it. `file` must outlive it. */
enum status safetensors_header_read(struct arena *arena, struct span file, bool compressed,
                                    struct safetensors_header *out, struct fault *fault);
void safetensors_header_close(struct safetensors_header *header);

/* "I8", or the name of the dtype. */
const char *safetensors_kind_name(const struct safetensors_entry *entry);

#endif
