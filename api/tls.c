/* TLS by GnuTLS: certificates, and the client of `descent health`. libmicrohttpd runs the server's
 * handshakes, one in the thread of each connection. */
#include "api/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "service/core/clock.h"
#include "service/core/log.h"

/* TLS 1.3, and 1.2 with forward secrecy and authenticated encryption alone. The server's order
 * counts, so that nobody is talked into less than both can do; AES-128 first, since every client of
 * ours has it in hardware. */
const char tls_priorities[] =
    "NONE:+VERS-TLS1.3:+VERS-TLS1.2:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:+AEAD:"
    "+ECDHE-ECDSA:+ECDHE-RSA:+GROUP-X25519:+GROUP-SECP256R1:+GROUP-SECP384R1:+GROUP-X448:"
    "+GROUP-SECP521R1:+SIGN-ALL:-SIGN-RSA-SHA1:-SIGN-ECDSA-SHA1:-SIGN-DSA-SHA1:+COMP-NULL:"
    "+CTYPE-X509:%SERVER_PRECEDENCE";

enum { FILE_BYTES_MAX = 1 << 20, WARN_DAYS = 14, DAY_S = 86400 };

/* What one reading of the files gave. */
struct pair {
    struct pair *older;
    gnutls_certificate_credentials_t credentials;
    char *certificate, *key; /* PEM */
    time_t from_s, until_s;  /* the certificate is valid */
};

/* A handshake may be in the midst of an older pair, and GnuTLS does not say when it is done with
 * it: all are kept to the end. A certificate is renewed every few weeks, and costs some KB. */
struct tls {
    const char *certificate_file, *key_file;
    _Atomic(struct pair *) newest;
};

static enum status refuse(struct fault *fault, const char *option, const char *file,
                          const char *why)
{
    return fault_set(fault, STATUS_INVALID_FIELD, "", "--%s %.200s %s", option, file, why);
}

static void free_secret(char *text, size_t size)
{
    if (text != NULL)
        explicit_bzero(text, size);
    free(text);
}

/* --- files --- */

/* All bytes of an open file as text; NULL with errno, or 0 there when it is no text file. Without
 * stdio, which would keep a copy of a key in its buffer. */
static char *read_all(int fd)
{
    struct stat about;
    size_t used = 0;
    ssize_t got = 0;

    if (fstat(fd, &about) != 0)
        return NULL;
    errno = 0;
    if (!S_ISREG(about.st_mode) || about.st_size > FILE_BYTES_MAX)
        return NULL;
    size_t size = (size_t)about.st_size;
    char *text = calloc(1, size + 1);
    if (text == NULL)
        return NULL;
    while (used < size && (got = read(fd, text + used, size - used)) > 0)
        used += (size_t)got;
    if (got >= 0 && memchr(text, '\0', used) == NULL)
        return text;
    int kept = got < 0 ? errno : 0;
    free_secret(text, used);
    errno = kept;
    return NULL;
}

static enum status read_text(const char *option, const char *name, char **out, struct fault *fault)
{
    char why[128];
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    *out = fd < 0 ? NULL : read_all(fd);
    int error = errno;
    if (fd >= 0)
        close(fd);
    if (*out != NULL)
        return STATUS_OK;
    if (error == ENOMEM)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    snprintf(why, sizeof why, "cannot be read: %s",
             error != 0 ? strerror(error) : "it is no text file");
    return refuse(fault, option, name, why);
}

static gnutls_datum_t datum_of(const char *text)
{
    /* GnuTLS only reads it. */
    return (gnutls_datum_t){.data = (unsigned char *)(uintptr_t)text,
                            .size = (unsigned)strlen(text)};
}

/* Whether the texts are what they should be, each by itself. */
static enum status check_texts(const struct tls *tls, struct pair *pair, struct fault *fault)
{
    gnutls_datum_t text = datum_of(pair->certificate);
    gnutls_x509_crt_t *chain = NULL;
    gnutls_x509_privkey_t key = NULL;
    unsigned count = 0;
    char why[200];
    enum status status;

    int code = gnutls_x509_crt_list_import2(&chain, &count, &text, GNUTLS_X509_FMT_PEM, 0);
    if (code < 0 || count == 0) {
        snprintf(why, sizeof why, "holds no certificate in PEM form: %s", gnutls_strerror(code));
        status = refuse(fault, "tls-cert", tls->certificate_file, why);
        goto done;
    }
    text = datum_of(pair->key);
    code = gnutls_x509_privkey_init(&key);
    if (code == 0)
        code = gnutls_x509_privkey_import2(key, &text, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (code < 0) {
        snprintf(why, sizeof why, "holds no private key in PEM form without a passphrase: %s",
                 gnutls_strerror(code));
        status = refuse(fault, "tls-key", tls->key_file, why);
        goto done;
    }
    pair->from_s = gnutls_x509_crt_get_activation_time(chain[0]);
    pair->until_s = gnutls_x509_crt_get_expiration_time(chain[0]);
    status = STATUS_OK;
done:
    for (unsigned i = 0; i < count; i++)
        gnutls_x509_crt_deinit(chain[i]);
    gnutls_free(chain);
    if (key != NULL)
        gnutls_x509_privkey_deinit(key);
    return status;
}

static void pair_free(struct pair *pair)
{
    if (pair->credentials != NULL)
        gnutls_certificate_free_credentials(pair->credentials);
    free(pair->certificate);
    free_secret(pair->key, pair->key != NULL ? strlen(pair->key) : 0);
    free(pair);
}

/* *out NULL: the files hold what `before` does. */
static enum status pair_read(const struct tls *tls, const struct pair *before, struct pair **out,
                             struct fault *fault)
{
    struct pair *pair = calloc(1, sizeof *pair);
    char why[300];
    enum status status;

    *out = NULL;
    if (pair == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    status = read_text("tls-cert", tls->certificate_file, &pair->certificate, fault);
    if (status == STATUS_OK)
        status = read_text("tls-key", tls->key_file, &pair->key, fault);
    if (status == STATUS_OK)
        status = check_texts(tls, pair, fault);
    if (status != STATUS_OK || (before != NULL && strcmp(before->key, pair->key) == 0 &&
                                strcmp(before->certificate, pair->certificate) == 0))
        goto done;
    gnutls_datum_t certificate = datum_of(pair->certificate), key = datum_of(pair->key);
    int code = gnutls_certificate_allocate_credentials(&pair->credentials);
    if (code == 0)
        code = gnutls_certificate_set_x509_key_mem2(pair->credentials, &certificate, &key,
                                                    GNUTLS_X509_FMT_PEM, NULL, 0);
    if (code == GNUTLS_E_MEMORY_ERROR) {
        status = fault_set(fault, STATUS_INTERNAL, "", "out of memory");
        goto done;
    }
    if (code < 0) {
        snprintf(why, sizeof why, "does not belong to the certificate in %.120s: %.80s",
                 tls->certificate_file, gnutls_strerror(code));
        status = refuse(fault, "tls-key", tls->key_file, why);
        goto done;
    }
    *out = pair;
    pair = NULL;
done:
    if (pair != NULL)
        pair_free(pair);
    return status;
}

/* --- life --- */

enum status tls_open(const char *certificate_file, const char *key_file, struct tls **out,
                     struct fault *fault)
{
    struct pair *pair;

    if (certificate_file[0] == '\0' || key_file[0] == '\0')
        return fault_set(fault, STATUS_INVALID_FIELD, "",
                         "--tls-cert and --tls-key go together: give both, or none");
    struct tls *tls = calloc(1, sizeof *tls);
    if (tls == NULL)
        return fault_set(fault, STATUS_INTERNAL, "", "out of memory");
    tls->certificate_file = certificate_file;
    tls->key_file = key_file;
    enum status status = pair_read(tls, NULL, &pair, fault);
    if (status != STATUS_OK) {
        free(tls);
        return status;
    }
    atomic_init(&tls->newest, pair);
    *out = tls;
    return STATUS_OK;
}

void tls_close(struct tls *take_tls)
{
    if (take_tls == NULL)
        return;
    for (struct pair *pair = take_tls->newest, *older; pair != NULL; pair = older) {
        older = pair->older;
        pair_free(pair);
    }
    free(take_tls);
}

const char *tls_certificate(const struct tls *tls)
{
    return atomic_load(&tls->newest)->certificate;
}

const char *tls_key(const struct tls *tls)
{
    return atomic_load(&tls->newest)->key;
}

void tls_advise(const struct tls *tls)
{
    const struct pair *pair = tls->newest;
    const char *file = tls->certificate_file;
    time_t now = (time_t)(clock_unix_us() / 1000000);
    struct tm parts;
    struct stat about;
    char date[32] = "";

    if (gmtime_r(now < pair->from_s ? &pair->from_s : &pair->until_s, &parts) != NULL)
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &parts);
    if (now < pair->from_s)
        log_warning("the certificate in %s is not valid before %s: clients refuse it", file, date);
    else if (now > pair->until_s)
        log_warning("the certificate in %s expired at %s: clients refuse it", file, date);
    else if (pair->until_s - now < (time_t)WARN_DAYS * DAY_S)
        log_warning("the certificate in %s expires at %s: renew it, then send SIGHUP", file, date);
    if (stat(tls->key_file, &about) == 0 && (about.st_mode & S_IROTH) != 0)
        log_warning("everybody on this machine can read the key in %s: chmod o-r it",
                    tls->key_file);
}

enum status tls_reload(struct tls *tls, bool *changed, struct fault *fault)
{
    struct pair *pair;
    enum status status = pair_read(tls, tls->newest, &pair, fault);

    *changed = pair != NULL;
    if (pair != NULL) {
        pair->older = tls->newest;
        atomic_store(&tls->newest, pair);
    }
    if (status == STATUS_OK)
        tls_advise(tls);
    return status;
}

void tls_attach(struct tls *tls, void *session)
{
    int code = gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE,
                                      atomic_load(&tls->newest)->credentials);

    /* Without memory it goes on with the certificate that the server started with. */
    if (code != 0)
        log_warning("a connection may see an older certificate: %s", gnutls_strerror(code));
}

void tls_end(void *session, struct span bytes)
{
    if (gnutls_record_send(session, bytes.data, bytes.size) < (ssize_t)bytes.size)
        log_debug("a client does not hear why its request was refused");
    else
        gnutls_bye(session, GNUTLS_SHUT_WR);
}

/* --- the client --- */

static int handshake(gnutls_session_t session)
{
    int code;

    do
        code = gnutls_handshake(session);
    while (code == GNUTLS_E_INTERRUPTED ||
           (code < 0 && code != GNUTLS_E_AGAIN && gnutls_error_is_fatal(code) == 0));
    return code;
}

enum status tls_ask(int socket, struct span request, void *answer, size_t capacity, size_t *size,
                    struct fault *fault)
{
    gnutls_certificate_credentials_t credentials = NULL;
    gnutls_session_t session = NULL;
    enum status status = STATUS_INTERNAL;
    ssize_t got = 0;

    *size = 0;
    int code = gnutls_certificate_allocate_credentials(&credentials);
    if (code == 0)
        code = gnutls_init(&session, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL);
    if (code == 0)
        code = gnutls_priority_set_direct(session, tls_priorities, NULL);
    if (code == 0)
        code = gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials);
    if (code == 0) {
        gnutls_transport_set_int(session, socket);
        code = handshake(session);
    }
    if (code == 0)
        code = (int)gnutls_record_send(session, request.data, request.size);
    while (code >= 0 && *size < capacity) {
        got = gnutls_record_recv(session, (char *)answer + *size, capacity - *size);
        if (got <= 0 && got != GNUTLS_E_INTERRUPTED)
            break;
        *size += got > 0 ? (size_t)got : 0;
    }
    if (code < 0 || (got < 0 && *size == 0)) {
        fault_set(fault, status, "", "TLS failed: %s",
                  code == GNUTLS_E_AGAIN || got == GNUTLS_E_AGAIN
                      ? "no answer in time"
                      : gnutls_strerror(code < 0 ? code : (int)got));
        goto done;
    }
    status = STATUS_OK;
done:
    if (session != NULL)
        gnutls_deinit(session);
    if (credentials != NULL)
        gnutls_certificate_free_credentials(credentials);
    return status;
}
