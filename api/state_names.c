/* The names that the vectors of a state have in a file, and the checksum of what is no vector. */
#include "api/state_names.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "service/core/contract.h"

bool state_checksum(struct span record, struct span head, struct digest *out)
{
    struct hash *hash = hash_new();

    if (hash == NULL)
        return false;
    hash_add(hash, record.data, record.size);
    hash_add(hash, head.data, head.size);
    *out = hash_end(hash);
    return true;
}

size_t state_entries(const struct image *image)
{
    size_t count = 0;

    for (size_t v = 0; v < image->vector_count; v++)
        for (size_t i = 0; i < image->layout->tensor_count; i++)
            count += image->vectors[v].extent[i] > 0;
    return count;
}

char *state_name(char out[STATE_NAME_BYTES], const char *prefix, const struct image_vector *vector,
                 const struct tensor *tensor)
{
    snprintf(out, STATE_NAME_BYTES, "%s%s%s", vector->prefix[0] != '\0' ? prefix : "",
             vector->prefix, tensor->name);
    return out;
}

/* Names of two vectors differ in any case, for none of their prefixes begins another's. */
static bool meets_weight(const struct image *image, const char *prefix)
{
    char name[STATE_NAME_BYTES];

    for (size_t v = 0; v < image->vector_count; v++) {
        if (image->vectors[v].prefix[0] == '\0')
            continue;
        for (size_t i = 0; i < image->layout->tensor_count; i++) {
            state_name(name, prefix, &image->vectors[v], &image->layout->tensors[i]);
            if (layout_find(image->layout, name, strlen(name)) != NULL)
                return true;
        }
    }
    return false;
}

const char *state_prefix(struct arena *arena, const struct image *image)
{
    static const char more[] = "state/";
    char prefix[STATE_PREFIX_BYTES] = "";

    /* It ends: no name of a weight is longer than LAYOUT_NAME_BYTES_MAX. */
    while (meets_weight(image, prefix)) {
        PRE(strlen(prefix) + sizeof more <= sizeof prefix);
        strcat(prefix, more);
    }
    return arena_copy(arena, prefix, strlen(prefix));
}
