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

enum status store_open(const char *url, bool create, struct store **out, struct fault *fault)
{
    size_t size = scheme_size(url);
    const char *scheme = size > 0 ? url : "sqlite";
    struct store_options options = {.folder = size > 0 ? url + size + 1 : url, .create = create};

    if (size == 0)
        size = strlen(scheme);
    for (size_t i = 0; store_backend_at(i) != NULL; i++) {
        const char *name = store_backend_at(i)->scheme;
        if (strlen(name) == size && memcmp(name, scheme, size) == 0)
            return store_backend_at(i)->open(&options, out, fault);
    }
    return fault_set(fault, STATUS_INVALID_FIELD, "",
                     "There is no storage called \"%.*s\". Use sqlite:FOLDER, a plain folder, or "
                     "memory: (put ./ before a folder whose name has a colon).",
                     size > 64 ? 64 : (int)size, scheme);
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
