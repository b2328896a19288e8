/* The table of codecs and content negotiation (RFC 9110, sections 8.3 and 12.5.1). */
#include "api/codec.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

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

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

static const char *skip_spaces(const char *at)
{
    while (is_space(*at))
        at++;
    return at;
}

/* "type/subtype" at `at`: its bytes up to a space, ';' or ','. */
static struct span take_type(const char **at)
{
    const char *begin = skip_spaces(*at), *end = begin;

    while (*end != '\0' && *end != ';' && *end != ',' && !is_space(*end))
        end++;
    *at = skip_spaces(end);
    return span_of(begin, (size_t)(end - begin));
}

static bool is_text(struct span text, const char *other)
{
    return other != NULL && strlen(other) == text.size &&
           strncasecmp((const char *)text.data, other, text.size) == 0;
}

static bool is_exactly(struct span type, const struct codec *codec)
{
    return is_text(type, codec->media_type) || is_text(type, codec->alias);
}

/* The type of a Content-Type value, without its parameters; empty when more follows it. */
static struct span content_type_of(const char *header)
{
    struct span type = take_type(&header);

    return *header == '\0' || *header == ';' ? type : span_of(NULL, 0);
}

bool media_type_is(const char *content_type, const char *media_type)
{
    return is_text(content_type_of(content_type), media_type);
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
    if (is_text(range, "*/*") || is_text(range, "*")) /* "*": what Java sends */
        return FIT_ANY;
    if (range.size == type_size + 1 && range.data[type_size] == '*' &&
        strncasecmp((const char *)range.data, codec->media_type, type_size) == 0)
        return FIT_TYPE;
    return FIT_NONE;
}

/* Past a parameter: name=token or name="quoted", which may hold commas and semicolons. */
static const char *skip_parameter(const char *at)
{
    bool quoted = false;

    for (; *at != '\0'; at++) {
        if (*at == '"')
            quoted = !quoted;
        else if (quoted && *at == '\\' && at[1] != '\0')
            at++;
        else if (!quoted && (*at == ';' || *at == ',' || is_space(*at)))
            break;
    }
    return at;
}

/* "0.35" as 350; -1 when it is no quality. Like "0.3500", which RFC 9110 forbids, ".35" is taken
 * for what it means. */
static int read_quality(const char *at, const char *end)
{
    int quality = 0, unit = 1000;
    bool digits = false;

    for (; at < end && *at >= '0' && *at <= '1' && !digits; at++) {
        quality = (*at - '0') * unit;
        digits = true;
    }
    if (at < end && *at == '.')
        for (at++; at < end && *at >= '0' && *at <= '9'; at++) {
            unit /= 10;
            quality += (*at - '0') * unit;
            digits = true;
        }
    return digits && at == end && quality <= 1000 ? quality : -1;
}

/* The parameters of a media range, up to its comma: what q says, 1000 without one. */
static int take_quality(const char **list)
{
    const char *at = skip_spaces(*list);
    int quality = 1000;

    while (*at != '\0' && *at != ',') {
        at = skip_spaces(at + (*at == ';'));
        const char *end = skip_parameter(at);
        if ((*at == 'q' || *at == 'Q') && at[1] == '=')
            quality = read_quality(at + 2, end);
        at = skip_spaces(end);
    }
    *list = *at == ',' ? at + 1 : at;
    return quality;
}

/* What a client thinks of one codec: the quality of the range that fits it most closely. */
struct opinion {
    enum fit fit;
    int quality;
};

static struct opinion read_accept(const char *accept, const struct codec *codec)
{
    struct opinion opinion = {FIT_NONE, 0};

    while (*accept != '\0') {
        struct span range = take_type(&accept);
        int quality = take_quality(&accept);
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
    if (accept == NULL || *skip_spaces(accept) == '\0')
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
