"""Content codings: bodies that travel smaller. gzip comes with Python; zstd, which is faster both
ways, with Python 3.14 or the package zstandard."""

import gzip

BYTES_MIN = 1024  # smaller ones fit one packet either way


def _gzip():
    # Level 1: the others take many times as long on numbers and save hardly more.
    return lambda body: gzip.compress(body, 1), gzip.decompress


def _zstd():
    try:
        from compression import zstd
    except ImportError:
        import zstandard

        # One for each body: its objects are not to be used by two threads at once.
        return (
            lambda body: zstandard.ZstdCompressor(1).compress(body),
            lambda body: zstandard.ZstdDecompressor().decompressobj().decompress(body),
        )
    return lambda body: zstd.compress(body, 1), zstd.decompress


_KNOWN = {"gzip": _gzip, "zstd": _zstd}


class Coding:
    """One coding by its name; ImportError when this Python has none of that name."""

    def __init__(self, name):
        if name not in _KNOWN:
            raise ValueError("coding %r is none of %s" % (name, ", ".join(_KNOWN)))
        self.name = name
        self._encode, self._decode = _KNOWN[name]()

    def encode(self, body, headers):
        """The body to send, and the fields that go with it."""
        headers = {**headers, "Accept-Encoding": self.name}
        if body is None or len(body) < BYTES_MIN:
            return body, headers
        return self._encode(body), {**headers, "Content-Encoding": self.name}

    def decode(self, body, headers):
        """What an answer says, whether or not it came coded."""
        if headers is None or headers.get("Content-Encoding") != self.name:
            return body
        return bytearray(self._decode(body))
