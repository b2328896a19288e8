/* The packed forms: their parts, and the check of all that is not known to be ours. */
#include "service/tensor/packed.h"

#include <math.h>

#include "service/core/contract.h"

enum { HEAD = 8, FIRST = 16 };

static size_t index_size(const struct layout *layout)
{
    return layout->count <= (size_t)1 << 32 ? sizeof(uint32_t) : sizeof(uint64_t);
}

size_t packed_size(const struct layout *layout, enum gradient_form form, enum dtype wire,
                   size_t entries, size_t values)
{
    size_t number = dtype_size(wire), tensors = layout->tensor_count;

    switch (form) {
    case FORM_DENSE:
        return layout->count * number;
    case FORM_INT8:
        return tensors * number + layout->count;
    case FORM_SIGN:
        return tensors * number + (layout->count + 7) / 8;
    case FORM_TWO_BIT:
        return tensors * number + (layout->count + 3) / 4;
    case FORM_TOPK:
        return HEAD + entries * (index_size(layout) + number);
    case FORM_ROWS:
        return (tensors + 1) * FIRST + entries * index_size(layout) + values * number;
    case FORM_NONE:
    case FORM_COUNT:
        break;
    }
    PRE(form < FORM_COUNT);
    return 0;
}

struct packed_first packed_first(const struct packed *packed, size_t tensor)
{
    struct packed_first first;

    memcpy(&first, packed->first + tensor * FIRST, sizeof first);
    return first;
}

void packed_set_first(const struct packed *packed, size_t tensor, struct packed_first first)
{
    memcpy(packed->first + tensor * FIRST, &first, sizeof first);
}

void packed_set_index(const struct packed *packed, size_t k, uint64_t value)
{
    uint32_t narrow = (uint32_t)value;

    if (packed->index_size == sizeof narrow)
        memcpy(packed->index + k * sizeof narrow, &narrow, sizeof narrow);
    else
        memcpy(packed->index + k * sizeof value, &value, sizeof value);
}

size_t packed_find(const struct packed *packed, size_t low, size_t high, uint64_t least)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (packed_index(packed, middle) < least)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

size_t packed_tensor(const struct layout *layout, size_t element)
{
    size_t low = 0, high = layout->tensor_count - 1;

    /* The first that ends after it: empty ones never do before it. */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (layout->tensors[middle].offset + layout->tensors[middle].count > element)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

struct packed packed_open(const struct wire_gradient *gradient)
{
    const struct layout *layout = gradient->layout;
    unsigned char *data = gradient->data;
    struct packed out = {.index_size = index_size(layout)};
    uint64_t entries;

    switch (gradient->form) {
    case FORM_INT8:
    case FORM_SIGN:
    case FORM_TWO_BIT:
        out.scale = data;
        out.code = data + layout->tensor_count * dtype_size(gradient->wire);
        break;
    case FORM_TOPK:
        memcpy(&entries, data, sizeof entries);
        out.entries = entries;
        out.index = data + HEAD;
        out.value = out.index + entries * out.index_size;
        break;
    case FORM_ROWS:
        out.first = data;
        out.entries = packed_first(&out, layout->tensor_count).row;
        out.index = data + (layout->tensor_count + 1) * FIRST;
        out.value = out.index + out.entries * out.index_size;
        break;
    case FORM_DENSE:
    case FORM_NONE:
    case FORM_COUNT:
        PRE(false);
    }
    return out;
}

static size_t row_count(const struct tensor *tensor)
{
    return tensor->count == 0 ? 0 : tensor->rank == 0 ? 1 : tensor->shape[0];
}

static size_t run_of_rows(const struct wire_gradient *gradient, size_t start, size_t end,
                          bool *sent)
{
    struct packed packed = packed_open(gradient);
    size_t t = packed_tensor(gradient->layout, start);
    const struct tensor *tensor = &gradient->layout->tensors[t];
    size_t length = tensor->count / row_count(tensor), row = (start - tensor->offset) / length;
    size_t low = packed_first(&packed, t).row, high = packed_first(&packed, t + 1).row;
    size_t past = tensor->offset + tensor->count; /* where the run ends */
    size_t k = packed_find(&packed, low, high, row);

    end = past < end ? past : end;
    *sent = k < high && packed_index(&packed, k) == row;
    if (*sent) {
        while (++row * length < end - tensor->offset && ++k < high &&
               packed_index(&packed, k) == row)
            ;
        past = tensor->offset + row * length;
    } else if (k < high) {
        past = tensor->offset + (size_t)packed_index(&packed, k) * length;
    }
    return (past < end ? past : end) - start;
}

size_t packed_run(const struct wire_gradient *gradient, size_t start, size_t end, bool *sent)
{
    size_t run = end - start;

    if (gradient->form == FORM_ROWS)
        return run_of_rows(gradient, start, end, sent);
    *sent = false;
    for (size_t i = 0; i < gradient->rows_count; i++) {
        bool has;
        size_t some = run_of_rows(&gradient->rows[i], start, end, &has);
        *sent |= has;
        run = some < run ? some : run;
    }
    return run;
}

/* --- checking --- */

static enum status length_fault(size_t given, size_t wanted, struct fault *fault)
{
    return fault_set(fault, STATUS_LENGTH_MISMATCH, "",
                     "the packed gradient has %zu bytes; its form takes %zu", given, wanted);
}

static enum status tensor_fault(const struct tensor *tensor, const char *words, struct fault *fault)
{
    char where[sizeof fault->where] = "/";

    pointer_escape(where + 1, sizeof where - 1, tensor->name);
    return fault_set(fault, STATUS_INVALID_FIELD, where, "%s", words);
}

/* The last byte of codes of so many bits has nothing after the last of them; low: the first code
 * stands in the lowest bits. */
static enum status check_rest(struct span bytes, size_t count, unsigned bits, bool low,
                              struct fault *fault)
{
    unsigned used = (unsigned)(count % (8 / bits)) * bits, last = bytes.data[bytes.size - 1];

    if (used > 0 && (low ? last >> used : last << used & 0xFF) != 0)
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "the packed gradient has bits after its last element");
    return STATUS_OK;
}

static enum status check_topk(const struct layout *layout, enum dtype wire, struct span bytes,
                              struct fault *fault)
{
    size_t entry = index_size(layout) + dtype_size(wire);
    struct packed packed = {.index = (unsigned char *)(uintptr_t)bytes.data + HEAD,
                            .index_size = index_size(layout)};
    uint64_t entries, last = 0;

    if (bytes.size < HEAD)
        return length_fault(bytes.size, HEAD, fault);
    memcpy(&entries, bytes.data, sizeof entries);
    if (entries > layout->count)
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "the packed gradient claims %llu values; the model has %zu elements",
                         (unsigned long long)entries, layout->count);
    if (bytes.size != HEAD + entries * entry)
        return length_fault(bytes.size, HEAD + entries * entry, fault);
    for (size_t k = 0; k < entries; k++) {
        uint64_t index = packed_index(&packed, k);
        if (index >= layout->count)
            return fault_set(fault, STATUS_INVALID_FIELD, "",
                             "value %zu of the packed gradient is for element %llu; the model has "
                             "%zu",
                             k, (unsigned long long)index, layout->count);
        if (k > 0 && index <= last)
            return tensor_fault(&layout->tensors[packed_tensor(layout, (size_t)index)],
                                "the elements of the packed gradient are not in ascending order",
                                fault);
        last = index;
    }
    return STATUS_OK;
}

/* What `first` says of every tensor, and thereby R and V. */
static enum status check_first(const struct layout *layout, const struct packed *packed,
                               struct fault *fault)
{
    struct packed_first first = packed_first(packed, 0);

    if (first.row != 0 || first.value != 0)
        return tensor_fault(&layout->tensors[0], "its packed rows do not begin at 0", fault);
    for (size_t t = 0; t < layout->tensor_count; t++) {
        const struct tensor *tensor = &layout->tensors[t];
        struct packed_first next = packed_first(packed, t + 1);
        size_t rows = row_count(tensor), length = rows == 0 ? 0 : tensor->count / rows;
        if (next.row < first.row || next.row - first.row > rows ||
            next.value != first.value + (next.row - first.row) * length)
            return tensor_fault(tensor, "its packed rows do not fit its shape", fault);
        first = next;
    }
    return STATUS_OK;
}

static enum status check_rows(const struct layout *layout, enum dtype wire, struct span bytes,
                              struct fault *fault)
{
    size_t tensors = layout->tensor_count, head = (tensors + 1) * FIRST;
    struct packed packed = {.first = (unsigned char *)(uintptr_t)bytes.data,
                            .index = (unsigned char *)(uintptr_t)bytes.data + head,
                            .index_size = index_size(layout)};

    if (bytes.size < head)
        return length_fault(bytes.size, head, fault);
    enum status status = check_first(layout, &packed, fault);
    if (status != STATUS_OK)
        return status;
    struct packed_first all = packed_first(&packed, tensors);
    size_t wanted = packed_size(layout, FORM_ROWS, wire, all.row, all.value);
    if (bytes.size != wanted)
        return length_fault(bytes.size, wanted, fault);
    for (size_t t = 0, k = 0; t < tensors; t++) {
        const struct tensor *tensor = &layout->tensors[t];
        size_t end = packed_first(&packed, t + 1).row;
        for (uint64_t least = 0; k < end; k++) {
            uint64_t row = packed_index(&packed, k);
            if (row < least || row >= row_count(tensor))
                return tensor_fault(tensor, "its packed rows are not ascending numbers of its rows",
                                    fault);
            least = row + 1;
        }
    }
    return STATUS_OK;
}

enum status packed_check(const struct layout *layout, enum gradient_form form, enum dtype wire,
                         struct span bytes, struct fault *fault)
{
    size_t wanted;

    if (form >= FORM_NONE)
        return fault_set(fault, STATUS_INVALID_FIELD, "", "there is no packed gradient");
    if (form == FORM_TOPK)
        return check_topk(layout, wire, bytes, fault);
    if (form == FORM_ROWS)
        return check_rows(layout, wire, bytes, fault);
    wanted = packed_size(layout, form, wire, 0, 0);
    if (bytes.size != wanted)
        return length_fault(bytes.size, wanted, fault);
    if (form == FORM_SIGN)
        return check_rest(bytes, layout->count, 1, true, fault);
    if (form == FORM_TWO_BIT)
        return check_rest(bytes, layout->count, 2, false, fault);
    return STATUS_OK;
}

/* --- zeroing --- */

void packed_zero(const struct wire_gradient *gradient, size_t element)
{
    const struct layout *layout = gradient->layout;
    struct packed packed = packed_open(gradient);
    size_t size = dtype_size(gradient->wire), t = packed_tensor(layout, element), at;
    const struct tensor *tensor = &layout->tensors[t];
    double scale;

    switch (gradient->form) {
    case FORM_INT8:
        dtype_convert(DTYPE_F64, &scale, gradient->wire, packed.scale + t * size, 1);
        if (isfinite(scale)) { /* the product was not */
            packed.code[element] = 0;
        } else {
            memset(packed.scale + t * size, 0, size);
            memset(packed.code + tensor->offset, 0, tensor->count);
        }
        break;
    case FORM_SIGN:
    case FORM_TWO_BIT:
        memset(packed.scale + t * size, 0, size);
        break;
    case FORM_TOPK:
        at = packed_find(&packed, 0, packed.entries, element);
        memset(packed.value + at * size, 0, size);
        break;
    case FORM_ROWS: {
        struct packed_first first = packed_first(&packed, t), next = packed_first(&packed, t + 1);
        size_t length = tensor->count / row_count(tensor), place = element - tensor->offset;
        at = packed_find(&packed, first.row, next.row, place / length) - first.row;
        memset(packed.value + (first.value + at * length + place % length) * size, 0, size);
        break;
    }
    case FORM_DENSE:
    case FORM_NONE:
    case FORM_COUNT:
        PRE(false);
    }
}
