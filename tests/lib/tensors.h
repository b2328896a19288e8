/* Layouts and buffers for tests. Failing to make one is a failed test. */
#ifndef DESCENT_TESTS_TENSORS_H
#define DESCENT_TESTS_TENSORS_H

#include "service/core/buffer.h"
#include "service/tensor/layout.h"

/* "w[2,3] b[3] s[]": a sealed layout. */
struct layout *tensors_layout(const char *spec);

/* A buffer with these bytes. */
struct buffer *tensors_buffer(const void *bytes, size_t size);

/* A file of the project (path from the project's root) as a buffer. */
struct buffer *tensors_file(const char *path);

/* A safetensors file: the length of `header`, the header, `data_size` bytes 0, 1, 2 ... */
struct buffer *tensors_safetensors(const char *header, size_t data_size);

#endif
