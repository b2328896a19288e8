/* How large a coded body may become. */
#include "api/expansion.h"

#include <string.h>

#include "api/codec.h"
#include "api/config.h"
#include "api/session_json.h"
#include "service/session/engine.h"

enum {
    BASE_BYTES = 1 << 20,
    NUMBER_BYTES_JSON = 80,
    NUMBER_BYTES_BINARY = 16,
    TENSOR_BYTES = 1024,
    NAME_BYTES = 12,
    FREE_BYTES = 16 << 20,
    EARNED_BYTES = 100,
};

/* Whether the route is about a session that is there; PUT on its own address makes one. */
static bool has_session(const struct route *route)
{
    static const char session[] = "/v1/sessions/{id}";

    return strncmp(route->pattern, session, sizeof session - 1) == 0 &&
           (route->pattern[sizeof session - 1] == '/' || route->method == METHOD_PATCH);
}

static uint64_t layout_bytes(const struct layout *layout, bool binary)
{
    uint64_t bytes = BASE_BYTES;

    bytes += (uint64_t)layout->count * (binary ? NUMBER_BYTES_BINARY : NUMBER_BYTES_JSON);
    for (size_t i = 0; i < layout->tensor_count; i++)
        bytes += TENSOR_BYTES + strlen(layout->tensors[i].name) * NAME_BYTES;
    return bytes;
}

enum status expansion_max(struct engine *engine, const struct request *request, uint64_t coded,
                          uint64_t *out, bool *earns, struct fault *fault)
{
    uint64_t max = request->config->body_bytes_max, bytes = max;
    const char *type = request_header(request, "Content-Type");
    const struct codec *codec = type != NULL ? codec_find(type) : NULL;
    struct session *session;
    enum status status = STATUS_OK;

    *earns = !has_session(request->route);
    if (*earns) {
        if (coded < max / EARNED_BYTES)
            bytes = FREE_BYTES + coded * EARNED_BYTES;
    } else if ((status = request_session(engine, request, &session, fault)) == STATUS_OK) {
        bytes = layout_bytes(session_layout(session), codec != NULL && codec->binary);
        session_release(session);
    }
    *out = bytes < max ? bytes : max;
    return status;
}
