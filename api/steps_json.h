/* The ledger of steps as JSON: one object a step. */
#ifndef DESCENT_API_STEPS_JSON_H
#define DESCENT_API_STEPS_JSON_H

#include "api/json_text.h"
#include "service/session/engine.h"

/* One step as an object; `tensors`: with what is known of each tensor. */
void step_write(struct json_text *text, const struct layout *layout, const struct step_line *line,
                bool tensors);

#endif
