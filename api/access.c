/* Who may do what: the file of tokens as a table, and requests held against it. */
#include "api/access.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "api/access_table.h"
#include "api/access_usage.h"
#include "api/config.h"
#include "api/tokens.h"
#include "service/core/clock.h"
#include "service/core/contract.h"
#include "service/core/log.h"
#include "service/core/metric.h"
#include "service/session/engine.h"

enum { LOOK_MS = 500 };

struct access {
    char *path;
    pthread_rwlock_t lock; /* guards `table`, for as long as it takes to retain it */
    struct access_table *table;
    pthread_mutex_t reading; /* one at a time reads the file */
    struct tokens_mark mark; /* of what was read last, unless it is to be tried again */
    pthread_t watcher;
    pthread_mutex_t wake_mutex;
    pthread_cond_t wake;
    bool stopping; /* under wake_mutex */
};

static struct access_table *retain_table(struct access *access)
{
    pthread_rwlock_rdlock(&access->lock);
    struct access_table *table = access->table;
    table_retain(table);
    pthread_rwlock_unlock(&access->lock);
    return table;
}

/* --- the file --- */

/* Reads the file into a new table. `reading` is held, or nobody else is there yet. */
static enum status load(struct access *access, struct fault *fault)
{
    struct tokens tokens;
    struct access_table *table, *before = access->table;
    enum status status = tokens_read(access->path, &tokens, &access->mark, fault);

    if (status == STATUS_OK && before != NULL && !access->mark.present && table_count(before) > 0) {
        tokens_close(&tokens);
        status =
            fault_set(fault, STATUS_INVALID_FIELD, "",
                      "%.200s is gone; to end access use `descent token revoke`", access->path);
    }
    if (status != STATUS_OK)
        return status;
    if ((table = table_new(&tokens, before)) == NULL) {
        access->mark.known = false; /* so that it is tried again */
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory for the tokens");
    }
    pthread_rwlock_wrlock(&access->lock);
    access->table = table;
    pthread_rwlock_unlock(&access->lock);
    table_release(before);
    return STATUS_OK;
}

/* Reads the file if it is another one, or in any case. False: it cannot be used. What is tried
 * again and again is told of once. */
static bool look(struct access *access, bool always)
{
    struct fault fault;
    bool good = true;

    pthread_mutex_lock(&access->reading);
    if (always || tokens_changed(access->path, &access->mark)) {
        bool first = access->mark.known;
        good = load(access, &fault) == STATUS_OK;
        if (good)
            log_info("%s has %zu tokens now", access->path, table_count(access->table));
        else if (always || first || access->mark.known)
            log_error("the tokens stay as they were: %s", fault.detail);
    }
    pthread_mutex_unlock(&access->reading);
    return good;
}

bool access_reload(struct access *access)
{
    return look(access, true);
}

static void *watch(void *context)
{
    struct access *access = context;
    struct timespec until;

    pthread_mutex_lock(&access->wake_mutex);
    while (!access->stopping) {
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += LOOK_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&access->wake, &access->wake_mutex, &until);
        if (access->stopping)
            break;
        pthread_mutex_unlock(&access->wake_mutex);
        look(access, false);
        pthread_mutex_lock(&access->wake_mutex);
    }
    pthread_mutex_unlock(&access->wake_mutex);
    return NULL;
}

/* --- a request --- */

#define CHALLENGE "Bearer realm=\"descent\""

/* What stands behind `Authorization: Bearer`. */
static enum status read_header(const struct request *request, const char **out,
                               const char **challenge, struct fault *fault)
{
    static const char scheme[] = "Bearer";
    const char *value;
    size_t count = request_header_count(request, "Authorization", &value);
    size_t size = value != NULL ? strcspn(value, " ") : 0;

    *challenge = CHALLENGE;
    if (value == NULL ||
        (count == 1 && (size != sizeof scheme - 1 || strncasecmp(value, scheme, size) != 0)))
        return fault_set(fault, STATUS_UNAUTHORIZED, "",
                         "this server asks for a token: send the header `Authorization: Bearer "
                         "dsc_...`; whoever runs the server makes one with `descent token create`");
    *challenge = CHALLENGE ", error=\"invalid_token\"";
    if (count > 1)
        return fault_set(fault, STATUS_UNAUTHORIZED, "",
                         "there are %zu headers Authorization; send one", count);
    *out = value + size + strspn(value + size, " ");
    if (token_valid(*out))
        return STATUS_OK;
    return fault_set(fault, STATUS_UNAUTHORIZED, "",
                     "what stands behind Bearer is no token of this server: dsc_ and 52 letters or "
                     "digits, with nothing before or behind them");
}

static bool has_expired(const struct token *token)
{
    return token->expires_us > 0 && clock_unix_us() >= token->expires_us;
}

static enum status find_token(struct access *access, const char *text, struct access_pass *pass,
                              struct fault *fault)
{
    unsigned char hash[SHA256_BYTES];

    if (!crypto_sha256(span_of(text, TOKEN_BYTES), hash))
        return fault_set(fault, STATUS_INTERNAL, "", "the token cannot be digested");
    pass->table = retain_table(access);
    if ((pass->entry = table_find(pass->table, hash)) == NULL) {
        /* It may have been made a moment ago. */
        look(access, false);
        table_release(pass->table);
        pass->table = retain_table(access);
        pass->entry = table_find(pass->table, hash);
    }
    if (pass->entry == NULL)
        return fault_set(fault, STATUS_UNAUTHORIZED, "",
                         "this token is not known, or was revoked; `descent token create` makes "
                         "another one");
    if (has_expired(pass->entry->token))
        return fault_set(fault, STATUS_UNAUTHORIZED, "",
                         "this token has expired; `descent token create` makes another one");
    return STATUS_OK;
}

/* What gives room again, or ends a session, is not refused: DELETE never, and PATCH, which shortens
 * the history and writes little, up to twice the quota. */
static enum status check_disk(struct engine *engine, const struct request *request,
                              struct fault *fault)
{
    enum method method = request->route->method;
    struct tenant_usage usage;

    if (request->quotas->disk_bytes == 0 || request->route->scope == SCOPE_READ ||
        method == METHOD_DELETE)
        return STATUS_OK;
    engine_tenant_usage(engine, request->tenant, &usage);
    if (usage.bytes / (method == METHOD_PATCH ? 2 : 1) < request->quotas->disk_bytes)
        return STATUS_OK;
    metric_count(COUNTER_QUOTA_REFUSALS, METRIC_QUOTA_DISK_BYTES, 1);
    fault_set(fault, STATUS_QUOTA_EXCEEDED, "",
              "the sessions have %llu bytes on disk, and this token may have %llu: lower "
              "history.keep_steps, or delete some",
              (unsigned long long)usage.bytes, (unsigned long long)request->quotas->disk_bytes);
    return fault_extra(fault, "retry_after_s", QUOTA_RETRY_S);
}

static enum status check_quotas(struct engine *engine, const struct request *request,
                                struct access_pass *pass, struct fault *fault)
{
    struct access_usage *usage = pass->entry->usage;
    enum status status = usage_enter(usage, request->quotas, fault);

    if (status != STATUS_OK)
        return status;
    pass->counted = true;
    if (request->route->scope == SCOPE_STEP &&
        (status = usage_step(usage, request->quotas, fault)) != STATUS_OK)
        return status;
    return check_disk(engine, request, fault);
}

enum status access_enter(struct access *access, struct engine *engine, struct request *request,
                         struct access_pass *pass, const char **challenge, struct fault *fault)
{
    enum scope needed = request->route->scope;
    const char *text = NULL;
    enum status status;

    *pass = (struct access_pass){.needed = needed};
    *challenge = NULL;
    if (needed == SCOPE_NONE)
        return STATUS_OK;
    if ((status = read_header(request, &text, challenge, fault)) != STATUS_OK ||
        (status = find_token(access, text, pass, fault)) != STATUS_OK)
        return status;
    *challenge = NULL;
    const struct token *token = pass->entry->token;
    request->tenant = token->tenant;
    request->token_id = token->id;
    request->quotas = &token->quotas;
    if (token->scope >= needed)
        return check_quotas(engine, request, pass, fault);
    *challenge =
        arena_format(request->arena, CHALLENGE ", error=\"insufficient_scope\", scope=\"%s\"",
                     scope_name(needed));
    return fault_set(fault, STATUS_FORBIDDEN, "",
                     "this asks for a token with scope %s; the scope of this one ends with %s",
                     scope_name(needed), scope_name(token->scope));
}

void access_leave(struct access_pass *pass)
{
    if (pass->counted)
        usage_leave(pass->entry->usage);
    table_release(pass->table);
    *pass = (struct access_pass){.table = NULL};
}

bool access_stands(struct access *access, const struct access_pass *pass)
{
    const struct access_entry *entry = pass->entry;

    if (entry == NULL)
        return true;
    const struct token *then = entry->token;
    pthread_rwlock_rdlock(&access->lock);
    if (access->table != pass->table)
        entry = table_find(access->table, then->hash);
    bool stands = entry != NULL && entry->token->scope >= pass->needed &&
                  strcmp(entry->token->tenant, then->tenant) == 0 && !has_expired(entry->token);
    pthread_rwlock_unlock(&access->lock);
    return stands;
}

/* --- life --- */

/* Whether to ask for tokens. INVALID_FIELD when it would be no, and nobody has thought of it. */
static enum status decide(const struct config *config, const char *address, bool loopback,
                          bool *out, struct fault *fault)
{
    bool elsewhere = !loopback && !config->insecure;

    *out = strcmp(config->auth, "on") == 0 || (strcmp(config->auth, "auto") == 0 && elsewhere);
    if (*out || !elsewhere)
        return STATUS_OK;
    return fault_set(fault, STATUS_INVALID_FIELD, "",
                     "%.100s can be reached from other machines, and with --auth off whoever does "
                     "can do everything. Leave --auth off away and make tokens with `descent token "
                     "create`; or give --insecure as well, if something before the server keeps "
                     "others out",
                     address);
}

static enum status start(struct access *access, const struct config *config, struct fault *fault)
{
    enum status status = tokens_path(config, &access->path, fault);

    if (status != STATUS_OK || (status = load(access, fault)) != STATUS_OK)
        return status;
    if (table_count(access->table) > 0)
        log_info("%s has %zu tokens", access->path, table_count(access->table));
    else
        log_warning("there are no tokens yet, so that nobody can do anything. Make one, also while "
                    "the server runs: descent token create %s %.200s",
                    config->tokens[0] != '\0' ? "--tokens" : "--data",
                    config->tokens[0] != '\0' ? config->tokens : config->data);
    int error = pthread_create(&access->watcher, NULL, watch, access);
    return error == 0 ? STATUS_OK
                      : fault_set(fault, STATUS_INTERNAL, "", "cannot start a thread: %s",
                                  strerror(error));
}

static void destroy(struct access *access)
{
    table_release(access->table);
    pthread_rwlock_destroy(&access->lock);
    pthread_mutex_destroy(&access->reading);
    pthread_mutex_destroy(&access->wake_mutex);
    pthread_cond_destroy(&access->wake);
    free(access->path);
    free(access);
}

enum status access_new(const struct config *config, const char *address, bool loopback,
                       struct access **out, struct fault *fault)
{
    pthread_condattr_t monotonic;
    bool wanted;
    enum status status = decide(config, address, loopback, &wanted, fault);

    *out = NULL;
    if (status != STATUS_OK || !wanted)
        return status;
    struct access *access = calloc(1, sizeof *access);
    if (access == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    pthread_rwlock_init(&access->lock, NULL);
    pthread_mutex_init(&access->reading, NULL);
    pthread_mutex_init(&access->wake_mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&access->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if ((status = start(access, config, fault)) == STATUS_OK)
        *out = access;
    else
        destroy(access);
    return status;
}

void access_free(struct access *take_access)
{
    if (take_access == NULL)
        return;
    pthread_mutex_lock(&take_access->wake_mutex);
    take_access->stopping = true;
    pthread_cond_signal(&take_access->wake);
    pthread_mutex_unlock(&take_access->wake_mutex);
    pthread_join(take_access->watcher, NULL);
    destroy(take_access);
}
