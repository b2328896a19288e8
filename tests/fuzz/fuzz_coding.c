/* libFuzzer target: any bytes as a coded content, in any pieces and any room, which must make no
 * difference; what any bytes become and come back from; and any text as the fields about both. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/coding.h"
#include "api/content_digest.h"
#include "service/core/contract.h"

enum { OUT_MAX = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Decodes at most OUT_MAX bytes; how it ends, and *used of them. */
static enum status decode(const struct coding *coding, struct span coded, size_t piece, size_t room,
                          unsigned char *out, size_t *used)
{
    enum status status = STATUS_OK;
    struct decoding decoding;
    struct fault fault;

    *used = 0;
    PRE(decoding_start(&decoding, coding, &fault) == STATUS_OK);
    for (size_t at = 0; at < coded.size && status == STATUS_OK; at += piece) {
        struct flow flow = {
            .in = span_of(coded.data + at, piece < coded.size - at ? piece : coded.size - at)};
        while (status == STATUS_OK && (flow.in.size > 0 || flow.room == 0)) {
            unsigned char *begin = out + *used;
            size_t left = OUT_MAX - *used;
            flow.out = begin;
            flow.room = room < left ? room : left;
            if (flow.room == 0) {
                status = STATUS_TOO_LARGE;
                break;
            }
            status = decoding_run(&decoding, &flow, &fault);
            *used += (size_t)(flow.out - begin);
        }
    }
    POST(decoding.taken <= coded.size);
    if (status == STATUS_OK)
        status = decoding_end(&decoding, &fault);
    decoding_free(&decoding);
    return status;
}

/* In pieces of so many bytes it is what it is in one. */
static void try_decode(const struct coding *coding, struct span coded, size_t piece)
{
    static unsigned char whole[OUT_MAX], parts[OUT_MAX];
    size_t whole_used, parts_used;
    enum status status = decode(coding, coded, SIZE_MAX / 2, OUT_MAX, whole, &whole_used);
    enum status again = decode(coding, coded, piece, piece * 3, parts, &parts_used);

    coding->announced(coded);
    POST((status == STATUS_OK) == (again == STATUS_OK));
    if (status == STATUS_OK)
        POST(whole_used == parts_used && memcmp(whole, parts, whole_used) == 0);
}

static void try_encode(const struct coding *coding, struct span plain, size_t room)
{
    static unsigned char coded[2 * OUT_MAX], back[OUT_MAX];
    struct encoder *encoder = coding->encoder_new(plain.size);
    struct flow flow = {.in = plain};
    enum flow_state state = FLOW_ON;
    size_t used = 0;

    PRE(encoder != NULL);
    while (state == FLOW_ON) {
        flow.out = coded + used;
        flow.room = room;
        POST(used + room <= sizeof coded);
        state = coding->encode(encoder, &flow, true);
        used = (size_t)(flow.out - coded);
    }
    POST(state == FLOW_DONE && flow.in.size == 0);
    coding->encoder_free(encoder);
    POST(decode(coding, span_of(coded, used), SIZE_MAX / 2, OUT_MAX, back, &used) == STATUS_OK);
    POST(used == plain.size && (used == 0 || memcmp(back, plain.data, used) == 0));
}

static void try_fields(const char *text)
{
    struct request request = {.headers = {{"Content-Digest", text}, {"Want-Content-Digest", text}},
                              .header_count = 2};
    struct content_check check = {.size = 0};
    struct reply reply = {.http = 200};
    struct arena arena;
    struct fault fault;
    const struct coding *coding;

    arena_init(&arena);
    request.arena = &arena;
    if (coding_of(text, &coding, &fault) == STATUS_OK && coding != NULL)
        POST(coding_quality(text, coding) > 0); /* what names it asks for it */
    coding = coding_negotiate(text);
    POST(coding == NULL || coding_quality(text, coding) > 0);
    if (content_check_start(&check, &request, &fault) == STATUS_OK)
        content_check_end(&check, &fault);
    content_check_free(&check);
    content_digest_tell(&request, &reply, NULL, 0);
    arena_close(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct coding *coding;

    if (size < 1 || size > OUT_MAX / 2)
        return 0;
    /* The first byte says in which pieces. */
    for (size_t i = 0; (coding = coding_at(i)) != NULL; i++) {
        try_decode(coding, span_of(data + 1, size - 1), (size_t)data[0] + 1);
        try_encode(coding, span_of(data + 1, size - 1), (size_t)data[0] + 1);
    }
    char *text = malloc(size);
    PRE(text != NULL);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    try_fields(text);
    free(text);
    return 0;
}
