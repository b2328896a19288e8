/* The ledger of steps as JSON. */
#include "api/steps_json.h"

#include <math.h>

#include "api/session_json.h"
#include "service/core/clock.h"

static void write_stages(struct json_text *text, const struct stages *stages)
{
    json_text_key(text, "stages");
    json_text_open(text, '{');
    json_text_member_f32(text, "receive_ms", stages->receive_ms);
    json_text_member_f32(text, "decode_ms", stages->decode_ms);
    json_text_member_f32(text, "admit_ms", stages->admit_ms);
    json_text_member_f32(text, "commit_ms", stages->commit_ms);
    json_text_member_f32(text, "apply_ms", stages->apply_ms);
    json_text_close(text, '}');
}

static void write_note(struct json_text *text, const char *name, const struct tensor_note *note)
{
    json_text_open(text, '{');
    json_text_member_string(text, "name", name);
    json_text_member_f32(text, "grad_norm", note->grad_norm);
    json_text_member_f32(text, "update_norm", note->update_norm);
    json_text_member_f32(text, "weight_norm", note->weight_norm);
    json_text_member_f32(text, "update_ratio",
                         note->weight_norm > 0 ? note->update_norm / note->weight_norm
                                               : (float)NAN);
    json_text_member_f32(text, "cosine", note->cosine);
    json_text_member_f32(text, "zeros", note->zeros);
    json_text_member_u64(text, "nonfinite", note->nonfinite);
    json_text_close(text, '}');
}

static void write_number(struct json_text *text, const char *name, uint64_t seq)
{
    json_text_key(text, name);
    if (seq > 0)
        json_text_u64(text, seq);
    else
        json_text_null(text);
}

static void write_member(struct json_text *text, const struct member *member, uint64_t step)
{
    json_text_open(text, '{');
    json_text_member_string(text, "worker", member->worker[0] != '\0' ? member->worker : NULL);
    write_number(text, "seq", member->seq);
    json_text_member_u64(text, "base_step", member->base_step);
    json_text_member_u64(text, "staleness",
                         step > member->base_step ? step - 1 - member->base_step : 0);
    json_text_member_f64(text, "examples", member->examples);
    json_text_member_f64(text, "loss", member->loss);
    json_text_member_f64(text, "grad_norm", member->grad_norm);
    json_text_member_u64(text, "bytes", member->bytes);
    json_text_close(text, '}');
}

void step_write(struct json_text *text, const struct layout *layout, const struct step_line *line,
                bool tensors)
{
    char time[32];

    json_text_open(text, '{');
    receipt_write(text, &line->receipt);
    json_text_member_string(text, "worker", line->worker[0] != '\0' ? line->worker : NULL);
    write_number(text, "seq", line->seq);
    json_text_member_u64(text, "bytes", line->bytes);
    json_text_member_string(text, "created_at", clock_format(time, line->created_us));
    write_stages(text, &line->stages);
    if (line->member_count > 0) {
        json_text_key(text, "members");
        json_text_open(text, '[');
        for (size_t i = 0; i < line->member_count; i++)
            write_member(text, &line->members[i], line->receipt.step);
        json_text_close(text, ']');
    }
    if (tensors) {
        json_text_key(text, "tensors");
        json_text_open(text, '[');
        for (size_t i = 0; i < line->note_count; i++)
            write_note(text, layout->tensors[i].name, &line->notes[i]);
        json_text_close(text, ']');
    }
    json_text_close(text, '}');
}
