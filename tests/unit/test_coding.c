/* Content codings: the decoders and encoders byte by byte. */
#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "api/coding.h"
#include "tests/lib/codings.h"
#include "tests/lib/tensors.h"
#include "tests/lib/testing.h"

enum { LARGE = 300001, SMALL = 1031, TEST_TIMEOUT_S = 60 };

/* --- decoders --- */

enum kind { EMPTY, ONE, TEXT, NOISE, ZEROS, KINDS };

static struct buffer *make(enum kind kind)
{
    static const size_t sizes[KINDS] = {0, 1, SMALL, LARGE, LARGE};
    uint64_t random = testing_seed() ^ (uint64_t)kind;
    struct buffer *buffer = buffer_new_zeroed(sizes[kind]);

    ck_assert_ptr_nonnull(buffer);
    for (size_t i = 0; i < buffer->size && kind != ZEROS; i++) {
        uint64_t number = testing_random(&random);
        buffer->data[i] = (unsigned char)(kind == NOISE ? number : '0' + number % 10);
    }
    return buffer;
}

static struct span all_of(const struct buffer *buffer)
{
    return span_of(buffer->data, buffer->size);
}

struct decoded {
    enum status status;
    struct fault fault;
    struct buffer *buffer;
    uint64_t taken;
};

/* Decodes `coded`, `piece` bytes in and `room` bytes out at a time; TOO_LARGE when `max` bytes are
 * not enough. */
static struct decoded decode(const struct coding *coding, struct span coded, size_t piece,
                             size_t room, size_t max)
{
    struct decoded result = {.buffer = buffer_new(max)};
    struct decoding decoding;
    size_t used = 0;

    ck_assert_ptr_nonnull(result.buffer);
    ck_assert_int_eq(decoding_start(&decoding, coding, NULL), STATUS_OK);
    for (size_t at = 0; at < coded.size && result.status == STATUS_OK; at += piece) {
        struct flow flow = {
            .in = span_of(coded.data + at, piece < coded.size - at ? piece : coded.size - at)};
        while (result.status == STATUS_OK && (flow.in.size > 0 || flow.room == 0)) {
            unsigned char *out = result.buffer->data + used;
            flow.out = out;
            flow.room = room < max - used ? room : max - used;
            if (flow.room == 0) {
                result.status = STATUS_TOO_LARGE;
                break;
            }
            result.status = decoding_run(&decoding, &flow, &result.fault);
            used += (size_t)(flow.out - out);
        }
    }
    if (result.status == STATUS_OK)
        result.status = decoding_end(&decoding, &result.fault);
    result.taken = decoding.taken;
    decoding_free(&decoding);
    ck_assert_ptr_null(decoding.coding);
    buffer_shrink(result.buffer, used);
    return result;
}

static void check_decodes(const struct coding *coding, struct span coded, struct span plain,
                          size_t piece, size_t room)
{
    struct decoded result = decode(coding, coded, piece, room, plain.size + 1);

    ck_assert_msg(result.status == STATUS_OK, "%s: %s", coding->name, result.fault.detail);
    ck_assert(codings_same(result.buffer, plain));
    ck_assert_uint_eq(result.taken, coded.size);
    buffer_release(result.buffer);
}

START_TEST(what_others_encode_is_decoded_in_any_pieces)
{
    static const size_t pieces[] = {1, 7, 1031, SIZE_MAX / 2};
    const struct coding *coding;

    for (size_t c = 0; (coding = coding_at(c)) != NULL; c++) {
        for (enum kind kind = EMPTY; kind < KINDS; kind++) {
            struct buffer *plain = make(kind);
            struct buffer *coded = codings_encode(coding->name, all_of(plain));
            for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++)
                for (size_t r = 0; r < sizeof pieces / sizeof *pieces; r++)
                    if (plain->size <= SMALL || pieces[p] > 1 || pieces[r] > 1)
                        check_decodes(coding, all_of(coded), all_of(plain), pieces[p], pieces[r]);
            buffer_release(coded);
            buffer_release(plain);
        }
    }
}
END_TEST

/* The parts one after the other. */
static struct buffer *join(const struct buffer *const *parts, size_t count)
{
    size_t size = 0;

    for (size_t i = 0; i < count; i++)
        size += parts[i]->size;
    struct buffer *all = buffer_new(size);
    ck_assert_ptr_nonnull(all);
    for (size_t i = size = 0; i < count; size += parts[i++]->size)
        memcpy(all->data + size, parts[i]->data, parts[i]->size);
    return all;
}

START_TEST(several_frames_or_members_are_one_content)
{
    static const unsigned char skippable[] = {0x5A, 0x2A, 0x4D, 0x18, 3, 0, 0, 0, 'a', 'b', 'c'};
    const struct coding *coding;
    struct buffer *text = make(TEXT), *noise = make(NOISE), *nothing = make(EMPTY);

    for (size_t c = 0; (coding = coding_at(c)) != NULL; c++) {
        struct buffer *parts[5] = {codings_encode(coding->name, all_of(text)),
                                   codings_encode(coding->name, all_of(nothing)),
                                   codings_encode(coding->name, all_of(noise)),
                                   codings_encode(coding->name, all_of(text)), nothing};
        if (strcmp(coding->name, "zstd") == 0) {
            parts[4] = parts[3];
            parts[3] = tensors_buffer(skippable, sizeof skippable);
        }
        struct buffer *coded = join((const struct buffer *const *)parts, 5);
        struct buffer *plain = join((const struct buffer *const[]){text, noise, text}, 3);
        check_decodes(coding, all_of(coded), all_of(plain), 1, SMALL);
        check_decodes(coding, all_of(coded), all_of(plain), SIZE_MAX / 2, SIZE_MAX / 2);
        for (size_t i = 0; i < 5; i++)
            if (parts[i] != nothing)
                buffer_release(parts[i]);
        buffer_release(coded);
        buffer_release(plain);
    }
    buffer_release(text);
    buffer_release(noise);
    buffer_release(nothing);
}
END_TEST

START_TEST(every_truncation_is_seen)
{
    const struct coding *coding;
    struct buffer *plain = make(TEXT);

    for (size_t c = 0; (coding = coding_at(c)) != NULL; c++) {
        struct buffer *coded = codings_encode(coding->name, all_of(plain));
        for (size_t size = 1; size < coded->size; size++) {
            char place[32];
            struct decoded result =
                decode(coding, span_of(coded->data, size), 1 + size % 5, SMALL, SMALL + 1);
            ck_assert_msg(result.status == STATUS_INVALID_REQUEST, "%s: %zu of %zu", coding->name,
                          size, coded->size);
            snprintf(place, sizeof place, "byte %zu,", size);
            ck_assert_msg(strstr(result.fault.detail, place) != NULL, "%s", result.fault.detail);
            buffer_release(result.buffer);
        }
        buffer_release(coded);
    }
    buffer_release(plain);
}
END_TEST

/* No changed byte gives another content; a few, such as the date in gzip, say nothing. */
START_TEST(every_changed_byte_is_seen_or_says_nothing)
{
    const struct coding *coding;
    struct buffer *plain = make(TEXT);

    for (size_t c = 0; (coding = coding_at(c)) != NULL; c++) {
        struct buffer *coded = codings_encode(coding->name, all_of(plain));
        size_t silent = 0;
        for (size_t i = 0; i < coded->size; i++) {
            unsigned char byte = coded->data[i];
            for (unsigned bit = 1; bit < 256; bit *= 2) {
                coded->data[i] = (unsigned char)(byte ^ bit);
                struct decoded result = decode(coding, all_of(coded), 64, SMALL, 2 * SMALL);
                if (result.status == STATUS_OK) {
                    ck_assert_msg(codings_same(result.buffer, all_of(plain)), "%s: byte %zu",
                                  coding->name, i);
                    silent++;
                } else {
                    ck_assert(result.status == STATUS_INVALID_REQUEST ||
                              result.status == STATUS_TOO_LARGE);
                    ck_assert_uint_le(result.taken, coded->size);
                }
                buffer_release(result.buffer);
            }
            coded->data[i] = byte;
        }
        ck_assert_uint_le(silent, 8 * 8); /* date, flags and system in gzip's header */
        buffer_release(coded);
    }
    buffer_release(plain);
}
END_TEST

START_TEST(what_follows_the_end_is_refused_at_its_place)
{
    const struct coding *coding;
    struct buffer *plain = make(TEXT);

    for (size_t c = 0; (coding = coding_at(c)) != NULL; c++) {
        struct buffer *coded = codings_encode(coding->name, all_of(plain));
        struct buffer *junk = tensors_buffer("{}\r\n", 4);
        struct buffer *both = join((const struct buffer *const[]){coded, junk}, 2);
        for (size_t size = coded->size + 1; size <= both->size; size++) {
            char place[32];
            struct decoded result =
                decode(coding, span_of(both->data, size), 1 + size % 7 * 100, SMALL, SMALL + 1);
            ck_assert_int_eq(result.status, STATUS_INVALID_REQUEST);
            snprintf(place, sizeof place, "byte %zu on", coded->size);
            ck_assert_msg(strstr(result.fault.detail, place) != NULL, "%s, not %s",
                          result.fault.detail, place);
            buffer_release(result.buffer);
        }
        buffer_release(both);
        buffer_release(junk);
        buffer_release(coded);
    }
    buffer_release(plain);
}
END_TEST

START_TEST(a_window_beyond_8_mib_is_refused)
{
    const struct coding *coding = coding_at(0);
    struct buffer *plain = make(TEXT);

    ck_assert_str_eq(coding->name, "zstd");
    for (int log = 10; log <= 27; log++) {
        struct buffer *coded = codings_zstd_open(all_of(plain), log);
        struct decoded result = decode(coding, all_of(coded), 3, SMALL, SMALL + 1);
        ck_assert_uint_eq(coding->announced(all_of(coded)), 0);
        ck_assert_msg(result.status == (log <= 23 ? STATUS_OK : STATUS_INVALID_REQUEST), "%d", log);
        if (log > 23)
            ck_assert_ptr_nonnull(strstr(result.fault.detail, "8 MiB"));
        buffer_release(result.buffer);
        buffer_release(coded);
    }
    buffer_release(plain);
}
END_TEST

/* The magic numbers of what came before RFC 8878, which the library reads too. */
START_TEST(formats_before_the_standard_are_refused)
{
    for (unsigned char version = 0x1E; version <= 0x27; version++) {
        unsigned char bytes[64] = {version, 0xB5, 0x2F, 0xFD};
        struct decoded result =
            decode(coding_at(0), span_of(bytes, sizeof bytes), 64, SMALL, SMALL);
        ck_assert_int_eq(result.status, STATUS_INVALID_REQUEST);
        ck_assert_ptr_nonnull(strstr(result.fault.detail, "byte 0 on"));
        buffer_release(result.buffer);
    }
}
END_TEST

START_TEST(the_announced_size_is_that_of_the_frame)
{
    struct buffer *plain = make(NOISE);
    struct buffer *coded = codings_encode("zstd", all_of(plain));

    ck_assert_uint_eq(coding_at(0)->announced(all_of(coded)), plain->size);
    for (size_t size = 0; size < 6; size++)
        ck_assert_uint_eq(coding_at(0)->announced(span_of(coded->data, size)), 0);
    ck_assert_uint_eq(coding_at(0)->announced(all_of(plain)), 0);
    buffer_release(coded);
    coded = codings_encode("gzip", all_of(plain));
    ck_assert_uint_eq(coding_at(1)->announced(all_of(coded)), 0);
    buffer_release(coded);
    buffer_release(plain);
}
END_TEST

/* --- encoders --- */

/* In three parts, with so much room at a time. */
static struct buffer *encode(const struct coding *coding, struct span plain, size_t room)
{
    struct buffer *out = buffer_new(plain.size * 2 + 64);
    struct encoder *encoder = coding->encoder_new(plain.size);
    size_t used = 0, third = plain.size / 3;
    enum flow_state state = FLOW_ON;

    ck_assert_ptr_nonnull(encoder);
    for (size_t part = 0; part < 3; part++) {
        size_t size = part < 2 ? third : plain.size - 2 * third;
        struct flow flow = {.in = span_of(plain.data + part * third, size)};
        while (state == FLOW_ON && (flow.in.size > 0 || part == 2)) {
            flow.out = out->data + used;
            flow.room = room < out->size - used ? room : out->size - used;
            ck_assert_uint_gt(flow.room, 0);
            state = coding->encode(encoder, &flow, part == 2);
            used = (size_t)(flow.out - out->data);
        }
    }
    ck_assert_int_eq(state, FLOW_DONE);
    coding->encoder_free(encoder);
    buffer_shrink(out, used);
    return out;
}

START_TEST(others_decode_what_is_encoded)
{
    static const size_t rooms[] = {1, 1031, SIZE_MAX / 2};
    const struct coding *coding;

    for (size_t c = 0; (coding = coding_at(c)) != NULL; c++) {
        for (enum kind kind = EMPTY; kind < KINDS; kind++) {
            struct buffer *plain = make(kind);
            for (size_t r = 0; r < sizeof rooms / sizeof *rooms; r++) {
                struct buffer *coded = encode(coding, all_of(plain), rooms[r]);
                struct buffer *back = codings_decode(coding->name, all_of(coded), plain->size + 1);
                ck_assert_ptr_nonnull(back);
                ck_assert(codings_same(back, all_of(plain)));
                buffer_release(back);
                buffer_release(coded);
            }
            buffer_release(plain);
        }
    }
}
END_TEST

Suite *suite_coding(void);
Suite *suite_coding(void)
{
    Suite *suite = suite_create("coding");
    TCase *tests = tcase_create("coding");

    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_add_test(tests, what_others_encode_is_decoded_in_any_pieces);
    tcase_add_test(tests, several_frames_or_members_are_one_content);
    tcase_add_test(tests, every_truncation_is_seen);
    tcase_add_test(tests, every_changed_byte_is_seen_or_says_nothing);
    tcase_add_test(tests, what_follows_the_end_is_refused_at_its_place);
    tcase_add_test(tests, a_window_beyond_8_mib_is_refused);
    tcase_add_test(tests, formats_before_the_standard_are_refused);
    tcase_add_test(tests, the_announced_size_is_that_of_the_frame);
    tcase_add_test(tests, others_decode_what_is_encoded);
    suite_add_tcase(suite, tests);
    return suite;
}
