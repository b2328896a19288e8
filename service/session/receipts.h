/* The ledger of steps: one line for each. Lines since the newest checkpoint are kept packed in
 * memory, for a crash brings them back by replay; a checkpoint writes them to the journal
 * (EVENT_RECEIPTS) in its own transaction. A later replay over the same events makes the same
 * lines, and is held against them. */
#ifndef DESCENT_SESSION_RECEIPTS_H
#define DESCENT_SESSION_RECEIPTS_H

#include <stdbool.h>
#include <stddef.h>

#include "service/core/pack.h"
#include "service/core/status.h"
#include "service/session/engine.h"

/* Models of more tensors than this get no notes on each. */
enum { NOTES_MAX = 4096 };

/* Of so many of the newest lines it is known where they begin. */
enum { RECEIPTS_MARKED = 256 };

struct receipts {
    struct packer lines;
    size_t count;
    uint64_t newest;               /* step of the last line; its forerunners count down from it */
    size_t marks[RECEIPTS_MARKED]; /* offset of a step's line, by step modulo RECEIPTS_MARKED */
};

void receipts_close(struct receipts *receipts);

/* Makes room for so many lines of so many notes each, and for so many members in all: false when
 * memory is out. After it the
 * adds cannot fail. */
bool receipts_reserve(struct receipts *receipts, size_t lines, size_t notes, size_t members);
void receipts_add(struct receipts *receipts, const struct step_line *line);

/* The lines from that step on; false when they are not all here, or begin too far back. */
bool receipts_from(const struct receipts *receipts, uint64_t step, struct span *out);

/* Reads the next line; line->notes points into the reader's own notes. false at the end, or when
 * the bytes cannot be read (unpacker->failed). */
struct receipts_reader {
    struct unpacker unpacker;
    struct tensor_note notes[NOTES_MAX];
    struct member members[ROUND_MAX];
};
bool receipts_next(struct receipts_reader *reader, struct step_line *out);

/* NULL, or what is not the same in two lines of one step that was taken twice: live and replayed.
 * Times are not looked at, nor what a replay cannot know. */
const char *receipts_differ(const struct step_line *a, const struct step_line *b);

#endif
