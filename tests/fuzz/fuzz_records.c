/* libFuzzer target: any bytes as what is stored: the first says as which record. What can be
 * read is written again, and read again to the same bytes. */
#include "tests/fuzz/input.h"

#include "service/session/receipts.h"
#include "service/session/record.h"

static void check_same(struct packer *first, struct packer *second)
{
    struct span a = packer_span(first), b = packer_span(second);

    PRE(!first->failed && !second->failed);
    POST(a.size == b.size && memcmp(a.data, b.data, a.size) == 0);
    packer_close(first);
    packer_close(second);
}

static bool read_session(struct span bytes, struct packer *packer)
{
    struct session_record record;
    struct fault fault;

    if (session_record_unpack(bytes, &record, &fault) != STATUS_OK) {
        POST(strlen(fault.detail) > 0);
        return false;
    }
    POST(record.layout->count > 0 && record.spec.rule != NULL);
    session_record_pack(packer, &record);
    layout_release(record.layout);
    return true;
}

static bool read_event(struct span bytes, struct packer *packer)
{
    struct event event;
    struct fault fault;

    if (event_unpack(bytes, &event, &fault) != STATUS_OK) {
        POST(strlen(fault.detail) > 0);
        return false;
    }
    event_pack(packer, &event);
    return true;
}

static bool read_head(struct span bytes, struct packer *packer)
{
    struct checkpoint_head head;
    struct ledger ledger = {.keys = NULL};
    struct fault fault;

    if (checkpoint_head_unpack(bytes, &head, &ledger, &fault) != STATUS_OK) {
        POST(strlen(fault.detail) > 0);
        return false;
    }
    checkpoint_head_pack(packer, &head, &ledger);
    free(head.cursor);
    snapshot_drop(&head.snapshot);
    ledger_close(&ledger);
    return true;
}

static bool read_lines(struct span bytes, struct packer *packer)
{
    static struct receipts_reader reader;
    struct receipts receipts = {.count = 0};
    struct step_line line;

    reader.unpacker = (struct unpacker){.data = bytes.data, .size = bytes.size};
    while (receipts_next(&reader, &line)) {
        PRE(receipts_reserve(&receipts, 1, line.note_count, line.member_count));
        receipts_add(&receipts, &line);
        POST(receipts_differ(&line, &line) == NULL);
    }
    *packer = receipts.lines;
    return receipts.count > 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool (*const readers[])(struct span, struct packer *) = {read_session, read_event,
                                                                    read_head, read_lines};
    struct input input = {.data = data, .size = size};
    size_t which = input_byte(&input) % 4, left;
    unsigned char *bytes = input_copy(&input, size, &left);
    struct packer first = {.data = NULL}, second = {.data = NULL};

    if (readers[which](span_of(bytes, left), &first)) {
        POST(readers[which](packer_span(&first), &second));
        check_same(&first, &second);
    } else {
        packer_close(&first);
    }
    free(bytes);
    return 0;
}
