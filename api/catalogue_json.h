/* The catalogues as JSON: an object for each rule, preset and schedule. */
#ifndef DESCENT_API_CATALOGUE_JSON_H
#define DESCENT_API_CATALOGUE_JSON_H

#include "api/json_text.h"
#include "service/optim/optimizer.h"
#include "service/optim/preset.h"
#include "service/optim/schedule.h"

void optimizer_write(struct json_text *text, const struct optimizer *rule);
void preset_write(struct json_text *text, const struct preset *preset);
void schedule_write(struct json_text *text, const struct schedule *schedule);

#endif
