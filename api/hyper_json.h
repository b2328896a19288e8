/* Hyperparameters of rules and schedules as JSON: read, written and described by declaration. */
#ifndef DESCENT_API_HYPER_JSON_H
#define DESCENT_API_HYPER_JSON_H

#include "api/json_document.h"
#include "api/json_text.h"
#include "service/optim/schedule.h"

/* Where the values of one rule or schedule are read to. */
struct hyper_values {
    const char *member;   /* of the request: "optimizer" */
    const char *owner;    /* "adam" */
    const char *selector; /* the member that names the owner, passed over: "name" */
    const struct hyper *hypers;
    size_t count;
    double *value; /* declaration order */
    double *steps; /* of a HYPER_STEPS, SCHEDULE_STEPS_MAX; NULL where there is none */
};

/* Sets the values that the object has and leaves the others. UNKNOWN_FIELD, INVALID_FIELD with
 * where = "/<member>/<name>...". */
enum status hypers_read(const struct json_document *document, const json_t *object,
                        const struct hyper_values *values, struct fault *fault);

/* UNKNOWN_FIELD for a name that the owner does not have: says what another framework's word is
 * called here, else what there is: `known`, a list. */
enum status hyper_unknown(const struct hyper_values *values, const char *name, const char *known,
                          struct fault *fault);

/* One value; steps may be NULL where it is no HYPER_STEPS. */
void hyper_write(struct json_text *text, const struct hyper *hyper, double value,
                 const double *steps);

/* All of them as members of the object that is open. */
void hypers_write(struct json_text *text, const struct hyper *hypers, size_t count,
                  const double *value, const double *steps);

/* The declarations, for the catalogue: an array of objects. */
void hypers_describe(struct json_text *text, const struct hyper *hypers, size_t count);

#endif
