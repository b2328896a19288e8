/* The table of content codings, their negotiation, and a content that is decoded in pieces. */
#include "api/coding.h"

#include <pthread.h>
#include <stdio.h>

#include "api/accept.h"

#define CODING(name) extern const struct coding coding_##name;
#include "api/codings.def"
#undef CODING

static const struct coding *const codings[] = {
#define CODING(name) &coding_##name,
#include "api/codings.def"
#undef CODING
};

enum { CODING_COUNT = sizeof codings / sizeof *codings };

#define IDENTITY "identity"

const struct coding *coding_at(size_t index)
{
    return index < CODING_COUNT ? codings[index] : NULL;
}

static char names[64];

static void list_names(void)
{
    size_t used = 0;

    for (size_t i = 0; i < CODING_COUNT && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i == 0 ? "" : ", ",
                                 codings[i]->name);
}

const char *coding_names(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, list_names);
    return names;
}

static bool is_coding(struct span word, const struct coding *coding)
{
    return accept_is(word, coding->name) || accept_is(word, coding->alias);
}

static enum status refuse(const char *content_encoding, const char *why, struct fault *fault)
{
    return fault_set(fault, STATUS_UNSUPPORTED_MEDIA_TYPE, "",
                     "Content-Encoding is \"%.60s\", %s; send the body in one of %s, or as it is",
                     content_encoding, why, coding_names());
}

enum status coding_of(const char *content_encoding, const struct coding **out, struct fault *fault)
{
    const char *at = content_encoding;

    *out = NULL;
    while (at != NULL && *at != '\0') {
        const struct coding *found = NULL;
        struct span word = accept_word(&at);
        for (size_t i = 0; i < CODING_COUNT; i++)
            if (is_coding(word, codings[i]))
                found = codings[i];
        if ((found == NULL && word.size > 0 && !accept_is(word, IDENTITY)) ||
            (*at != '\0' && *at != ','))
            return refuse(content_encoding, "which is not known here", fault);
        if (found != NULL && *out != NULL)
            return refuse(content_encoding, "one coding upon another", fault);
        *out = found != NULL ? found : *out;
        at += *at == ',';
    }
    return STATUS_OK;
}

int coding_quality(const char *accept_encoding, const struct coding *coding)
{
    int named = -1, any = -1, quality;
    struct span word;

    while (accept_encoding != NULL && accept_next(&accept_encoding, &word, &quality)) {
        if (coding != NULL ? is_coding(word, coding) : accept_is(word, IDENTITY))
            named = quality > named ? quality : named;
        else if (accept_is(word, "*"))
            any = quality > any ? quality : any;
    }
    if (named >= 0)
        return named;
    if (any >= 0)
        return any;
    return coding == NULL ? 1 : 0; /* identity is the last resort of who says nothing about it */
}

const struct coding *coding_negotiate(const char *accept_encoding)
{
    const struct coding *best = NULL;
    int best_quality = coding_quality(accept_encoding, NULL) - 1; /* equal is enough */

    for (size_t i = 0; accept_encoding != NULL && i < CODING_COUNT; i++) {
        int quality = coding_quality(accept_encoding, codings[i]);
        if (quality > 0 && quality > best_quality) {
            best = codings[i];
            best_quality = quality;
        }
    }
    return best;
}

/* --- a content that comes in pieces --- */

static enum status no_memory(const struct coding *coding, struct fault *fault)
{
    return fault_set(fault, STATUS_OVERLOADED, "", "there is no memory to decode %s; try again",
                     coding->name);
}

enum status decoding_start(struct decoding *decoding, const struct coding *coding,
                           struct fault *fault)
{
    struct decoder *decoder = coding->decoder_new();

    if (decoder == NULL)
        return no_memory(coding, fault);
    *decoding = (struct decoding){.coding = coding, .decoder = decoder};
    return STATUS_OK;
}

enum status decoding_run(struct decoding *decoding, struct flow *flow, struct fault *fault)
{
    const struct coding *coding = decoding->coding;
    const unsigned char *begin = flow->in.data;
    size_t room = flow->room;
    const char *why = "";
    enum flow_state state = coding->decode(decoding->decoder, flow, &why);

    decoding->taken += (uint64_t)(flow->in.data - begin);
    if (state == FLOW_ON && flow->in.data == begin && flow->in.size > 0 && flow->room == room) {
        state = FLOW_BROKEN;
        why = "it does not go on";
    }
    if (state == FLOW_MEMORY)
        return no_memory(coding, fault);
    if (state == FLOW_BROKEN)
        return fault_set(fault, STATUS_INVALID_REQUEST, "",
                         "the body is not %s from byte %llu on: %s", coding->name,
                         (unsigned long long)decoding->taken, why);
    return STATUS_OK;
}

enum status decoding_end(const struct decoding *decoding, struct fault *fault)
{
    if (decoding->coding->decoder_whole(decoding->decoder))
        return STATUS_OK;
    return fault_set(fault, STATUS_INVALID_REQUEST, "",
                     "the body is cut off: its %s goes on after byte %llu, where it ends",
                     decoding->coding->name, (unsigned long long)decoding->taken);
}

void decoding_free(struct decoding *decoding)
{
    if (decoding->coding != NULL)
        decoding->coding->decoder_free(decoding->decoder);
    *decoding = (struct decoding){.coding = NULL};
}
