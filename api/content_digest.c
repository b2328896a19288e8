/* Digests of contents. */
#include "api/content_digest.h"

#include <string.h>

#include "api/accept.h"
#include "api/base64.h"

static const struct {
    const char *name; /* in the registry of RFC 9530 */
    size_t size;
} algorithms[DIGEST_ALGORITHMS] = {{"sha-256", SHA256_BYTES}, {"sha-512", SHA512_BYTES}};

static const char *const fields[DIGEST_FIELDS] = {"Content-Digest", "Repr-Digest"};

enum { DIGEST_TEXT = BASE64_SIZE(SHA512_BYTES) + 1, WEIGHT_MAX = 10 };

/* --- a dictionary of structured fields (RFC 8941, 3.2) --- */

/* The end of a member's value: strings and inner lists may hold commas. */
static const char *skip_value(const char *at)
{
    bool quoted = false;
    unsigned depth = 0;

    for (; *at != '\0'; at++) {
        if (*at == '"')
            quoted = !quoted;
        else if (quoted && *at == '\\' && at[1] != '\0')
            at++;
        else if (!quoted && *at == '(')
            depth++;
        else if (!quoted && *at == ')' && depth > 0)
            depth--;
        else if (!quoted && depth == 0 && *at == ',')
            break;
    }
    return at;
}

/* Takes the next member off *list: its key, and its value up to its parameters, empty when it has
 * none. False: that was all. */
static bool next_member(const char **list, struct span *key, struct span *value)
{
    const char *at = *list + strspn(*list, " \t,");
    size_t size = strcspn(at, "=;, \t");

    if (*at == '\0')
        return false;
    *key = span_of(at, size);
    at += size;
    const char *begin = at + (*at == '=');
    const char *end = skip_value(begin);
    *list = end;
    *value = span_of(begin, strcspn(begin, ";, \t"));
    if (value->size > (size_t)(end - begin))
        value->size = (size_t)(end - begin);
    return true;
}

/* --- of a request --- */

/* ":base64:" of just so many bytes. */
static bool read_bytes(struct span value, unsigned char *out, size_t size)
{
    return value.size == BASE64_SIZE(size) + 2 && value.data[0] == ':' &&
           value.data[value.size - 1] == ':' &&
           base64_read((const char *)value.data + 1, value.size - 2, out, size);
}

static enum status read_field(struct digest_claim *claims, const char *field, const char *list,
                              struct fault *fault)
{
    struct span key, value;

    while (next_member(&list, &key, &value)) {
        for (size_t i = 0; i < DIGEST_ALGORITHMS; i++) {
            if (!accept_is(key, algorithms[i].name))
                continue;
            if (!read_bytes(value, claims[i].bytes, algorithms[i].size))
                return fault_set(fault, STATUS_INVALID_REQUEST, "",
                                 "%s has no %s; write %s=:...: with the base64 of its %zu bytes",
                                 field, algorithms[i].name, algorithms[i].name, algorithms[i].size);
            claims[i].field = field;
        }
    }
    return STATUS_OK;
}

static enum status failed(struct fault *fault)
{
    return fault_set(fault, STATUS_INTERNAL, "", "the digest of the body cannot be computed");
}

enum status content_check_start(struct content_check *check, const struct request *request,
                                struct fault *fault)
{
    for (size_t f = 0; f < DIGEST_FIELDS; f++) {
        const char *list = request_list(request, fields[f]);
        if (list == NULL)
            continue;
        enum status status = read_field(check->claims[f], fields[f], list, fault);
        if (status != STATUS_OK)
            return status;
    }
    for (size_t i = 0; i < DIGEST_ALGORITHMS; i++) {
        bool claimed = false;
        for (size_t f = 0; f < DIGEST_FIELDS; f++)
            claimed |= check->claims[f][i].field != NULL;
        if (claimed && (check->hashes[i] = crypto_hash_new(i == DIGEST_SHA512)) == NULL)
            return failed(fault);
    }
    return STATUS_OK;
}

enum status content_check_add(struct content_check *check, struct span piece, struct fault *fault)
{
    check->size += piece.size;
    for (size_t i = 0; i < DIGEST_ALGORITHMS; i++)
        if (check->hashes[i] != NULL && !crypto_hash_add(check->hashes[i], piece))
            return failed(fault);
    return STATUS_OK;
}

/* With a NUL. */
static const char *write_text(char out[DIGEST_TEXT], size_t algorithm, const unsigned char *bytes)
{
    base64_write(bytes, algorithms[algorithm].size, out);
    out[BASE64_SIZE(algorithms[algorithm].size)] = '\0';
    return out;
}

enum status content_check_end(struct content_check *check, struct fault *fault)
{
    enum status status = STATUS_OK;
    char claimed[DIGEST_TEXT], found[DIGEST_TEXT];

    for (size_t i = 0; i < DIGEST_ALGORITHMS && status == STATUS_OK; i++) {
        unsigned char bytes[SHA512_BYTES];
        if (check->hashes[i] == NULL)
            continue;
        crypto_hash_end(check->hashes[i], bytes);
        check->hashes[i] = NULL;
        for (size_t f = 0; f < DIGEST_FIELDS && status == STATUS_OK; f++) {
            const struct digest_claim *claim = &check->claims[f][i];
            if (claim->field != NULL && memcmp(claim->bytes, bytes, algorithms[i].size) != 0)
                status = fault_set(
                    fault, STATUS_INVALID_REQUEST, "",
                    "the body was changed on its way: %s says %s=:%s:, and of the %llu bytes that "
                    "came it is :%s:; send it again",
                    claim->field, algorithms[i].name, write_text(claimed, i, claim->bytes),
                    (unsigned long long)check->size, write_text(found, i, bytes));
        }
    }
    content_check_free(check);
    return status;
}

void content_check_free(struct content_check *check)
{
    for (size_t i = 0; i < DIGEST_ALGORITHMS; i++)
        if (check->hashes[i] != NULL)
            crypto_hash_end(check->hashes[i], NULL);
    *check = (struct content_check){.size = 0};
}

/* --- of a reply --- */

/* A weight from 0, which is not wanted, to 10; -1: it is none. */
static int read_weight(struct span value)
{
    int weight = 0;

    for (size_t i = 0; i < value.size; i++) {
        if (value.data[i] < '0' || value.data[i] > '9' || weight > WEIGHT_MAX)
            return -1;
        weight = weight * 10 + (value.data[i] - '0');
    }
    return value.size > 0 && weight <= WEIGHT_MAX ? weight : -1;
}

/* The algorithm that is liked best; DIGEST_ALGORITHMS: none. */
static size_t choose(const char *wanted)
{
    int weights[DIGEST_ALGORITHMS] = {0};
    size_t best = DIGEST_ALGORITHMS;
    struct span key, value;

    while (next_member(&wanted, &key, &value))
        for (size_t i = 0; i < DIGEST_ALGORITHMS; i++)
            if (accept_is(key, algorithms[i].name))
                weights[i] = read_weight(value);
    for (size_t i = 0; i < DIGEST_ALGORITHMS; i++)
        if (weights[i] > 0 && (best == DIGEST_ALGORITHMS || weights[i] > weights[best]))
            best = i;
    return best;
}

void content_digest_tell(const struct request *request, struct reply *reply,
                         const struct span *parts, size_t count)
{
    const char *wanted = request_list(request, "Want-Content-Digest");
    size_t algorithm = wanted != NULL ? choose(wanted) : DIGEST_ALGORITHMS;
    unsigned char bytes[SHA512_BYTES];
    char text[DIGEST_TEXT];
    bool right = true;

    if (algorithm == DIGEST_ALGORITHMS)
        return;
    struct crypto_hash *hash = crypto_hash_new(algorithm == DIGEST_SHA512);
    if (hash == NULL)
        return;
    for (size_t i = 0; i < count; i++)
        right &= crypto_hash_add(hash, parts[i]);
    crypto_hash_end(hash, bytes);
    if (right)
        reply_header(reply, "Content-Digest",
                     arena_format(request->arena, "%s=:%s:", algorithms[algorithm].name,
                                  write_text(text, algorithm, bytes)));
}
