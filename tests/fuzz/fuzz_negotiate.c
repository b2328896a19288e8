/* libFuzzer target: any text as Accept and as Content-Type. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/codec.h"
#include "service/core/contract.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    bool explicit_name = true;

    PRE(text != NULL);
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    const struct codec *codec = codec_negotiate(text, &explicit_name);
    POST(codec != NULL || !explicit_name);
    /* What Content-Type names alone, Accept names too. */
    codec = codec_find(text);
    if (codec != NULL && strchr(text, ';') == NULL)
        POST(codec_negotiate(text, &explicit_name) == codec && explicit_name);
    free(text);
    return 0;
}
