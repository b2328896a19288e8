/* `descent token create|list|revoke`: who may do what. Works beside a running server, which looks
 * at the file of tokens itself. What lets its holder in is shown once, by create, on stdout alone,
 * so that TOKEN=$(descent token create) has it and nothing else. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "api/commands.h"
#include "api/config.h"
#include "api/tokens.h"
#include "service/core/clock.h"
#include "service/session/engine.h"

enum { EXPIRES_S_MAX = 1000000000, REVOKED_MAX = 64 };

/* What `create` takes besides the common options. */
struct wish {
    const char *name, *tenant, *scopes, *expires_s;
#define QUOTA(field, ...) const char *field;
#include "api/quotas.def"
#undef QUOTA
};

static const struct own {
    const char *flag;
    size_t offset;
} own[] = {
    {"--name", offsetof(struct wish, name)},
    {"--tenant", offsetof(struct wish, tenant)},
    {"--scopes", offsetof(struct wish, scopes)},
    {"--expires-s", offsetof(struct wish, expires_s)},
#define QUOTA(field, flag, ...) {"--" flag, offsetof(struct wish, field)},
#include "api/quotas.def"
#undef QUOTA
};

static void print_help(FILE *out)
{
    fprintf(
        out,
        "  descent token create [OPTIONS]\n      print a new token, this once; its id and what "
        "it may do go to stderr\n"
        "  descent token list\n      what each may do, but no secrets\n"
        "  descent token revoke ID ...\n\n"
        "They take --data DIR, --tokens FILE and --config FILE as `descent serve` does, and "
        "`create`\nbesides:\n"
        "  --name TEXT\n      what it is for\n"
        "  --tenant NAME\n      whose sessions it sees: each tenant has its own, under names of "
        "its own\n"
        "  --scopes read,step,admin\n      read looks, step trains too, admin makes, changes "
        "and ends sessions too (default)\n"
        "  --expires-s SECONDS\n      how long it is good for\n"
        "and quotas; beyond one the answer is 429:\n");
#define QUOTA(field, flag, unit, most, meaning)                                                    \
    fprintf(out, "  --%s %s\n      %s\n", flag, unit, meaning);
#include "api/quotas.def"
#undef QUOTA
}

static int usage(const char *what)
{
    fprintf(stderr, "descent: %s\n", what);
    print_help(stderr);
    return EXIT_USAGE;
}

static int failed(const struct fault *fault)
{
    fprintf(stderr, "descent: %s\n", fault->detail);
    return EXIT_FAILURE;
}

/* --- the command line --- */

/* Takes `create`'s own options out of `options`; `rest` has room for all of them. False when one
 * lacks its value, which it names, or comes twice. */
static bool take_own(char *const *options, struct wish *wish, char **rest, const char **at_fault)
{
    size_t count = 0;

    for (; *options != NULL; options++) {
        const char **place = NULL;
        size_t size = strcspn(*options, "=");
        for (size_t i = 0; i < sizeof own / sizeof *own && place == NULL; i++)
            if (strlen(own[i].flag) == size && strncmp(own[i].flag, *options, size) == 0)
                place = (const char **)(void *)((char *)wish + own[i].offset);
        if (place == NULL) {
            rest[count++] = *options;
            continue;
        }
        *at_fault = *options;
        if (*place != NULL)
            return false;
        *place = (*options)[size] == '=' ? *options + size + 1 : *++options;
        if (*place == NULL)
            return false;
    }
    rest[count] = NULL;
    return true;
}

static enum status read_count(const char *flag, const char *text, uint64_t most, uint64_t *out,
                              struct fault *fault)
{
    size_t digits = text == NULL ? 0 : strspn(text, "0123456789");

    *out = 0;
    if (text == NULL)
        return STATUS_OK;
    if (digits > 0 && digits < 19 && text[digits] == '\0')
        *out = strtoull(text, NULL, 10);
    if (*out > 0 && *out <= most)
        return STATUS_OK;
    return fault_set(fault, STATUS_INVALID_FIELD, "",
                     "%s is \"%.60s\"; it must be a whole number from 1 to %" PRIu64, flag, text,
                     most);
}

static enum status read_scopes(const char *text, enum scope *out, struct fault *fault)
{
    *out = text == NULL ? SCOPE_ADMIN : SCOPE_NONE;
    for (const char *at = text; at != NULL && *at != '\0';) {
        size_t size = strcspn(at, ",");
        enum scope scope = SCOPE_READ;
        while (scope <= SCOPE_ADMIN &&
               (strlen(scope_name(scope)) != size || strncmp(scope_name(scope), at, size) != 0))
            scope++;
        if (scope > SCOPE_ADMIN) {
            *out = SCOPE_NONE;
            break;
        }
        *out = scope > *out ? scope : *out;
        at += size + (at[size] == ',');
    }
    if (*out != SCOPE_NONE)
        return STATUS_OK;
    return fault_set(fault, STATUS_INVALID_FIELD, "",
                     "--scopes is \"%.60s\"; it must be read, step or admin, or several with "
                     "commas between them",
                     text);
}

static enum status read_wish(const struct wish *wish, struct token *out, struct fault *fault)
{
    uint64_t lifetime_s;
    enum status status;

    out->name = wish->name != NULL ? wish->name : "";
    out->tenant = wish->tenant != NULL ? wish->tenant : "";
    if (!token_name_valid(out->name))
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "--name must be UTF-8 of at most %d bytes without control characters",
                         TOKEN_NAME_BYTES);
    if (out->tenant[0] != '\0' && !tenant_valid(out->tenant))
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "--tenant is \"%.60s\"; it must be 1 to %d of a-z, 0-9, _ and -, "
                         "beginning with a letter or digit",
                         out->tenant, TENANT_BYTES);
    if ((status = read_scopes(wish->scopes, &out->scope, fault)) != STATUS_OK ||
        (status = read_count("--expires-s", wish->expires_s, EXPIRES_S_MAX, &lifetime_s, fault)) !=
            STATUS_OK)
        return status;
#define QUOTA(field, flag, unit, most, meaning)                                                    \
    if ((status = read_count("--" flag, wish->field, most, &out->quotas.field, fault)) !=          \
        STATUS_OK)                                                                                 \
        return status;
#include "api/quotas.def"
#undef QUOTA
    out->created_us = clock_unix_us();
    out->expires_us = lifetime_s > 0 ? out->created_us + lifetime_s * 1000000 : 0;
    return STATUS_OK;
}

/* --- showing --- */

static void show_quotas(FILE *out, const struct quotas *quotas)
{
#define QUOTA(field, flag, ...)                                                                    \
    if (quotas->field > 0)                                                                         \
        fprintf(out, " %s=%" PRIu64, flag, quotas->field);
#include "api/quotas.def"
#undef QUOTA
}

/* read, step, admin: all that the scope includes. */
static const char *scopes_text(enum scope scope)
{
    return scope == SCOPE_READ ? "read" : scope == SCOPE_STEP ? "read,step" : "read,step,admin";
}

static void show(FILE *out, const struct token *token)
{
    char time[32];

    fprintf(out, "%s scopes=%s created=%s", token->id, scopes_text(token->scope),
            clock_format(time, token->created_us));
    if (token->tenant[0] != '\0')
        fprintf(out, " tenant=%s", token->tenant);
    if (token->expires_us > 0)
        fprintf(out, " %s=%s", token->expires_us <= clock_unix_us() ? "expired" : "expires",
                clock_format(time, token->expires_us));
    show_quotas(out, &token->quotas);
    if (token->name[0] != '\0')
        fprintf(out, " name=%s", token->name);
    fputc('\n', out);
}

/* --- create --- */

static enum status add(void *context, struct tokens *tokens, struct fault *fault)
{
    if (tokens->count >= TOKENS_MAX)
        return fault_set(fault, STATUS_QUOTA_EXCEEDED, "",
                         "there are %zu tokens, which is the limit; revoke some", tokens->count);
    tokens->items[tokens->count++] = *(const struct token *)context;
    return STATUS_OK;
}

static int create(const struct wish *wish, const char *path, const char *folder)
{
    char text[TOKEN_BYTES + 1] = "", id[TOKEN_ID_BYTES + 1];
    struct token token = {.id = id};
    struct fault fault;
    int code = EXIT_SUCCESS;

    if (read_wish(wish, &token, &fault) != STATUS_OK) {
        failed(&fault);
        return EXIT_USAGE;
    }
    /* The folder of a server that has not been started yet; where it cannot be made, the file
     * cannot either, which says why. */
    if (folder != NULL)
        mkdir(folder, 0700);
    if (!token_draw(text, token.hash) || !token_draw_id(id)) {
        fault_set(&fault, STATUS_INTERNAL, "", "there are no random numbers");
        code = failed(&fault);
    } else if (tokens_edit(path, add, &token, &fault) != STATUS_OK) {
        code = failed(&fault);
    } else {
        fputs("descent: ", stderr);
        show(stderr, &token);
        fprintf(stderr,
                "descent: this is the only time the token is shown; %s keeps a digest of it. "
                "A running server knows it at once.\n",
                path);
        printf("%s\n", text);
        if (fflush(stdout) != 0) {
            fprintf(stderr, "descent: the token could not be printed; revoke %s\n", id);
            code = EXIT_FAILURE;
        }
    }
    explicit_bzero(text, sizeof text);
    return code;
}

/* --- list --- */

static int list(const char *path)
{
    struct tokens tokens;
    struct tokens_mark mark;
    struct fault fault;

    if (tokens_read(path, &tokens, &mark, &fault) != STATUS_OK)
        return failed(&fault);
    for (size_t i = 0; i < tokens.count; i++)
        show(stdout, &tokens.items[i]);
    if (tokens.count == 0)
        fprintf(stderr, "descent: there are no tokens in %s\n", path);
    tokens_close(&tokens);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- revoke --- */

static enum status take_away(void *context, struct tokens *tokens, struct fault *fault)
{
    for (const char *const *ids = context; *ids != NULL; ids++) {
        size_t i = 0;
        while (i < tokens->count && strcmp(tokens->items[i].id, *ids) != 0)
            i++;
        if (i == tokens->count)
            return fault_set(fault, STATUS_NOT_FOUND, "",
                             "there is no token %.80s; `descent token list` shows those there are. "
                             "Nothing was revoked.",
                             *ids);
        memmove(&tokens->items[i], &tokens->items[i + 1],
                (--tokens->count - i) * sizeof *tokens->items);
    }
    return STATUS_OK;
}

static int revoke(const char *const *ids, const char *path)
{
    struct fault fault;

    if (ids[0] == NULL)
        return usage("revoke which? `descent token list` shows the ids");
    if (tokens_edit(path, take_away, (void *)(uintptr_t)ids, &fault) != STATUS_OK)
        return failed(&fault);
    for (; *ids != NULL; ids++)
        fprintf(stderr, "descent: %s is revoked; a running server knows it within a second\n",
                *ids);
    return EXIT_SUCCESS;
}

/* --- the command --- */

/* Takes what is no option out of `options`. */
static bool take_ids(char **options, const char *ids[REVOKED_MAX + 1])
{
    size_t count = 0, kept = 0;
    bool value = false; /* of the option before */

    for (size_t i = 0; options[i] != NULL; i++) {
        bool option = strncmp(options[i], "--", 2) == 0;
        if (option || value) {
            options[kept++] = options[i];
        } else if (count == REVOKED_MAX) {
            return false;
        } else {
            ids[count++] = options[i];
        }
        value = option && strchr(options[i], '=') == NULL;
    }
    options[kept] = NULL;
    ids[count] = NULL;
    return true;
}

static int run(const char *verb, const struct wish *wish, const char *const *ids,
               char *const *options)
{
    struct config config;
    struct fault fault;
    char *path = NULL;
    int code;

    if (config_read(options, &config, &fault) != STATUS_OK) {
        failed(&fault);
        return EXIT_USAGE;
    }
    if (tokens_path(&config, &path, &fault) != STATUS_OK)
        code = failed(&fault);
    else if (strcmp(verb, "create") == 0)
        code = create(wish, path, config.tokens[0] == '\0' ? config.data : NULL);
    else if (strcmp(verb, "list") == 0)
        code = list(path);
    else
        code = revoke(ids, path);
    free(path);
    config_close(&config);
    return code;
}

int command_token(char *const *options)
{
    const char *verb = options[0], *at_fault = "", *ids[REVOKED_MAX + 1] = {NULL};
    struct wish wish = {.name = NULL};
    size_t count = 0;
    char what[120];

    if (verb == NULL)
        return usage("token needs create, list or revoke");
    bool creates = strcmp(verb, "create") == 0, revokes = strcmp(verb, "revoke") == 0;
    if (!creates && !revokes && strcmp(verb, "list") != 0) {
        snprintf(what, sizeof what, "there is no `token %.60s`", verb);
        return usage(what);
    }
    while (options[count] != NULL)
        count++;
    char **rest = calloc(count, sizeof *rest);
    if (rest == NULL) {
        fprintf(stderr, "descent: there is not enough memory\n");
        return EXIT_FAILURE;
    }
    int code = EXIT_USAGE;
    if (creates && !take_own(options + 1, &wish, rest, &at_fault)) {
        snprintf(what, sizeof what, "%.60s must come once, with a value", at_fault);
        usage(what);
        goto done;
    }
    if (!creates)
        memcpy(rest, options + 1, count * sizeof *rest);
    if (revokes && !take_ids(rest, ids)) {
        snprintf(what, sizeof what, "at most %d tokens can be revoked at once", REVOKED_MAX);
        usage(what);
        goto done;
    }
    code = run(verb, &wish, ids, rest);
done:
    free(rest);
    return code;
}
