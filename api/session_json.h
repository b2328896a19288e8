/* Sessions and receipts as JSON, and the tags that name revisions. */
#ifndef DESCENT_API_SESSION_JSON_H
#define DESCENT_API_SESSION_JSON_H

#include "api/endpoint.h"
#include "api/json_text.h"
#include "service/session/engine.h"

/* The object of GET /v1/sessions/{id}; `brief`: of the list. */
void session_write(struct json_text *text, const struct session *session,
                   const struct session_view *view, bool brief);

/* Its members alone, into the object that is open. */
void session_members_write(struct json_text *text, const struct session *session,
                           const struct session_view *view, bool brief);

/* 200 or 201 with the session. */
struct reply session_reply(struct request *request, struct session *session, unsigned http);

/* The members of a receipt, into the object that is open. */
void receipt_write(struct json_text *text, const struct receipt *receipt);

/* The same as headers beside a binary body; numbers that are not there are left out. */
void receipt_headers(struct arena *arena, struct reply *reply, const struct receipt *receipt);

/* "0-13", quotes included, in the arena; the weights' average at that step is "0-13-ema". */
const char *etag_text(struct arena *arena, uint64_t lineage, uint64_t step);

/* The tag of a 304, if If-None-Match lists this one (weak or strong) or is "*", else NULL. What it
 * lists may also be the tag of a coded form that the request accepts, "0-13-zstd": then it is that.
 */
const char *etag_none_match(const struct request *request, const char *etag);

/* If-Match before what has this tag, of a revision of that step, is fetched: STEP_CONFLICT unless
 * it is absent, "*" or lists the tag, or, without Range, that of a coded form that is accepted. */
enum status etag_match(const struct request *request, const char *etag, uint64_t step,
                       struct fault *fault);

/* If-Match before a step: absent or "*" is no condition; else a list of tags, also of coded forms,
 * of which those that name no revision never match. */
void precondition_read(const struct request *request, struct precondition *out);

/* 32 lower-case hex digits into out, which is what it returns. */
enum { DIGEST_TEXT_BYTES = 33 };
char *digest_text(char out[DIGEST_TEXT_BYTES], const struct digest *digest);

/* Serves what is about the session {id}: `serve` fills the reply, or fails and there is none. */
struct reply session_serve(struct engine *engine, struct request *request,
                           enum status (*serve)(struct request *request, struct session *session,
                                                struct reply *reply, struct fault *fault));

/* Whose the sessions are that the request makes, and how many there may be. */
struct owner request_owner(const struct request *request);

/* {id} of the path, retained. */
enum status request_session(struct engine *engine, const struct request *request,
                            struct session **out, struct fault *fault);

#endif
