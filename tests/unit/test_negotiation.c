/* Content types, Accept, content codings and Accept-Encoding. */
#include <check.h>
#include <string.h>

#include "api/codec.h"
#include "api/coding.h"

static const struct {
    const char *type, *name;
} types[] = {
    {"application/json", "json"},
    {"Application/JSON; charset=utf-8", "json"},
    {"  application/json  ", "json"},
    {"application/json;charset=\"utf-8\"", "json"},
    {"application/vnd.safetensors", "safetensors"},
    {"application/x-safetensors", "safetensors"},
    {"application/octet-stream", "raw"},
    {"application/x-npy", "npy"},
    {"application/jsonx", NULL},
    {"application/jso", NULL},
    {"application/json x", NULL},
    {"application/json, text/plain", NULL},
    {"text/json", NULL},
    {"*/*", NULL},
    {"", NULL},
};

START_TEST(content_types_are_found_whatever_their_case_and_parameters)
{
    const struct codec *codec = codec_find(types[_i].type);

    if (types[_i].name == NULL)
        ck_assert_msg(codec == NULL, "\"%s\"", types[_i].type);
    else
        ck_assert_str_eq(codec->name, types[_i].name);
}
END_TEST

static const struct {
    const char *accept, *name;
    bool explicit_name;
} accepts[] = {
    {NULL, "json", false},
    {"", "json", false},
    {"  ", "json", false},
    {"*/*", "json", false},
    {"application/*", "json", false},
    {"application/json", "json", true},
    {"APPLICATION/JSON", "json", true},
    {"application/x-npy", "npy", true},
    {"application/x-safetensors", "safetensors", true},
    {"text/html, application/octet-stream", "raw", true},
    {"application/x-npy;q=0.5, application/octet-stream;q=0.6", "raw", true},
    {"application/x-npy;q=0.5, */*;q=0.1", "npy", true},
    {"application/x-npy, */*", "npy", true}, /* the same quality: the closer range */
    {"application/octet-stream, application/json", "json", true}, /* all the same: table order */
    {"application/json;q=0, */*", "safetensors", false},
    {"application/json;q=0.0, application/*;q=0.5", "safetensors", false},
    {"*/*, application/json;q=0.5", "safetensors",
     false}, /* the closer range decides, though lower */
    {"application/json;q=0", NULL, false},
    {"text/html", NULL, false},
    {"text/*", NULL, false},
    {"application/problem+json", NULL, false},
    {"application/*;q=0, */*", NULL, false},
    {"application/json ; charset=utf-8 ; q=0.3 , application/x-npy ; q=0.2", "json", true},
    {"application/json;q=0.300, application/x-npy;q=0.31", "npy", true},
    {"application/json;q=1.000, application/x-npy;q=0.999", "json", true},
    {"application/json;Q=0.1, application/x-npy;q=0.2", "npy", true},
    {"application/json;x=\"a,b;q=0\", application/x-npy;q=0.9", "json", true},
    {"application/json;x=\"a\\\"b,\", application/x-npy;q=0.9", "json", true},
    {"text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", "json", false}, /* Java's default */
    {"application/json;q=2, application/x-npy;q=0.1", "npy", true}, /* no quality: left out */
    {"application/json;q=x", NULL, false},
    {"application/json;q=", NULL, false},
    {",,, application/x-npy ,,", "npy", true},
    {";;;", NULL, false},
    {"application/json;", "json", true},
    {"\"", NULL, false},
};

START_TEST(accept_is_weighed_by_quality_then_closeness_then_table_order)
{
    bool explicit_name = true;
    const struct codec *codec = codec_negotiate(accepts[_i].accept, &explicit_name);

    if (accepts[_i].name == NULL)
        ck_assert_msg(codec == NULL, "%s gives %s", accepts[_i].accept, codec ? codec->name : "");
    else
        ck_assert_msg(codec != NULL && strcmp(codec->name, accepts[_i].name) == 0, "%s gives %s",
                      accepts[_i].accept, codec ? codec->name : "nothing");
    ck_assert_int_eq(explicit_name, accepts[_i].explicit_name);
}
END_TEST

START_TEST(the_list_of_media_types_names_every_codec)
{
    size_t count = 0;

    for (const struct codec *codec; (codec = codec_at(count)) != NULL; count++)
        ck_assert_ptr_nonnull(strstr(codec_media_types(), codec->media_type));
    ck_assert_uint_ge(count, 4);
    ck_assert_ptr_null(codec_at(count + 1));
    ck_assert_str_eq(codec_at(0)->name, "json");
}
END_TEST

/* --- content codings --- */

static const struct {
    const char *value, *name; /* NULL: none */
    bool refused;
} encodings[] = {
    {NULL, NULL, false},          {"", NULL, false},          {"identity", NULL, false},
    {"Identity", NULL, false},    {"zstd", "zstd", false},    {"gzip", "gzip", false},
    {"x-gzip", "gzip", false},    {" GZip ", "gzip", false},  {"identity, zstd", "zstd", false},
    {",, zstd ,", "zstd", false}, {"br", NULL, true},         {"deflate", NULL, true},
    {"compress", NULL, true},     {"gzipp", NULL, true},      {"gzi", NULL, true},
    {"gzip, zstd", NULL, true},   {"gzip, gzip", NULL, true}, {"zstd, br", NULL, true},
    {"gzip;q=1", NULL, true},     {"gzip zstd", NULL, true},  {"*", NULL, true},
};

START_TEST(content_encoding_names_one_coding)
{
    const struct coding *coding;
    struct fault fault = {.detail = ""};
    enum status status = coding_of(encodings[_i].value, &coding, &fault);

    ck_assert_int_eq(status, encodings[_i].refused ? STATUS_UNSUPPORTED_MEDIA_TYPE : STATUS_OK);
    if (encodings[_i].refused) {
        ck_assert_ptr_nonnull(strstr(fault.detail, coding_names()));
        return;
    }
    if (encodings[_i].name == NULL)
        ck_assert_ptr_null(coding);
    else
        ck_assert_str_eq(coding->name, encodings[_i].name);
}
END_TEST

static const struct {
    const char *value, *name; /* NULL: no coding */
    bool plain;               /* identity is accepted */
} coding_accepts[] = {
    {NULL, NULL, true},
    {"", NULL, true},
    {"identity", NULL, true},
    {"zstd", "zstd", true},
    {"gzip", "gzip", true},
    {"X-GZIP", "gzip", true},
    {"gzip, zstd", "zstd", true}, /* the same quality: the order of the table */
    {"gzip, deflate, br", "gzip", true},
    {"gzip, deflate, br, zstd", "zstd", true},
    {"br, deflate", NULL, true},
    {"gzip;q=0.9, zstd;q=0.8", "gzip", true},
    {"gzip;q=0.801, zstd;q=0.8", "gzip", true},
    {"zstd;q=0", NULL, true},
    {"zstd;q=0.0, gzip;q=0.001", "gzip", true},
    {"zstd;q=0, gzip", "gzip", true},
    {"*", "zstd", true},
    {"*;q=0", NULL, false},
    {"*;q=0, identity", NULL, true},
    {"*;q=0, gzip", "gzip", false},
    {"*;q=0.5, zstd;q=0", "gzip", true},
    {"identity;q=0", NULL, false},
    {"identity;q=0, br", NULL, false},
    {"identity;q=0, zstd", "zstd", false},
    {"identity;q=0, *", "zstd", false},
    {"gzip;q=0.5, identity", NULL, true}, /* rather plain */
    {"gzip;q=0.5, identity;q=0.5", "gzip", true},
    {"gzip;q=0.5, identity;q=0.4", "gzip", true},
    {"gzip;q=0.5, *;q=1", "zstd", true},
    {"gzip;q=2", NULL, true}, /* no quality: left out */
    {"gzip;q=x, zstd;q=0.1", "zstd", true},
    {";;;,,=", NULL, true},
};

START_TEST(accept_encoding_is_weighed_by_quality_then_table_order)
{
    const struct coding *coding = coding_negotiate(coding_accepts[_i].value);

    if (coding_accepts[_i].name == NULL)
        ck_assert_msg(coding == NULL, "%s: %s", coding_accepts[_i].value,
                      coding ? coding->name : "");
    else
        ck_assert_msg(coding != NULL && strcmp(coding->name, coding_accepts[_i].name) == 0,
                      "%s: %s", coding_accepts[_i].value, coding ? coding->name : "none");
    ck_assert_int_eq(coding_quality(coding_accepts[_i].value, NULL) > 0, coding_accepts[_i].plain);
    if (coding != NULL)
        ck_assert_int_gt(coding_quality(coding_accepts[_i].value, coding), 0);
}
END_TEST

Suite *suite_negotiation(void);
Suite *suite_negotiation(void)
{
    Suite *suite = suite_create("negotiation");
    TCase *tests = tcase_create("negotiation");

    tcase_add_loop_test(tests, content_types_are_found_whatever_their_case_and_parameters, 0,
                        sizeof types / sizeof *types);
    tcase_add_loop_test(tests, accept_is_weighed_by_quality_then_closeness_then_table_order, 0,
                        sizeof accepts / sizeof *accepts);
    tcase_add_loop_test(tests, content_encoding_names_one_coding, 0,
                        sizeof encodings / sizeof *encodings);
    tcase_add_loop_test(tests, accept_encoding_is_weighed_by_quality_then_table_order, 0,
                        sizeof coding_accepts / sizeof *coding_accepts);
    tcase_add_test(tests, the_list_of_media_types_names_every_codec);
    suite_add_tcase(suite, tests);
    return suite;
}
