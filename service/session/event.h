/* Events: what their bodies are, and what they make of a state. */
#ifndef DESCENT_SESSION_EVENT_H
#define DESCENT_SESSION_EVENT_H

#include "service/session/session.h"

/* Whether it closes a round: all that came of one step is in. */
static inline bool event_closes(uint32_t kind)
{
    return kind == EVENT_GRADIENT || kind == EVENT_SKIP;
}

/* --- event_body.c --- */

/* The hyperparameters of one step: the configured ones with the event's overrides, lr not yet
 * scheduled. */
void event_overrides(const struct spec *spec, const struct event *event, double hyper[HYPERS_MAX]);

/* Whether a session of that configuration may have such an event: its rule has what is overridden,
 * and keeps the state that the step then needs. */
bool event_overrides_fit(const struct spec *spec, const struct event *event);

/* Measures the gradient of an event under a configuration: sets its grad_norm and clip_scale, and
 * of the notes (NULL: not wanted) what is of the gradient. */
struct measure event_measure(const struct spec *spec, const struct plan *plan,
                             const struct wire_gradient *gradient, struct event *event,
                             struct tensor_note *notes);

/* Whether an event that was read has the norm that its gradient was accepted with. A norm is
 * rounded, and another version may sum in another order; that of another gradient differs by
 * more. */
bool event_norm_holds(const struct event *event, double norm);

/* Notes for a step of the layout, with nothing counted. *out is NULL for too many tensors; false
 * when memory is out. */
bool notes_new(const struct layout *layout, struct tensor_note **out);

/* Numbers that are not finite: out of notes into an event, for the journal, and back. */
void nonfinite_of_notes(const struct tensor_note *notes, const struct layout *layout,
                        struct nonfinite_counts *out);
void notes_of_nonfinite(const struct nonfinite_counts *counts, const struct layout *layout,
                        struct tensor_note *notes);

/* Bytes of an event's body. */
size_t event_body_size(const struct plan *plan, size_t count, const struct event *event);

/* Where in the body what the rule proposes begins: after the gradient, aligned as a buffer is. */
size_t event_proposal_offset(size_t count, const struct event *event);

/* STORAGE_FAILED when a body that was read is not what its head says. */
enum status event_check_body(const struct plan *plan, const struct event *event,
                             const struct buffer *body, struct fault *fault);

/* --- event.c --- */

/* Whether the state still has the weights that the gradient was computed at, if the rule asks for
 * them. */
bool event_base_kept(const struct state *state, const struct event *event);

/* Room for the round that an event closes: *out is NULL for one that stands alone. False when
 * memory is out. The state is as it will be before the event, but for `more` contributions. */
bool event_gathering(struct state *state, const struct plan *plan, const struct spec *spec,
                     const struct event *event, size_t more, struct gathering **out);

/* What the rule proposes for an EVENT_GRADIENT whose body this is, into the body after the
 * gradient. The state does not change, but for the room of the mean. notes: as for event_apply, for
 * norms are summed tensor by tensor where there are any. */
void event_propose(struct state *state, const struct plan *plan, const struct spec *spec,
                   const struct event *event, struct gathering *gathering, struct buffer *body,
                   struct tensor_note *notes);

/* What an event makes of a state: a pure function of state, configuration, head and body, for live
 * steps and replay alike. It cannot fail: *next was made by revision_new with room for the weights
 * (EVENT_GRADIENT) or without (EVENT_SKIP shares the old ones, EVENT_WEIGHTS takes the body). Slots
 * and scalars change in place; nothing else of the state changes before state_publish. Only for
 * events that step. notes: NULL, or as event_measure left them; they become those of the line,
 * which is complete but for its stages and points into `gathering` (event_gathering). */
void event_apply(struct state *state, const struct plan *plan, const struct spec *spec,
                 const struct event *event, struct gathering *gathering, struct buffer *body,
                 size_t body_offset, struct tensor_note *notes, struct revision *next,
                 struct step_line *line);

#endif
