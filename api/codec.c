/* The table of codecs and content negotiation (RFC 9110, sections 8.3 and 12.5.1). */
#include "api/codec.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "api/accept.h"

#define CODEC(name) extern const struct codec codec_##name;
#include "api/codecs.def"
#undef CODEC

static const struct codec *const codecs[] = {
#define CODEC(name) &codec_##name,
#include "api/codecs.def"
#undef CODEC
};

enum { CODEC_COUNT = sizeof codecs / sizeof *codecs };

const struct codec *codec_at(size_t index)
{
    return index < CODEC_COUNT ? codecs[index] : NULL;
}

static bool is_exactly(struct span type, const struct codec *codec)
{
    return accept_is(type, codec->media_type) || accept_is(type, codec->alias);
}

/* The type of a Content-Type value, without its parameters; empty when more follows it. */
static struct span content_type_of(const char *header)
{
    struct span type = accept_word(&header);

    return *header == '\0' || *header == ';' ? type : span_of(NULL, 0);
}

bool media_type_is(const char *content_type, const char *media_type)
{
    return accept_is(content_type_of(content_type), media_type);
}

const struct codec *codec_find(const char *content_type)
{
    struct span type = content_type_of(content_type);

    for (size_t i = 0; i < CODEC_COUNT; i++)
        if (is_exactly(type, codecs[i]))
            return codecs[i];
    return NULL;
}

/* How closely a media range fits; 0: not at all. */
enum fit { FIT_NONE, FIT_ANY, FIT_TYPE, FIT_EXACT };

static enum fit range_fit(struct span range, const struct codec *codec)
{
    const char *slash = strchr(codec->media_type, '/');
    size_t type_size = (size_t)(slash - codec->media_type) + 1;

    if (is_exactly(range, codec))
        return FIT_EXACT;
    if (accept_is(range, "*/*") || accept_is(range, "*")) /* "*": what Java sends */
        return FIT_ANY;
    if (range.size == type_size + 1 && range.data[type_size] == '*' &&
        strncasecmp((const char *)range.data, codec->media_type, type_size) == 0)
        return FIT_TYPE;
    return FIT_NONE;
}

/* What a client thinks of one codec: the quality of the range that fits it most closely. */
struct opinion {
    enum fit fit;
    int quality;
};

static struct opinion read_accept(const char *accept, const struct codec *codec)
{
    struct opinion opinion = {FIT_NONE, 0};
    struct span range;
    int quality;

    while (accept_next(&accept, &range, &quality)) {
        enum fit fit = range_fit(range, codec);
        if (quality < 0 || fit == FIT_NONE)
            continue;
        if (fit > opinion.fit || (fit == opinion.fit && quality > opinion.quality))
            opinion = (struct opinion){fit, quality};
    }
    return opinion;
}

size_t media_negotiate(const char *accept, const struct codec *const *offers, size_t count,
                       bool *explicit_name)
{
    size_t best = count;
    struct opinion best_opinion = {FIT_NONE, 0};

    *explicit_name = false;
    if (accept == NULL || accept[strspn(accept, " \t")] == '\0')
        return 0;
    for (size_t i = 0; i < count; i++) {
        struct opinion opinion = read_accept(accept, offers[i]);
        if (opinion.quality > best_opinion.quality ||
            (opinion.quality == best_opinion.quality && opinion.quality > 0 &&
             opinion.fit > best_opinion.fit)) {
            best = i;
            best_opinion = opinion;
        }
    }
    *explicit_name = best_opinion.fit == FIT_EXACT;
    return best;
}

const struct codec *codec_negotiate(const char *accept, bool *explicit_name)
{
    return codec_at(media_negotiate(accept, codecs, CODEC_COUNT, explicit_name));
}

static char media_types[256];

static void list_media_types(void)
{
    size_t used = 0;

    for (size_t i = 0; i < CODEC_COUNT && used < sizeof media_types; i++)
        used += (size_t)snprintf(media_types + used, sizeof media_types - used, "%s%s",
                                 i == 0 ? "" : ", ", codecs[i]->media_type);
}

const char *codec_media_types(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, list_media_types);
    return media_types;
}
