/* Lifted arrays: their shapes, and reading them into tensors. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/json_document.h"
#include "api/json_numbers.h"
#include "service/core/contract.h"

#define UNKNOWN SIZE_MAX /* the length of a level that has not been seen to its end yet */

/* Walks a piece that is known to obey the grammar. */
struct walk {
    const char *at, *end;
    unsigned rank;
    size_t shape[LAYOUT_RANK_MAX]; /* what must be; UNKNOWN is filled in */
    size_t index[LAYOUT_RANK_MAX]; /* of the element that the walk is at */
    unsigned bad_depth; /* of the mismatch: index[0 .. bad_depth-1] is the row at fault */
    enum dtype dtype;
    char *out;     /* where the next number goes; NULL: none is read */
    bool overflow; /* the number at index is beyond dtype */
};

static void skip_space(struct walk *walk)
{
    while (*walk->at == ' ' || *walk->at == '\n' || *walk->at == '\r' || *walk->at == '\t')
        walk->at++; /* a bracket follows sooner or later */
}

static bool walk_number(struct walk *walk)
{
    if (walk->out == NULL) {
        walk->at = number_end(walk->at, walk->end);
    } else if (walk->dtype == DTYPE_F32) {
        float number = 0;
        walk->at = number_read_f32(walk->at, walk->end, &number);
        walk->overflow = isinf(number);
        memcpy(walk->out, &number, sizeof number);
        walk->out += sizeof number;
    } else {
        double number = 0;
        walk->at = number_read_f64(walk->at, walk->end, &number);
        walk->overflow = isinf(number);
        memcpy(walk->out, &number, sizeof number);
        walk->out += sizeof number;
    }
    return !walk->overflow;
}

/* One level of the array at walk->at, which is a '['. False: the shape does not fit, or overflow.
 */
static bool walk_level(struct walk *walk, unsigned depth)
{
    size_t count = 0;

    walk->at++;
    skip_space(walk);
    while (*walk->at != ']') {
        bool is_array = *walk->at == '[';
        walk->bad_depth = depth;
        if (count == walk->shape[depth])
            return false;
        walk->index[depth] = count++;
        walk->bad_depth = depth + 1;
        if (is_array != (depth + 1 < walk->rank))
            return false;
        if (!(is_array ? walk_level(walk, depth + 1) : walk_number(walk)))
            return false;
        skip_space(walk);
        if (*walk->at == ',') {
            walk->at++;
            skip_space(walk);
        }
    }
    walk->at++;
    walk->bad_depth = depth;
    if (walk->shape[depth] == UNKNOWN)
        walk->shape[depth] = count;
    return walk->shape[depth] == count;
}

/* "[2][0]" of the row at fault; "" for the whole array. */
static const char *index_text(const struct walk *walk, char *out, size_t size, const char *format)
{
    size_t used = 0;

    out[0] = '\0';
    for (unsigned i = 0; i < walk->bad_depth && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, format, walk->index[i]);
    return out;
}

static enum status not_numbers(struct fault *fault)
{
    return fault_set(fault, STATUS_INVALID_FIELD, "",
                     "a number or a nested array of numbers is needed here");
}

enum status json_shape(const struct json_document *document, const json_t *value, unsigned *rank,
                       size_t shape[LAYOUT_RANK_MAX], struct fault *fault)
{
    struct walk walk = {.at = NULL};
    char row[LAYOUT_RANK_MAX * 24];

    if (json_is_number(value)) {
        *rank = 0;
        return STATUS_OK;
    }
    if (!json_is_number_array(value))
        return not_numbers(fault);
    struct span piece = json_piece(document, value);
    walk.at = (const char *)piece.data;
    walk.end = walk.at + piece.size;
    for (; *walk.at == '['; walk.rank++) {
        if (walk.rank == LAYOUT_RANK_MAX)
            return fault_set(fault, STATUS_TOO_LARGE, "",
                             "the array is nested more than %d deep; a tensor has at most %d "
                             "dimensions",
                             LAYOUT_RANK_MAX, LAYOUT_RANK_MAX);
        walk.shape[walk.rank] = UNKNOWN;
        walk.at++;
        skip_space(&walk);
    }
    walk.at = (const char *)piece.data;
    if (!walk_level(&walk, 0))
        return fault_set(fault, STATUS_SHAPE_MISMATCH, "",
                         "the array is ragged: %s has another length or depth than the rows before "
                         "it; give all rows of a tensor the same shape",
                         index_text(&walk, row, sizeof row, "[%zu]"));
    *rank = walk.rank;
    memcpy(shape, walk.shape, walk.rank * sizeof *shape);
    return STATUS_OK;
}

/* The walk over a value whose shape is [..] failed: say what it is instead. */
static enum status shape_fault(const struct json_document *document, const json_t *value,
                               unsigned rank, const size_t *shape, struct fault *fault)
{
    char wanted_text[128], given_text[128];
    unsigned given_rank = 0;
    size_t given[LAYOUT_RANK_MAX];
    enum status status = json_shape(document, value, &given_rank, given, fault);

    shape_format(wanted_text, sizeof wanted_text, rank, shape);
    if (status != STATUS_OK)
        return fault_set(fault, STATUS_SHAPE_MISMATCH, "",
                         "the shape must be %s, but the array is ragged or nested too deep",
                         wanted_text);
    return fault_set(fault, STATUS_SHAPE_MISMATCH, "", "the shape is %s; it must be %s",
                     shape_format(given_text, sizeof given_text, given_rank, given), wanted_text);
}

enum status json_tensor(const struct json_document *document, const json_t *value, unsigned rank,
                        const size_t *shape, enum dtype dtype, void *out, struct fault *fault)
{
    struct walk walk = {.rank = rank, .dtype = dtype, .out = out};
    char where[LAYOUT_RANK_MAX * 24];
    bool good;

    PRE(rank <= LAYOUT_RANK_MAX && (dtype == DTYPE_F32 || dtype == DTYPE_F64));
    if (!json_is_number(value) && !json_is_number_array(value))
        return not_numbers(fault);
    struct span piece = json_piece(document, value);
    walk.at = (const char *)piece.data;
    walk.end = walk.at + piece.size;
    if (rank > 0)
        memcpy(walk.shape, shape, rank * sizeof *shape);
    if (json_is_number(value) != (rank == 0))
        return shape_fault(document, value, rank, shape, fault);
    good = rank == 0 ? walk_number(&walk) : walk_level(&walk, 0);
    if (walk.overflow)
        return fault_set(fault, STATUS_INVALID_FIELD,
                         index_text(&walk, where, sizeof where, "/%zu"),
                         "the number is beyond the largest %s", dtype_name(dtype));
    return good ? STATUS_OK : shape_fault(document, value, rank, shape, fault);
}

static void prefix_name(struct fault *fault, const char *name)
{
    char where[sizeof fault->where] = "/";

    pointer_escape(where + 1, sizeof where - 1, name);
    fault_prefix(fault, where);
}

/* Fewer members than tensors and none unknown: the first that is not there. */
static enum status missing_fault(const json_t *object, const struct layout *layout,
                                 struct fault *fault)
{
    for (size_t i = 0; i < layout->tensor_count; i++) {
        const char *name = layout->tensors[i].name;
        if (json_object_get(object, name) == NULL) {
            fault_set(fault, STATUS_MISSING_TENSOR, "",
                      "the tensor \"%.255s\" is missing; every tensor of the layout must be sent",
                      name);
            prefix_name(fault, name);
            break;
        }
    }
    return STATUS_MISSING_TENSOR;
}

enum status json_tensors(const struct json_document *document, const json_t *object,
                         const struct layout *layout, enum dtype dtype, void *out,
                         struct fault *fault)
{
    const char *name;
    json_t *value;

    if (!json_is_object(object))
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "an object of tensors by name is needed here, such as {\"w\": [[1, 2]]}");
    /* The macro wants a json_t * that it does not change. */
    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        const struct tensor *tensor = layout_find(layout, name, strlen(name));
        enum status status;
        if (tensor == NULL)
            status = fault_set(fault, STATUS_UNKNOWN_TENSOR, "",
                               "the layout has no tensor of this name; leave it out");
        else
            status = json_tensor(document, value, tensor->rank, tensor->shape, dtype,
                                 (char *)out + tensor->offset * dtype_size(dtype), fault);
        if (status != STATUS_OK) {
            prefix_name(fault, name);
            return status;
        }
    }
    if (json_object_size(object) < layout->tensor_count)
        return missing_fault(object, layout, fault);
    return STATUS_OK;
}
