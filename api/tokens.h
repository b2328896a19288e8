/* The file of tokens: who may do what. Each says its scope, its tenant and its quotas; of the token
 * itself there is only a digest, so that the file gives nobody access.
 *
 *   {"format": 1,
 *    "tokens": [{"id": "tok_...", "name": "trainer", "tenant": "", "scopes": ["read", "step"],
 *                "quotas": {"sessions": 10}, "created_at": "...", "expires_at": null,
 *                "sha256": "64 hexadecimal digits"}]}
 *
 * A token is dsc_ and 256 random bits in base32: nothing that could be guessed, so that one round
 * of SHA-256 guards it as well as a slow hash would. */
#ifndef DESCENT_API_TOKENS_H
#define DESCENT_API_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/crypto.h"
#include "api/endpoint.h"
#include "service/core/arena.h"
#include "service/core/status.h"

struct config;

enum {
    TOKENS_MAX = 10000,
    TOKEN_BYTES = 4 + 52, /* "dsc_" and 52 characters of five bits, the last four of them 0 */
    TOKEN_ID_BYTES = 64,
    TOKEN_NAME_BYTES = 100,
};

struct token {
    const char *id;
    const char *name;   /* for people; may be empty */
    const char *tenant; /* "": the default one */
    enum scope scope;   /* the highest; it includes those below */
    struct quotas quotas;
    uint64_t created_us; /* unix time */
    uint64_t expires_us; /* 0: never */
    unsigned char hash[SHA256_BYTES];
};

/* What a file has, or had: to see that it is another one now. */
struct tokens_mark {
    bool known; /* false: it could not be seen, so that whatever is there counts as another one */
    bool present;
    uint64_t device, inode, size;
    int64_t changed_s, changed_ns, written_s, written_ns;
};

struct tokens {
    struct arena arena; /* of all texts */
    struct token *items;
    size_t count;
};

/* The path of the file that the options name, malloc'ed. INVALID_FIELD when there is no folder. */
enum status tokens_path(const struct config *config, char **out, struct fault *fault);

/* Reads the file; where there is none it has no tokens. The mark tells what was read. INVALID_FIELD
 * names file, place and what is wrong with what it has; INTERNAL: it could not be read (descriptors
 * or memory are out, the disk fails), which says nothing about the file, and it is not marked. In
 * both cases nothing is left open. */
enum status tokens_read(const char *path, struct tokens *out, struct tokens_mark *mark,
                        struct fault *fault);
void tokens_close(struct tokens *tokens);

/* Whether the file is not the one that was marked. */
bool tokens_changed(const char *path, const struct tokens_mark *mark);

/* Changes the file: one process at a time, all or nothing, on disk when it returns. `change` gets
 * what is there, with room for one more; what it does not accept leaves the file as it is. */
enum status tokens_edit(const char *path,
                        enum status (*change)(void *context, struct tokens *tokens,
                                              struct fault *fault),
                        void *context, struct fault *fault);

/* A new token and its digest; an id that nobody has. False: there are no random numbers. */
bool token_draw(char text[TOKEN_BYTES + 1], unsigned char hash[SHA256_BYTES]);
bool token_draw_id(char id[TOKEN_ID_BYTES + 1]);

/* Whether a text has the form of a token. */
bool token_valid(const char *text);

/* Whether a text can be a token's name: UTF-8 without control characters, not too long. */
bool token_name_valid(const char *name);

/* "read", "step", "admin", NULL. */
extern const char *const scope_names[];

/* "read" for SCOPE_READ ... */
const char *scope_name(enum scope scope);

/* Unix time in microseconds of 2026-01-31T12:00:00Z, with a fraction of six digits or without. */
bool token_time_read(const char *text, uint64_t *out);

#endif
