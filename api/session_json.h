/* Sessions and receipts as JSON, both ways. */
#ifndef DESCENT_API_SESSION_JSON_H
#define DESCENT_API_SESSION_JSON_H

#include "api/endpoint.h"
#include "api/json_document.h"
#include "api/json_text.h"
#include "service/session/engine.h"

/* Reads the configuration of a new session into *spec. `parameters` comes out as the member of that
 * name, which must be there when it is not NULL and must not when it is (safetensors bring their
 * own). */
enum status spec_read(struct arena *arena, const struct json_document *document, struct spec *spec,
                      const json_t **parameters, struct fault *fault);

/* Applies a PATCH document to *spec: given fields change, others stay; labels are replaced as a
 * whole. */
enum status spec_patch(struct arena *arena, const struct json_document *document, struct spec *spec,
                       struct fault *fault);

/* The object of GET /v1/sessions/{id}; `brief`: of the list. */
void session_write(struct json_text *text, const struct session *session,
                   const struct session_view *view, bool brief);

/* 200 or 201 with the session. */
struct reply session_reply(struct request *request, struct session *session, unsigned http);

/* The members of a receipt, into the object that is open. */
void receipt_write(struct json_text *text, const struct receipt *receipt);

/* "0-13", quotes included, in the arena. */
const char *etag_text(struct arena *arena, uint64_t lineage, uint64_t step);

/* If-Match: absent or "*" is no condition; else a list of tags, of which those that name no
 * revision never match. */
void precondition_read(const struct request *request, struct precondition *out);

/* {id} of the path, retained. */
enum status request_session(struct engine *engine, const struct request *request,
                            struct session **out, struct fault *fault);

#endif
