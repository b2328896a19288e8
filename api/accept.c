/* Lists of words with qualities. */
#include "api/accept.h"

#include <strings.h>

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

struct span accept_word(const char **at)
{
    const char *begin = skip_spaces(*at), *end = begin;

    while (*end != '\0' && *end != ';' && *end != ',' && !is_space(*end))
        end++;
    *at = skip_spaces(end);
    return span_of(begin, (size_t)(end - begin));
}

bool accept_is(struct span word, const char *text)
{
    return text != NULL && strlen(text) == word.size &&
           strncasecmp((const char *)word.data, text, word.size) == 0;
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

bool accept_next(const char **list, struct span *word, int *quality)
{
    if (**list == '\0')
        return false;
    *word = accept_word(list);
    *quality = 1000;
    const char *at = *list;
    while (*at != '\0' && *at != ',') {
        at = skip_spaces(at + (*at == ';'));
        const char *end = skip_parameter(at);
        if ((*at == 'q' || *at == 'Q') && at[1] == '=')
            *quality = read_quality(at + 2, end);
        at = skip_spaces(end);
    }
    *list = *at == ',' ? at + 1 : at;
    return true;
}

struct span accept_parameter(const char *field, const char *name)
{
    size_t size = strlen(name);

    accept_word(&field);
    while (*field == ';') {
        const char *at = skip_spaces(field + 1), *end = skip_parameter(at);
        if (strncasecmp(at, name, size) == 0 && at[size] == '=') {
            at += size + 1;
            bool quoted = end - at >= 2 && *at == '"' && end[-1] == '"';
            return span_of(at + quoted, (size_t)(end - at) - 2 * (size_t)quoted);
        }
        field = skip_spaces(end);
    }
    return span_of(NULL, 0);
}
