/* What the options are, and what they are set to. */
#include <inttypes.h>

#include "api/config_table.h"

void config_help(FILE *out)
{
    char name[OPTION_ENVIRONMENT_BYTES];

    for (size_t i = 0; i < CONFIG_OPTIONS; i++) {
        const struct option *option = &config_table[i];
        fprintf(out, "  --%s%s%s\n      %s\n      ", option->flag,
                option->type == OPTION_FLAG ? "" : " ", option->unit, option->meaning);
        if (option->type == OPTION_COUNT && option->max == 0)
            fprintf(out, "from %" PRIu64 "; ", option->min);
        else if (option->type == OPTION_COUNT)
            fprintf(out, "%" PRIu64 " to %" PRIu64 "; ", option->min, option->max);
        if (option->default_text[0] != '\0')
            fprintf(out, "default %s; ", option->default_text);
        fprintf(out, "%s\n", option_environment(option, name));
    }
}

static void print_source(const struct config *config, const struct option *option, FILE *out)
{
    const struct config_source *source = &config->sources[option - config_table];
    char name[OPTION_ENVIRONMENT_BYTES];

    switch (source->kind) {
    case CONFIG_FROM_DEFAULT:
        fprintf(out, "# default\n");
        break;
    case CONFIG_FROM_FILE:
        fprintf(out, "# %s:%u\n", config->config, source->line);
        break;
    case CONFIG_FROM_ENVIRONMENT:
        fprintf(out, "# environment, %s\n", option_environment(option, name));
        break;
    case CONFIG_FROM_FLAG:
        fprintf(out, "# flag, --%s\n", option->flag);
        break;
    }
}

void config_print(const struct config *config, FILE *out)
{
    for (size_t i = 0; i < CONFIG_OPTIONS; i++) {
        const struct option *option = &config_table[i];
        const char *at = (const char *)config + option->offset;
        print_source(config, option, out);
        if (option_names_file(option))
            fprintf(out, "# "); /* a file cannot name another */
        fprintf(out, "%s =", option->flag);
        if (option->type == OPTION_COUNT)
            fprintf(out, " %" PRIu64, *(const uint64_t *)(const void *)at);
        else if (option->type == OPTION_FLAG)
            fprintf(out, " %s", *(const bool *)(const void *)at ? "true" : "false");
        else if ((*(const char *const *)(const void *)at)[0] != '\0')
            fprintf(out, " %s", *(const char *const *)(const void *)at);
        fprintf(out, "\n");
    }
}
