/* Codecs: media type <-> tensors. One file and one line of codecs.def each; no codec knows a socket
 * or a session.
 *
 * On the way in a body becomes `struct tensors`: one flat vector in layout order, in the dtype the
 * wire had. Where the body already is that vector (raw, npy, safetensors in layout order), it is a
 * view of the body: no copy. On the way out tensors become `struct encoded`: head, a slice of a
 * buffer (the revision's own memory where the bytes are the same), tail. */
#ifndef DESCENT_API_CODEC_H
#define DESCENT_API_CODEC_H

#include <stdbool.h>

#include "service/core/arena.h"
#include "service/core/buffer.h"
#include "service/core/span.h"
#include "service/core/status.h"
#include "service/tensor/dtype.h"
#include "service/tensor/gradient.h"
#include "service/tensor/layout.h"

/* layout->count elements of `dtype`, little-endian, layout order, from buffer->data + offset
 * (aligned to the element); or, where a gradient came compressed, `size` bytes of that form. */
struct tensors {
    struct buffer *buffer; /* one reference, owned */
    size_t offset;         /* bytes */
    enum dtype dtype;
    enum gradient_form form;
    size_t size; /* FORM_DENSE: 0, it follows */
};

struct text_pair {
    const char *name;
    const char *value;
};

/* What to encode. */
struct encode_request {
    struct arena *arena;
    const struct layout *layout;
    const struct tensor *const
        *chosen; /* tensors to send, in this order; NULL: all in layout order */
    size_t chosen_count;
    const struct tensors
        *tensors;     /* the whole model; borrowed, retained where the answer needs it */
    enum dtype dtype; /* wanted on the wire; ignored by JSON, which writes the source's precision */
    const struct text_pair *metadata; /* for formats that carry some (safetensors) */
    size_t metadata_count;
    struct span opening; /* JSON only: what stands before the object of tensors */
};

struct encoded {
    struct span head;      /* in the arena */
    struct buffer *buffer; /* owned reference; NULL when size is 0 */
    size_t offset, size;   /* bytes of the buffer */
};

struct codec {
    const char *name;       /* "safetensors" */
    const char *media_type; /* the one we answer with */
    const char *alias;      /* another accepted spelling, or NULL */
    const char *meaning;    /* one line for the documentation */
    bool binary;            /* false for JSON: no ?dtype=, no Range, has size limits of its own */

    /* A body that must hold exactly the tensors of `layout`. `dtype` is what ?dtype= said (raw
     * only; the others know). Faults: MISSING_TENSOR, UNKNOWN_TENSOR, SHAPE_MISMATCH (where =
     * "/<name>"; the caller knows the member), LENGTH_MISMATCH with both numbers, INVALID_REQUEST
     * for a malformed file with the byte offset. A compressed gradient is decoded too: a caller who
     * cannot have one looks at out->form. NULL for JSON, whose tensors are a member of a
     * document: see json_document.h. */
    enum status (*decode)(const struct layout *layout, enum dtype dtype, struct buffer *body,
                          struct tensors *out, struct fault *fault);

    /* The same for a pair of gradients of one batch, at the weights and at a snapshot's: where of
     * faults = "/gradients/..." or "/snapshot_gradients/...". out[2] have the same dtype. NULL: the
     * format cannot say it. */
    enum status (*decode_pair)(const struct layout *layout, enum dtype dtype, struct buffer *body,
                               struct tensors out[2], struct fault *fault);

    /* Encodes; NOT_ACCEPTABLE where the format cannot say it (npy with several tensors and
     * ?tensors=, bf16 in npy). JSON writes one object {"w": [[..]], "b": [..]} with shortest
     * round-trip numbers. */
    enum status (*encode)(const struct encode_request *request, struct encoded *out,
                          struct fault *fault);
};

/* Whether a Content-Type value is this type, by the same reading as codec_find. */
bool media_type_is(const char *content_type, const char *media_type);

/* The codec of a Content-Type value (parameters such as charset are allowed and ignored; case does
 * not matter), or NULL. */
const struct codec *codec_find(const char *content_type);

/* The codec an Accept value asks for, by q-values, specificity and table order; NULL header or any
 * type: the first of the table (JSON). `explicit_name` tells whether the type was named and not
 * just matched by a wildcard. NULL: none fits. */
const struct codec *codec_negotiate(const char *accept, bool *explicit_name);

/* The same among other offers, of which only the types are looked at: its index, or `count` when
 * none fits. */
size_t media_negotiate(const char *accept, const struct codec *const *offers, size_t count,
                       bool *explicit_name);

/* "application/json, application/vnd.safetensors, ..." for 406 and 415. Static. */
const char *codec_media_types(void);

/* Every codec in table order; NULL past the end. */
const struct codec *codec_at(size_t index);

/* A safetensors body that brings its own layout, in the order of its data. metadata: the values of
 * __metadata__, copied into the arena. dtype: what the vector is converted to. */
enum status safetensors_open(struct arena *arena, struct buffer *body, enum dtype dtype,
                             struct layout **layout, struct tensors *tensors,
                             struct text_pair **metadata, size_t *metadata_count,
                             struct fault *fault);

#endif
