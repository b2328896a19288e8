/* Errors as values: one enum, and a fault where a person must know more. */
#ifndef DESCENT_CORE_STATUS_H
#define DESCENT_CORE_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum status {
#define STATUS(name, http, code, title) STATUS_##name,
#include "service/core/status.def"
#undef STATUS
    STATUS_COUNT
};

/* The HTTP status, the stable wire code and the title of a status. */
unsigned status_http(enum status status);
const char *status_code(enum status status);
const char *status_title(enum status status);

/* What went wrong and where. `where` is a JSON pointer (RFC 6901) or "" when no field is at fault;
 * `detail` is one sentence that says how to mend it. `extra_name`, when not NULL, is a static
 * string: a member that the problem document carries besides (for instance "expected" or
 * "current_step"). */
struct fault {
    enum status status;
    char where[224];
    char detail[480];
    const char *extra_name;
    uint64_t extra;
};

/* Fills *fault (which may be NULL) and returns `status`, so that a failing function can
 * `return fault_set(fault, STATUS_INVALID_FIELD, "/optimizer/lr", "lr is %g; it must be ...",
 * lr);`. `where` is copied as it is, `detail` is a printf format; both are cut to fit at a UTF-8
 * character. */
enum status fault_set(struct fault *fault, enum status status, const char *where,
                      const char *detail, ...) __attribute__((format(printf, 4, 5)));

/* The same, with a numeric member for the problem document. `extra_name` must be a static string.
 */
enum status fault_extra(struct fault *fault, const char *extra_name, uint64_t extra);

/* Puts `prefix` before fault->where, as a caller does that knows where the part stands in the
 * whole. */
void fault_prefix(struct fault *fault, const char *prefix);

/* Writes `token` into `out` escaped as one JSON pointer segment ("/" is ~1, "~" is ~0), cut to fit.
 * Returns out. */
char *pointer_escape(char *out, size_t size, const char *token);

#endif
