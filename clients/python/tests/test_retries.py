"""What the client does when answers are lost: a proxy between it and the server loses them on
purpose."""

import json
import socket
import time
import unittest

from . import support
from .test_client import AFTER, B, GRADIENT, SGD, W, Live

BUSY = (
    503,
    [("Content-Type", "application/problem+json"), ("Retry-After", "0")],
    b'{"status": 503, "code": "overloaded", "detail": "The server is busy."}',
)


class Lost(Live):
    def through(self, *plan, **options):
        """A client whose requests meet the fates of `plan`, and the proxy."""
        proxy = support.FlakyProxy(self.url, plan)
        self.addCleanup(proxy.close)
        return self.client(url=proxy.url, **options), proxy

    def test_a_step_whose_answer_was_lost_is_applied_once(self):
        for format in ("safetensors", "raw", "json"):
            with self.subTest(format):
                client, proxy = self.through(format=format)
                session = self.create(client)
                session.parameters()
                proxy.plan = ["lose", "lose"]
                receipt = session.step(GRADIENT)
                self.assertEqual((receipt.step, receipt.replayed, proxy.plan), (1, True, []))
                self.same(session.parameters(), AFTER)
                self.assertEqual(session.step(GRADIENT).step, 2)

    def test_a_worker_s_step_whose_answer_was_lost_is_applied_once(self):
        client, proxy = self.through()
        session = self.create(client, worker="w0")
        proxy.plan = ["lose", "refuse", "lose"]
        self.assertEqual(session.step(GRADIENT).step, 1)
        self.same(session.parameters(), AFTER)
        self.assertEqual((session.step(GRADIENT).step, session.seq), (2, 3))

    def test_new_weights_come_with_the_repeated_answer(self):
        client, proxy = self.through()
        session = self.create(client)
        proxy.plan = ["lose"]
        receipt = session.step(GRADIENT, return_parameters=True)
        self.assertEqual(receipt.step, 1)
        self.same(receipt.parameters, AFTER)

    def test_a_conditional_step_whose_answer_was_lost_is_applied_once(self):
        client, proxy = self.through()
        session = self.create(client)
        first = session.step(GRADIENT)
        proxy.plan = ["lose"]
        self.assertEqual(session.step(GRADIENT, if_match=first.etag).step, 2)

    def test_after_giving_up_the_key_settles_the_step(self):
        client, proxy = self.through(retries=0)
        session = self.create(client)
        client.close()  # a fresh connection: nothing is repeated at all
        proxy.plan = ["lose"]
        error = self.refused("connection_failed", session.step, GRADIENT)
        self.assertIsInstance(error, self.descent.ConnectionFailed)
        self.assertEqual(error.status, 0)
        receipt = session.step(GRADIENT, key=error.key)
        self.assertEqual((receipt.step, receipt.replayed), (1, True))

    def test_after_giving_up_a_worker_just_steps_again(self):
        client, proxy = self.through(retries=0)
        session = self.create(client, worker="w0")
        for fate, step in (("lose", 1), ("refuse", 2)):
            client.close()
            proxy.plan = [fate]
            self.refused("connection_failed", session.step, GRADIENT)
            self.assertEqual(session.step(GRADIENT).step, step)

    def test_everything_else_survives_a_lost_answer_too(self):
        client, proxy = self.through("lose")
        session = self.create(client)
        calls = (
            session.info,
            session.parameters,
            lambda: session.update(labels={"run": "c"}),
            lambda: session.replace(AFTER),
            client.optimizers,
            lambda: list(client.sessions()),
            client.ready,
        )
        for call in calls:
            proxy.plan = ["lose"]
            call()
            self.assertEqual(proxy.plan, [])
        self.same(session.parameters(), AFTER)
        proxy.plan = ["lose"]
        session.delete()
        self.refused("session_not_found", session.info)

    def test_a_kept_connection_that_was_closed_is_renewed_at_no_charge(self):
        client, proxy = self.through(retries=0)
        session = self.create(client)
        for _ in range(3):
            proxy.plan = ["hang up"]
            session.info()
            time.sleep(0.02)
        self.assertEqual(session.step(GRADIENT).step, 1)

    def test_a_connection_is_kept(self):
        client, proxy = self.through()
        session = self.create(client)
        connection = client._transport._connection()
        first = connection.sock
        session.step(GRADIENT)
        self.assertIs(connection.sock, first)
        self.assertTrue(first.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def test_a_busy_server_is_asked_again(self):
        in_flight = (
            409,
            [("Content-Type", "application/problem+json")],
            b'{"status": 409, "code": "idempotency_in_flight", "detail": "Running."}',
        )
        client, proxy = self.through()
        session = self.create(client)
        proxy.plan = [BUSY, in_flight, (502, [], b"<html>")]
        self.assertEqual(session.step(GRADIENT).step, 1)
        self.assertEqual(proxy.plan, [])

    def test_a_server_that_stays_busy_is_reported(self):
        client, proxy = self.through(retries=2)
        session = self.create(client)
        proxy.plan = [BUSY] * 3
        self.assertEqual(self.refused("overloaded", session.step, GRADIENT).status, 503)
        self.assertEqual((proxy.plan, session.step(GRADIENT).step), ([], 1))

    def test_what_another_attempt_cannot_mend_is_not_repeated(self):
        client, proxy = self.through()
        session = self.create(client)
        for status, code in (
            (507, "storage_full"),
            (500, "internal"),
            (429, "quota_exceeded"),
            (409, "stale_gradient"),
        ):
            body = json.dumps({"status": status, "code": code, "detail": "No."}).encode()
            proxy.plan = [(status, [("Content-Type", "application/problem+json")], body)]
            self.assertEqual(self.refused(code, session.step, GRADIENT).status, status)
            self.assertEqual(proxy.plan, [])

    def test_a_page_that_is_no_problem_document_is_still_an_error(self):
        client, _ = self.through(
            (403, [("Content-Type", "text/html")], b"<h1>Forbidden</h1>\nby the proxy")
        )
        error = self.refused("http_403", client.session("x").info)
        self.assertEqual(
            (error.detail, error.errors, error.request_id), ("<h1>Forbidden</h1>", [], None)
        )

    def test_a_server_that_is_not_there_is_reported(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
            client = self.client(url="http://127.0.0.1:%d" % unused.getsockname()[1], retries=1)
            error = self.refused("connection_failed", client.session("x").info)
            self.assertIn("2 attempts", str(error))
            self.assertFalse(client.ready())

    def test_a_silent_server_is_given_up_after_the_timeout(self):
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            client = self.client(
                url="http://127.0.0.1:%d" % silent.getsockname()[1], retries=0, timeout=0.2
            )
            self.refused("connection_failed", client.session("x").step, {"w": W, "b": B})


if __name__ == "__main__":
    unittest.main()
