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

/* Whether there is such a folder, or with `file` such a file, and it can be written to; or whether
 * it can be made: its parents will not be. */
static enum status check_place(const char *flag, const char *path, bool file, struct fault *fault)
{
    char parent[PATH_MAX];
    const char *place = path;
    struct stat about;

    if (stat(path, &about) != 0 && errno == ENOENT) {
        size_t size = strlen(path);
        while (size > 1 && path[size - 1] == '/')
            size--;
        while (size > 0 && path[size - 1] != '/')
            size--;
        if (size >= sizeof parent)
            return fault_set(fault, STATUS_INVALID_FIELD, "", "--%s %.200s... is too long", flag,
                             path);
        memcpy(parent, path, size);
        parent[size] = '\0';
        place = size == 0 ? "." : parent;
        file = false;
    }
    if (stat(place, &about) == 0 && S_ISDIR(about.st_mode) == file)
        errno = file ? EISDIR : ENOTDIR;
    else if (access(place, file ? W_OK : W_OK | X_OK) == 0)
        return STATUS_OK;
    return fault_set(fault, STATUS_INVALID_FIELD, "", "--%s %.200s cannot be used: %.200s: %s",
                     flag, path, place, strerror(errno));
}

enum status config_check_places(const struct config *config, struct fault *fault)
{
    enum status status = STATUS_OK;

    if (strcmp(config->data, "memory:") != 0)
        status = check_place("data", config->data, false, fault);
    if (status == STATUS_OK && config->log_file[0] != '\0')
        status = check_place("log-file", config->log_file, true, fault);
    return status;
}
