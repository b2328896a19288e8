/* libFuzzer target: any bytes as the file of --config, and its lines as flags. */
#include "tests/fuzz/input.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "api/config.h"

enum { FLAGS_MAX = 16 };

static void try(char *const *arguments)
{
    struct config config;
    struct fault fault = {.status = STATUS_OK};

    if (config_read(arguments, &config, &fault) == STATUS_OK) {
        POST(config.listen != NULL && config.data != NULL && config.connections_max > 0);
        POST(config_log_level(&config) <= LOG_OFF);
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

    int file = memfd_create("config", 0);
    PRE(file >= 0 && write(file, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
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
