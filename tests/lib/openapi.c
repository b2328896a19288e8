/* api/openapi.json for tests. The checker knows the part of JSON Schema that the document uses. */
#include "tests/lib/openapi.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { WHY_BYTES = 400 };

const json_t *openapi_document(void)
{
    static json_t *document;
    json_error_t error;

    if (document == NULL)
        document = json_load_file("api/openapi.json", JSON_REJECT_DUPLICATES, &error);
    ck_assert_msg(document != NULL, "api/openapi.json:%d: %s", error.line, error.text);
    return document;
}

const json_t *openapi_resolve(const json_t *node)
{
    const char *reference = json_string_value(json_object_get(node, "$ref"));
    char part[128];

    if (reference == NULL)
        return node;
    ck_assert_msg(strncmp(reference, "#/", 2) == 0, "%s leads elsewhere", reference);
    const json_t *at = openapi_document();
    for (const char *token = reference + 2; at != NULL && *token != '\0';) {
        size_t size = strcspn(token, "/");
        snprintf(part, sizeof part, "%.*s", (int)size, token);
        at = json_object_get(at, part);
        token += size + (token[size] == '/');
    }
    ck_assert_msg(at != NULL, "%s leads nowhere", reference);
    return openapi_resolve(at);
}

static const json_t *path_item(const char *pattern)
{
    return json_object_get(json_object_get(openapi_document(), "paths"), pattern);
}

const json_t *openapi_operation(const char *method, const char *pattern)
{
    char key[16];
    size_t size = 0;

    for (; method[size] != '\0' && size < sizeof key - 1; size++)
        key[size] = (char)(method[size] | 32);
    key[size] = '\0';
    return json_object_get(path_item(pattern), key);
}

void openapi_parameters(const char *method, const char *pattern,
                        void (*visit)(void *context, const json_t *parameter), void *context)
{
    const json_t *lists[] = {
        json_object_get(path_item(pattern), "parameters"),
        json_object_get(openapi_operation(method, pattern), "parameters"),
    };

    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i < json_array_size(lists[k]); i++)
            visit(context, openapi_resolve(json_array_get(lists[k], i)));
}

struct filling {
    char *path;
    const char *rest; /* of the pattern */
    const char *id;
};

static void fill(void *context, const json_t *parameter)
{
    struct filling *filling = context;
    const char *name = json_string_value(json_object_get(parameter, "name"));
    size_t size = strlen(name);

    if (filling->rest[0] != '{' || strncmp(filling->rest + 1, name, size) != 0 ||
        filling->rest[1 + size] != '}')
        return;
    strcat(filling->path,
           strcmp(name, "id") == 0 ? filling->id : openapi_parameter_text(parameter));
    filling->rest += size + 2;
}

char *openapi_path(const char *method, const char *pattern, const char *id,
                   char path[OPENAPI_PATH_BYTES])
{
    struct filling filling = {.path = path, .rest = pattern, .id = id};

    path[0] = '\0';
    while (*filling.rest != '\0') {
        size_t size = strcspn(filling.rest, "{");
        strncat(path, filling.rest, size);
        filling.rest += size;
        openapi_parameters(method, pattern, fill, &filling);
        ck_assert_msg(size > 0 || *filling.rest != '{', "%s: unknown parameter", pattern);
    }
    return path;
}

const json_t *openapi_response(const json_t *operation, unsigned status)
{
    char key[16];

    snprintf(key, sizeof key, "%u", status);
    const json_t *response = json_object_get(json_object_get(operation, "responses"), key);
    return response == NULL ? NULL : openapi_resolve(response);
}

const json_t *openapi_codes(const json_t *response)
{
    const json_t *content = json_object_get(response, "content");
    const json_t *problem = json_object_get(content, "application/problem+json");
    const json_t *members = json_object_get(json_object_get(problem, "schema"), "properties");

    return json_object_get(json_object_get(members, "code"), "enum");
}

const char *openapi_parameter_text(const json_t *parameter)
{
    static char digits[32];
    const json_t *example = json_object_get(parameter, "example");

    if (!json_is_integer(example))
        return json_string_value(example);
    snprintf(digits, sizeof digits, "%lld", (long long)json_integer_value(example));
    return digits;
}

bool openapi_lists(const json_t *array, const char *text)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *entry = json_string_value(json_array_get(array, i));
        if (entry != NULL && strcmp(entry, text) == 0)
            return true;
    }
    return false;
}

/* --- schemas --- */

static bool fits(const json_t *schema, const json_t *value, const char *where, char *why);

static bool is_type(const char *type, const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return strcmp(type, "object") == 0;
    case JSON_ARRAY:
        return strcmp(type, "array") == 0;
    case JSON_STRING:
        return strcmp(type, "string") == 0;
    case JSON_INTEGER:
        return strcmp(type, "integer") == 0 || strcmp(type, "number") == 0;
    case JSON_REAL:
        return strcmp(type, "number") == 0;
    case JSON_TRUE:
    case JSON_FALSE:
        return strcmp(type, "boolean") == 0;
    case JSON_NULL:
        return strcmp(type, "null") == 0;
    }
    return false;
}

static bool type_fits(const json_t *types, const json_t *value)
{
    if (types == NULL)
        return true;
    if (json_is_string(types))
        return is_type(json_string_value(types), value);
    for (size_t i = 0; i < json_array_size(types); i++)
        if (is_type(json_string_value(json_array_get(types, i)), value))
            return true;
    return false;
}

bool openapi_is_boolean(const json_t *schema)
{
    return type_fits(json_object_get(openapi_resolve(schema), "type"), json_true()) &&
           json_object_get(openapi_resolve(schema), "type") != NULL;
}

/* Whether the schema, with all that it is made of, says something of a member. */
static bool names_member(const json_t *schema, const char *name)
{
    schema = openapi_resolve(schema);
    const json_t *parts = json_object_get(schema, "allOf");
    const json_t *others = json_object_get(schema, "additionalProperties");

    if (json_object_get(json_object_get(schema, "properties"), name) != NULL ||
        (others != NULL && !json_is_false(others)))
        return true;
    for (size_t i = 0; i < json_array_size(parts); i++)
        if (names_member(json_array_get(parts, i), name))
            return true;
    return false;
}

static bool members_fit(const json_t *schema, const json_t *value, const char *where, char *why)
{
    const json_t *properties = json_object_get(schema, "properties");
    const json_t *others = json_object_get(schema, "additionalProperties");
    const json_t *required = json_object_get(schema, "required");
    const char *name;
    json_t *member;
    char path[256];

    for (size_t i = 0; i < json_array_size(required); i++) {
        name = json_string_value(json_array_get(required, i));
        if (json_object_get(value, name) == NULL) {
            snprintf(why, WHY_BYTES, "%s lacks %s", where, name);
            return false;
        }
    }
    json_object_foreach((json_t *)(uintptr_t)value, name, member)
    {
        const json_t *part = json_object_get(properties, name);
        if (part == NULL && json_is_object(others))
            part = others;
        snprintf(path, sizeof path, "%s/%s", where, name);
        if (part != NULL && !fits(part, member, path, why))
            return false;
    }
    return true;
}

static bool scalar_fits(const json_t *schema, const json_t *value)
{
    const json_t *choices = json_object_get(schema, "enum");
    const json_t *minimum = json_object_get(schema, "minimum");
    const json_t *maximum = json_object_get(schema, "maximum");
    const json_t *above = json_object_get(schema, "exclusiveMinimum");
    const json_t *below = json_object_get(schema, "exclusiveMaximum");
    const json_t *only = json_object_get(schema, "const");
    double number = json_number_value(value);

    if (only != NULL && !json_equal(only, value))
        return false;
    if (json_is_string(value) && choices != NULL &&
        !openapi_lists(choices, json_string_value(value)))
        return false;
    if (!json_is_number(value))
        return true;
    return (minimum == NULL || number >= json_number_value(minimum)) &&
           (maximum == NULL || number <= json_number_value(maximum)) &&
           (above == NULL || number > json_number_value(above)) &&
           (below == NULL || number < json_number_value(below));
}

static bool one_fits(const json_t *alternatives, const json_t *value, const char *where, char *why)
{
    size_t count = 0;

    for (size_t i = 0; i < json_array_size(alternatives); i++) {
        char inner[WHY_BYTES];
        count += fits(json_array_get(alternatives, i), value, where, inner);
    }
    if (count != 1)
        snprintf(why, WHY_BYTES, "%s fits %zu of the alternatives", where, count);
    return count == 1;
}

/* Everything but members that nobody names. */
static bool obeys(const json_t *schema, const json_t *value, const char *where, char *why)
{
    schema = openapi_resolve(schema);
    const json_t *parts = json_object_get(schema, "allOf");
    const json_t *alternatives = json_object_get(schema, "oneOf");
    const json_t *items = json_object_get(schema, "items");
    char path[256];

    if (!type_fits(json_object_get(schema, "type"), value) || !scalar_fits(schema, value)) {
        snprintf(why, WHY_BYTES, "%s has another type or value than documented", where);
        return false;
    }
    for (size_t i = 0; i < json_array_size(parts); i++)
        if (!obeys(json_array_get(parts, i), value, where, why))
            return false;
    if (alternatives != NULL && !one_fits(alternatives, value, where, why))
        return false;
    for (size_t i = 0; items != NULL && i < json_array_size(value); i++) {
        snprintf(path, sizeof path, "%s/%zu", where, i);
        if (!fits(items, json_array_get(value, i), path, why))
            return false;
    }
    return !json_is_object(value) || members_fit(schema, value, where, why);
}

static bool fits(const json_t *schema, const json_t *value, const char *where, char *why)
{
    const char *name;
    json_t *member;

    if (!obeys(schema, value, where, why))
        return false;
    if (!json_is_object(value) || json_object_get(openapi_resolve(schema), "oneOf") != NULL)
        return true;
    json_object_foreach((json_t *)(uintptr_t)value, name, member)
    {
        if (!names_member(schema, name)) {
            snprintf(why, WHY_BYTES, "%s has %s, which is not documented", where, name);
            return false;
        }
    }
    return true;
}

bool openapi_obeys(const json_t *schema, const json_t *value)
{
    char why[WHY_BYTES];

    return fits(schema, value, "", why);
}

void openapi_check(const json_t *schema, const json_t *value, const char *where)
{
    char why[WHY_BYTES] = "";

    ck_assert_msg(fits(schema, value, where, why), "%s", why);
}
