"""Runs every example of docs/line-protocol.md, in the notation that the page describes, and holds
the page's list of commands equal to the broker's."""

import re
import socket
import unittest

from broker import PATIENCE_S, PLUGINS, SOURCE_DIR, Broker
from clients import Conversation, LineClient

PAGE = SOURCE_DIR / "docs" / "line-protocol.md"
STEP = re.compile(r"^(\w*)([<>]) ?(.*)$")


class DatagramClient(Conversation):
    def __init__(self, broker):
        super().__init__("udp")
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(broker.address("udp"))

    def read_descriptor(self):
        return self.socket.fileno()

    def read_piece(self):
        return self.socket.recv(65536)

    def send_raw(self, data):
        self.socket.send(data)

    def close(self):
        self.socket.close()


def blocks():
    """(line number, words behind ```chat, lines) of each example."""
    found, inside, words = [], None, None
    for number, line in enumerate(PAGE.read_text().splitlines(), 1):
        if inside is None and re.match(r"```chat\b", line):
            inside, words = (number, []), line[3:].split()[1:]
        elif inside is not None and line == "```":
            found.append((inside[0], words, inside[1]))
            inside = None
        elif inside is not None:
            inside[1].append(line)
    return found


def bytes_of(line, words):
    """A line that is sent: words for {words}, bytes for \\xNN."""
    line = re.sub(r"\{(\w+)\}", lambda match: words[match.group(1)], line)
    return re.sub(
        rb"\\x([0-9A-F]{2})", lambda match: bytes([int(match.group(1), 16)]), line.encode()
    )


def pattern_of(line, words):
    """A line that is received: ... for any characters, {word} for some without a space."""
    parts = []
    for part in re.split(r"(\.\.\.|\{\w+\})", line):
        if part == "...":
            parts.append(".*")
        elif re.fullmatch(r"\{\w+\}", part):
            name = part[1:-1]
            parts.append(re.escape(words[name]) if name in words else rf"(?P<{name}>\S+?)")
        else:
            parts.append(re.escape(part))
    return "^" + "".join(parts) + "$"


class Examples(unittest.TestCase):
    def run_block(self, words, lines, workers):
        log = "\n[plugin log]\n" if "log" in words else ""
        with Broker(workers=workers, plugins=PLUGINS + log) as broker:
            clients = {}
            try:
                for name in dict.fromkeys(
                    step.group(1) for step in map(STEP.match, lines) if step and step.group(1)
                ):
                    clients[name] = LineClient(broker, name)
                for name, client in clients.items():
                    client.sync()
                if any(line[:1] in "<>" for line in lines):
                    udp = "udp" in words
                    clients[""] = (
                        DatagramClient(broker) if udp else LineClient(broker, welcome=False)
                    )
                self.play(clients, lines)
            finally:
                for client in clients.values():
                    client.close()

    def play(self, clients, lines):
        remembered, skipping = {}, False
        for line in lines:
            if line == "...":
                skipping = True
                continue
            name, way, text = STEP.match(line).groups()
            client = clients[name]
            if way == ">":
                client.send(bytes_of(text, remembered))
                continue
            pattern = pattern_of(text, remembered)
            match = client.expect(pattern) if skipping else client.next(pattern)
            remembered.update(match.groupdict())
            skipping = False
        if skipping:
            return
        for name, client in clients.items():
            shown = "\n".join(lines)
            if re.search(rf"(?m)^{name}< (\* goodbye|! closed)", shown):
                self.assertEqual(client.rest(PATIENCE_S), [], f"{name}: more than is shown")
            else:
                self.assertEqual(client.sync(), [], f"{name}: more than is shown")

    def test_examples(self):
        found = blocks()
        self.assertGreater(len(found), 20)
        for i, (number, words, lines) in enumerate(found):
            with self.subTest(f"{PAGE.name}:{number}"):
                self.run_block(words, lines, workers=1 + i % 2)

    def test_every_command_has_its_place(self):
        text = PAGE.read_text()
        with Broker() as broker, LineClient(broker, "ana") as ana:
            ana.send("/help")
            helped = [line for line in ana.sync() if line.startswith("* help: /")]
        self.assertGreater(len(helped), 20)
        for line in helped:
            command = re.match(r"\* help: (/\w+)", line).group(1)
            with self.subTest(command):
                self.assertRegex(text, rf'(?m)^### .*{command}\b')
                self.assertRegex(text, rf'(?m)^\w+ += .*"?{command}\b')


if __name__ == "__main__":
    unittest.main()
