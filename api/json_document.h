/* A JSON text with its numbers lifted out. jansson parses 4 M numbers a second and rounds twice on
 * the way to float; so it gets the envelope only. json_read walks the text once and replaces every
 * number by an index and every array that holds nothing but numbers (nested or not, also []) by
 * [index]; what it cut out is kept as a piece of the original text and read when its type is known:
 * exactly, at the speed of memory. Since every number of the text is lifted, a number in the tree
 * is always an index: there is nothing to confuse it with.
 *
 *   {"lr": 0.1, "w": [[1, 2]], "k": ["a"]}   ->   {"lr": 0, "w": [1], "k": ["a"]}
 *   numbers: "0.1", "[[1, 2]]"
 */
#ifndef DESCENT_API_JSON_DOCUMENT_H
#define DESCENT_API_JSON_DOCUMENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "service/core/arena.h"
#include "service/core/span.h"
#include "service/core/status.h"
#include "service/tensor/dtype.h"
#include "service/tensor/layout.h"

enum {
    JSON_DEPTH_MAX = 32,
    JSON_VALUES_MAX =
        1 << 20, /* numbers, brackets, commas, colons; a safetensors header takes 11 a tensor */
};

struct json_document {
    json_t *root;
    struct span *lifted; /* pieces of the text, in the arena */
    size_t lifted_count;
};

/* Reads `text`, which must outlive the document. INVALID_JSON with the byte offset in the original
 * text and what was expected: syntax (RFC 8259 to the letter, also inside numeric arrays: no
 * leading zeros, no +, no NaN), bad UTF-8, duplicate keys (named), depth over 32, trailing bytes,
 * NUL in a string. TOO_LARGE when there are more than JSON_VALUES_MAX values outside of number
 * arrays: a tree takes a hundred times the memory of its text. The root may be any value. On
 * failure there is nothing to close. */
enum status json_read(struct arena *arena, struct span text, struct json_document *out,
                      struct fault *fault);
void json_close(struct json_document *document);

/* What a value of the tree is: jansson's json_is_number() tells a number, this an array of numbers
 * (nested or not, or []). */
bool json_is_number_array(const json_t *value);

/* The original text of a number or a number array; it obeys the grammar. */
struct span json_piece(const struct json_document *document, const json_t *value);

/* The value as a number. INVALID_FIELD (where = "") when it is not one, is out of range, or (u64)
 * has a fraction or sign; 3.0 and 3e2 are good integers. */
enum status json_f64(const struct json_document *document, const json_t *value, double *out,
                     struct fault *fault);
enum status json_u64(const struct json_document *document, const json_t *value, uint64_t *out,
                     struct fault *fault);

/* The shape of a number (rank 0) or of a number array. SHAPE_MISMATCH (where = "") when it is
 * ragged, with the index path of the first row that differs; TOO_LARGE over LAYOUT_RANK_MAX. Reads
 * every byte of the array once. */
enum status json_shape(const struct json_document *document, const json_t *value, unsigned *rank,
                       size_t shape[LAYOUT_RANK_MAX], struct fault *fault);

/* Reads exactly that shape into out (product of shape elements of f32 or f64), each number
 * correctly rounded. INVALID_FIELD where a number overflows the dtype (with its index);
 * SHAPE_MISMATCH with both shapes. */
enum status json_tensor(const struct json_document *document, const json_t *value, unsigned rank,
                        const size_t *shape, enum dtype dtype, void *out, struct fault *fault);

/* Reads an object {"w": .., "b": ..} of exactly the tensors of the layout into one vector of
 * `dtype` (f32 or f64, count elements at out). MISSING_TENSOR, UNKNOWN_TENSOR, SHAPE_MISMATCH,
 * INVALID_FIELD with where = "/<name>...". */
enum status json_tensors(const struct json_document *document, const json_t *object,
                         const struct layout *layout, enum dtype dtype, void *out,
                         struct fault *fault);

#endif
