/* The options as a table, for api/config*.c only. */
#ifndef DESCENT_API_CONFIG_TABLE_H
#define DESCENT_API_CONFIG_TABLE_H

#include "api/config.h"

enum option_type { OPTION_TEXT, OPTION_COUNT, OPTION_FLAG };

struct option {
    const char *flag; /* without the dashes */
    enum option_type type;
    size_t offset; /* in struct config */
    const char *default_text;
    uint64_t min, max; /* OPTION_COUNT; max 0: none */
    const char *unit;
    const char *meaning;
};

extern const struct option config_table[CONFIG_OPTIONS];

enum { OPTION_ENVIRONMENT_BYTES = 64 };

/* DESCENT_ and the flag in capitals. Returns out. */
const char *option_environment(const struct option *option, char out[OPTION_ENVIRONMENT_BYTES]);

/* NULL: there is none of that name. */
const struct option *option_find(const char *name, size_t size);

/* Whether it is --config, which cannot be in a file. */
bool option_names_file(const struct option *option);

/* Reads the text, which must live as long as config, into its field. `where` is how a person wrote
 * it: "--log", "DESCENT_LOG", "descent.conf:3: log". */
enum status option_set(struct config *config, const struct option *option, const char *text,
                       const char *where, struct config_source source, struct fault *fault);

/* Applies the file of config->config; its text becomes config->file_text. */
enum status config_file_apply(struct config *config, struct fault *fault);

#endif
