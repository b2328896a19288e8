/* api/openapi.json for tests: finding its parts, and checking values against its schemas. */
#ifndef DESCENT_TESTS_OPENAPI_H
#define DESCENT_TESTS_OPENAPI_H

#include <jansson.h>
#include <stdbool.h>

/* Reads api/openapi.json from the project's root; fails the test when it cannot. Kept for the
 * process. */
const json_t *openapi_document(void);

/* What a {"$ref": "#/..."} stands for, or the node itself. Fails the test when there is nothing. */
const json_t *openapi_resolve(const json_t *node);

/* The operation of a route ("GET", "/v1/sessions"), or NULL. */
const json_t *openapi_operation(const char *method, const char *pattern);

/* Calls visit for every parameter of a route, those of its path first. */
void openapi_parameters(const char *method, const char *pattern,
                        void (*visit)(void *context, const json_t *parameter), void *context);

/* The example of a path parameter, a string or a whole number, as it stands in a path; NULL when
 * there is none. Static until the next call. */
const char *openapi_parameter_text(const json_t *parameter);

/* The pattern with this id and the examples of its other parameters, in path, which is returned. */
enum { OPENAPI_PATH_BYTES = 256 };
char *openapi_path(const char *method, const char *pattern, const char *id,
                   char path[OPENAPI_PATH_BYTES]);

/* The response an operation documents for a status, or NULL. */
const json_t *openapi_response(const json_t *operation, unsigned status);

/* The codes that a response's problem documents may have, an array, or NULL. */
const json_t *openapi_codes(const json_t *response);

/* Fails the test unless the value obeys the schema: types, required members, ranges, choices, and
 * no member that the schema does not name (unless additionalProperties says otherwise). `where` is
 * for the message. */
void openapi_check(const json_t *schema, const json_t *value, const char *where);

/* Whether it does. */
bool openapi_obeys(const json_t *schema, const json_t *value);

/* Whether a schema takes true and false. */
bool openapi_is_boolean(const json_t *schema);

/* Whether an array of strings has this one. */
bool openapi_lists(const json_t *array, const char *text);

#endif
