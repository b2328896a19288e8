/* A session's configuration as JSON, both ways. */
#ifndef DESCENT_API_SPEC_JSON_H
#define DESCENT_API_SPEC_JSON_H

#include "api/json_document.h"
#include "api/json_text.h"
#include "service/session/spec.h"

/* Reads the configuration of a new session into *spec. `parameters` comes out as the member of that
 * name, which must be there when it is not NULL and must not when it is (safetensors bring their
 * own). */
enum status spec_read(struct arena *arena, const struct json_document *document, struct spec *spec,
                      const json_t **parameters, struct fault *fault);

/* Applies a PATCH document to *spec: given fields change, others stay; labels are replaced as a
 * whole. */
enum status spec_patch(struct arena *arena, const struct json_document *document, struct spec *spec,
                       struct fault *fault);

/* Applies the document of a fork to *spec, its parent's: as spec_patch, but "optimizer" with a name
 * or a preset replaces the rule. Members that are no configuration are passed over. */
enum status spec_fork(struct arena *arena, const struct json_document *document, struct spec *spec,
                      struct fault *fault);

/* All of it as members of the object that is open. */
void spec_write(struct json_text *text, const struct spec *spec);

/* --- members with rooms of their own, for spec_json.c --- */

/* "optimizer": a name, or an object with a name or a preset. NULL: not given. */
enum status optimizer_read(const struct json_document *document, const json_t *value,
                           struct spec *spec, struct fault *fault);
/* The same of a PATCH: the rule stays. */
enum status optimizer_patch(const struct json_document *document, const json_t *value,
                            struct spec *spec, struct fault *fault);
void optimizer_settings_write(struct json_text *text, const struct spec *spec);

/* "schedule": null, a name, or an object; NULL: not given. What is not given stays as it is in
 * *spec, unless the name is another. */
enum status schedule_read(const struct json_document *document, const json_t *value,
                          struct spec *spec, struct fault *fault);
void schedule_settings_write(struct json_text *text, const struct spec *spec);

/* "aggregation" and "svrg"; NULL: not given. What is not given stays as it is in *spec, unless the
 * mode is another. */
enum status aggregation_read(struct arena *arena, const struct json_document *document,
                             const json_t *value, struct spec *spec, struct fault *fault);
enum status svrg_read(struct arena *arena, const struct json_document *document,
                      const json_t *value, struct spec *spec, struct fault *fault);
/* Whether they hold together and go with the rest of what the document leads to. */
enum status aggregation_check(const struct json_document *document, const struct spec *spec,
                              struct fault *fault);
void aggregation_write(struct json_text *text, const struct spec *spec);
void svrg_write(struct json_text *text, const struct spec *spec);

/* "groups" and "ema", of a new session. NULL: not given. */
enum status groups_read(struct arena *arena, const struct json_document *document,
                        const json_t *value, struct spec *spec, struct fault *fault);
enum status ema_read(struct arena *arena, const struct json_document *document, const json_t *value,
                     struct spec *spec, struct fault *fault);
void groups_write(struct json_text *text, const struct spec *spec);
void ema_write(struct json_text *text, const struct spec *spec);

#endif
