/* A session's whole state as a safetensors file:
 *
 *   <name>, average/<name>, base/<i>/<name>, slot/<slot>/<name>
 *       the vectors, tensor by tensor, in the session's dtype; without those that are empty. What
 *       has one number a parameter has the tensor's shape, the rest is flat.
 *   __metadata__.descent_state
 *       JSON text: format 1; session, step, lineage, state_hash, optimizer and dtype, for who looks
 *       at it, held against record and head at import; record and head, base64, all else that
 *       belongs to the state; checksum, XXH3-128 of the bytes of both; prefix, which stands before
 *       "average/", "base/" and "slot/": "", but where a weight's own name is one of those.
 */
#ifndef DESCENT_API_STATE_FILE_H
#define DESCENT_API_STATE_FILE_H

#include "api/endpoint.h"
#include "service/session/engine.h"

/* Replies 200 with the file, made while it is sent. TOO_LARGE when its header could not be read
 * back. */
enum status state_reply(struct request *request, struct image *take_image, struct reply *reply,
                        struct fault *fault);

/* Whether the body, a safetensors file, says that it is one; a broken one does not. INTERNAL when
 * memory is out. */
enum status state_is_file(struct request *request, bool *out, struct fault *fault);

/* Restores the session of the file in the request's body; see engine_import. MISSING_TENSOR,
 * UNKNOWN_TENSOR, SHAPE_MISMATCH, INVALID_FIELD with where = "/__metadata__/descent_state..." or
 * "/<name>". */
enum status state_restore(struct engine *engine, struct request *request, const char *id,
                          struct session **out, bool *created, struct fault *fault);

#endif
