/* What a token is made of. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/tokens.h"
#include "service/core/clock.h"
#include "service/core/utf8.h"

enum { ID_CHARACTERS = 16 };

static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";
static const char prefix[] = "dsc_";

bool token_draw(char text[TOKEN_BYTES + 1], unsigned char hash[SHA256_BYTES])
{
    unsigned char random[33] = {0}; /* the last is the four bits that fill the last character */
    size_t used = sizeof prefix - 1;
    bool drawn = crypto_random(random, 32);

    memcpy(text, prefix, used);
    for (size_t bit = 0; bit < 260; bit += 5) {
        unsigned pair = (unsigned)random[bit / 8] << 8;
        if (bit / 8 + 1 < sizeof random)
            pair |= random[bit / 8 + 1];
        text[used++] = alphabet[pair >> (11 - bit % 8) & 31];
    }
    text[used] = '\0';
    explicit_bzero(random, sizeof random);
    return drawn && crypto_sha256(span_of(text, TOKEN_BYTES), hash);
}

bool token_draw_id(char id[TOKEN_ID_BYTES + 1])
{
    unsigned char random[ID_CHARACTERS];
    bool drawn = crypto_random(random, sizeof random);

    memcpy(id, "tok_", 4);
    for (size_t i = 0; i < ID_CHARACTERS; i++)
        id[4 + i] = alphabet[random[i] & 31];
    id[4 + ID_CHARACTERS] = '\0';
    return drawn;
}

bool token_valid(const char *text)
{
    return strncmp(text, prefix, sizeof prefix - 1) == 0 &&
           strspn(text + sizeof prefix - 1, alphabet) == TOKEN_BYTES - (sizeof prefix - 1) &&
           text[TOKEN_BYTES] == '\0';
}

bool token_name_valid(const char *name)
{
    size_t size = strlen(name), length;

    if (size > TOKEN_NAME_BYTES)
        return false;
    for (size_t i = 0; i < size; i += length) {
        length = utf8_length(name + i, size - i);
        if (length == 0 || (unsigned char)name[i] < 0x20 || name[i] == 0x7F)
            return false;
    }
    return true;
}

const char *const scope_names[] = {"read", "step", "admin", NULL};

const char *scope_name(enum scope scope)
{
    return scope == SCOPE_NONE ? "none" : scope_names[scope - SCOPE_READ];
}

bool token_time_read(const char *text, uint64_t *out)
{
    struct tm time = {.tm_isdst = 0};
    char again[32];
    unsigned fraction = 0;
    size_t length = strlen(text);
    int used = 0;

    if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &time.tm_year, &time.tm_mon, &time.tm_mday,
               &time.tm_hour, &time.tm_min, &time.tm_sec, &used) != 6 ||
        used != 19 || (length != 20 && length != 27) || text[length - 1] != 'Z')
        return false;
    if (length == 27 && (text[19] != '.' || strspn(text + 20, "0123456789") != 6))
        return false;
    if (length == 27)
        fraction = (unsigned)strtoul(text + 20, NULL, 10);
    time.tm_year -= 1900;
    time.tm_mon -= 1;
    time_t seconds = timegm(&time);
    if (seconds <= 0)
        return false;
    *out = (uint64_t)seconds * 1000000 + fraction;
    /* The 30th of February is another day. */
    return strncmp(clock_format(again, *out), text, 19) == 0;
}
