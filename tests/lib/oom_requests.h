/* The requests that are swept with allocations that fail: at least one of every route. */
#ifndef DESCENT_TESTS_OOM_REQUESTS_H
#define DESCENT_TESTS_OOM_REQUESTS_H

#include <stdbool.h>
#include <stddef.h>

#include "service/core/buffer.h"

#define OOM_SESSION "/v1/sessions/s"
#define OOM_TENSORS "{\"w\": [[1, 2], [3, 4]], \"a/b\": [5, 6, 7], \"s\": 8}"

/* Gradients of the session: the first and the others with which an attempt begins, and one that is
 * refused for its norm. */
#define OOM_FIRST                                                                                  \
    "{\"worker\": \"first\", \"seq\": 1, \"cursor\": \"c\", \"gradients\": " OOM_TENSORS "}"
#define OOM_MORE "{\"gradients\": " OOM_TENSORS "}"
#define OOM_ABNORMAL "{\"gradients\": {\"w\": [[1e6, 2], [3, 4]], \"a/b\": [5, 6, 7], \"s\": 8}}"

/* A session with more members than all have; one whose steps are stored before their answers. */
#define OOM_NEW(more)                                                                              \
    "{\"optimizer\": {\"name\": \"adam\", \"lr\": 0.1}" more ", \"parameters\": " OOM_TENSORS "}"
#define OOM_STEP OOM_NEW(", \"durability\": {\"mode\": \"step\"}")

#define OOM_SVRG OOM_NEW(", \"svrg\": {\"update_freq\": 3}")
#define OOM_SHARD "{\"examples\": 4, \"worker\": \"first\", \"gradients\": " OOM_TENSORS "}"

struct oom_request {
    const char *operation; /* of routes.def */
    const char *path, *headers;
    const char *text; /* the body, or */
    struct buffer *(*build)(void);
    bool exported;       /* it is the session's state; else there is none */
    const char *session; /* with which an attempt begins, as it is PUT; NULL: OOM_STEP */
    unsigned steps;      /* that it has taken after the first */
    bool abnormal; /* there is a gradient in quarantine: a path that ends with / gets its number */
    const char *snapshot; /* with which a snapshot is made, of which one shard is there; or NULL */
    bool idle;            /* the session's state is not in memory */
    unsigned refused;     /* the status of an answer that is no success */
    bool disk;            /* swept on disk, too, in the short form */
};

extern const struct oom_request oom_requests[];
extern const size_t oom_request_count;

#endif
