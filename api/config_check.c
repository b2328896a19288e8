/* What `descent serve --check-config` asks beyond the values themselves. */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/config_table.h"

extern char **environ;

void config_warn(void)
{
    static const char prefix[] = "DESCENT_";
    char name[OPTION_ENVIRONMENT_BYTES];

    for (char **at = environ; at != NULL && *at != NULL; at++) {
        size_t size = strcspn(*at, "="), i = 0;
        if (strncmp(*at, prefix, sizeof prefix - 1) != 0)
            continue;
        while (i < CONFIG_OPTIONS && (strlen(option_environment(&config_table[i], name)) != size ||
                                      memcmp(name, *at, size) != 0))
            i++;
        if (i == CONFIG_OPTIONS)
            log_warning("%.*s in the environment is no option", (int)size, *at);
    }
}

enum status config_check_data(const struct config *config, struct fault *fault)
{
    char parent[PATH_MAX];
    const char *folder = config->data;
    struct stat about;

    if (strcmp(folder, "memory:") == 0)
        return STATUS_OK;
    if (stat(folder, &about) != 0 && errno == ENOENT) {
        /* It will be made, and its parents not. */
        size_t size = strlen(folder);
        while (size > 1 && folder[size - 1] == '/')
            size--;
        while (size > 0 && folder[size - 1] != '/')
            size--;
        if (size >= sizeof parent)
            return fault_set(fault, STATUS_INVALID_FIELD, "", "--data %.200s... is too long",
                             folder);
        memcpy(parent, folder, size);
        parent[size] = '\0';
        folder = size == 0 ? "." : parent;
    }
    if (stat(folder, &about) == 0 && !S_ISDIR(about.st_mode))
        errno = ENOTDIR;
    else if (access(folder, W_OK | X_OK) == 0)
        return STATUS_OK;
    return fault_set(fault, STATUS_INVALID_FIELD, "", "--data %.200s cannot be used: %.200s: %s",
                     config->data, folder, strerror(errno));
}
