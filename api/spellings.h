/* Other frameworks' words for what we have. */
#ifndef DESCENT_API_SPELLINGS_H
#define DESCENT_API_SPELLINGS_H

#include <stdbool.h>

/* One clause that tells someone who wrote `field` of an optimizer what to write here, or NULL.
 * has(context, name) says whether this optimizer has a hyperparameter. */
const char *spelling_here(const char *field, bool (*has)(const void *context, const char *name),
                          const void *context);

#endif
