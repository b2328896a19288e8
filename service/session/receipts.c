/* Lines of the ledger of steps, packed and read. */
#include "service/session/receipts.h"

#include <math.h>
#include <string.h>

#include "service/core/contract.h"
#include "service/session/ledger.h"

enum { LINE_BYTES = 448, NOTE_BYTES = 24, MEMBER_BYTES = 128 }; /* at most */

void receipts_close(struct receipts *receipts)
{
    packer_close(&receipts->lines);
    receipts->count = 0;
}

bool receipts_reserve(struct receipts *receipts, size_t lines, size_t notes, size_t members)
{
    return packer_reserve(&receipts->lines,
                          lines * (LINE_BYTES + notes * NOTE_BYTES) + members * MEMBER_BYTES);
}

static void pack_f32(struct packer *packer, float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    pack_u32(packer, bits);
}

static float unpack_f32(struct unpacker *unpacker)
{
    uint32_t bits = unpack_u32(unpacker);
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The number of notes has a flag where members follow them. */
#define MEMBERS_FOLLOW (UINT32_C(1) << 31)

static void pack_members(struct packer *packer, const struct step_line *line)
{
    pack_u32(packer, (uint32_t)line->member_count);
    for (size_t i = 0; i < line->member_count; i++) {
        const struct member *member = &line->members[i];
        pack_text(packer, member->worker);
        pack_u64(packer, member->seq);
        pack_u64(packer, member->base_step);
        pack_f64(packer, member->examples);
        pack_f64(packer, member->loss);
        pack_f64(packer, member->grad_norm);
        pack_u64(packer, member->bytes);
    }
}

static void unpack_members(struct receipts_reader *reader, struct step_line *out)
{
    struct unpacker *unpacker = &reader->unpacker;

    out->member_count = unpack_u32(unpacker);
    unpacker->failed |= out->member_count > ROUND_MAX;
    for (size_t i = 0; i < out->member_count && !unpacker->failed; i++) {
        struct member *member = &reader->members[i];
        unpack_text(unpacker, member->worker, sizeof member->worker);
        member->seq = unpack_u64(unpacker);
        member->base_step = unpack_u64(unpacker);
        member->examples = unpack_f64(unpacker);
        member->loss = unpack_f64(unpacker);
        member->grad_norm = unpack_f64(unpacker);
        member->bytes = unpack_u64(unpacker);
    }
}

void receipts_add(struct receipts *receipts, const struct step_line *line)
{
    struct packer *packer = &receipts->lines;
    struct receipt receipt = line->receipt;
    const struct stages *stages = &line->stages;

    receipts->newest = receipt.step;
    receipts->marks[receipt.step % RECEIPTS_MARKED] = packer->used;
    receipt.durable_step = receipt.step;
    receipt_pack(packer, &receipt);
    pack_u64(packer, line->created_us);
    pack_text(packer, line->worker);
    pack_u64(packer, line->seq);
    pack_u64(packer, line->bytes);
    pack_f32(packer, stages->receive_ms);
    pack_f32(packer, stages->decode_ms);
    pack_f32(packer, stages->admit_ms);
    pack_f32(packer, stages->commit_ms);
    pack_f32(packer, stages->apply_ms);
    pack_u32(packer, (uint32_t)line->note_count | (line->member_count > 0 ? MEMBERS_FOLLOW : 0));
    for (size_t i = 0; i < line->note_count; i++) {
        const struct tensor_note *note = &line->notes[i];
        pack_f32(packer, note->grad_norm);
        pack_f32(packer, note->update_norm);
        pack_f32(packer, note->weight_norm);
        pack_f32(packer, note->cosine);
        pack_f32(packer, note->zeros);
        pack_u32(packer, note->nonfinite);
    }
    if (line->member_count > 0)
        pack_members(packer, line);
    receipts->count++;
    POST(!packer->failed);
}

bool receipts_from(const struct receipts *receipts, uint64_t step, struct span *out)
{
    if (step == 0 || step > receipts->newest || receipts->newest - step >= receipts->count ||
        receipts->newest - step >= RECEIPTS_MARKED)
        return false;
    size_t at = receipts->marks[step % RECEIPTS_MARKED];
    *out = span_of(receipts->lines.data + at, receipts->lines.used - at);
    return true;
}

bool receipts_next(struct receipts_reader *reader, struct step_line *out)
{
    struct unpacker *unpacker = &reader->unpacker;

    if (unpacker->failed || unpacker->used == unpacker->size)
        return false;
    unpacker->format = 3; /* of receipts: the first that had lines */
    receipt_unpack(unpacker, &out->receipt);
    out->created_us = unpack_u64(unpacker);
    unpack_text(unpacker, out->worker, sizeof out->worker);
    out->seq = unpack_u64(unpacker);
    out->bytes = unpack_u64(unpacker);
    out->stages.receive_ms = unpack_f32(unpacker);
    out->stages.decode_ms = unpack_f32(unpacker);
    out->stages.admit_ms = unpack_f32(unpacker);
    out->stages.commit_ms = unpack_f32(unpacker);
    out->stages.apply_ms = unpack_f32(unpacker);
    uint32_t counts = unpack_u32(unpacker);
    out->note_count = counts & ~MEMBERS_FOLLOW;
    unpacker->failed |= out->note_count > NOTES_MAX;
    for (size_t i = 0; i < out->note_count && !unpacker->failed; i++) {
        struct tensor_note *note = &reader->notes[i];
        note->grad_norm = unpack_f32(unpacker);
        note->update_norm = unpack_f32(unpacker);
        note->weight_norm = unpack_f32(unpacker);
        note->cosine = unpack_f32(unpacker);
        note->zeros = unpack_f32(unpacker);
        note->nonfinite = unpack_u32(unpacker);
    }
    out->notes = reader->notes;
    out->members = reader->members;
    out->member_count = 0;
    if (counts & MEMBERS_FOLLOW)
        unpack_members(reader, out);
    return !unpacker->failed;
}

/* Bit for bit, but one NaN is as good as another. */
static bool same(double a, double b)
{
    return (isnan(a) && isnan(b)) || memcmp(&a, &b, sizeof a) == 0;
}

static bool same_members(const struct step_line *a, const struct step_line *b)
{
    bool same = a->member_count == b->member_count;

    for (size_t i = 0; i < a->member_count && same; i++)
        same = a->members[i].seq == b->members[i].seq &&
               strcmp(a->members[i].worker, b->members[i].worker) == 0;
    return same;
}

const char *receipts_differ(const struct step_line *a, const struct step_line *b)
{
    const struct receipt *x = &a->receipt, *y = &b->receipt;

    if (x->step != y->step || x->lineage != y->lineage || x->kind != y->kind)
        return "step";
    if (x->hashed && y->hashed && memcmp(&x->state_hash, &y->state_hash, sizeof x->state_hash) != 0)
        return "state_hash";
    if (!same(x->param_norm, y->param_norm))
        return "param_norm";
    if (!same(x->update_norm, y->update_norm))
        return "update_norm";
    if (!same(x->grad_norm, y->grad_norm) || !same(x->clip_scale, y->clip_scale))
        return "grad_norm";
    if (!same(x->lr, y->lr))
        return "lr";
    if (!same_members(a, b))
        return "members";
    return x->base_step == y->base_step && a->seq == b->seq && strcmp(a->worker, b->worker) == 0
               ? NULL
               : "worker";
}
