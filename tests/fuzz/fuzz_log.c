/* libFuzzer target: any words and values as a line of the log, in both formats. It is one line of
 * UTF-8 that no terminal obeys; jansson reads JSON back to what was written, and what is written
 * as text is read back by a few lines that share nothing with the log. */
#include "tests/fuzz/input.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "service/core/log.h"

enum { FIELDS = 3 };

static const char *const names[FIELDS] = {"path", "agent", "note"};
static int file = -1;

static void log_to_memory(void)
{
    char path[64];
    struct fault fault;

    if (file >= 0)
        return;
    file = memfd_create("descent-fuzz-log", MFD_CLOEXEC);
    PRE(file >= 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    PRE(log_open(path, &fault) == STATUS_OK);
}

/* Control characters in C0 and C1 and what turns or breaks lines, by their bytes in UTF-8. */
static void check_calm(const char *line, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char a = (unsigned char)line[i], b = (unsigned char)line[i + 1];
        unsigned char c = b == 0 ? 0 : (unsigned char)line[i + 2];
        POST(a >= ' ' && a != 0x7F);
        POST(!(a == 0xC2 && b >= 0x80 && b <= 0x9F));
        POST(!(a == 0xD8 && b == 0x9C));
        POST(!(a == 0xE2 && b == 0x80 && (c == 0x8E || c == 0x8F || (c >= 0xA8 && c <= 0xAE))));
        POST(!(a == 0xE2 && b == 0x81 && c >= 0xA6 && c <= 0xA9));
    }
}

/* The text up to where the line says that it was cut, or all of it. */
static void check_same(const char *found, const char *wanted, bool cut)
{
    json_t *judge = json_string(wanted);
    size_t size = strlen(found);

    if (judge != NULL && (!cut || strcmp(found, wanted) == 0))
        POST(strcmp(found, wanted) == 0);
    else if (judge != NULL)
        POST(size >= 3 && strcmp(found + size - 3, "...") == 0 &&
             strncmp(found, wanted, size - 3) == 0);
    json_decref(judge);
}

static void check_json(const char *line, size_t size, const char *words, char *const values[FIELDS])
{
    json_t *judge = json_loadb(line, size, JSON_REJECT_DUPLICATES, NULL);

    POST(json_is_object(judge));
    bool cut = json_is_true(json_object_get(judge, "cut"));
    POST(json_is_string(json_object_get(judge, "time")));
    POST(strcmp(json_string_value(json_object_get(judge, "level")), "warning") == 0);
    check_same(json_string_value(json_object_get(judge, "message")), words, cut);
    POST(json_object_size(judge) <= 3 + FIELDS + (cut ? 1 : 0));
    for (size_t i = 0; i < FIELDS; i++) {
        const json_t *value = json_object_get(judge, names[i]);
        POST(value != NULL || cut);
        if (value != NULL)
            check_same(json_string_value(value), values[i], cut);
    }
    json_decref(judge);
}

/* Reads a value of a line of text; returns what follows it. */
static const char *unquote(const char *at, char *out)
{
    unsigned code;
    bool quoted = *at == '"';

    for (at += quoted; *at != '\0' && *at != (quoted ? '"' : ' ');) {
        if (*at != '\\') {
            *out++ = *at++;
        } else if (at[1] == 'x') {
            POST(sscanf(at, "\\x%2x", &code) == 1);
            *out++ = (char)code;
            at += 4;
        } else if (at[1] == 'u') {
            POST(sscanf(at, "\\u%4x", &code) == 1 && code > 0x7F);
            if (code > 0x7FF)
                *out++ = (char)(0xE0 | code >> 12);
            *out++ = (char)((code > 0x7FF ? 0x80 : 0xC0) | (code >> 6 & (code > 0x7FF ? 63 : 31)));
            *out++ = (char)(0x80 | (code & 63));
            at += 6;
        } else {
            POST(at[1] == '"' || at[1] == '\\');
            *out++ = at[1];
            at += 2;
        }
    }
    *out = '\0';
    POST(!quoted || *at == '"');
    return at + quoted;
}

/* Values that were not cut come back byte for byte, whatever they are. */
static void check_text(const char *line, char *const values[FIELDS])
{
    char out[LOG_LINE_BYTES];
    const char *at = strstr(line, " path=");

    POST(at != NULL);
    for (size_t i = 0; i < FIELDS && *at != '\0'; i++) {
        size_t name = strlen(names[i]);
        POST(*at == ' ' && strncmp(at + 1, names[i], name) == 0 && at[name + 1] == '=');
        at = unquote(at + name + 2, out);
        size_t size = strlen(out);
        POST(strcmp(out, values[i]) == 0 || (size >= 3 && strcmp(out + size - 3, "...") == 0 &&
                                             strncmp(out, values[i], size - 3) == 0));
    }
    POST(*at == '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char line[LOG_LINE_BYTES + 3];
    struct input input = {.data = data, .size = size};
    bool json = input_byte(&input) % 2 == 0;
    char *words = input_text(&input, '\0'), *values[FIELDS];
    struct log_field fields[FIELDS];

    log_to_memory();
    for (size_t i = 0; i < FIELDS; i++) {
        values[i] = input_text(&input, '\0');
        fields[i] = (struct log_field){.name = names[i], .text = values[i]};
    }
    PRE(ftruncate(file, 0) == 0);
    log_set_format(json ? LOG_JSON : LOG_TEXT);
    log_set_level(LOG_WARNING);
    log_fields(LOG_WARNING, json ? words : "words of our own", fields, FIELDS);
    log_set_level(LOG_OFF); /* as the other targets want it */
    ssize_t written = pread(file, line, sizeof line, 0);
    POST(written > 1 && written <= LOG_LINE_BYTES && line[written - 1] == '\n');
    memset(line + written - 1, 0, sizeof line - (size_t)written + 1);
    check_calm(line, (size_t)written - 1);
    if (json)
        check_json(line, (size_t)written - 1, words, values);
    else
        check_text(line, values);
    free(words);
    for (size_t i = 0; i < FIELDS; i++)
        free(values[i]);
    return 0;
}
