/* The file of --config: lines `name = value`. */
#include "api/config_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_BYTES_MAX = 1 << 20 };

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
    if (memchr(text, '\0', size) != NULL) {
        fault_set(fault, status, "", "--config %s is no text", path);
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
    char where[160];

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
    if (option == NULL || option_names_file(option))
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "%.80s:%u: there is no option \"%.60s\"; `descent --help` lists them",
                         path, number, name);
    const struct config_source *before = &config->sources[option - config_table];
    if (before->kind == CONFIG_FROM_FILE)
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "%.80s:%u: %s is in line %u already; one of them is wrong", path, number,
                         option->flag, before->line);
    snprintf(where, sizeof where, "%.80s:%u: %s", path, number, option->flag);
    return option_set(config, option, trim(equals + 1), where,
                      (struct config_source){.kind = CONFIG_FROM_FILE, .line = number}, fault);
}

enum status config_file_apply(struct config *config, struct fault *fault)
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
