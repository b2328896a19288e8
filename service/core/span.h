/* A borrowed run of bytes. */
#ifndef DESCENT_CORE_SPAN_H
#define DESCENT_CORE_SPAN_H

#include <stddef.h>
#include <string.h>

struct span {
    const unsigned char *data; /* may be NULL when size is 0 */
    size_t size;               /* bytes */
};

static inline struct span span_of(const void *data, size_t size)
{
    return (struct span){.data = data, .size = size};
}

static inline struct span span_text(const char *text)
{
    return span_of(text, strlen(text));
}

#endif
