/* TLS: the server's certificate and key, which can be renewed while connections use the old ones,
 * and the client of `descent health`. tls.c and crypto.c are the only users of GnuTLS. */
#ifndef DESCENT_API_TLS_H
#define DESCENT_API_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include "service/core/span.h"
#include "service/core/status.h"

struct tls;

/* What a server agrees to, as GnuTLS writes it. */
extern const char tls_priorities[];

/* Reads certificate (with the chain above it, if any) and key from PEM files. The names must live
 * as long as it does. INVALID_FIELD: a file cannot be read, holds something else, or they do not
 * belong together; the fault is one line that names the option and the file. */
enum status tls_open(const char *certificate_file, const char *key_file, struct tls **out,
                     struct fault *fault);
void tls_close(struct tls *take_tls); /* NULL is allowed; no connection may be left */

/* Warns in the log of what is only dubious: a date, who may read the key. An expired certificate is
 * served: a restart at night must not turn a warning of clients into an outage for all of them. */
void tls_advise(const struct tls *tls);

/* The PEM texts, for a library that wants them when it starts. */
const char *tls_certificate(const struct tls *tls);
const char *tls_key(const struct tls *tls);

/* Reads the files again: connections that come from now on see what they hold. On failure nothing
 * has changed. *changed: they were not the same. Warns like tls_advise. Not two at a time. */
enum status tls_reload(struct tls *tls, bool *changed, struct fault *fault);

/* A connection has come and nothing of its handshake: `session`, a gnutls_session_t, will show the
 * certificate that is in use now. Any thread. */
void tls_attach(struct tls *tls, void *session);

/* Writes these last bytes and says that no more will come, as far as it can be done at once. From
 * the thread that serves the connection, after the handshake. */
void tls_end(void *session, struct span bytes);

/* On a connected socket: handshake, `request`, and the first bytes of the answer, at most
 * `capacity`; *size: how many. The certificate is not verified, so nothing secret may be sent. Each
 * wait ends with the timeouts of the socket. INTERNAL: no handshake, or the other side went. */
enum status tls_ask(int socket, struct span request, void *answer, size_t capacity, size_t *size,
                    struct fault *fault);

#endif
