"""Certificates that openssl makes, for the scripts that speak TLS."""
import hashlib
import os
import shutil
import ssl
import subprocess
import sys

from running import check

if shutil.which("openssl") is None:
    print("there is no openssl to make certificates with")
    sys.exit(77)


def openssl(*arguments):
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    check(done.returncode == 0, f"openssl {arguments[0]}: {done.stderr}")
    return done.stdout


class Pair:
    """A certificate for localhost and 127.0.0.1 that signs itself, and its key."""

    def __init__(self, folder, name, kind="ec", names="DNS:localhost,IP:127.0.0.1", days=30):
        self.certificate = os.path.join(folder, name + ".pem")
        self.key = os.path.join(folder, name + ".key")
        if kind == "ec":
            openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out",
                    self.key)
        else:
            openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out",
                    self.key)
        request = os.path.join(folder, name + ".csr")
        extensions = os.path.join(folder, name + ".ext")
        with open(extensions, "w") as out:
            out.write("subjectAltName=" + names + "\n")
        openssl("req", "-new", "-key", self.key, "-subj", "/CN=localhost", "-out", request)
        openssl("x509", "-req", "-in", request, "-signkey", self.key, "-days", str(days),
                "-extfile", extensions, "-out", self.certificate)
        os.chmod(self.key, 0o600)

    def options(self):
        return ["--tls-cert", self.certificate, "--tls-key", self.key]

    def context(self, **versions):
        context = ssl.create_default_context(cafile=self.certificate)
        for name, value in versions.items():
            setattr(context, name, value)
        return context

    def digest(self):
        with open(self.certificate) as text:
            return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text.read())).digest()


def shown(wire):
    """The digest of the certificate that a connection has seen."""
    return hashlib.sha256(wire.socket.getpeercert(binary_form=True)).digest()


def blind():
    """Trusts anything."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
