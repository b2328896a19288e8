/* Element types. Sessions keep and compute in f32 or f64; the wire also has f16 and bf16. All
 * little-endian. */
#ifndef DESCENT_TENSOR_DTYPE_H
#define DESCENT_TENSOR_DTYPE_H

#include <stdbool.h>
#include <stddef.h>

enum dtype {
#define DTYPE(name, wire, safetensors, npy, bytes) DTYPE_##name,
#include "service/tensor/dtype.def"
#undef DTYPE
    DTYPE_COUNT
};

size_t dtype_size(enum dtype dtype);                  /* bytes per element */
const char *dtype_name(enum dtype dtype);             /* "f32" */
const char *dtype_safetensors_name(enum dtype dtype); /* "F32" */
const char *dtype_npy_descr(enum dtype dtype);        /* "<f4", NULL for bf16 */

/* Looks `name` (length bytes) up; false when there is none. */
bool dtype_find(const char *name, size_t length, enum dtype *out);
bool dtype_find_safetensors(const char *name, size_t length, enum dtype *out);

/* Converts `count` elements. `from` and `to` may be unaligned but must not overlap. Widening is
 * exact; narrowing rounds to nearest, ties to even, overflow to infinity, subnormals kept. NaN
 * stays NaN (payload cut, quiet). Same dtype: a copy. */
void dtype_convert(enum dtype to_dtype, void *to, enum dtype from_dtype, const void *from,
                   size_t count);

#endif
