/* The parameters of a new session. */
#include "api/parameters_json.h"

#include <stdio.h>
#include <string.h>

#include "api/base64.h"
#include "api/fields.h"
#include "service/core/rng.h"

struct parameter {
    const json_t *shape, *data, *data_b64, *init;
};

#define PLACE(member) .offset = offsetof(struct parameter, member)
static const struct field parameter_fields[] = {
    {"shape", FIELD_VALUE, PLACE(shape)},
    {"data", FIELD_VALUE, PLACE(data)},
    {"data_b64", FIELD_VALUE, PLACE(data_b64)},
    {"init", FIELD_VALUE, PLACE(init)},
    {.name = NULL},
};

struct range {
    double mean, std, low, high;
};
static const struct field normal_fields[] = {
    {"mean", FIELD_F64, .offset = offsetof(struct range, mean)},
    {"std", FIELD_F64, .offset = offsetof(struct range, std), .min = 0, .max = 1e300},
    {.name = NULL},
};
static const struct field uniform_fields[] = {
    {"low", FIELD_F64, .offset = offsetof(struct range, low)},
    {"high", FIELD_F64, .offset = offsetof(struct range, high)},
    {.name = NULL},
};

/* --- shapes --- */

static enum status read_shape(const struct json_document *document, const json_t *value,
                              unsigned *rank, size_t shape[LAYOUT_RANK_MAX], struct fault *fault)
{
    size_t outer[LAYOUT_RANK_MAX];
    double numbers[LAYOUT_RANK_MAX];
    unsigned outer_rank;
    enum status status;

    if (value == NULL || !json_is_number_array(value))
        return fault_set(fault, STATUS_INVALID_FIELD, "/shape",
                         "shape must be an array of sizes, for instance [10, 64]; [] is a scalar");
    if ((status = json_shape(document, value, &outer_rank, outer, fault)) != STATUS_OK) {
        fault_prefix(fault, "/shape");
        return status;
    }
    if (outer_rank != 1 || outer[0] > LAYOUT_RANK_MAX)
        return fault_set(fault, STATUS_INVALID_FIELD, "/shape",
                         "shape must be a flat array of at most %d sizes", LAYOUT_RANK_MAX);
    *rank = (unsigned)outer[0];
    if ((status = json_tensor(document, value, 1, outer, DTYPE_F64, numbers, fault)) != STATUS_OK) {
        fault_prefix(fault, "/shape");
        return status;
    }
    for (unsigned i = 0; i < *rank; i++) {
        if (!(numbers[i] >= 0 && numbers[i] <= (double)LAYOUT_COUNT_MAX) ||
            numbers[i] != (double)(size_t)numbers[i])
            return fault_set(
                fault, STATUS_INVALID_FIELD, "/shape",
                "size %u of the shape is %.17g; it must be a whole number from 0 to %zu", i,
                numbers[i], LAYOUT_COUNT_MAX);
        shape[i] = (size_t)numbers[i];
    }
    return STATUS_OK;
}

static enum status read_parameter(struct arena *arena, const struct json_document *document,
                                  const json_t *value, struct parameter *out, struct fault *fault)
{
    *out = (struct parameter){.data = value};
    if (json_is_number(value) || json_is_number_array(value))
        return STATUS_OK;
    if (!json_is_object(value))
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "a parameter must be a number, a nested array of numbers, or an object "
                         "with \"shape\" and one of \"data\", \"data_b64\", \"init\"");
    out->data = NULL;
    enum status status = fields_read(arena, document, value, parameter_fields, out, fault);
    if (status != STATUS_OK)
        return status;
    if ((out->data != NULL) + (out->data_b64 != NULL) + (out->init != NULL) != 1)
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "beside \"shape\" give just one of \"data\", \"data_b64\" and \"init\"");
    if (out->shape == NULL)
        return fault_set(fault, STATUS_INVALID_FIELD, "/shape", "say the shape");
    return STATUS_OK;
}

static enum status add_parameter(struct arena *arena, const struct json_document *document,
                                 const char *name, const json_t *value, struct layout *layout,
                                 struct fault *fault)
{
    struct parameter parameter;
    size_t shape[LAYOUT_RANK_MAX];
    unsigned rank;
    enum status status = read_parameter(arena, document, value, &parameter, fault);

    if (status == STATUS_OK)
        status = parameter.shape != NULL
                     ? read_shape(document, parameter.shape, &rank, shape, fault)
                     : json_shape(document, parameter.data, &rank, shape, fault);
    if (status != STATUS_OK) {
        char prefix[224] = "/";
        pointer_escape(prefix + 1, sizeof prefix - 1, name);
        fault_prefix(fault, prefix);
        return status;
    }
    return layout_add(layout, name, strlen(name), rank, shape, fault);
}

/* --- numbers --- */

static void fill_one(void *out, enum dtype dtype, size_t index, double value)
{
    if (dtype == DTYPE_F64)
        ((double *)out)[index] = value;
    else
        ((float *)out)[index] = (float)value;
}

/* One element of a distribution. The stream is the tensor's index: tensors of one model draw
 * different numbers. */
typedef double draw_function(const struct range *range, uint64_t seed, uint64_t stream,
                             uint64_t index);

static double draw_normal(const struct range *range, uint64_t seed, uint64_t stream, uint64_t index)
{
    return range->mean + range->std * rng_normal(seed, stream, index);
}

static double draw_uniform(const struct range *range, uint64_t seed, uint64_t stream,
                           uint64_t index)
{
    return range->low + (range->high - range->low) * rng_uniform(seed, stream, index);
}

static enum status fill_init(struct arena *arena, const struct json_document *document,
                             const json_t *init, const struct tensor *tensor, uint64_t stream,
                             uint64_t seed, enum dtype dtype, void *out, struct fault *fault)
{
    struct range range = {.std = 1, .high = 1};
    const json_t *normal = json_object_get(init, "normal");
    const json_t *uniform = json_object_get(init, "uniform");
    bool one = json_is_object(init) && json_object_size(init) == 1;
    const char *word = json_is_string(init) ? json_string_value(init) : "";
    draw_function *draw = draw_uniform;
    enum status status = STATUS_OK;

    if (strcmp(word, "zeros") == 0)
        range.high = 0;
    else if (strcmp(word, "ones") == 0)
        range.low = 1;
    else if (one && json_is_object(normal)) {
        draw = draw_normal;
        status = fields_read(arena, document, normal, normal_fields, &range, fault);
    } else if (one && json_is_object(uniform))
        status = fields_read(arena, document, uniform, uniform_fields, &range, fault);
    else
        return fault_set(fault, STATUS_INVALID_FIELD, "/init",
                         "init must be \"zeros\", \"ones\", {\"normal\": {\"mean\": 0, \"std\": "
                         "0.01}} or {\"uniform\": {\"low\": -1, \"high\": 1}}");
    if (status != STATUS_OK) {
        fault_prefix(fault, normal != NULL ? "/init/normal" : "/init/uniform");
        return status;
    }
    if (draw == draw_uniform && range.low > range.high)
        return fault_set(fault, STATUS_INVALID_FIELD, "/init/uniform", "low is above high");
    for (size_t i = 0; i < tensor->count; i++)
        fill_one(out, dtype, i, draw(&range, seed, stream, i));
    return STATUS_OK;
}

static enum status fill_b64(const json_t *value, const struct tensor *tensor, enum dtype dtype,
                            void *out, struct fault *fault)
{
    size_t size = tensor->count * dtype_size(dtype), wanted = (size + 2) / 3 * 4;
    size_t length = json_string_length(value); /* 0 for what is no string */

    if (!json_is_string(value))
        return fault_set(fault, STATUS_INVALID_FIELD, "/data_b64", "data_b64 must be a string");
    if (length != wanted)
        return fault_set(fault, STATUS_LENGTH_MISMATCH, "/data_b64",
                         "data_b64 has %zu characters; it must have %zu, the base64 text of %zu "
                         "bytes: %zu numbers in %s, little-endian",
                         length, wanted, size, tensor->count, dtype_name(dtype));
    if (!base64_read(json_string_value(value), length, out, size))
        return fault_set(fault, STATUS_INVALID_FIELD, "/data_b64",
                         "data_b64 is not the base64 text of %zu bytes (RFC 4648: A-Z a-z 0-9 + /, "
                         "padded with =)",
                         size);
    return STATUS_OK;
}

static enum status fill_parameter(struct arena *arena, const struct json_document *document,
                                  const json_t *value, const struct layout *layout, size_t index,
                                  enum dtype dtype, uint64_t seed, void *out, struct fault *fault)
{
    const struct tensor *tensor = &layout->tensors[index];
    struct parameter parameter;
    enum status status = read_parameter(arena, document, value, &parameter, fault);

    if (status != STATUS_OK)
        return status;
    if (parameter.init != NULL)
        return fill_init(arena, document, parameter.init, tensor, index, seed, dtype, out, fault);
    if (parameter.data_b64 != NULL)
        return fill_b64(parameter.data_b64, tensor, dtype, out, fault);
    if (parameter.shape == NULL)
        return json_tensor(document, value, tensor->rank, tensor->shape, dtype, out, fault);
    status =
        json_is_number_array(parameter.data)
            ? json_tensor(document, parameter.data, 1, &tensor->count, dtype, out, fault)
            : fault_set(fault, STATUS_INVALID_FIELD, "", "data must be a flat array of numbers");
    if (status != STATUS_OK)
        fault_prefix(fault, "/data");
    return status;
}

static enum status build_layout(struct arena *arena, const struct json_document *document,
                                const json_t *object, uint64_t parameters_max,
                                struct layout *layout, struct fault *fault)
{
    const char *name;
    json_t *value;
    enum status status;

    json_object_foreach((json_t *)(uintptr_t)object, name,
                        value) if ((status = add_parameter(arena, document, name, value, layout,
                                                           fault)) != STATUS_OK) return status;
    if ((status = layout_seal(layout, fault)) != STATUS_OK)
        return status;
    if (layout->count > parameters_max)
        return fault_set(fault, STATUS_TOO_LARGE, "",
                         "the model has %zu parameters; this server takes at most %llu "
                         "(--parameters-max)",
                         layout->count, (unsigned long long)parameters_max);
    return STATUS_OK;
}

static enum status fill_all(struct arena *arena, const struct json_document *document,
                            const json_t *object, const struct layout *layout, enum dtype dtype,
                            uint64_t seed, unsigned char *out, struct fault *fault)
{
    const char *name;
    json_t *value;
    size_t index = 0;

    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        size_t offset = layout->tensors[index].offset * dtype_size(dtype);
        enum status status = fill_parameter(arena, document, value, layout, index++, dtype, seed,
                                            out + offset, fault);
        if (status != STATUS_OK) {
            char prefix[224] = "/";
            pointer_escape(prefix + 1, sizeof prefix - 1, name);
            fault_prefix(fault, prefix);
            return status;
        }
    }
    return STATUS_OK;
}

enum status parameters_read(struct arena *arena, const struct json_document *document,
                            const json_t *object, enum dtype dtype, uint64_t seed,
                            uint64_t parameters_max, struct layout **layout,
                            struct buffer **weights, struct fault *fault)
{
    struct layout *built = NULL;
    struct buffer *buffer = NULL;
    enum status status;

    if (!json_is_object(object))
        return fault_set(fault, STATUS_INVALID_FIELD, "/parameters",
                         "parameters must be an object: {\"name\": [[...]], ...}");
    if ((built = layout_new()) == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    status = build_layout(arena, document, object, parameters_max, built, fault);
    if (status == STATUS_OK && (buffer = buffer_new(built->count * dtype_size(dtype))) == NULL)
        status =
            fault_set(fault, STATUS_INTERNAL, "", "out of memory for %zu parameters", built->count);
    if (status == STATUS_OK)
        status = fill_all(arena, document, object, built, dtype, seed, buffer->data, fault);
    if (status == STATUS_OK) {
        *layout = built;
        *weights = buffer;
        return STATUS_OK;
    }
    layout_release(built);
    buffer_release(buffer);
    if (status != STATUS_INTERNAL)
        fault_prefix(fault, "/parameters");
    return status;
}
