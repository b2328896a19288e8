/* Digests of contents as they stand on the wire, after their coding (RFC 9530): those that a
 * request brings are compared, those that it asks for are told. sha-256 and sha-512; other
 * algorithms are not looked at. */
#ifndef DESCENT_API_CONTENT_DIGEST_H
#define DESCENT_API_CONTENT_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#include "api/crypto.h"
#include "api/endpoint.h"

enum digest_algorithm { DIGEST_SHA256, DIGEST_SHA512, DIGEST_ALGORITHMS };

/* One field of one algorithm that a body must agree with. */
struct digest_claim {
    const char *field; /* NULL: it says nothing */
    unsigned char bytes[SHA512_BYTES];
};

enum { DIGEST_FIELDS = 2 };

/* The check of one body. All zeros: nothing is to be checked. */
struct content_check {
    struct digest_claim claims[DIGEST_FIELDS][DIGEST_ALGORITHMS];
    struct crypto_hash *hashes[DIGEST_ALGORITHMS];
    uint64_t size; /* bytes so far */
};

/* Reads Content-Digest and Repr-Digest, which are the same of a request: its content is its
 * representation, both with the coding on. INVALID_REQUEST: one that cannot be read, since a check
 * that was asked for must not be left out silently; INTERNAL. */
enum status content_check_start(struct content_check *check, const struct request *request,
                                struct fault *fault);

/* The next bytes. INTERNAL. */
enum status content_check_add(struct content_check *check, struct span piece, struct fault *fault);

/* INVALID_REQUEST, with both digests: the body is another. INTERNAL. */
enum status content_check_end(struct content_check *check, struct fault *fault);

/* Frees what is under way, if anything is. */
void content_check_free(struct content_check *check);

/* Adds the Content-Digest of these bytes, if Want-Content-Digest asks for one that we have. Without
 * memory it is left out. */
void content_digest_tell(const struct request *request, struct reply *reply,
                         const struct span *parts, size_t count);

#endif
