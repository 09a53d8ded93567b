#!/usr/bin/env python3
"""Input that makes no sense costs its sender, and nobody else: two witnesses go on talking after
each case, every connection goes back where it came from, and the broker stops cleanly."""

import random
import re
import ssl
import time
import unittest

from broker import Broker, scaled, wait_until
from clients import LineClient

NOT_SENT = r"^! that line was not sent: "
LINE_BYTES = 4096


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.broker = Broker(workers=2)
        cls.addClassCleanup(cls.broker.kill)
        cls.ana = LineClient(cls.broker, "ana", "tcp")
        cls.bia = LineClient(cls.broker, "bia", "unix")
        cls.ana.sync()
        cls.marks = 0
        cls.base = cls.broker.stats()["connections"]

    @classmethod
    def tearDownClass(cls):
        cls.ana.close()
        cls.bia.close()
        cls.broker.stop()

    def setUp(self):
        self.strangers = []

    def tearDown(self):
        """The witnesses are undisturbed, and nothing is left of the strangers."""
        for client in self.strangers:
            client.close()
        self.witness()
        self.broker.wait_stats(
            lambda stats: stats["connections"] == self.base, "the strangers' connections are gone"
        )
        self.broker.check_findings()

    def witness(self):
        """A message from ana to bia and back; what each saw of others meanwhile."""
        type(self).marks += 1
        seen = []
        for speaker, hearer in ((self.ana, self.bia), (self.bia, self.ana)):
            text = f"mark {self.marks}"
            start = len(hearer.transcript)
            speaker.send(text)
            hearer.expect(rf"^lobby {speaker.nick}: {text}$")
            lines = hearer.transcript[start:-1]
            for line in lines:
                # Others come, go and talk; nothing else reaches a witness.
                self.assertRegex(line, r"^(\* @?[^ :]+ (joined|quit|left|is|set) |lobby (\* )?[^ :]+)")
            seen.append(lines)
        return seen[0]

    def heard(self):
        """What bia hears until now, without comings and goings."""
        return [line for line in self.witness() if line.startswith("lobby ")]

    def stranger(self, nick=None, listener="tcp"):
        client = LineClient(self.broker, nick, listener)
        self.strangers.append(client)
        return client

    def assert_closed(self, client, reason):
        """The last line tells why, then the connection ends."""
        lines = client.rest()
        self.assertTrue(lines, "nothing was said")
        self.assertRegex(lines[-1], r"^! closed: " + reason)

    # ---- too much, too slowly, not at all -------------------------------------------------------

    def test_no_newline_ever(self):
        for listener in ("tcp", "unix"):
            client = self.stranger(None, listener)
            client.send_raw(b"x" * (5 * LINE_BYTES))
            self.assert_closed(client, ".")
        self.assertEqual(self.heard(), [])

    def test_no_newline_for_good(self):
        """One that never reads and never ends its line: the broker closes, though it goes on."""
        client = self.stranger()
        client.socket.setblocking(False)

        def closed():
            try:
                while True:
                    client.socket.send(b"y" * 65536)
            except BlockingIOError:
                return False
            except (BrokenPipeError, ConnectionResetError):
                return True

        wait_until(closed, "the connection ends")
        self.assertEqual(self.heard(), [])

    def test_too_long(self):
        client = self.stranger("longo")
        client.send(b"x" * (LINE_BYTES + 1))
        client.next(NOT_SENT + rf"too long \({LINE_BYTES + 1} bytes\)$")
        client.send(b"x" * (3 * LINE_BYTES))
        client.next(NOT_SENT + rf"too long \({3 * LINE_BYTES} bytes\)$")
        client.send(b"/msg ana " + b"x" * LINE_BYTES)
        client.next(NOT_SENT + "too long")
        self.assertEqual(self.heard(), [])
        client.send(b"x" * LINE_BYTES)
        client.send("short")
        client.sync()
        self.assertEqual(self.heard(), ["lobby longo: " + "x" * LINE_BYTES, "lobby longo: short"])

    def test_one_byte_at_a_time(self):
        """Slowly, and cut at every byte: in the middle of a character, of CR LF, of a command."""
        client = self.stranger("lento")
        for byte in "olá\r\n/me acena\r\n/ping 7\r\n".encode():
            client.send_raw(bytes([byte]))
            time.sleep(0.02)  # the pause is the input under test
        client.next(r"^\* pong lobby \d+ 7$")
        self.assertEqual(self.heard(), ["lobby lento: olá", "lobby * lento acena"])

    def test_half_close(self):
        client = self.stranger("meio")
        client.send_raw(b"one\ntwo")
        client.end_sending()
        client.rest()
        self.assertEqual(self.heard(), ["lobby meio: one", "lobby meio: two"])

    def test_connect_and_vanish(self):
        for i in range(scaled(300, 60)):
            sock = self.broker.connect("unix" if i % 3 == 0 else "tcp")
            if i % 2:
                LineClient.reset(type("Vanishing", (), {"socket": sock})())
            else:
                sock.close()
        self.assertEqual(self.heard(), [])

    def test_reset_in_mid_fan_out(self):
        """Connections that are being sent to are reset, again and again."""
        rounds, crowd, lines = scaled((15, 20, 50), (4, 8, 20))
        for i in range(rounds):
            clients = [self.stranger(None, "tcp") for _ in range(crowd)]
            text = "".join(f"flood {i} {j}\n" for j in range(lines)).encode()
            self.ana.send_raw(text)
            for client in clients:
                client.reset()
            for j in range(lines):
                self.bia.expect(rf"^lobby ana: flood {i} {j}$")
        self.assertEqual(self.heard(), [])

    def test_does_not_read(self):
        """Asks for much and reads none of it."""
        client = self.stranger("surdo")
        client.send_raw(b"/help\n/who\n/rooms\n" * 300)
        self.assertEqual(self.heard(), [])
        client.reset()

    # ---- bytes that are no text ---------------------------------------------------------------------

    def test_not_text(self):
        client = self.stranger("bytes")
        cases = [
            (b"ol\xe1", "not UTF-8"),
            (b"\xc0\xaf overlong", "not UTF-8"),
            (b"\xed\xa0\x80 surrogate", "not UTF-8"),
            (b"\xf4\x90\x80\x80 above the last", "not UTF-8"),
            (b"cut off \xe2\x82", "not UTF-8"),
            (b"\x80", "not UTF-8"),
            (b"\xfe", "not UTF-8"),
            (b"a\x00b", "control character 00 at byte 2"),
            (b"\x00", "control character 00 at byte 1"),
            (b"\x1b[2Jboo", "control character 1B at byte 1"),
            (b"\x1b]0;title\x07", "control character 1B at byte 1"),
            (b"bell \x07", "control character 07 at byte 6"),
            (b"back \x08\x08", "control character 08 at byte 6"),
            (b"a\rb", "control character 0D at byte 2"),
            (b"del \x7f", "control character 7F at byte 5"),
            ("C1 \u009b2J".encode(), "control character above U\\+007F"),
            ("NEL \u0085".encode(), "control character above U\\+007F"),
            ("separator \u2028".encode(), "control character above U\\+007F"),
            ("override \u202eabc".encode(), "control character above U\\+007F"),
            ("isolate \u2066abc".encode(), "control character above U\\+007F"),
        ]
        for line, reason in cases:
            client.send(line)
            client.next(NOT_SENT + reason)
            client.send(b"/me " + line)
            client.next(NOT_SENT)
            client.send(b"/nick " + line)
            client.next(r"^! ")
        self.assertEqual(self.heard(), [])
        # And text that is unusual but allowed.
        for text in ("👩‍👩‍👧 família", "مرحبا", "tab\there", "\u200b", "e\u0301"):
            client.send(text)
            self.bia.expect(rf"^lobby bytes: {text}$")

    def test_tls(self):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context()
        session = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with self.assertRaises(ssl.SSLWantReadError):
            session.do_handshake()
        hello = outgoing.read()
        for data in (hello, b"\x16\x03\x01", hello + b"\n" * 50):
            client = self.stranger()
            client.send_raw(data)
            self.assert_closed(client, "this is a chat for nc and telnet, not TLS$")
        self.assertEqual(self.heard(), [])

    def test_http(self):
        form = b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n/nick evil\nhello all\n"
        requests = [
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: x\r\n\r\n",
            b"GET / HTTP/1.0\n\n",
            form,
            b"PUT /x HTTP/1.1\r\n\r\nhello\n",
            b"OPTIONS * HTTP/1.1\r\n\r\nhello\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ]
        for request in requests:
            client = self.stranger()
            client.send_raw(request)
            self.assert_closed(client, "this is a chat for nc and telnet, not HTTP$")
        self.assertEqual(self.heard(), [])

    def test_telnet_commands(self):
        """Taken out, never answered, wherever they are cut."""
        client = self.stranger("tel")
        lines = [
            (b"\xff\xfd\x06oi", "oi"),  # DO TIMING-MARK
            (b"a\xff\xfb\x01b", "ab"),  # WILL ECHO
            (b"\xff\xfa\x18\x00xterm\xff\xf0type", "type"),  # SB TERMINAL-TYPE ... SE
            (b"\xff\xf1nop", "nop"),
            (b"sub\xff\xfa\x1f\xff\xff\x00\x50\xff\xf0negotiation", "subnegotiation"),
        ]
        for line, _ in lines:
            client.send(line)
        for line, _ in lines:
            for byte in line + b"\r\n":
                client.send_raw(bytes([byte]))
        self.assertEqual(client.sync(), [])
        texts = [f"lobby tel: {text}" for _, text in lines]
        self.assertEqual(self.heard(), texts + texts)

    def test_telnet_without_end(self):
        """A subnegotiation that never ends keeps nothing but its sender waiting."""
        client = self.stranger()
        client.send_raw(b"\xff\xfa" + b"x" * (5 * LINE_BYTES))
        client.rest()
        client = self.stranger("sub")
        client.send_raw(b"\xff\xfa\x18")
        client.end_sending()
        client.rest()
        self.assertEqual(self.heard(), [])

    def test_noise(self):
        """Random bytes, from seeds that a failure names."""
        for seed in range(scaled(60, 15)):
            with self.subTest(seed=seed):
                noise = random.Random(seed)
                client = self.stranger(None, noise.choice(["tcp", "unix"]))
                alphabet = noise.choice([bytes(range(256)), b"/ \n#:*!@=\x00\xff\xe2\x80ab1\r"])
                data = bytes(noise.choice(alphabet) for _ in range(4000))
                try:
                    for start in range(0, len(data), 700):
                        client.send_raw(data[start : start + noise.randint(1, 700)])
                    client.end_sending()
                    client.rest()
                except (BrokenPipeError, ConnectionResetError, OSError):
                    pass
                client.close()
        self.witness()

    # ---- lines that ask for what is not there -----------------------------------------------------------

    def test_arguments(self):
        client = self.stranger("args")
        wrong = {
            "/nick": "usage: /nick NAME",
            "/nick a b": "usage: /nick NAME",
            "/join": r"usage: /join ROOM \[KEY\]",
            "/join a b c": r"usage: /join ROOM \[KEY\]",
            "/room a b": r"usage: /room",
            "/msg": "usage: /msg",
            "/msg ana": "usage: /msg",
            "/me": "usage: /me",
            "/who a b": "usage: /who",
            "/rooms all": "usage: /rooms",
            "/history 0": "usage: /history",
            "/history since": "usage: /history",
            "/history lobby x": "usage: /history",
            "/history lobby 1-": "usage: /history",
            "/history lobby 99999999999999999999999": "usage: /history",
            "/numbers": "usage: /numbers",
            "/numbers maybe": "usage: /numbers",
            "/ping a b": "usage: /ping",
            "/op": "usage: /op",
            "/kick": "usage: /kick",
            "/ban": "usage: /ban",
            "/invite": "usage: /invite",
            "/": ".",
            "/unknown": "unknown command /unknown",
            "/jion x": "unknown command /jion",
        }
        for line, answer in wrong.items():
            client.send(line)
            client.next(r"^! " + answer)
        client.send("/" + "x" * 4000)
        client.next(r"^! unknown command /x")
        self.assertEqual(self.heard(), [])

    def test_names(self):
        client = self.stranger("nomes")
        for nick in ("ana", "ANA", "bia"):
            client.send(f"/nick {nick}")
            client.next(r"^! ")
        bad = ["4ever", "-x", "[x", "a:b", "*", "!", "@ana", "=x", "#x", "a,b", "x" * 33, "a\u200bb"]
        bad += ["a\u00a0b", "a\u3000b", "\u0301a", "a\ufeffb", "a\u202eb", "&x", "a?b", "ana!x"]
        for nick in bad:
            client.send(f"/nick {nick}")
            client.next(r"^! ")
        rooms = [".", "..", "../etc", "/x", "a/../b", "a/./b", "a:b", "a,b", "*", "x" * 65, "#", "##"]
        rooms += ["a\u200bb", "a\u2028b"]
        for room in rooms:
            client.send(f"/join {room}")
            client.next(r"^! ")
        for line in ("/msg nobody hi", "/msg #nowhere hi", "/part nowhere", "/room nowhere"):
            client.send(line)
            client.next(r"^! ")
        client.send("/who #nowhere")
        client.next(r"^! ")
        self.assertEqual(self.heard(), [])
        self.assertEqual(client.nick, "nomes")
        client.send("still nomes")
        self.bia.expect(r"^lobby nomes: still nomes$")

    def test_imitation(self):
        """Text that looks like the broker's lines stays visibly somebody's."""
        client = self.stranger("falso")
        texts = [
            "* bia quit",
            "! closed: the broker is shutting down",
            "* pong lobby 1 1",
            "lobby ana: I never said that",
            "17 lobby ana: nor that",
            "=00000000",
            "@ ana: psst",
        ]
        for text in texts:
            client.send(text)
        client.send("/me is now ana")
        client.send("/topic lobby ana: hi")
        client.sync()
        beginnings = ("lobby falso: ", "lobby * falso ", "* falso set ")
        said = [line for line in self.witness() if line.startswith(beginnings)]
        self.assertEqual(
            said[: len(texts) + 1],
            [f"lobby falso: {text}" for text in texts] + ["lobby * falso is now ana"],
        )
        for line in said[len(texts) + 1 :]:
            self.assertRegex(line, r"^\* falso set the topic of lobby: ")
        # Words that begin the broker's answers may be nicks, but are marked in what happens.
        client.send("/nick pong")
        client.expect(r"^\* you are pong now$")
        self.bia.expect(r"^\* falso is now @?pong$")
        client.send("/quit lobby 5 5")
        client.rest()
        self.bia.expect(r"^\* @pong quit \(lobby 5 5\)$")

    def test_many_lines_at_once(self):
        """A burst of good and bad lines: each bad one is answered, each good one heard."""
        client = self.stranger("misto")
        good = [f"good {i}" for i in range(scaled(1000, 200))]
        data = b"".join(line.encode() + b"\n\xc0\xaf\n/nick 9\n" for line in good)
        client.send_raw(data)
        bad = 0
        while bad < 2 * len(good):
            line = client.line()
            self.assertTrue(re.match(r"! ", line), line)
            bad += 1
        self.assertEqual(self.heard(), [f"lobby misto: {line}" for line in good])


if __name__ == "__main__":
    unittest.main(verbosity=2)
