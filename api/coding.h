/* Content codings: Content-Encoding, Accept-Encoding (RFC 9110, 8.4 and 12.5.3). One file and one
 * line of codings.def each; no coding knows a socket or a request. */
#ifndef DESCENT_API_CODING_H
#define DESCENT_API_CODING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/core/span.h"
#include "service/core/status.h"

/* Bytes on their way through a decoder or an encoder: what it takes goes off `in`, what it makes
 * goes to `out`, which moves on, and off `room`. */
struct flow {
    struct span in;
    unsigned char *out;
    size_t room;
};

enum flow_state {
    FLOW_ON,     /* goes on with more of `in`, or with more room */
    FLOW_DONE,   /* encoder: that was all */
    FLOW_BROKEN, /* decoder: these bytes are not of this coding */
    FLOW_MEMORY, /* memory is out */
};

struct decoder; /* each coding has its own */
struct encoder;

struct coding {
    const char *name;    /* in Content-Encoding, and in the tags of coded answers */
    const char *alias;   /* another accepted spelling, or NULL */
    const char *meaning; /* one line for the documentation */

    /* What a decoder remembers of what it has made, at most. */
    size_t window_bytes;

    /* One large answer in how many parts must become smaller by one of them: less is not worth the
     * time that this encoder takes. */
    size_t worth;

    /* NULL: memory is out. */
    struct decoder *(*decoder_new)(void);

    /* Takes and makes what it can. BROKEN: *why says how (static); in.data stands at the place or
     * before it, by less than a block. Several frames or members in a row are one content. */
    enum flow_state (*decode)(struct decoder *decoder, struct flow *flow, const char **why);

    /* Whether what it has taken ends where a content may end. */
    bool (*decoder_whole)(const struct decoder *decoder);
    void (*decoder_free)(struct decoder *take_decoder);

    /* What the beginning of a coded content says of its size; 0: nothing. It may lie. */
    uint64_t (*announced)(struct span beginning);

    /* For a content of `size` bytes. NULL: memory is out. */
    struct encoder *(*encoder_new)(size_t size);

    /* Takes and makes what it can; `last`: nothing comes after `in`. DONE: all that was taken has
     * been made, and the end. */
    enum flow_state (*encode)(struct encoder *encoder, struct flow *flow, bool last);
    void (*encoder_free)(struct encoder *take_encoder);
};

/* Every coding in table order; NULL past the end. */
const struct coding *coding_at(size_t index);

/* "zstd, gzip", for 406 and 415. Static. */
const char *coding_names(void);

/* The coding of a Content-Encoding value; NULL: none (absent, empty or "identity").
 * UNSUPPORTED_MEDIA_TYPE: an unknown one, or one upon another. */
enum status coding_of(const char *content_encoding, const struct coding **out, struct fault *fault);

/* The quality in thousandths that an Accept-Encoding value gives to a coding, or, NULL, to none at
 * all ("identity"). 0: it is not accepted. Nobody is sent a coding who does not ask: with NULL or
 * "" only identity is accepted. */
int coding_quality(const char *accept_encoding, const struct coding *coding);

/* The coding an Accept-Encoding value asks for, by q-values and table order; NULL: none. An answer
 * without any is wanted only where its quality is higher than that of all. */
const struct coding *coding_negotiate(const char *accept_encoding);

/* --- a content that comes in pieces --- */

struct decoding {
    const struct coding *coding; /* NULL: nothing is under way */
    struct decoder *decoder;
    uint64_t taken; /* coded bytes */
};

/* OVERLOADED: memory is out. */
enum status decoding_start(struct decoding *decoding, const struct coding *coding,
                           struct fault *fault);

/* Takes and makes what it can; it is called again while `in` is not empty or `room` was used up.
 * INVALID_REQUEST with the byte offset in the coded content; OVERLOADED. */
enum status decoding_run(struct decoding *decoding, struct flow *flow, struct fault *fault);

/* No more comes. INVALID_REQUEST: the content is cut off. */
enum status decoding_end(const struct decoding *decoding, struct fault *fault);

/* Frees what is under way, if anything is. */
void decoding_free(struct decoding *decoding);

#endif
