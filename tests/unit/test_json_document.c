/* Reading JSON: the lifting pass, error positions, shapes and tensors. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/json_document.h"
#include "tests/lib/tensors.h"
#include "tests/lib/testing.h"

static struct arena arena;
static struct json_document document;
static struct fault fault;

static void setup(void)
{
    arena_init(&arena);
    memset(&fault, 0, sizeof fault);
    memset(&document, 0, sizeof document);
}

static void teardown(void)
{
    json_close(&document);
    arena_close(&arena);
}

/* Reads from a copy without a NUL after it, so that a sanitizer sees who reads too far. */
static enum status read_text(const char *text, size_t size)
{
    unsigned char *copy = arena_take(&arena, size);

    ck_assert_ptr_nonnull(copy);
    memcpy(copy, text, size);
    return json_read(&arena, span_of(copy, size), &document, &fault);
}

static void open_text(const char *text)
{
    json_close(&document);
    ck_assert_msg(read_text(text, strlen(text)) == STATUS_OK, "%s: %s", text, fault.detail);
}

static const json_t *member(const char *name)
{
    const json_t *value = json_object_get(document.root, name);

    ck_assert_msg(value != NULL, "%s is not there", name);
    return value;
}

START_TEST(numbers_and_number_arrays_are_lifted)
{
    open_text("{\"lr\": 0.1, \"w\": [[1, 2]], \"k\": [\"a\", 3], \"e\": [], \"s\": \"[1]\"}");
    ck_assert_uint_eq(document.lifted_count, 4);
    ck_assert(json_is_number(member("lr")));
    ck_assert(!json_is_number_array(member("lr")));
    ck_assert(json_is_number_array(member("w")));
    ck_assert(json_is_number_array(member("e")));
    ck_assert(!json_is_number_array(member("k")));
    ck_assert_str_eq(json_string_value(member("s")), "[1]");
    struct span piece = json_piece(&document, member("w"));
    ck_assert_uint_eq(piece.size, 8);
    ck_assert_mem_eq(piece.data, "[[1, 2]]", 8);
    ck_assert(json_is_number(json_array_get(member("k"), 1)));
}
END_TEST

START_TEST(arrays_that_turn_mixed_keep_their_numeric_parts)
{
    open_text("{\"a\": [[1, 2], [[3], [4, [5, {\"b\": [6]}]]], \"x\"]}");
    const json_t *a = member("a");
    ck_assert_uint_eq(json_array_size(a), 3);
    ck_assert(json_is_number_array(json_array_get(a, 0)));
    const json_t *second = json_array_get(a, 1);
    ck_assert_uint_eq(json_array_size(second), 2);
    ck_assert(json_is_number_array(json_array_get(second, 0)));
    const json_t *deep = json_array_get(json_array_get(second, 1), 1);
    ck_assert(json_is_number(json_array_get(deep, 0)));
    ck_assert(json_is_number_array(json_object_get(json_array_get(deep, 1), "b")));
}
END_TEST

static const struct {
    const char *text;
    size_t byte;
    const char *words;
} refused[] = {
    {"", 0, "empty"},
    {" ", 1, "too early"},
    {"{", 1, "too early"},
    {"{\"a\"", 4, "colon"},
    {"{\"a\":", 5, "value"},
    {"{\"a\":1", 6, "comma or }"},
    {"{\"a\":123456 \"b\":1}", 12, "comma or }"},
    {"{\"a\" 1}", 5, "colon"},
    {"{\"a\":1,}", 7, "name of a member"},
    {"{\"a\":1000,,}", 10, "name of a member"},
    {"{\"a\":[1,2,3],\"b\":[4,5],\"a\":6}", 23, "\"a\" is there twice"},
    {"{\"a\":{\"k\":1,\"k\":2}}", 12, "\"k\" is there twice"},
    {"{\"a\":01}", 5, "not a JSON number"},
    {"{\"a\":[01]}", 6, "not a JSON number"},
    {"{\"a\":[1.]}", 6, "not a JSON number"},
    {"{\"a\":[1,.5]}", 8, "value was expected"},
    {"{\"a\":[+1]}", 6, "value was expected"},
    {"{\"a\":+1}", 5, "value was expected"},
    {"{\"a\":1e}", 5, "not a JSON number"},
    {"{\"a\":0x10}", 5, "not a JSON number"},
    {"{\"a\":[1,NaN]}", 8, "no NaN"},
    {"{\"a\":[1,-Infinity]}", 8, "no NaN"},
    {"{\"a\":NaN}", 5, "no NaN"},
    {"{\"a\":-Infinity}", 5, "no NaN"},
    {"{\"a\":Infinity}", 5, "no NaN"},
    {"[1,]", 3, "value was expected"},
    {"[,1]", 1, "value was expected"},
    {"[1 2]", 3, "comma or ]"},
    {"[[1] [2]]", 5, "comma or ]"},
    {"[1,2", 0, "not closed"},
    {"[[1,2]", 0, "not closed"},
    {"[\"a\", 1 2]", 8, "comma or ]"},
    {"[1}", 2, "comma or ]"},
    {"[1]]", 3, "one value only"},
    {"{\"a\":1}}", 7, "one value only"},
    {"{\"a\":1} x", 8, "one value only"},
    {"1 2", 2, "one value only"},
    {"{\"a\":tru}", 5, "value was expected"},
    {"{'a':1}", 1, "name of a member"},
    {"{1:2}", 1, "name of a member"},
    {"[1,\"\xff\"]", 4, "UTF-8"},
    {"{\"a\":1,\"\xc0\xaf\":1}", 8, "UTF-8"},
    {"{\"a\":\"\xed\xa0\x80\"}", 6, "UTF-8"},
    {"\xef\xbb\xbf{}", 0, "value was expected"},
    {"\"a\tb\"", 2, "control character"},
    {"\"\\u0000\"", 8, "NUL"},
    {"\"\\ud800\"", 8, "surrogate"},
    {"\"\\x\"", 3, "escape"},
    {"\"abc", 4, "not closed"},
    {"[1,2,\"abc]", 10, "not closed"},
    {"{\"a\":1/*x*/}", 5, "not a JSON number"},
    {"[1,2//x\n]", 3, "not a JSON number"},
};

START_TEST(bad_text_is_refused_naming_the_byte)
{
    char byte[32];

    ck_assert_int_eq(read_text(refused[_i].text, strlen(refused[_i].text)), STATUS_INVALID_JSON);
    snprintf(byte, sizeof byte, "(byte %zu)", refused[_i].byte);
    ck_assert_msg(strstr(fault.detail, byte) != NULL, "%s: %s, not %s", refused[_i].text,
                  fault.detail, byte);
    ck_assert_msg(strstr(fault.detail, refused[_i].words) != NULL, "%s: %s, without %s",
                  refused[_i].text, fault.detail, refused[_i].words);
}
END_TEST

START_TEST(a_nul_byte_is_refused_wherever_it_stands)
{
    static const char text[] = "{\"a\":[1,2],\"b\":\"c\",\"d\":[true ,null ],\"e\":6 }";

    for (size_t i = 0; i < sizeof text - 1; i++) {
        char copy[sizeof text];
        memcpy(copy, text, sizeof text);
        copy[i] = '\0';
        ck_assert_int_eq(read_text(copy, sizeof text - 1), STATUS_INVALID_JSON);
    }
    ck_assert_int_eq(read_text(text, sizeof text), STATUS_INVALID_JSON); /* and after the end */
}
END_TEST

START_TEST(line_and_column_are_counted_in_the_original)
{
    static const char text[] = "{\"a\": [1,\n2,3],\n \"\xc3\xa9\": 7, x}";

    ck_assert_int_eq(read_text(text, sizeof text - 1), STATUS_INVALID_JSON);
    ck_assert_msg(strstr(fault.detail, "line 3, column 10 (byte 26)") != NULL, "%s", fault.detail);
}
END_TEST

START_TEST(every_cut_of_a_text_is_refused)
{
    static const char text[] =
        "{\"a\": [[1.5e-3, 2], [3, 4]], \"b\": [true, {\"c\": \"\\u00e9\"}, 12], \"d\": -0}";

    open_text(text);
    json_close(&document);
    for (size_t size = 0; size < sizeof text - 1; size++)
        ck_assert_msg(read_text(text, size) == STATUS_INVALID_JSON, "%.*s", (int)size, text);
}
END_TEST

START_TEST(depth_is_capped_at_32_for_arrays_objects_and_both)
{
    char text[512];

    for (int kind = 0; kind < 3; kind++)
        for (int depth = 32; depth <= 33; depth++) {
            size_t used = 0;
            for (int i = 0; i < depth; i++) {
                bool array = kind == 0 || (kind == 2 && i % 2 == 0);
                used += (size_t)snprintf(text + used, sizeof text - used, array ? "[" : "{\"a\":");
            }
            text[used++] = '1';
            for (int i = depth; i-- > 0;)
                text[used++] = kind == 0 || (kind == 2 && i % 2 == 0) ? ']' : '}';
            enum status status = read_text(text, used);
            ck_assert_int_eq(status, depth == 32 ? STATUS_OK : STATUS_INVALID_JSON);
            if (status != STATUS_OK)
                ck_assert_ptr_nonnull(strstr(fault.detail, "32"));
            json_close(&document);
        }
}
END_TEST

START_TEST(too_many_values_are_too_large_but_numbers_in_arrays_are_free)
{
    size_t count = JSON_VALUES_MAX + 10, size = 0;
    char *text = malloc(count * 3 + 16);

    ck_assert_ptr_nonnull(text);
    size += (size_t)sprintf(text, "[\"\"");
    for (size_t i = 0; i < count / 2; i++)
        size += (size_t)sprintf(text + size, ",[]");
    text[size++] = ']';
    ck_assert_int_eq(json_read(&arena, span_of(text, size), &document, &fault), STATUS_TOO_LARGE);
    size = 0;
    text[size++] = '[';
    for (size_t i = 0; i < count; i++)
        size += (size_t)sprintf(text + size, i == 0 ? "1" : ",1");
    text[size++] = ']';
    ck_assert_int_eq(json_read(&arena, span_of(text, size), &document, &fault), STATUS_OK);
    free(text);
}
END_TEST

START_TEST(scalars_are_read_exactly)
{
    double value;

    open_text("[\"\", 0.1, -0, 1e400, 5e-324, true, [1]]");
    ck_assert_int_eq(json_f64(&document, json_array_get(document.root, 1), &value, &fault),
                     STATUS_OK);
    ck_assert(value == 0.1);
    ck_assert_int_eq(json_f64(&document, json_array_get(document.root, 2), &value, &fault),
                     STATUS_OK);
    ck_assert(value == 0 && signbit(value));
    ck_assert_int_eq(json_f64(&document, json_array_get(document.root, 4), &value, &fault),
                     STATUS_OK);
    ck_assert(value == 5e-324);
    for (size_t i = 0; i < 7; i++) {
        if (i == 1 || i == 2 || i == 4)
            continue;
        ck_assert_int_eq(json_f64(&document, json_array_get(document.root, i), &value, &fault),
                         STATUS_INVALID_FIELD);
        ck_assert_str_eq(fault.where, "");
    }
}
END_TEST

static const struct {
    const char *text;
    bool good;
    uint64_t value;
} wholes[] = {
    {"0", true, 0},
    {"7", true, 7},
    {"3.0", true, 3},
    {"3e2", true, 300},
    {"0.5e1", true, 5},
    {"1200e-2", true, 12},
    {"18446744073709551615", true, UINT64_MAX},
    {"18446744073709551616", false, 0},
    {"1.8446744073709551615e19", true, UINT64_MAX},
    {"184467440737095516150e-1", true, UINT64_MAX},
    {"0e999999999999999999999", true, 0},
    {"0.000e5", true, 0},
    {"1e19", true, 10000000000000000000u},
    {"1e20", false, 0},
    {"1e-1", false, 0},
    {"1.5", false, 0},
    {"9007199254740993", true, 9007199254740993u},
    {"-1", false, 0},
    {"-0", false, 0},
    {"0.00000000000000000000000000000001", false, 0},
    {"1e-99999999999999999999", false, 0},
    {"1e99999999999999999999", false, 0},
};

START_TEST(whole_numbers_are_exact_and_fractions_are_refused)
{
    uint64_t value = 1;

    open_text(wholes[_i].text);
    enum status status = json_u64(&document, document.root, &value, &fault);
    ck_assert_int_eq(status, wholes[_i].good ? STATUS_OK : STATUS_INVALID_FIELD);
    if (wholes[_i].good)
        ck_assert_uint_eq(value, wholes[_i].value);
}
END_TEST

static const struct {
    const char *text, *shape; /* NULL: refused */
    enum status status;
} shapes[] = {
    {"1", "[]", STATUS_OK},
    {"[]", "[0]", STATUS_OK},
    {"[1]", "[1]", STATUS_OK},
    {"[ 1 , 2 ,\n3 ]", "[3]", STATUS_OK},
    {"[[1,2],[3,4],[5,6]]", "[3, 2]", STATUS_OK},
    {"[[],[]]", "[2, 0]", STATUS_OK},
    {"[[[1],[2]]]", "[1, 2, 1]", STATUS_OK},
    {"[[[[[[[[1]]]]]]]]", "[1, 1, 1, 1, 1, 1, 1, 1]", STATUS_OK},
    {"[[[[[[[[[1]]]]]]]]]", NULL, STATUS_TOO_LARGE},
    {"[[1,2],[3]]", "[1]", STATUS_SHAPE_MISMATCH},
    {"[[1],[2,3]]", "[1]", STATUS_SHAPE_MISMATCH},
    {"[[[1],[2]],[[3],[4,5]]]", "[1][1]", STATUS_SHAPE_MISMATCH},
    {"[1,[2]]", "[1]", STATUS_SHAPE_MISMATCH},
    {"[[1],2]", "[1]", STATUS_SHAPE_MISMATCH},
    {"[[],[1]]", "[1]", STATUS_SHAPE_MISMATCH},
    {"[[[]],[]]", "[1]", STATUS_SHAPE_MISMATCH},
    {"[[1],[[2]]]", "[1][0]", STATUS_SHAPE_MISMATCH},
    {"[\"a\"]", NULL, STATUS_INVALID_FIELD},
    {"true", NULL, STATUS_INVALID_FIELD},
    {"{}", NULL, STATUS_INVALID_FIELD},
    {"[null]", NULL, STATUS_INVALID_FIELD},
};

START_TEST(shapes_are_inferred_and_ragged_rows_are_named)
{
    unsigned rank = 99;
    size_t shape[LAYOUT_RANK_MAX];
    char text[128];

    open_text(shapes[_i].text);
    ck_assert_int_eq(json_shape(&document, document.root, &rank, shape, &fault), shapes[_i].status);
    if (shapes[_i].status == STATUS_OK)
        ck_assert_str_eq(shape_format(text, sizeof text, rank, shape), shapes[_i].shape);
    else if (shapes[_i].shape != NULL)
        ck_assert_msg(strstr(fault.detail, shapes[_i].shape) != NULL, "%s", fault.detail);
}
END_TEST

START_TEST(tensors_are_read_with_their_shape_only)
{
    double out[7] = {0, 0, 0, 0, 0, 0, 42};
    size_t shape[] = {2, 3}, other[] = {3, 2}, flat[] = {6}, empty[] = {0, 3};

    open_text("[[1, 2.5, -3], [4e0, 5, 0.1]]");
    ck_assert_int_eq(json_tensor(&document, document.root, 2, shape, DTYPE_F64, out, &fault),
                     STATUS_OK);
    ck_assert(out[1] == 2.5 && out[2] == -3 && out[5] == 0.1 && out[6] == 42);
    ck_assert_int_eq(json_tensor(&document, document.root, 2, other, DTYPE_F64, out, &fault),
                     STATUS_SHAPE_MISMATCH);
    ck_assert_str_eq(fault.detail, "the shape is [2, 3]; it must be [3, 2]");
    ck_assert_int_eq(json_tensor(&document, document.root, 1, flat, DTYPE_F64, out, &fault),
                     STATUS_SHAPE_MISMATCH);
    ck_assert_int_eq(json_tensor(&document, document.root, 0, NULL, DTYPE_F64, out, &fault),
                     STATUS_SHAPE_MISMATCH);
    ck_assert(out[6] == 42);
    open_text("[[1, 2], [3]]");
    ck_assert_int_eq(json_tensor(&document, document.root, 2, other, DTYPE_F64, out, &fault),
                     STATUS_SHAPE_MISMATCH);
    ck_assert_ptr_nonnull(strstr(fault.detail, "ragged"));
    open_text("7");
    ck_assert_int_eq(json_tensor(&document, document.root, 0, NULL, DTYPE_F64, out, &fault),
                     STATUS_OK);
    ck_assert(out[0] == 7);
    ck_assert_int_eq(json_tensor(&document, document.root, 1, flat, DTYPE_F64, out, &fault),
                     STATUS_SHAPE_MISMATCH);
    open_text("[]");
    ck_assert_int_eq(json_tensor(&document, document.root, 2, empty, DTYPE_F64, out, &fault),
                     STATUS_OK);
}
END_TEST

START_TEST(numbers_beyond_the_dtype_are_named_by_index)
{
    double out[4];
    size_t shape[] = {2, 2};

    open_text("[[1, 2], [3, 1e39]]");
    ck_assert_int_eq(json_tensor(&document, document.root, 2, shape, DTYPE_F64, out, &fault),
                     STATUS_OK);
    ck_assert(out[3] == 1e39);
    ck_assert_int_eq(json_tensor(&document, document.root, 2, shape, DTYPE_F32, out, &fault),
                     STATUS_INVALID_FIELD);
    ck_assert_str_eq(fault.where, "/1/1");
    open_text("-1e39");
    ck_assert_int_eq(json_tensor(&document, document.root, 0, NULL, DTYPE_F32, out, &fault),
                     STATUS_INVALID_FIELD);
    ck_assert_str_eq(fault.where, "");
}
END_TEST

START_TEST(tensors_of_a_layout_go_to_their_places)
{
    struct layout *layout = tensors_layout("w[2,2] b[3] s[]");
    float out[8];

    open_text("{\"b\": [5, 6, 7], \"s\": 8, \"w\": [[1, 2], [3, 4]]}");
    ck_assert_int_eq(json_tensors(&document, document.root, layout, DTYPE_F32, out, &fault),
                     STATUS_OK);
    for (int i = 0; i < 8; i++)
        ck_assert(out[i] == (float)(i + 1));
    layout_release(layout);
}
END_TEST

static const struct {
    const char *text, *where;
    enum status status;
} wrong_tensors[] = {
    {"{\"w\": [[1, 2], [3, 4]]}", "/a~1b", STATUS_MISSING_TENSOR},
    {"{\"w\": [[1, 2], [3, 4]], \"a/b\": [1], \"c\": 1}", "/c", STATUS_UNKNOWN_TENSOR},
    {"{\"w\": [[1, 2]], \"a/b\": [1]}", "/w", STATUS_SHAPE_MISMATCH},
    {"{\"w\": [[1, 2], [3, 1e999]], \"a/b\": [1]}", "/w/1/1", STATUS_INVALID_FIELD},
    {"{\"w\": \"x\", \"a/b\": [1]}", "/w", STATUS_INVALID_FIELD},
    {"{\"w\": [[1, 2], [3, null]], \"a/b\": [1]}", "/w", STATUS_INVALID_FIELD},
    {"{\"a/b\": null, \"w\": [[1, 2], [3, 4]]}", "/a~1b", STATUS_INVALID_FIELD},
    {"{}", "/w", STATUS_MISSING_TENSOR},
    {"[[1, 2], [3, 4]]", "", STATUS_INVALID_FIELD},
    {"3", "", STATUS_INVALID_FIELD},
};

START_TEST(wrong_tensors_are_named)
{
    struct layout *layout = tensors_layout("w[2,2] a/b[1]");
    double out[5];

    open_text(wrong_tensors[_i].text);
    ck_assert_int_eq(json_tensors(&document, document.root, layout, DTYPE_F64, out, &fault),
                     wrong_tensors[_i].status);
    ck_assert_str_eq(fault.where, wrong_tensors[_i].where);
    layout_release(layout);
}
END_TEST

/* Arrays that turn out to be mixed at the very end, at every depth: a quadratic pass would take
 * hours here. */
START_TEST(hostile_nesting_stays_linear)
{
    size_t size = 0, rows = 20000;
    char *text = malloc(rows * 80 + 1024);

    ck_assert_ptr_nonnull(text);
    for (int i = 0; i < 30; i++)
        text[size++] = '[';
    for (size_t i = 0; i < rows; i++)
        size += (size_t)sprintf(text + size, "[1,2,3,4,5,6,7,8,9,10,11,12,13],");
    for (int i = 0; i < 30; i++)
        size += (size_t)sprintf(text + size, "%s\"x\"]", i == 0 ? "" : ",");
    ck_assert_int_eq(json_read(&arena, span_of(text, size), &document, &fault), STATUS_OK);
    ck_assert_uint_eq(document.lifted_count, rows);
    free(text);
}
END_TEST

#define LOOP(tests, name, table) tcase_add_loop_test(tests, name, 0, sizeof table / sizeof *table)

Suite *suite_json_document(void);
Suite *suite_json_document(void)
{
    Suite *suite = suite_create("json_document");
    TCase *tests = tcase_create("json_document");

    tcase_set_timeout(tests, 20);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, numbers_and_number_arrays_are_lifted);
    tcase_add_test(tests, arrays_that_turn_mixed_keep_their_numeric_parts);
    LOOP(tests, bad_text_is_refused_naming_the_byte, refused);
    tcase_add_test(tests, a_nul_byte_is_refused_wherever_it_stands);
    tcase_add_test(tests, line_and_column_are_counted_in_the_original);
    tcase_add_test(tests, every_cut_of_a_text_is_refused);
    tcase_add_test(tests, depth_is_capped_at_32_for_arrays_objects_and_both);
    tcase_add_test(tests, too_many_values_are_too_large_but_numbers_in_arrays_are_free);
    tcase_add_test(tests, scalars_are_read_exactly);
    LOOP(tests, whole_numbers_are_exact_and_fractions_are_refused, wholes);
    LOOP(tests, shapes_are_inferred_and_ragged_rows_are_named, shapes);
    tcase_add_test(tests, tensors_are_read_with_their_shape_only);
    tcase_add_test(tests, numbers_beyond_the_dtype_are_named_by_index);
    tcase_add_test(tests, tensors_of_a_layout_go_to_their_places);
    LOOP(tests, wrong_tensors_are_named, wrong_tensors);
    tcase_add_test(tests, hostile_nesting_stays_linear);
    suite_add_tcase(suite, tests);
    return suite;
}
