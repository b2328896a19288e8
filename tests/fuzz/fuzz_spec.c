/* libFuzzer target: any bytes as the document of a session. A configuration that is taken is
 * written and read again to the same text, packed and unpacked as well. Then as one that changes
 * it. */
#include "tests/fuzz/input.h"

#include "api/spec_json.h"
#include "service/session/record.h"

static const char *write_spec(struct arena *arena, const struct spec *spec)
{
    struct json_text text;

    json_text_init(&text, arena);
    json_text_open(&text, '{');
    json_text_key(&text, "parameters");
    json_text_null(&text);
    spec_write(&text, spec);
    json_text_close(&text, '}');
    struct span span = json_text_end(&text);
    PRE(span.data != NULL);
    return arena_copy(arena, (const char *)span.data, span.size);
}

static void check_packed(struct arena *arena, const struct spec *spec, const char *text)
{
    static struct layout *layout;
    struct packer packer = {.data = NULL};
    struct session_record record = {.spec = *spec}, back;
    struct fault fault;

    if (layout == NULL) {
        layout = layout_new();
        PRE(layout != NULL && layout_add(layout, "w", 1, 0, NULL, NULL) == STATUS_OK);
        PRE(layout_seal(layout, NULL) == STATUS_OK);
    }
    record.layout = layout;
    session_record_pack(&packer, &record);
    PRE(!packer.failed);
    POST(session_record_unpack(packer_span(&packer), &back, &fault) == STATUS_OK);
    POST(strcmp(write_spec(arena, &back.spec), text) == 0);
    layout_release(back.layout);
    packer_close(&packer);
}

static void check_again(struct arena *arena, const struct spec *spec)
{
    struct json_document document;
    const char *text = write_spec(arena, spec);
    const json_t *parameters;
    struct spec back;
    struct fault fault;

    POST(json_read(arena, span_of(text, strlen(text)), &document, &fault) == STATUS_OK);
    POST(spec_read(arena, &document, &back, &parameters, &fault) == STATUS_OK);
    POST(strcmp(write_spec(arena, &back), text) == 0);
    json_close(&document);
    check_packed(arena, spec, text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    struct json_document document;
    const json_t *parameters;
    struct spec spec, changed;
    struct fault fault;

    arena_init(&arena);
    if (json_read(&arena, span_of(data, size), &document, &fault) == STATUS_OK) {
        if (spec_read(&arena, &document, &spec, &parameters, &fault) == STATUS_OK)
            check_again(&arena, &spec);
        else
            POST(strlen(fault.detail) > 0);
        spec_init(&changed);
        spec_set_rule(&changed, optimizer_find("adam", DTYPE_F32));
        spec = changed;
        if (spec_patch(&arena, &document, &spec, &fault) == STATUS_OK)
            check_again(&arena, &spec);
        spec = changed;
        if (spec_fork(&arena, &document, &spec, &fault) == STATUS_OK)
            check_again(&arena, &spec);
        json_close(&document);
    }
    arena_close(&arena);
    return 0;
}
