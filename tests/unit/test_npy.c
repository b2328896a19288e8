/* The npy codec: every rule of the format, and NumPy's own files. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "api/codec.h"
#include "tests/lib/tensors.h"

static struct arena arena;
static struct fault fault;
static struct layout *layout;
static const struct codec *npy;

static void setup(void)
{
    arena_init(&arena);
    layout = tensors_layout("w[2,3] b[1]");
    npy = codec_find("application/x-npy");
    ck_assert_ptr_nonnull(npy);
}

static void teardown(void)
{
    layout_release(layout);
    arena_close(&arena);
}

/* A version 1.0 file with this header text and data bytes 0, 1, 2 ... */
static struct buffer *make_file(const char *header, size_t data_size)
{
    size_t length = strlen(header);
    struct buffer *file = buffer_new(10 + length + data_size);

    ck_assert_ptr_nonnull(file);
    memcpy(file->data, "\x93NUMPY\x01\x00", 8);
    file->data[8] = (unsigned char)length;
    file->data[9] = (unsigned char)(length >> 8);
    memcpy(file->data + 10, header, length);
    for (size_t i = 0; i < data_size; i++)
        file->data[10 + length + i] = (unsigned char)i;
    return file;
}

static enum status decode(const struct layout *for_layout, struct buffer *file, struct tensors *out)
{
    memset(&fault, 0, sizeof fault);
    enum status status = npy->decode(for_layout, DTYPE_F32, file, out, &fault);
    if (status == STATUS_OK)
        buffer_release(out->buffer);
    buffer_release(file);
    return status;
}

static const struct {
    const char *header;
    size_t data_size;
    enum status status;
    const char *words;
} headers[] = {
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (7,), }\n", 28, STATUS_OK, ""},
    {"{'descr': '<f8', 'fortran_order': False, 'shape': (7,), }   \n", 56, STATUS_OK, ""},
    {"{'descr': '<f2', 'fortran_order': False, 'shape': (7,), }\n", 14, STATUS_OK, ""},
    {"{\"shape\":(7,),\"descr\":\"<f4\",\"fortran_order\":False}\n", 28, STATUS_OK, ""},
    {"{'descr': '<f4', 'fortran_order': True, 'shape': (7,)}\n", 28, STATUS_OK, ""},
    {"{'descr': '<f4', 'fortran_order': True, 'shape': (7, 1)}\n", 28, STATUS_INVALID_FIELD,
     "Fortran"},
    {"{'descr': '>f4', 'fortran_order': False, 'shape': (7,)}\n", 28, STATUS_INVALID_FIELD, "<f4"},
    {"{'descr': '<i4', 'fortran_order': False, 'shape': (7,)}\n", 28, STATUS_INVALID_FIELD, "<f4"},
    {"{'descr': '<f44', 'fortran_order': False, 'shape': (7,)}\n", 28, STATUS_INVALID_FIELD, "<f4"},
    {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (7,)}\n", 28, STATUS_INVALID_FIELD,
     "structured"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (7)}\n", 28, STATUS_INVALID_REQUEST,
     "(3,)"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (7,,)}\n", 28, STATUS_INVALID_REQUEST,
     "whole number"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (,)}\n", 28, STATUS_INVALID_REQUEST,
     "whole number"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (7 1)}\n", 28, STATUS_INVALID_REQUEST,
     "comma or )"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (7L,)}\n", 28, STATUS_INVALID_REQUEST,
     "comma or )"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (07,)}\n", 28, STATUS_INVALID_REQUEST,
     "whole number"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (-7,)}\n", 28, STATUS_INVALID_REQUEST,
     "whole number"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551623,)}\n", 28,
     STATUS_INVALID_REQUEST, "whole number"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': [7]}\n", 28, STATUS_INVALID_REQUEST,
     "tuple"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,7)}\n", 28,
     STATUS_INVALID_REQUEST, "8 dimensions"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (8,)}\n", 32, STATUS_SHAPE_MISMATCH, "[7]"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (7, 1)}\n", 28, STATUS_SHAPE_MISMATCH,
     "[7]"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': ()}\n", 4, STATUS_SHAPE_MISMATCH, "[7]"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}\n", 28,
     STATUS_SHAPE_MISMATCH, "[7]"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (7,)}\n", 27, STATUS_LENGTH_MISMATCH, "27"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (7,)}\n", 29, STATUS_LENGTH_MISMATCH, "28"},
    {"{'descr': '<f4', 'fortran_order': False}\n", 28, STATUS_INVALID_REQUEST, "lacks"},
    {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (7,)}\n", 28,
     STATUS_INVALID_REQUEST, "once each"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (7,), 'x': 1}\n", 28,
     STATUS_INVALID_REQUEST, "nothing else"},
    {"{'descr': '<f4', 'fortran_order': 0, 'shape': (7,)}\n", 28, STATUS_INVALID_REQUEST, "True"},
    {"{'descr': '<f4' 'fortran_order': False, 'shape': (7,)}\n", 28, STATUS_INVALID_REQUEST,
     "comma"},
    {"{'descr' '<f4', 'fortran_order': False, 'shape': (7,)}\n", 28, STATUS_INVALID_REQUEST,
     "colon"},
    {"{descr: '<f4', 'fortran_order': False, 'shape': (7,)}\n", 28, STATUS_INVALID_REQUEST,
     "quotes"},
    {"{'descr: '<f4', 'fortran_order': False, 'shape': (7,)}\n", 28, STATUS_INVALID_REQUEST, ""},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (7,)}", 28, STATUS_INVALID_REQUEST,
     "newline"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (7,)} x\n", 28, STATUS_INVALID_REQUEST,
     "newline"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (7,)}\n\n", 28, STATUS_INVALID_REQUEST,
     "newline"},
    {"('descr', '<f4')\n", 28, STATUS_INVALID_REQUEST, "{"},
    {"", 28, STATUS_INVALID_REQUEST, "{"},
};

START_TEST(headers_are_read_strictly)
{
    struct tensors tensors;

    ck_assert_msg(decode(layout, make_file(headers[_i].header, headers[_i].data_size), &tensors) ==
                      headers[_i].status,
                  "%s: %s %s", headers[_i].header, status_code(fault.status), fault.detail);
    ck_assert_msg(strstr(fault.detail, headers[_i].words) != NULL, "%s: %s", headers[_i].header,
                  fault.detail);
}
END_TEST

START_TEST(magic_and_version_are_checked)
{
    struct tensors tensors;
    static const char good[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (7,), }\n";

    for (size_t i = 0; i < 6; i++) {
        struct buffer *file = make_file(good, 28);
        file->data[i] ^= 1;
        ck_assert_int_eq(decode(layout, file, &tensors), STATUS_INVALID_REQUEST);
    }
    for (unsigned version = 0; version < 8; version++) {
        struct buffer *file = make_file(good, 28);
        file->data[6] = (unsigned char)version;
        /* From 2.0 on the length has four bytes: two of this header, and it is far too long. */
        ck_assert_int_eq(decode(layout, file, &tensors),
                         version == 1 ? STATUS_OK : STATUS_INVALID_REQUEST);
    }
    struct buffer *file = make_file(good, 28);
    file->data[7] = 1;
    ck_assert_int_eq(decode(layout, file, &tensors), STATUS_INVALID_REQUEST);
}
END_TEST

START_TEST(one_tensor_may_come_in_its_shape_or_flat)
{
    struct layout *one = tensors_layout("w[2,3]"), *scalar = tensors_layout("s[]");
    struct tensors tensors;

    ck_assert_int_eq(
        decode(one, make_file("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", 24),
               &tensors),
        STATUS_OK);
    ck_assert_int_eq(
        decode(one, make_file("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }\n", 24),
               &tensors),
        STATUS_OK);
    ck_assert_int_eq(
        decode(one, make_file("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }\n", 24),
               &tensors),
        STATUS_SHAPE_MISMATCH);
    ck_assert_str_eq(fault.where, "/w");
    ck_assert_ptr_nonnull(strstr(fault.detail, "[3, 2]"));
    ck_assert_int_eq(
        decode(scalar, make_file("{'descr': '<f4', 'fortran_order': False, 'shape': (), }\n", 4),
               &tensors),
        STATUS_OK);
    layout_release(one);
    layout_release(scalar);
}
END_TEST

START_TEST(misaligned_data_is_copied_and_aligned_data_is_not)
{
    struct tensors tensors;

    for (size_t pad = 0; pad < 8; pad++) {
        char header[128];
        snprintf(header, sizeof header,
                 "{'descr': '<f4', 'fortran_order': False, 'shape': (7,)}%*s\n", (int)pad, "");
        struct buffer *file = make_file(header, 28);
        size_t begin = 10 + strlen(header);
        ck_assert_int_eq(npy->decode(layout, DTYPE_F32, file, &tensors, &fault), STATUS_OK);
        ck_assert((tensors.buffer == file) == (begin % 4 == 0));
        ck_assert_mem_eq(tensors.buffer->data + tensors.offset, file->data + begin, 28);
        buffer_release(tensors.buffer);
        buffer_release(file);
    }
}
END_TEST

/* numpy.lib.format.write_array wrote them; see tests/golden/wire.py. */
START_TEST(versions_two_and_three_of_numpy_are_read)
{
    struct layout *model = tensors_layout("w[2,3] b[3] e[0,2] s[]");
    static const float expected[] = {-1, -0.5f, 0, 0.5f, 1, 1.5f, 2, -2.5f, 1024, -0.0f};

    for (int version = 2; version <= 3; version++) {
        char path[64];
        struct tensors tensors;
        snprintf(path, sizeof path, "tests/golden/wire/version%d.npy", version);
        struct buffer *file = tensors_file(path);
        ck_assert_int_eq(file->data[6], version);
        ck_assert_int_eq(npy->decode(model, DTYPE_F32, file, &tensors, &fault), STATUS_OK);
        ck_assert_mem_eq(tensors.buffer->data + tensors.offset, expected, sizeof expected);
        buffer_release(tensors.buffer);
        buffer_release(file);
    }
    layout_release(model);
}
END_TEST

START_TEST(what_one_array_cannot_hold_is_not_acceptable)
{
    const struct tensor *both[] = {&layout->tensors[0], &layout->tensors[1]};
    struct tensors tensors = {.buffer = buffer_new_zeroed(28), .dtype = DTYPE_F32};
    struct encode_request request = {.arena = &arena,
                                     .layout = layout,
                                     .chosen = both,
                                     .chosen_count = 2,
                                     .tensors = &tensors,
                                     .dtype = DTYPE_F32};
    struct encoded encoded;

    ck_assert_int_eq(npy->encode(&request, &encoded, &fault), STATUS_NOT_ACCEPTABLE);
    request.chosen = NULL;
    request.dtype = DTYPE_BF16;
    ck_assert_int_eq(npy->encode(&request, &encoded, &fault), STATUS_NOT_ACCEPTABLE);
    buffer_release(tensors.buffer);
}
END_TEST

Suite *suite_npy(void);
Suite *suite_npy(void)
{
    Suite *suite = suite_create("npy");
    TCase *tests = tcase_create("npy");

    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, headers_are_read_strictly, 0, sizeof headers / sizeof *headers);
    tcase_add_test(tests, magic_and_version_are_checked);
    tcase_add_test(tests, one_tensor_may_come_in_its_shape_or_flat);
    tcase_add_test(tests, misaligned_data_is_copied_and_aligned_data_is_not);
    tcase_add_test(tests, versions_two_and_three_of_numpy_are_read);
    tcase_add_test(tests, what_one_array_cannot_hold_is_not_acceptable);
    suite_add_tcase(suite, tests);
    return suite;
}
