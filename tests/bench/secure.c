/* TLS of a client that trusts anyone. */
#include "tests/bench/secure.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/bench.h"

struct secure {
    gnutls_session_t session;
    gnutls_certificate_credentials_t credentials;
};

static void must(int code, const char *what)
{
    errno = 0;
    if (code < 0)
        bench_fail(bench_text("%s: %s", what, gnutls_strerror(code)));
}

struct secure *secure_open(int fd)
{
    struct secure *secure = calloc(1, sizeof *secure);
    int code;

    if (secure == NULL)
        bench_fail("memory");
    must(gnutls_certificate_allocate_credentials(&secure->credentials), "TLS");
    must(gnutls_init(&secure->session, GNUTLS_CLIENT), "TLS");
    must(gnutls_set_default_priority(secure->session), "TLS");
    must(gnutls_credentials_set(secure->session, GNUTLS_CRD_CERTIFICATE, secure->credentials),
         "TLS");
    gnutls_transport_set_int(secure->session, fd);
    do
        code = gnutls_handshake(secure->session);
    while (code < 0 && !gnutls_error_is_fatal(code));
    must(code, "TLS handshake");
    return secure;
}

void secure_close(struct secure *take_secure)
{
    gnutls_deinit(take_secure->session);
    gnutls_certificate_free_credentials(take_secure->credentials);
    free(take_secure);
}

/* What is not an error to TLS, such as a new ticket, is a reason to try again. */
static ssize_t result(ssize_t code)
{
    if (code >= 0)
        return code;
    errno = EIO;
    if (!gnutls_error_is_fatal((int)code))
        errno = EAGAIN;
    return -1;
}

ssize_t secure_send(struct secure *secure, const void *data, size_t size)
{
    return result(gnutls_record_send(secure->session, data, size));
}

ssize_t secure_receive(struct secure *secure, void *out, size_t size)
{
    return result(gnutls_record_recv(secure->session, out, size));
}

static void write_pem(const char *path, const gnutls_datum_t *pem)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0 || write(fd, pem->data, pem->size) != (ssize_t)pem->size || close(fd) != 0)
        bench_fail(path);
}

void secure_certificate(const char *certificate_path, const char *key_path)
{
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t certificate;
    gnutls_datum_t pem;
    const unsigned char serial = 1;

    must(gnutls_x509_privkey_init(&key), "key");
    must(gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA,
                                      GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0),
         "key");
    must(gnutls_x509_crt_init(&certificate), "certificate");
    must(gnutls_x509_crt_set_version(certificate, 3), "certificate");
    must(gnutls_x509_crt_set_serial(certificate, &serial, 1), "certificate");
    must(gnutls_x509_crt_set_dn(certificate, "CN=localhost", NULL), "certificate");
    must(gnutls_x509_crt_set_activation_time(certificate, time(NULL) - 3600), "certificate");
    must(gnutls_x509_crt_set_expiration_time(certificate, time(NULL) + 86400), "certificate");
    must(gnutls_x509_crt_set_key(certificate, key), "certificate");
    must(gnutls_x509_crt_sign2(certificate, certificate, key, GNUTLS_DIG_SHA256, 0), "certificate");
    must(gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_PEM, &pem), "certificate");
    write_pem(certificate_path, &pem);
    gnutls_free(pem.data);
    must(gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &pem), "key");
    write_pem(key_path, &pem);
    gnutls_free(pem.data);
    gnutls_x509_crt_deinit(certificate);
    gnutls_x509_privkey_deinit(key);
}
