/* libFuzzer target: any bytes as the file of --config, and its lines as flags. */
#include "tests/fuzz/input.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "api/config.h"

enum { FLAGS_MAX = 16 };

static int write_file(char path[64], const void *data, size_t size)
{
    int file = memfd_create("config", 0);

    PRE(file >= 0 && write(file, data, size) == (ssize_t)size);
    snprintf(path, 64, "/proc/self/fd/%d", file);
    return file;
}

static void print(const struct config *config, char **text, size_t *size)
{
    FILE *out = open_memstream(text, size);

    PRE(out != NULL);
    config_print(config, out);
    PRE(fclose(out) == 0);
}

/* The lines without where they came from, and without the file that they came from. */
static void strip(char *text)
{
    char *to = text;

    for (char *line = text; *line != '\0';) {
        size_t size = strcspn(line, "\n") + 1;
        if (*line != '#' && strncmp(line, "config ", 7) != 0) {
            memmove(to, line, size);
            to += size;
        }
        line += size;
    }
    *to = '\0';
}

/* What is printed can be read, and then prints the same. */
static void check_print(const struct config *config)
{
    char path[64], name[] = "--config", *arguments[] = {name, path, NULL};
    struct config back;
    struct fault fault;
    char *text, *again;
    size_t size;

    print(config, &text, &size);
    int file = write_file(path, text, size);
    if (config_read(arguments, &back, &fault) == STATUS_OK) {
        print(&back, &again, &size);
        strip(text);
        strip(again);
        POST(strcmp(text, again) == 0);
        free(again);
        config_close(&back);
    } else {
        POST(false);
    }
    close(file);
    free(text);
}

static void try(char *const *arguments)
{
    struct config config;
    struct fault fault = {.status = STATUS_OK};

    if (config_read(arguments, &config, &fault) == STATUS_OK) {
        POST(config.listen != NULL && config.data != NULL && config.connections_max > 0);
        POST(config_log_level(&config) <= LOG_OFF);
        check_print(&config);
        char *url = config_store_url(&config);
        POST(url != NULL);
        free(url);
        config_close(&config);
    } else {
        POST(strlen(fault.detail) > 0 && strchr(fault.detail, '\n') == NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {.data = data, .size = size};
    char path[64], name[] = "--config";
    char *flags[FLAGS_MAX + 1];
    size_t count = 0;

    int file = write_file(path, data, size);
    char *arguments[] = {name, path, NULL};
    try(arguments);
    close(file);
    while (count < FLAGS_MAX && input.used < size)
        flags[count++] = input_text(&input, '\n');
    flags[count] = NULL;
    /* A flag may name a file that the machine has. */
    bool named = false;
    for (size_t i = 0; i < count; i++)
        named |= strstr(flags[i], "config") != NULL || strstr(flags[i], "file") != NULL;
    if (!named)
        try(flags);
    while (count > 0)
        free(flags[--count]);
    return 0;
}
