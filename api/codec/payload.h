/* What the binary codecs share: the bytes of tensors on the way out, and where a fault stands on
 * the way in. */
#ifndef DESCENT_API_CODEC_PAYLOAD_H
#define DESCENT_API_CODEC_PAYLOAD_H

#include "api/codec.h"

/* Tensor `index` of what is to be sent. */
const struct tensor *payload_tensor(const struct encode_request *request, size_t index);
size_t payload_tensor_count(const struct encode_request *request);

/* Elements of all that is to be sent. */
size_t payload_count(const struct encode_request *request);

/* Fills out->buffer, offset and size: a slice of the source where the dtype is the same and the
 * tensors stand side by side, else a new buffer, converted. INTERNAL when memory is out. */
enum status payload_encode(const struct encode_request *request, struct encoded *out,
                           struct fault *fault);

/* The dtype that holds every value of both. */
enum dtype payload_wider(enum dtype a, enum dtype b);

/* "/<name>", escaped and cut to fit, into out; out is what it returns. */
enum { PAYLOAD_WHERE_BYTES = 224 };
char *payload_where(char out[PAYLOAD_WHERE_BYTES], const char *tensor_name);

/* The begin of a name of any length from outside, cut at a character, for a sentence. Returns out.
 */
enum { PAYLOAD_LABEL_BYTES = 128 };
char *payload_label(char out[PAYLOAD_LABEL_BYTES], const char *name);

enum status payload_out_of_memory(struct fault *fault);

/* SHAPE_MISMATCH with both shapes. */
enum status payload_shape_fault(const struct tensor *tensor, unsigned rank, const size_t *shape,
                                struct fault *fault);

#endif
