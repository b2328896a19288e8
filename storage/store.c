/* The table of storage backends and the choice of one by URL. */
#include "storage/store.h"

#include <string.h>

#include "service/core/contract.h"

#define STORE(name) extern const struct store_backend store_##name;
#include "storage/stores.def"
#undef STORE

static const struct store_backend *const backends[] = {
#define STORE(name) &store_##name,
#include "storage/stores.def"
#undef STORE
};

const struct store_backend *store_backend_at(size_t index)
{
    return index < sizeof backends / sizeof *backends ? backends[index] : NULL;
}

/* The length of the scheme, 0 for a bare folder. "./a:b" is a folder, "a:b" is not. */
static size_t scheme_size(const char *url)
{
    size_t size = strspn(url, "abcdefghijklmnopqrstuvwxyz0123456789+.-");

    return url[size] == ':' ? size : 0;
}

/* The backend that `url` names and the folder in it; NULL and a fault when there is none. */
static const struct store_backend *backend_of(const char *url, const char **folder,
                                              struct fault *fault)
{
    size_t size = scheme_size(url);
    const char *scheme = size > 0 ? url : "sqlite";

    *folder = size > 0 ? url + size + 1 : url;
    if (size == 0)
        size = strlen(scheme);
    for (size_t i = 0; store_backend_at(i) != NULL; i++) {
        const char *name = store_backend_at(i)->scheme;
        if (strlen(name) == size && memcmp(name, scheme, size) == 0)
            return store_backend_at(i);
    }
    fault_set(fault, STATUS_INVALID_FIELD, "",
              "There is no storage called \"%.*s\". Use sqlite:FOLDER, a plain folder, or "
              "memory: (put ./ before a folder whose name has a colon).",
              size > 64 ? 64 : (int)size, scheme);
    return NULL;
}

enum status store_open(const char *url, bool create, struct store **out, struct fault *fault)
{
    struct store_options options = {.create = create};
    const struct store_backend *backend = backend_of(url, &options.folder, fault);

    return backend != NULL ? backend->open(&options, out, fault) : STATUS_INVALID_FIELD;
}

enum status store_inspect(const char *url, struct store **out, struct fault *fault)
{
    struct store_options options = {.use = STORE_INSPECT};
    const struct store_backend *backend = backend_of(url, &options.folder, fault);

    return backend != NULL ? backend->open(&options, out, fault) : STATUS_INVALID_FIELD;
}

/* As backend_of, for a backend that keeps something and a folder that is named. */
static const struct store_backend *keeper_of(const char *url, const char **folder,
                                             struct fault *fault)
{
    const struct store_backend *backend = backend_of(url, folder, fault);

    if (backend != NULL && !backend->durable)
        fault_set(fault, STATUS_INVALID_FIELD, "", "%s: keeps nothing: there is nothing to do.",
                  backend->scheme);
    else if (backend != NULL && (*folder)[0] == '\0')
        fault_set(fault, STATUS_INVALID_FIELD, "", "The storage needs a folder.");
    else
        return backend;
    return NULL;
}

enum status store_backup(const char *url, const char *to, const struct store_watch *watch,
                         uint64_t *bytes, struct fault *fault)
{
    const char *folder;
    const struct store_backend *backend = keeper_of(url, &folder, fault);

    return backend != NULL ? backend->backup(folder, to, watch, bytes, fault)
                           : STATUS_INVALID_FIELD;
}

enum status store_restore(const char *url, const char *from, const struct store_watch *watch,
                          struct store_report *report, struct fault *fault)
{
    const char *folder;
    const struct store_backend *backend = keeper_of(url, &folder, fault);

    return backend != NULL ? backend->restore(folder, from, watch, report, fault)
                           : STATUS_INVALID_FIELD;
}

enum status store_compact(const char *url, const struct store_watch *watch, uint64_t *before,
                          uint64_t *after, struct fault *fault)
{
    const char *folder;
    const struct store_backend *backend = keeper_of(url, &folder, fault);

    return backend != NULL ? backend->compact(folder, watch, before, after, fault)
                           : STATUS_INVALID_FIELD;
}

void store_close(struct store *take_store)
{
    if (take_store != NULL)
        take_store->backend->close(take_store);
}

const struct store_backend *store_backend(const struct store *store)
{
    PRE(store != NULL);
    return store->backend;
}
