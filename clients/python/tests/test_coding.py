"""Codings by themselves."""

import gzip
import sys
import threading
import time
import types
import unittest
from unittest import mock

from . import support

support.descent_with(numpy=False)
from descent.coding import Coding  # noqa: E402


class OneAtATime:
    """Stands for the objects of python-zstandard, which crash when two threads are within one."""

    def __init__(self, *_):
        self.busy = threading.Lock()

    def within(self, body, then):
        if not self.busy.acquire(blocking=False):
            raise AssertionError("two threads use one object")
        try:
            time.sleep(0.001)
            return then(body)
        finally:
            self.busy.release()

    def compress(self, body):
        return self.within(body, lambda body: gzip.compress(body, 1))

    def decompressobj(self):
        self.within(b"", bytes)
        return self

    def decompress(self, body):
        return self.within(body, gzip.decompress)


class Threads(unittest.TestCase):
    def test_they_may_share_a_coding(self):
        stub = types.ModuleType("zstandard")
        stub.ZstdCompressor = stub.ZstdDecompressor = OneAtATime
        modules = {"compression": None, "compression.zstd": None, "zstandard": stub}
        with mock.patch.dict(sys.modules, modules):
            stubbed = Coding("zstd")
        for coding in [stubbed, Coding("gzip"), *self.installed()]:
            with self.subTest(coding.name):
                self.share(coding)

    def installed(self):
        try:
            return [Coding("zstd")]
        except ImportError:
            return []

    def share(self, coding):
        wrong = []

        def use(number):
            body = bytes([number]) * 100000
            try:
                for _ in range(20):
                    coded, headers = coding.encode(body, {})
                    if coding.decode(coded, headers) != body:
                        wrong.append(number)
            except Exception as error:
                wrong.append(error)

        threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])


if __name__ == "__main__":
    unittest.main()
