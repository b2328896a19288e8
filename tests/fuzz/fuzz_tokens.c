/* libFuzzer target: any bytes as the file of tokens. Tokens that are taken have each their own
 * name and digest, and are written so that they are read again. */
#include "tests/fuzz/input.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/tokens.h"

static char path[64];

static void leave(void)
{
    char lock[80];

    unlink(path);
    snprintf(lock, sizeof lock, "%s.lock", path);
    unlink(lock);
}

static void place(const uint8_t *data, size_t size)
{
    struct stat about;

    if (path[0] == '\0') {
        bool shared = stat("/dev/shm", &about) == 0;
        snprintf(path, sizeof path, "%s/descent-fuzz-tokens-%d", shared ? "/dev/shm" : "/tmp",
                 (int)getpid());
        atexit(leave);
    }
    unlink(path);
    FILE *file = fopen(path, "wb");
    PRE(file != NULL && chmod(path, 0600) == 0);
    PRE(fwrite(data, 1, size, file) == size);
    PRE(fclose(file) == 0);
}

static enum status keep(void *context, struct tokens *tokens, struct fault *fault)
{
    (void)context;
    (void)tokens;
    (void)fault;
    return STATUS_OK;
}

static void check(const struct token *token)
{
    POST(token->scope > SCOPE_NONE && token->scope <= SCOPE_ADMIN);
    POST(token_name_valid(token->name) && strlen(token->id) <= TOKEN_ID_BYTES);
    POST(token->tenant != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tokens tokens, again;
    struct tokens_mark mark;
    struct fault fault;
    struct input input = {.data = data, .size = size};
    char *text = input_text(&input, '\n');

    if (token_valid(text))
        POST(strlen(text) == TOKEN_BYTES);
    free(text);
    place(data, size);
    if (tokens_read(path, &tokens, &mark, &fault) == STATUS_OK) {
        POST(tokens.count <= TOKENS_MAX);
        for (size_t i = 0; i < tokens.count; i++)
            check(&tokens.items[i]);
        for (size_t i = 1; i < tokens.count && i < 16; i++)
            POST(strcmp(tokens.items[i].id, tokens.items[i - 1].id) != 0);
        POST(tokens_edit(path, keep, NULL, &fault) == STATUS_OK);
        POST(tokens_read(path, &again, &mark, &fault) == STATUS_OK);
        POST(again.count == tokens.count);
        for (size_t i = 0; i < tokens.count; i++)
            POST(strcmp(again.items[i].id, tokens.items[i].id) == 0 &&
                 memcmp(again.items[i].hash, tokens.items[i].hash, SHA256_BYTES) == 0 &&
                 again.items[i].scope == tokens.items[i].scope &&
                 again.items[i].expires_us == tokens.items[i].expires_us);
        tokens_close(&again);
        tokens_close(&tokens);
    } else {
        POST(strlen(fault.detail) > 0);
    }
    return 0;
}
