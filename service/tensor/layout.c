/* Layouts. */
#include "service/tensor/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/core/utf8.h"

struct layout *layout_new(void)
{
    struct layout *layout = calloc(1, sizeof *layout);

    if (layout != NULL)
        layout->references = 1;
    return layout;
}

struct layout *layout_retain(struct layout *layout)
{
    __atomic_add_fetch(&layout->references, 1, __ATOMIC_RELAXED);
    return layout;
}

void layout_release(struct layout *layout)
{
    if (layout == NULL || __atomic_sub_fetch(&layout->references, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    for (size_t i = 0; i < layout->tensor_count; i++)
        free((char *)(uintptr_t)layout->tensors[i].name);
    free(layout->tensors);
    free(layout->by_name);
    free(layout);
}

static enum status check_name(const char *name, size_t size, struct fault *fault)
{
    if (size == 0 || size > LAYOUT_NAME_BYTES_MAX)
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "a tensor's name has %zu bytes; it must have 1 to %d", size,
                         LAYOUT_NAME_BYTES_MAX);
    for (size_t i = 0; i < size;) {
        size_t length = utf8_length(name + i, size - i);
        if (length == 0 || (unsigned char)name[i] < 0x20 || name[i] == 0x7F)
            return fault_set(fault, STATUS_INVALID_FIELD, "",
                             "byte %zu of a tensor's name is not printable UTF-8; rename it", i);
        i += length;
    }
    if (size == 12 && memcmp(name, "__metadata__", 12) == 0)
        return fault_set(fault, STATUS_INVALID_FIELD, "/__metadata__",
                         "__metadata__ is reserved by safetensors; give the tensor another name");
    return STATUS_OK;
}

static enum status grow(struct layout *layout, struct fault *fault)
{
    if (layout->tensor_count < layout->capacity)
        return STATUS_OK;
    size_t capacity = layout->capacity == 0 ? 8 : 2 * layout->capacity;
    struct tensor *tensors = realloc(layout->tensors, capacity * sizeof *tensors);
    if (tensors == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    layout->tensors = tensors;
    layout->capacity = capacity;
    return STATUS_OK;
}

enum status layout_add(struct layout *layout, const char *name, size_t name_size, unsigned rank,
                       const size_t *shape, struct fault *fault)
{
    struct tensor tensor = {.rank = rank, .offset = layout->count, .count = 1};
    char where[300] = "/";
    char *copy;
    enum status status;

    PRE(layout->by_name == NULL);
    if ((status = check_name(name, name_size, fault)) != STATUS_OK)
        return status;
    char terminated[LAYOUT_NAME_BYTES_MAX + 1];
    memcpy(terminated, name, name_size);
    terminated[name_size] = '\0';
    pointer_escape(where + 1, sizeof where - 1, terminated);
    if (layout->tensor_count == LAYOUT_TENSORS_MAX)
        return fault_set(fault, STATUS_TOO_LARGE, where, "a model has at most %d tensors",
                         LAYOUT_TENSORS_MAX);
    if (rank > LAYOUT_RANK_MAX)
        return fault_set(fault, STATUS_TOO_LARGE, where, "rank %u is over the limit of %d", rank,
                         LAYOUT_RANK_MAX);
    for (unsigned i = 0; i < rank; i++) {
        tensor.shape[i] = shape[i];
        if (shape[i] > LAYOUT_COUNT_MAX ||
            (shape[i] > 0 && tensor.count > LAYOUT_COUNT_MAX / shape[i]))
            return fault_set(fault, STATUS_TOO_LARGE, where,
                             "the shape's product is over the limit of %zu elements",
                             LAYOUT_COUNT_MAX);
        tensor.count *= shape[i];
    }
    if (tensor.count > LAYOUT_COUNT_MAX - layout->count)
        return fault_set(fault, STATUS_TOO_LARGE, where, "the model has more than %zu elements",
                         LAYOUT_COUNT_MAX);
    if ((status = grow(layout, fault)) != STATUS_OK)
        return status;
    if ((copy = malloc(name_size + 1)) == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    memcpy(copy, terminated, name_size + 1);
    tensor.name = copy;
    layout->tensors[layout->tensor_count++] = tensor;
    layout->count += tensor.count;
    return STATUS_OK;
}

static int compare_names(const void *a, const void *b, void *context)
{
    const struct tensor *tensors = context;

    return strcmp(tensors[*(const size_t *)a].name, tensors[*(const size_t *)b].name);
}

/* Names with their lengths and shapes with their ranks, so that no two layouts give the same bytes.
 */
static enum status compute_digest(struct layout *layout, struct fault *fault)
{
    struct hash *hash = hash_new();

    if (hash == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    for (size_t i = 0; i < layout->tensor_count; i++) {
        const struct tensor *tensor = &layout->tensors[i];
        uint64_t numbers[2 + LAYOUT_RANK_MAX] = {strlen(tensor->name), tensor->rank};
        for (unsigned k = 0; k < tensor->rank; k++)
            numbers[2 + k] = tensor->shape[k];
        hash_add(hash, numbers, (2 + tensor->rank) * sizeof *numbers);
        hash_add(hash, tensor->name, strlen(tensor->name));
    }
    layout->digest = hash_end(hash);
    return STATUS_OK;
}

enum status layout_seal(struct layout *layout, struct fault *fault)
{
    if (layout->tensor_count == 0 || layout->count == 0)
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "the model has no elements; give at least one tensor that is not empty");
    layout->by_name = malloc(layout->tensor_count * sizeof *layout->by_name);
    if (layout->by_name == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    for (size_t i = 0; i < layout->tensor_count; i++)
        layout->by_name[i] = i;
    qsort_r(layout->by_name, layout->tensor_count, sizeof *layout->by_name, compare_names,
            layout->tensors);
    for (size_t i = 1; i < layout->tensor_count; i++) {
        const char *name = layout->tensors[layout->by_name[i]].name;
        if (strcmp(layout->tensors[layout->by_name[i - 1]].name, name) == 0) {
            char where[300] = "/";
            pointer_escape(where + 1, sizeof where - 1, name);
            return fault_set(fault, STATUS_INVALID_FIELD, where,
                             "two tensors have this name; give each its own");
        }
    }
    return compute_digest(layout, fault);
}

const struct tensor *layout_find(const struct layout *layout, const char *name, size_t name_size)
{
    size_t low = 0, high = layout->tensor_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct tensor *tensor = &layout->tensors[layout->by_name[middle]];
        size_t length = strlen(tensor->name);
        int order = memcmp(name, tensor->name, length < name_size ? length : name_size);
        if (order == 0)
            order = (name_size > length) - (name_size < length);
        if (order == 0)
            return tensor;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

char *shape_format(char *out, size_t size, unsigned rank, const size_t *shape)
{
    size_t used = (size_t)snprintf(out, size, "[");

    for (unsigned i = 0; i < rank && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, i == 0 ? "%zu" : ", %zu", shape[i]);
    if (used < size)
        snprintf(out + used, size - used, "]");
    return out;
}
