/* The catalogue as JSON. */
#ifndef DESCENT_API_OPTIMIZER_JSON_H
#define DESCENT_API_OPTIMIZER_JSON_H

#include "api/json_text.h"
#include "service/optim/optimizer.h"

void optimizer_write(struct json_text *text, const struct optimizer *rule);

#endif
