/* Configuration: one table, four sources. The strongest source is applied last. */
#include "api/config.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "service/core/contract.h"

enum { FILE_BYTES_MAX = 1 << 20 };

enum option_type { TEXT, COUNT, FLAG };

static const struct option {
    const char *flag; /* without the dashes */
    enum option_type type;
    size_t offset;
    const char *default_text;
    uint64_t min, max; /* COUNT; max 0: none */
    const char *unit;
    const char *meaning;
} options[] = {
#define OPTION(field, type, flag, default_text, min, max, unit, meaning)                           \
    {flag, type, offsetof(struct config, field), default_text, min, max, unit, meaning},
#include "api/config.def"
#undef OPTION
};

enum { OPTION_COUNT = sizeof options / sizeof *options, ENVIRONMENT_BYTES = 64 };

static const char *const levels[] = {
    [LOG_DEBUG] = "debug", [LOG_INFO] = "info", [LOG_WARNING] = "warning",
    [LOG_ERROR] = "error", [LOG_OFF] = "off",
};

static const char *environment_name(const struct option *option, char out[ENVIRONMENT_BYTES])
{
    int used = snprintf(out, ENVIRONMENT_BYTES, "DESCENT_%s", option->flag);

    PRE(used > 0 && used < ENVIRONMENT_BYTES);
    for (char *c = out; *c != '\0'; c++)
        *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
    return out;
}

static const struct option *option_find(const char *name, size_t size)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (strlen(options[i].flag) == size && memcmp(options[i].flag, name, size) == 0)
            return &options[i];
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

/* `source` is how a person wrote it: "--log", "DESCENT_LOG", "descent.conf:3: log". */
static enum status option_set(struct config *config, const struct option *option, const char *text,
                              const char *source, struct fault *fault)
{
    char *at = (char *)config + option->offset;

    if (option->type == COUNT)
        return count_read(option, text, source, (uint64_t *)(void *)at, fault);
    if (option->type == FLAG)
        return flag_read(text, source, (bool *)at, fault);
    if (text[0] == '\0' && option->default_text[0] != '\0')
        return fault_set(fault, STATUS_INVALID_FIELD, "", "%s is empty; it must be a %s", source,
                         option->unit);
    if (option->offset == offsetof(struct config, log)) {
        size_t level = 0;
        while (level <= LOG_OFF && strcmp(levels[level], text) != 0)
            level++;
        if (level > LOG_OFF)
            return fault_set(fault, STATUS_INVALID_FIELD, "", "%s is \"%.60s\"; it must be %s",
                             source, text, option->meaning);
    }
    if (option->offset == offsetof(struct config, log_format) && strcmp(text, "text") != 0 &&
        strcmp(text, "json") != 0)
        return fault_set(fault, STATUS_INVALID_FIELD, "", "%s is \"%.60s\"; it must be %s", source,
                         text, option->meaning);
    *(const char **)(void *)at = text;
    return STATUS_OK;
}

/* The whole file as text; the fault names it. */
static enum status file_read(const char *path, char **out, struct fault *fault)
{
    enum status status = STATUS_INVALID_FIELD;
    char *text = NULL;
    FILE *file = fopen(path, "re");

    if (file == NULL) {
        fault_set(fault, status, "", "--config %s cannot be read: %s", path, strerror(errno));
        goto done;
    }
    text = malloc(FILE_BYTES_MAX + 1);
    if (text == NULL) {
        status = fault_set(fault, STATUS_INTERNAL, "", "out of memory");
        goto done;
    }
    size_t size = fread(text, 1, FILE_BYTES_MAX, file);
    if (ferror(file) || !feof(file)) {
        fault_set(fault, status, "", "--config %s cannot be read: %s", path,
                  ferror(file) ? strerror(errno) : "it has more than 1 MiB");
        goto done;
    }
    text[size] = '\0';
    *out = text;
    text = NULL;
    status = STATUS_OK;
done:
    free(text);
    if (file != NULL)
        fclose(file);
    return status;
}

static char *trim(char *text)
{
    text += strspn(text, " \t\r");
    for (size_t size = strlen(text); size > 0 && strchr(" \t\r", text[size - 1]) != NULL; size--)
        text[size - 1] = '\0';
    return text;
}

/* One line `name = value`; empty lines and those that begin with # say nothing. */
static enum status line_apply(struct config *config, const char *path, unsigned number, char *line,
                              struct fault *fault)
{
    char source[160];

    line = trim(line);
    if (line[0] == '\0' || line[0] == '#')
        return STATUS_OK;
    char *equals = strchr(line, '=');
    if (equals == NULL)
        return fault_set(fault, STATUS_INVALID_FIELD, "", "%.80s:%u: a line must be `name = value`",
                         path, number);
    *equals = '\0';
    char *name = trim(line);
    const struct option *option = option_find(name, strlen(name));
    if (option == NULL || option->offset == offsetof(struct config, config))
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "%.80s:%u: there is no option \"%.60s\"; `descent --help` lists them",
                         path, number, name);
    snprintf(source, sizeof source, "%.80s:%u: %s", path, number, option->flag);
    return option_set(config, option, trim(equals + 1), source, fault);
}

static enum status file_apply(struct config *config, struct fault *fault)
{
    enum status status = file_read(config->config, &config->file_text, fault);
    char *line = config->file_text;

    for (unsigned number = 1; status == STATUS_OK && line != NULL; number++) {
        char *end = strchr(line, '\n');
        if (end != NULL)
            *end++ = '\0';
        status = line_apply(config, config->config, number, line, fault);
        line = end;
    }
    return status;
}

static enum status environment_apply(struct config *config, struct fault *fault)
{
    char name[ENVIRONMENT_BYTES];

    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const char *text = getenv(environment_name(&options[i], name));
        if (text == NULL || text[0] == '\0')
            continue;
        enum status status = option_set(config, &options[i], text, name, fault);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static enum status flags_apply(struct config *config, char *const *arguments, struct fault *fault)
{
    char source[80];

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
        const char *value = argument[2 + size] == '=' ? argument + 3 + size
                            : option->type == FLAG    ? "true"
                                                      : *++arguments;
        if (value == NULL)
            return fault_set(fault, STATUS_INVALID_FIELD, "", "%s needs a value: %s", argument,
                             option->unit);
        snprintf(source, sizeof source, "--%s", option->flag);
        enum status status = option_set(config, option, value, source, fault);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

enum status config_read(char *const *arguments, struct config *out, struct fault *fault)
{
    struct config config = {.file_text = NULL};
    enum status status = STATUS_OK;

    for (size_t i = 0; i < OPTION_COUNT && status == STATUS_OK; i++)
        status = option_set(&config, &options[i], options[i].default_text, options[i].flag, fault);
    POST(status == STATUS_OK);

    /* A first pass finds the name of the file; a second puts flags and environment over what it
     * says. */
    for (int pass = 0; pass < 2 && status == STATUS_OK; pass++) {
        if (pass == 1 && config.config[0] != '\0')
            status = file_apply(&config, fault);
        if (status == STATUS_OK)
            status = environment_apply(&config, fault);
        if (status == STATUS_OK)
            status = flags_apply(&config, arguments, fault);
    }
    if (status == STATUS_OK)
        *out = config;
    else
        config_close(&config);
    return status;
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

void config_help(FILE *out)
{
    char name[ENVIRONMENT_BYTES];

    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *option = &options[i];
        fprintf(out, "  --%s%s%s\n      %s\n      ", option->flag, option->type == FLAG ? "" : " ",
                option->unit, option->meaning);
        if (option->type == COUNT && option->max == 0)
            fprintf(out, "from %" PRIu64 "; ", option->min);
        else if (option->type == COUNT)
            fprintf(out, "%" PRIu64 " to %" PRIu64 "; ", option->min, option->max);
        if (option->default_text[0] != '\0')
            fprintf(out, "default %s; ", option->default_text);
        fprintf(out, "%s\n", environment_name(option, name));
    }
}
