/* Every knob of config.def as one struct, read from flags, environment and file. */
#ifndef DESCENT_API_CONFIG_H
#define DESCENT_API_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "service/core/log.h"
#include "service/core/status.h"

#define CONFIG_TEXT const char *
#define CONFIG_COUNT uint64_t
#define CONFIG_FLAG bool

enum {
    CONFIG_OPTIONS = 0
#define OPTION(...) +1
#include "api/config.def"
#undef OPTION
};

/* Where a value came from. */
struct config_source {
    enum { CONFIG_FROM_DEFAULT, CONFIG_FROM_FILE, CONFIG_FROM_ENVIRONMENT, CONFIG_FROM_FLAG } kind;
    unsigned line; /* of the file, from 1 */
};

struct config {
#define OPTION(field, type, flag, default_text, min, max, unit, meaning) CONFIG_##type field;
#include "api/config.def"
#undef OPTION
    char *file_text; /* owned: options that came from the file point into it */
    struct config_source sources[CONFIG_OPTIONS]; /* in the order of config.def */
};

/* Reads flags (`--name value`, `--name=value`, or `--name` alone where it is true or false;
 * `arguments` ends with NULL), then DESCENT_<NAME>, then the file of --config, then defaults. An
 * empty environment variable counts as unset; an option twice in the file is refused. The fault is
 * one line that names the option, where it came from and the range. On failure nothing is to be
 * closed. Texts live as long as `arguments` and the environment do. */
enum status config_read(char *const *arguments, struct config *out, struct fault *fault);

/* The same for a command to which only `flags` (without dashes, ending with NULL; NULL: all) mean
 * something: other ones are refused on its command line. Environment and file are shared by all. */
enum status config_read_some(char *const *arguments, const char *const *flags, struct config *out,
                             struct fault *fault);

void config_close(struct config *config);

/* The level that config->log names. */
enum log_level config_log_level(const struct config *config);

/* The format that config->log_format names. */
enum log_format config_log_format(const struct config *config);

/* The URL of config->data for store_open: "memory:" as it is, a folder as sqlite. The caller frees
 * it. NULL when memory is out. */
char *config_store_url(const struct config *config);

/* Every option as a line of a file of --config, which read again gives the same; before each where
 * it came from, as a comment. */
void config_print(const struct config *config, FILE *out);

/* Warns in the log of DESCENT_ variables that are no options. */
void config_warn(void);

/* Whether the folder of config->data and the file of config->log_file are there or can be made, and
 * can be written. Makes nothing. */
enum status config_check_places(const struct config *config, struct fault *fault);

/* Every option: flag, environment name, default, range, unit, meaning. */
void config_help(FILE *out);

#endif
