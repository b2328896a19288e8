/* Changing the file of tokens: a lock against others who do, a new file beside it, a rename. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api/json_text.h"
#include "api/tokens.h"
#include "service/core/clock.h"
#include "service/core/number.h"

enum { LOCK_TRIES = 200, LOCK_PAUSE_MS = 50 };

/* The paths of an edit, in one piece of memory. */
struct paths {
    char *folder, *lock, *next;
};

static bool make_paths(struct arena *arena, const char *path, struct paths *out)
{
    const char *slash = strrchr(path, '/');
    size_t size = slash != NULL ? (size_t)(slash - path) : 1;

    out->folder = arena_copy(arena, slash != NULL ? path : ".", size > 0 ? size : 1);
    out->lock = arena_format(arena, "%s.lock", path);
    out->next = arena_format(arena, "%s.new", path);
    return !arena->failed;
}

static enum status cannot(struct fault *fault, const char *path)
{
    return fault_set(fault, errno == ENOSPC ? STATUS_STORAGE_FULL : STATUS_STORAGE_FAILED, "",
                     "%.200s cannot be written: %s", path, strerror(errno));
}

/* What root makes in the folder of another is that one's: the server must be able to read it. */
static bool give_away(int file, const char *folder)
{
    struct stat about;

    return geteuid() != 0 ||
           (stat(folder, &about) == 0 && fchown(file, about.st_uid, about.st_gid) == 0);
}

/* Holds the lock file's lock, which ends with the descriptor. It is a file of its own, since the
 * one with the tokens is another one after each change. */
static enum status take_lock(const struct paths *paths, int *out, struct fault *fault)
{
    const struct timespec pause = {.tv_nsec = LOCK_PAUSE_MS * 1000000L};
    int file = open(paths->lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (file < 0)
        return cannot(fault, paths->lock);
    for (int i = 0; flock(file, LOCK_EX | LOCK_NB) != 0; i++) {
        if (errno == EWOULDBLOCK && i < LOCK_TRIES) {
            nanosleep(&pause, NULL);
            continue;
        }
        cannot(fault, paths->lock);
        if (errno == EWOULDBLOCK)
            fault_set(fault, STATUS_STORAGE_FAILED, "",
                      "another `descent token` holds %.200s for more than %d s", paths->lock,
                      LOCK_TRIES * LOCK_PAUSE_MS / 1000);
        close(file);
        return STATUS_STORAGE_FAILED;
    }
    if (!give_away(file, paths->folder)) {
        close(file);
        return cannot(fault, paths->lock);
    }
    *out = file;
    return STATUS_OK;
}

static void write_token(struct json_text *text, const struct token *token)
{
    char time[32], digits[2 * SHA256_BYTES + 1] = "";

    number_hex(digits, token->hash, SHA256_BYTES);
    json_text_open(text, '{');
    json_text_member_string(text, "id", token->id);
    json_text_member_string(text, "name", token->name);
    json_text_member_string(text, "tenant", token->tenant);
    json_text_key(text, "scopes");
    json_text_open(text, '[');
    for (enum scope scope = SCOPE_READ; scope <= token->scope; scope++)
        json_text_string(text, scope_name(scope));
    json_text_close(text, ']');
    json_text_key(text, "quotas");
    json_text_open(text, '{');
#define QUOTA(field, ...)                                                                          \
    if (token->quotas.field > 0)                                                                   \
        json_text_member_u64(text, #field, token->quotas.field);
#include "api/quotas.def"
#undef QUOTA
    json_text_close(text, '}');
    json_text_member_string(text, "created_at", clock_format(time, token->created_us));
    json_text_member_string(text, "expires_at",
                            token->expires_us > 0 ? clock_format(time, token->expires_us) : NULL);
    json_text_member_string(text, "sha256", digits);
    json_text_close(text, '}');
}

/* One token a line. */
static bool print(FILE *out, struct tokens *tokens)
{
    fputs("{\"format\": 1,\n \"tokens\": [", out);
    for (size_t i = 0; i < tokens->count; i++) {
        struct json_text text;
        json_text_init(&text, &tokens->arena);
        write_token(&text, &tokens->items[i]);
        struct span line = json_text_end(&text);
        if (line.data == NULL)
            return false;
        fputs(i > 0 ? ",\n  " : "\n  ", out);
        fwrite(line.data, 1, line.size, out);
    }
    fputs("\n]}\n", out);
    return fflush(out) == 0 && !ferror(out);
}

/* What is new in a folder is not durable before the folder is. */
static bool sync_folder(const char *path)
{
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool synced = folder >= 0 && (fsync(folder) == 0 || errno == EINVAL || errno == ENOTSUP);

    if (folder >= 0)
        close(folder);
    return synced;
}

static enum status replace(const char *path, const struct paths *paths, struct tokens *tokens,
                           struct fault *fault)
{
    enum status status = STATUS_OK;
    FILE *out = NULL;

    unlink(paths->next); /* of one who was killed; we have the lock */
    int file = open(paths->next, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0)
        return cannot(fault, paths->next);
    if (!give_away(file, paths->folder) || (out = fdopen(file, "w")) == NULL) {
        status = cannot(fault, paths->next);
        close(file);
        goto done;
    }
    errno = ENOMEM;
    bool written = print(out, tokens) && fsync(file) == 0;
    int cause = errno;
    if (fclose(out) != 0 || !written) {
        errno = written ? errno : cause;
        status = cannot(fault, paths->next);
    } else if (rename(paths->next, path) != 0 || !sync_folder(paths->folder)) {
        status = cannot(fault, path);
    }
done:
    if (status != STATUS_OK)
        unlink(paths->next);
    return status;
}

enum status tokens_edit(const char *path,
                        enum status (*change)(void *context, struct tokens *tokens,
                                              struct fault *fault),
                        void *context, struct fault *fault)
{
    struct arena arena;
    struct tokens tokens;
    struct tokens_mark mark;
    struct paths paths;
    enum status status;
    int lock = -1;

    arena_init(&arena);
    if (!make_paths(&arena, path, &paths)) {
        status = fault_set(fault, STATUS_INTERNAL, "", "out of memory");
        goto done;
    }
    if ((status = take_lock(&paths, &lock, fault)) != STATUS_OK ||
        (status = tokens_read(path, &tokens, &mark, fault)) != STATUS_OK)
        goto done;
    if ((status = change(context, &tokens, fault)) == STATUS_OK)
        status = replace(path, &paths, &tokens, fault);
    tokens_close(&tokens);
done:
    if (lock >= 0)
        close(lock);
    arena_close(&arena);
    return status;
}
