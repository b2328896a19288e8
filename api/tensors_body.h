/* Bodies and answers that are tensors: what the endpoints of gradients and parameters share. */
#ifndef DESCENT_API_TENSORS_BODY_H
#define DESCENT_API_TENSORS_BODY_H

#include "api/codec.h"
#include "api/endpoint.h"
#include "api/fields.h"
#include "service/session/engine.h"

/* Reads a body of all tensors of the session, by its Content-Type. JSON: an object with `fields`,
 * among them the FIELD_VALUE named `member` (at *member_value after reading) with the tensors, read
 * in the session's dtype. The binary types: fields come from the query, ?dtype= says the element
 * type of raw bytes. */
enum status tensors_read(struct request *request, const struct session *session,
                         const struct field *fields, void *out, const char *member,
                         const json_t *const *member_value, struct tensors *tensors,
                         struct fault *fault);

/* The other half of a pair of gradients of one batch: at a snapshot's weights. */
struct pair_half {
    const uint64_t *snapshot;          /* the field of that name; 0: there is no pair */
    const json_t *const *member_value; /* JSON: the FIELD_VALUE named "snapshot_gradients" */
    struct tensors tensors;            /* buffer NULL where there is no pair */
};

/* The same of gradients that may come as a pair. */
enum status tensors_read_pair(struct request *request, const struct session *session,
                              const struct field *fields, void *out, const json_t *const *gradients,
                              struct tensors *tensors, struct pair_half *pair, struct fault *fault);

/* How an answer with weights is to look, settled before anything is changed. */
struct answer_form {
    const struct codec *codec;
    const struct tensor **chosen; /* NULL: all */
    size_t chosen_count;
    enum dtype dtype;
    bool average; /* the moving average in place of the weights */
};

/* From Accept and, when `query`, ?tensors=, ?dtype= and ?average=. NOT_ACCEPTABLE when nothing
 * fits, and for JSON of over a million numbers that was not asked for by name. */
enum status answer_form_read(struct request *request, const struct session *session, bool query,
                             struct answer_form *out, struct fault *fault);

/* The same of a vector that has no moving average: ?average= is refused. */
enum status answer_form_of_vector(struct request *request, const struct session *session,
                                  struct answer_form *out, struct fault *fault);

/* Puts an encoded vector into a reply whose status is set; takes its buffer. */
void answer_encoded(struct reply *reply, const struct codec *codec, const struct encoded *encoded);

/* Puts a revision's weights, or what else it has of their size, into the reply: JSON begins with
 * `opening`, the object up to the key of the weights. */
enum status answer_weights(struct request *request, const struct session *session,
                           const struct answer_form *form, const struct revision *revision,
                           struct buffer *values, struct span opening, struct reply *reply,
                           struct fault *fault);

/* 200 with a receipt, and with the weights where Prefer asked for them (form is then not NULL). Of
 * a dry run it says so, and names no revision. Takes the outcome's revision. */
struct reply outcome_reply(struct request *request, const struct session *session,
                           const struct outcome *outcome, bool dry_run,
                           const struct answer_form *form);

#endif
