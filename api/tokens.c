/* What is in the file of tokens: reading it to the letter. */
#include "api/tokens.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/config.h"
#include "api/fields.h"
#include "service/session/engine.h"

enum { FORMAT = 1, FILE_BYTES_MAX = 16 << 20 };

/* --- one token --- */

static bool id_valid(const char *id)
{
    size_t length = strlen(id);

    return length <= TOKEN_ID_BYTES && strncmp(id, "tok_", 4) == 0 && length > 4 &&
           strspn(id + 4, "abcdefghijklmnopqrstuvwxyz0123456789") == length - 4;
}

struct body {
    struct token token;
    const json_t *scopes;
    const char *created_at, *expires_at, *sha256;
};

#define PLACE(member) .offset = offsetof(struct body, member)
static const struct field quota_fields[] = {
#define QUOTA(name, flag, unit, most, meaning)                                                     \
    {#name, FIELD_U64, PLACE(token.quotas.name), .min = 1, .max = most, .nullable = true},
#include "api/quotas.def"
#undef QUOTA
    {.name = NULL},
};

static const struct field token_fields[] = {
    {"id", FIELD_TEXT, PLACE(token.id), .max = TOKEN_ID_BYTES},
    {"name", FIELD_TEXT, PLACE(token.name), .max = TOKEN_NAME_BYTES},
    {"tenant", FIELD_TEXT, PLACE(token.tenant), .max = TENANT_BYTES},
    {"scopes", FIELD_VALUE, PLACE(scopes)},
    {"quotas", FIELD_OBJECT, .fields = quota_fields},
    {"created_at", FIELD_TEXT, PLACE(created_at)},
    {"expires_at", FIELD_TEXT, PLACE(expires_at), .nullable = true},
    {"sha256", FIELD_TEXT, PLACE(sha256)},
    {.name = NULL},
};
#undef PLACE

static enum status bad(struct fault *fault, const char *where, const char *must)
{
    return fault_set(fault, STATUS_INVALID_FIELD, where, "%s must be %s", where + 1, must);
}

static enum status read_scopes(const json_t *value, enum scope *out, struct fault *fault)
{
    unsigned seen = 0;
    int choice;

    *out = SCOPE_NONE;
    for (size_t i = 0; i < json_array_size(value); i++) {
        const char *text = json_string_value(json_array_get(value, i));
        if (choice_read("a scope", scope_names, text, &choice, NULL) != STATUS_OK ||
            (seen & 1U << choice) != 0)
            break;
        seen |= 1U << choice;
        if (SCOPE_READ + (enum scope)choice > *out)
            *out = SCOPE_READ + (enum scope)choice;
    }
    if (seen != 0 && (size_t)__builtin_popcount(seen) == json_array_size(value))
        return STATUS_OK;
    return bad(fault, "/scopes", "a list of \"read\", \"step\" and \"admin\", each once at most");
}

static bool read_digest(const char *text, unsigned char out[SHA256_BYTES])
{
    static const char digits[] = "0123456789abcdef";

    if (text == NULL || strspn(text, digits) != 2 * (size_t)SHA256_BYTES ||
        text[2 * (size_t)SHA256_BYTES] != '\0')
        return false;
    for (size_t i = 0; i < SHA256_BYTES; i++)
        out[i] = (unsigned char)((strchr(digits, text[2 * i]) - digits) << 4 |
                                 (strchr(digits, text[2 * i + 1]) - digits));
    return true;
}

static enum status read_token(struct arena *arena, const struct json_document *document,
                              const json_t *value, struct token *out, struct fault *fault)
{
    struct body body = {.token = {.name = "", .tenant = ""}};
    enum status status;

    if (!json_is_object(value))
        return fault_set(fault, STATUS_INVALID_FIELD, "", "a token must be an object");
    if ((status = fields_read(arena, document, value, token_fields, &body, fault)) != STATUS_OK)
        return status;
    if (body.token.id == NULL || !id_valid(body.token.id))
        return bad(fault, "/id", "tok_ and letters or digits");
    if (!token_name_valid(body.token.name))
        return bad(fault, "/name", "text without control characters");
    if (body.token.tenant[0] != '\0' && !tenant_valid(body.token.tenant))
        return bad(fault, "/tenant", "\"\" or [a-z0-9][a-z0-9_-]{0,31}");
    if ((status = read_scopes(body.scopes, &body.token.scope, fault)) != STATUS_OK)
        return status;
    if (body.created_at == NULL || !token_time_read(body.created_at, &body.token.created_us))
        return bad(fault, "/created_at", "a time such as 2026-01-31T12:00:00Z");
    if (body.expires_at != NULL && !token_time_read(body.expires_at, &body.token.expires_us))
        return bad(fault, "/expires_at", "a time such as 2026-01-31T12:00:00Z, or null");
    if (!read_digest(body.sha256, body.token.hash))
        return bad(fault, "/sha256", "64 hexadecimal digits");
    *out = body.token;
    return STATUS_OK;
}

/* --- all of them --- */

static int compare_ids(const void *a, const void *b)
{
    const struct token *const *left = a, *const *right = b;

    return strcmp((*left)->id, (*right)->id);
}

static int compare_hashes(const void *a, const void *b)
{
    const struct token *const *left = a, *const *right = b;

    return memcmp((*left)->hash, (*right)->hash, SHA256_BYTES);
}

static enum status check_unique(struct tokens *tokens, const char *member,
                                int (*compare)(const void *, const void *), struct fault *fault)
{
    struct token **order = arena_take(&tokens->arena, (tokens->count + 1) * sizeof(struct token *));
    char where[64];

    if (order == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    for (size_t i = 0; i < tokens->count; i++)
        order[i] = &tokens->items[i];
    qsort(order, tokens->count, sizeof *order, compare);
    for (size_t i = 1; i < tokens->count; i++) {
        if (compare(&order[i - 1], &order[i]) != 0)
            continue;
        const struct token *later = order[i] > order[i - 1] ? order[i] : order[i - 1];
        snprintf(where, sizeof where, "/tokens/%zu/%s", (size_t)(later - tokens->items), member);
        return fault_set(fault, STATUS_INVALID_FIELD, where, "another token has this %s", member);
    }
    return STATUS_OK;
}

struct root {
    uint64_t format;
    const json_t *tokens;
};

static const struct field root_fields[] = {
    {"format", FIELD_U64, .offset = offsetof(struct root, format)},
    {"tokens", FIELD_VALUE, .offset = offsetof(struct root, tokens)},
    {.name = NULL},
};

/* [] has nothing in it but numbers. */
static bool is_empty(const struct json_document *document, const json_t *value)
{
    size_t shape[LAYOUT_RANK_MAX];
    unsigned rank;

    return json_is_number_array(value) &&
           json_shape(document, value, &rank, shape, NULL) == STATUS_OK && shape[0] == 0;
}

static enum status read_document(struct tokens *tokens, const struct json_document *document,
                                 struct fault *fault)
{
    struct root root = {.format = 0};
    enum status status = STATUS_INVALID_FIELD;
    char where[32];

    if (!json_is_object(document->root))
        return fault_set(fault, status, "", "it must hold a JSON object");
    status = fields_read(&tokens->arena, document, document->root, root_fields, &root, fault);
    if (status != STATUS_OK)
        return status;
    if (root.format != FORMAT)
        return bad(fault, "/format", "1: use the version of descent that wrote the file");
    if (root.tokens != NULL && is_empty(document, root.tokens))
        return STATUS_OK;
    if (!json_is_array(root.tokens) || json_is_number_array(root.tokens))
        return bad(fault, "/tokens", "a list of tokens");
    tokens->count = json_array_size(root.tokens);
    if (tokens->count > TOKENS_MAX)
        return fault_set(fault, STATUS_INVALID_FIELD, "/tokens", "there are %zu tokens; at most %d",
                         tokens->count, TOKENS_MAX);
    tokens->items = arena_take(&tokens->arena, (tokens->count + 1) * sizeof *tokens->items);
    if (tokens->items == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    for (size_t i = 0; i < tokens->count; i++) {
        status = read_token(&tokens->arena, document, json_array_get(root.tokens, i),
                            &tokens->items[i], fault);
        if (status != STATUS_OK) {
            snprintf(where, sizeof where, "/tokens/%zu", i);
            fault_prefix(fault, where);
            return status;
        }
    }
    status = check_unique(tokens, "id", compare_ids, fault);
    return status == STATUS_OK ? check_unique(tokens, "sha256", compare_hashes, fault) : status;
}

/* --- the file --- */

enum status tokens_path(const struct config *config, char **out, struct fault *fault)
{
    bool named = config->tokens[0] != '\0';
    size_t size = strlen(config->tokens) + strlen(config->data) + sizeof "/tokens.json";

    if (!named && strcmp(config->data, "memory:") == 0)
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "--data memory: has no folder for tokens; say with --tokens FILE where "
                         "they are");
    *out = malloc(size);
    if (*out == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    snprintf(*out, size, "%s%s", named ? config->tokens : config->data,
             named ? "" : "/tokens.json");
    return STATUS_OK;
}

static struct tokens_mark mark_of(const struct stat *about)
{
    return (struct tokens_mark){.known = true,
                                .present = true,
                                .device = about->st_dev,
                                .inode = about->st_ino,
                                .size = (uint64_t)about->st_size,
                                .changed_s = about->st_ctim.tv_sec,
                                .changed_ns = about->st_ctim.tv_nsec,
                                .written_s = about->st_mtim.tv_sec,
                                .written_ns = about->st_mtim.tv_nsec};
}

bool tokens_changed(const char *path, const struct tokens_mark *mark)
{
    struct stat about;
    struct tokens_mark now = {.known = true};

    if (stat(path, &about) == 0)
        now = mark_of(&about);
    return now.known != mark->known || now.present != mark->present || now.device != mark->device ||
           now.inode != mark->inode || now.size != mark->size || now.changed_s != mark->changed_s ||
           now.changed_ns != mark->changed_ns || now.written_s != mark->written_s ||
           now.written_ns != mark->written_ns;
}

/* The bytes of the file in the arena; NULL data: there is none. INVALID_FIELD: it is one that
 * cannot be used; any other fault may be over at the next try. */
static enum status read_file(const char *path, struct arena *arena, struct span *out,
                             struct tokens_mark *mark, struct fault *fault)
{
    enum status status = STATUS_INTERNAL;
    struct stat about;
    size_t used = 0;
    ssize_t got = 1;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    *out = span_of(NULL, 0);
    *mark = (struct tokens_mark){.known = true};
    if (file < 0 && errno == ENOENT)
        return STATUS_OK;
    if (file < 0 || fstat(file, &about) != 0) {
        fault_set(fault, status, "", "it cannot be read: %s", strerror(errno));
        goto done;
    }
    *mark = mark_of(&about);
    if (!S_ISREG(about.st_mode) || about.st_size > FILE_BYTES_MAX) {
        status = fault_set(fault, STATUS_INVALID_FIELD, "", "it must be a file of at most %d bytes",
                           FILE_BYTES_MAX);
        goto done;
    }
    if ((about.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        status = fault_set(fault, STATUS_INVALID_FIELD, "",
                           "others may write it, and so give themselves access: chmod "
                           "go-w");
        goto done;
    }
    unsigned char *bytes = arena_take(arena, (size_t)about.st_size + 1);
    if (bytes == NULL) {
        fault_set(fault, status, "", "out of memory");
        goto done;
    }
    while (used <= (size_t)about.st_size &&
           (got = read(file, bytes + used, (size_t)about.st_size + 1 - used)) > 0)
        used += (size_t)got;
    if (got < 0 || used != (size_t)about.st_size) {
        fault_set(fault, status, "", "it cannot be read: %s",
                  got < 0 ? strerror(errno) : "it changes meanwhile");
        goto done;
    }
    *out = span_of(bytes, used);
    status = STATUS_OK;
done:
    if (file >= 0)
        close(file);
    return status;
}

enum status tokens_read(const char *path, struct tokens *out, struct tokens_mark *mark,
                        struct fault *fault)
{
    struct tokens tokens = {.count = 0};
    struct json_document document;
    struct span text;
    struct fault inner;

    arena_init(&tokens.arena);
    enum status status = read_file(path, &tokens.arena, &text, mark, &inner);
    if (status == STATUS_OK && text.data != NULL &&
        (status = json_read(&tokens.arena, text, &document, &inner)) == STATUS_OK) {
        status = read_document(&tokens, &document, &inner);
        json_close(&document);
    }
    if (status == STATUS_OK && tokens.items == NULL &&
        (tokens.items = arena_take(&tokens.arena, sizeof *tokens.items)) == NULL)
        status = fault_set(&inner, STATUS_INTERNAL, "", "out of memory");
    if (status == STATUS_OK) {
        *out = tokens;
        return status;
    }
    arena_close(&tokens.arena);
    mark->known = status != STATUS_INTERNAL;
    return fault_set(fault, status == STATUS_INTERNAL ? status : STATUS_INVALID_FIELD, "",
                     "the tokens in %.160s cannot be used: %s%s%.200s", path, inner.where,
                     inner.where[0] != '\0' ? ": " : "", inner.detail);
}

void tokens_close(struct tokens *tokens)
{
    arena_close(&tokens->arena);
}
