"""A server that asks for tokens."""

import os
import time
import unittest
import unittest.mock

from . import support

SGD = {"name": "sgd", "lr": 0.5}


@unittest.skipIf(os.environ.get("DESCENT_URL"), "the tokens of that server are not ours to make")
class Tokens(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.descent = support.descent_with(numpy=False)
        cls.server = support.OwnServer("--auth", "on")
        cls.addClassCleanup(cls.server.close)

    def client(self, **options):
        with unittest.mock.patch.dict(os.environ):
            os.environ.pop("DESCENT_TOKEN", None)
            client = self.descent.Client(self.server.url, **options)
        self.addCleanup(client.close)
        return client

    def refused(self, client, status, code):
        with self.assertRaises(self.descent.Error) as caught:
            list(client.sessions())
        self.assertEqual((caught.exception.status, caught.exception.code), (status, code))
        return caught.exception

    def test_without_a_token_it_is_refused(self):
        self.refused(self.client(), 401, "unauthorized")
        self.refused(self.client(token="dsc_wrong"), 401, "unauthorized")
        self.assertTrue(self.client().ready())

    def test_a_token_is_sent_with_everything(self):
        client = self.client(token=self.server.token())
        session = client.create({"w": [1.0, 2.0]}, SGD)
        session.step({"w": [1.0, 1.0]})
        self.assertEqual(session.parameters(), {"w": [0.5, 1.5]})
        session.delete()

    def test_the_environment_has_one(self):
        with unittest.mock.patch.dict(os.environ, DESCENT_TOKEN=self.server.token()):
            client = self.descent.Client(self.server.url)
            other = self.descent.Client(self.server.url, token="dsc_wrong")
            third = self.descent.Client(self.server.url, headers={"authorization": "Basic eA=="})
        for each in (client, other, third):
            self.addCleanup(each.close)
        self.assertEqual(list(client.sessions()), [])
        self.refused(other, 401, "unauthorized")  # what is said wins
        self.refused(third, 401, "unauthorized")

    def test_scopes_and_tenants(self):
        looks = self.client(token=self.server.token("--scopes", "read", "--tenant", "t"))
        makes = self.client(token=self.server.token("--tenant", "t"))
        other = self.client(token=self.server.token())
        session = makes.create({"w": [1.0]}, SGD, id="mine")
        self.assertEqual([s["id"] for s in looks.sessions()], ["mine"])
        with self.assertRaises(self.descent.Error) as caught:
            looks.session("mine").step({"w": [1.0]})
        self.assertEqual(caught.exception.code, "forbidden")
        with self.assertRaises(self.descent.Error) as caught:
            other.session("mine").info()
        self.assertEqual(caught.exception.code, "session_not_found")
        session.delete()

    def test_what_cannot_be_sent_is_refused_without_being_told(self):
        for token in ("dsc_secret\n", "dsc_secret x", "dsc_secr\u00e9t", "\x00dsc_secret"):
            with self.assertRaises(ValueError) as caught:
                self.client(token=token)
            self.assertNotIn("dsc_secr", str(caught.exception))

    def test_a_rate_is_waited_for_and_a_full_quota_is_not(self):
        client = self.client(token=self.server.token("--steps-per-s", "2", "--tenant", "slow"))
        session = client.create({"w": [0.0]}, SGD)
        start = time.monotonic()
        for _ in range(4):
            session.step({"w": [1.0]})
        self.assertGreater(time.monotonic() - start, 0.4)
        self.assertEqual(session.info()["step"], 4)
        few = self.client(token=self.server.token("--sessions-max", "1", "--tenant", "slow"))
        start = time.monotonic()
        with self.assertRaises(self.descent.Error) as caught:
            few.create({"w": [0.0]}, SGD)
        self.assertEqual(caught.exception.code, "quota_exceeded")
        self.assertLess(time.monotonic() - start, 10)
        session.delete()


if __name__ == "__main__":
    unittest.main()
