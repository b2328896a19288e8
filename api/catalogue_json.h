/* The catalogues as JSON: an object for each rule, preset and schedule. */
#ifndef DESCENT_API_CATALOGUE_JSON_H
#define DESCENT_API_CATALOGUE_JSON_H

#include "api/endpoint.h"
#include "api/json_text.h"
#include "service/optim/optimizer.h"
#include "service/optim/preset.h"
#include "service/optim/schedule.h"

void optimizer_write(struct json_text *text, const struct optimizer *rule);
void preset_write(struct json_text *text, const struct preset *preset);
void schedule_write(struct json_text *text, const struct schedule *schedule);

/* 200 with {member: [...]}: what write_at writes for 0, 1, ... until it is false. */
struct reply catalogue_reply(struct request *request, const char *member,
                             bool (*write_at)(struct json_text *text, size_t index));

#endif
