#!/usr/bin/env python3
"""The main job: people with nc, telnet, a UNIX socket and datagrams talk in one room, and each sees
what the others said, in one order, with the same numbers."""

import re
import shutil
import subprocess
import unittest

from broker import PATIENCE_S, Broker
from clients import LineClient, ProgramClient

NC = shutil.which("nc.openbsd") or shutil.which("nc")
TELNET = shutil.which("telnet")
ROUNDS = 5


class People:
    """Six of them, each by another way in."""

    def __init__(self, broker):
        host, port = broker.address()
        stream = [NC, host, str(port)]
        self.clients = {
            "ana": ProgramClient("ana", *stream),
            "bia": ProgramClient("bia", *stream),
            "caio": ProgramClient("caio", *stream),
            "davi": ProgramClient("davi", TELNET, host, str(port)),
            "edu": ProgramClient("edu", NC, "-U", broker.path()),
            "fabi": ProgramClient("fabi", NC, "-u", host, str(broker.ports["udp"])),
        }

    def enter(self):
        for nick, client in self.clients.items():
            if nick == "fabi":
                self.enter_by_datagram(client)
                continue
            client.expect(r"^\* you are guest\S* in lobby: ")
            client.send(f"/nick {nick}")
            client.expect(rf"^\* you are {nick} now$")
            client.send("/numbers on")
            client.expect(r"^\* numbers are on$")

    @staticmethod
    def enter_by_datagram(client):
        client.send("/nick fabi")
        cookie = client.next(r"^=([0-9a-f]{8})$").group(1)
        client.send(f"={cookie} /nick fabi")
        client.next(r"^\* fabi, lobby, \d+, ping 25s$")

    def talk(self):
        """In turn, so that everybody's lines stand between the others'."""
        for i in range(ROUNDS):
            for nick, client in self.clients.items():
                client.send(f"{nick} says {i}")

    def transcript(self, nick):
        """{number: (nick, text)} of what this one sees, its own lines included."""
        client = self.clients[nick]
        seen, own = {}, []
        while len(seen) < ROUNDS * len(self.clients):
            line = client.line()
            said = re.match(r"(\d+) lobby (\w+): (.*)$", line)
            mine = re.match(r"\* (\d+) lobby$", line)
            if said:
                seen[int(said.group(1))] = (said.group(2), said.group(3))
            elif mine:
                seen[int(mine.group(1))] = (nick, f"{nick} says {len(own)}")
                own.append(int(mine.group(1)))
        return seen

    def close(self):
        for client in self.clients.values():
            client.close()


class Conversation(unittest.TestCase):
    def test_tools_are_here(self):
        self.assertTrue(NC and TELNET, "netcat-openbsd and a telnet are needed")

    def one_room(self, workers):
        with Broker(workers=workers) as broker:
            people = People(broker)
            try:
                people.enter()
                # Nobody speaks before everybody is there.
                for client in people.clients.values():
                    client.sync()
                people.talk()
                transcripts = {nick: people.transcript(nick) for nick in people.clients}
            finally:
                people.close()
        expected = transcripts["ana"]
        for nick, seen in transcripts.items():
            self.assertEqual(seen, expected, f"{nick} and ana saw different things")
        numbers = sorted(expected)
        self.assertEqual(numbers, list(range(numbers[0], numbers[0] + len(numbers))))
        for nick in transcripts:
            said = [text for _, (who, text) in sorted(expected.items()) if who == nick]
            self.assertEqual(said, [f"{nick} says {i}" for i in range(ROUNDS)])

    def test_1_worker(self):
        self.one_room(1)

    def test_2_workers(self):
        self.one_room(2)

    def test_4_workers(self):
        self.one_room(4)

    def test_one_line_and_gone_is_heard(self):
        """printf 'hi\\n' | nc -N; also when the last line has no end, and from a UNIX socket."""
        with Broker(workers=2) as broker, LineClient(broker, "ana") as ana:
            host, port = broker.address()
            for command in ([NC, "-N", host, str(port)], [NC, "-N", "-U", broker.path()]):
                for text in (b"hi\n", b"hi"):
                    heard = subprocess.run(
                        command, input=text, capture_output=True, timeout=PATIENCE_S, check=True
                    )
                    self.assertRegex(heard.stdout.decode(), r"^\* you are guest\S* in lobby: ")
                    ana.expect(r"^lobby guest\S*: hi$")
                    ana.expect(r"^\* guest\S* quit")

    def test_what_was_said_before_the_end_is_published(self):
        """Many lines, then the end at once: all are heard, in order, before the quit."""
        with Broker(workers=4) as broker, LineClient(broker, "ana") as ana:
            lines = [f"line {i}" for i in range(500)]
            with LineClient(broker, "bia", "unix") as bia:
                bia.send_raw("".join(line + "\n" for line in lines).encode())
                bia.end_sending()
                bia.rest()
            heard = []
            while len(heard) < len(lines):
                heard.append(ana.expect(r"^lobby bia: (.*)$|^\* bia quit").group(1))
            self.assertEqual(heard, lines)
            ana.expect(r"^\* bia quit")


if __name__ == "__main__":
    unittest.main(verbosity=2)
