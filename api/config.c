/* Configuration: one table, four sources. The strongest source is applied last. */
#include "api/config_table.h"

#include <ctype.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "api/cors.h"
#include "service/core/contract.h"

const struct option config_table[CONFIG_OPTIONS] = {
#define OPTION(field, type, flag, default_text, min, max, unit, meaning)                           \
    {flag, OPTION_##type, offsetof(struct config, field), default_text, min, max, unit, meaning},
#include "api/config.def"
#undef OPTION
};

static const char *const levels[] = {
    [LOG_DEBUG] = "debug", [LOG_INFO] = "info", [LOG_WARNING] = "warning",
    [LOG_ERROR] = "error", [LOG_OFF] = "off",
};

const char *option_environment(const struct option *option, char out[OPTION_ENVIRONMENT_BYTES])
{
    int used = snprintf(out, OPTION_ENVIRONMENT_BYTES, "DESCENT_%s", option->flag);

    PRE(used > 0 && used < OPTION_ENVIRONMENT_BYTES);
    for (char *c = out; *c != '\0'; c++)
        *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
    return out;
}

const struct option *option_find(const char *name, size_t size)
{
    for (size_t i = 0; i < CONFIG_OPTIONS; i++)
        if (strlen(config_table[i].flag) == size && memcmp(config_table[i].flag, name, size) == 0)
            return &config_table[i];
    return NULL;
}

static enum status count_read(const struct option *option, const char *text, const char *source,
                              uint64_t *out, struct fault *fault)
{
    uint64_t value = 0;
    bool good = text[0] != '\0';

    for (const char *c = text; *c != '\0' && good; c++) {
        good = *c >= '0' && *c <= '9' && value <= (UINT64_MAX - 9) / 10;
        value = good ? value * 10 + (uint64_t)(*c - '0') : 0;
    }
    if (good && value >= option->min && (option->max == 0 || value <= option->max)) {
        *out = value;
        return STATUS_OK;
    }
    if (option->max == 0)
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "%s is \"%.60s\"; it must be a whole number of %s from %" PRIu64, source,
                         text, option->unit, option->min);
    return fault_set(fault, STATUS_INVALID_FIELD, "",
                     "%s is \"%.60s\"; it must be a whole number of %s from %" PRIu64
                     " to %" PRIu64,
                     source, text, option->unit, option->min, option->max);
}

static enum status flag_read(const char *text, const char *source, bool *out, struct fault *fault)
{
    bool yes = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;

    if (!yes && strcmp(text, "false") != 0 && strcmp(text, "0") != 0)
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "%s is \"%.60s\"; it must be true or false", source, text);
    *out = yes;
    return STATUS_OK;
}

bool option_names_file(const struct option *option)
{
    return option->offset == offsetof(struct config, config);
}

/* Options that are one of a few words. */
static const struct choice {
    size_t offset;
    const char *values[6];
    const char *words;
} choices[] = {
    {offsetof(struct config, log),
     {"debug", "info", "warning", "error", "off"},
     "debug, info, warning, error or off"},
    {offsetof(struct config, log_format), {"text", "json"}, "text or json"},
    {offsetof(struct config, auth), {"auto", "on", "off"}, "auto, on or off"},
};

static const struct choice *choice_of(const struct option *option)
{
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++)
        if (choices[i].offset == option->offset)
            return &choices[i];
    return NULL;
}

static bool choice_has(const struct choice *choice, const char *text)
{
    for (size_t i = 0; choice->values[i] != NULL; i++)
        if (strcmp(choice->values[i], text) == 0)
            return true;
    return false;
}

static enum status text_read(const struct option *option, const char *text, const char *where,
                             const char **out, struct fault *fault)
{
    size_t size = strlen(text);

    if (size == 0 && option->default_text[0] != '\0')
        return fault_set(fault, STATUS_INVALID_FIELD, "", "%s is empty; it must be a %s", where,
                         option->unit);
    /* What a line of a file cannot say is not to be said elsewhere. */
    for (size_t i = 0; i < size; i++)
        if (iscntrl((unsigned char)text[i]) || ((i == 0 || i == size - 1) && text[i] == ' '))
            return fault_set(fault, STATUS_INVALID_FIELD, "",
                             "%s has a control character, or a space at an end", where);
    const struct choice *choice = choice_of(option);
    if (choice != NULL && !choice_has(choice, text))
        return fault_set(fault, STATUS_INVALID_FIELD, "", "%s is \"%.60s\"; it must be %s", where,
                         text, choice->words);
    *out = text;
    return STATUS_OK;
}

enum status option_set(struct config *config, const struct option *option, const char *text,
                       const char *where, struct config_source source, struct fault *fault)
{
    void *at = (char *)config + option->offset;
    enum status status = option->type == OPTION_COUNT  ? count_read(option, text, where, at, fault)
                         : option->type == OPTION_FLAG ? flag_read(text, where, at, fault)
                                                       : text_read(option, text, where, at, fault);

    if (status == STATUS_OK)
        config->sources[option - config_table] = source;
    return status;
}

static enum status environment_apply(struct config *config, struct fault *fault)
{
    char name[OPTION_ENVIRONMENT_BYTES];

    for (size_t i = 0; i < CONFIG_OPTIONS; i++) {
        const char *text = getenv(option_environment(&config_table[i], name));
        if (text == NULL || text[0] == '\0')
            continue;
        enum status status =
            option_set(config, &config_table[i], text, name,
                       (struct config_source){.kind = CONFIG_FROM_ENVIRONMENT}, fault);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static bool is_among(const char *flag, const char *const *flags)
{
    while (*flags != NULL && strcmp(*flags, flag) != 0)
        flags++;
    return *flags != NULL;
}

static enum status flags_apply(struct config *config, char *const *arguments,
                               const char *const *flags, struct fault *fault)
{
    char where[80];

    for (; *arguments != NULL; arguments++) {
        const char *argument = *arguments;
        if (strncmp(argument, "--", 2) != 0)
            return fault_set(fault, STATUS_INVALID_FIELD, "",
                             "\"%.80s\" is not an option; options are `--name value`", argument);
        size_t size = strcspn(argument + 2, "=");
        const struct option *option = option_find(argument + 2, size);
        if (option == NULL)
            return fault_set(fault, STATUS_INVALID_FIELD, "",
                             "there is no option %.80s; `descent --help` lists them", argument);
        if (flags != NULL && !is_among(option->flag, flags))
            return fault_set(fault, STATUS_INVALID_FIELD, "",
                             "--%s means nothing to this command; it is for `descent serve`",
                             option->flag);
        const char *value = argument[2 + size] == '='     ? argument + 3 + size
                            : option->type == OPTION_FLAG ? "true"
                                                          : *++arguments;
        if (value == NULL)
            return fault_set(fault, STATUS_INVALID_FIELD, "", "%s needs a value: %s", argument,
                             option->unit);
        snprintf(where, sizeof where, "--%s", option->flag);
        enum status status = option_set(config, option, value, where,
                                        (struct config_source){.kind = CONFIG_FROM_FLAG}, fault);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

enum status config_read_some(char *const *arguments, const char *const *flags, struct config *out,
                             struct fault *fault)
{
    const struct config_source built_in = {.kind = CONFIG_FROM_DEFAULT};
    struct config config = {.file_text = NULL};
    enum status status = STATUS_OK;

    for (size_t i = 0; i < CONFIG_OPTIONS && status == STATUS_OK; i++)
        status = option_set(&config, &config_table[i], config_table[i].default_text,
                            config_table[i].flag, built_in, fault);
    POST(status == STATUS_OK);

    /* A first pass finds the name of the file; a second puts flags and environment over what it
     * says. */
    for (int pass = 0; pass < 2 && status == STATUS_OK; pass++) {
        if (pass == 1 && config.config[0] != '\0')
            status = config_file_apply(&config, fault);
        if (status == STATUS_OK)
            status = environment_apply(&config, fault);
        if (status == STATUS_OK)
            status = flags_apply(&config, arguments, flags, fault);
    }
    if (status == STATUS_OK)
        status = cors_check_origins(config.cors_origins, fault);
    if (status == STATUS_OK)
        *out = config;
    else
        config_close(&config);
    return status;
}

enum status config_read(char *const *arguments, struct config *out, struct fault *fault)
{
    return config_read_some(arguments, NULL, out, fault);
}

void config_close(struct config *config)
{
    free(config->file_text);
    config->file_text = NULL;
}

enum log_level config_log_level(const struct config *config)
{
    for (enum log_level level = LOG_DEBUG; level < LOG_OFF; level++)
        if (strcmp(levels[level], config->log) == 0)
            return level;
    return LOG_OFF;
}

enum log_format config_log_format(const struct config *config)
{
    return strcmp(config->log_format, "json") == 0 ? LOG_JSON : LOG_TEXT;
}

char *config_store_url(const struct config *config)
{
    const char *scheme = strcmp(config->data, "memory:") == 0 ? "" : "sqlite:";
    size_t size = strlen(scheme) + strlen(config->data) + 1;
    char *url = malloc(size);

    if (url != NULL)
        snprintf(url, size, "%s%s", scheme, config->data);
    return url;
}
