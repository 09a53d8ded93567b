"""What `/history` gives back, as a test wants it: messages by number, and what is said to be gone."""

import re

MESSAGE = re.compile(r"^\S+Z (\d+) (\S+) (\S+): (.*)$")
LOST = re.compile(r"^\* history (\S+) (\d+)(?:-(\d+))?: (?:lost|not kept)\b")
END = re.compile(r"^\* history (\S+)(?: (\d+)(?:-(\d+))?: (\d+) messages?\b|: nothing )")


def read_since(reader, room, number):
    """Everything after a number, page by page: ({number: text}, {numbers that are said to be lost},
    [what else was said]). The reader has numbers on and is alone."""
    messages, lost, remarks = {}, set(), []
    while True:
        reader.send(f"/history {room} since {number}")
        last = number
        ended = 0
        for line in reader.sync():
            match = MESSAGE.match(line)
            gone = LOST.match(line)
            if match and match.group(2) == room:
                got = int(match.group(1))
                assert got > last, f"{room}: out of order: {line} after {last}"
                last = got
                messages[got] = match.group(4)
            elif gone and gone.group(1) == room:
                first = int(gone.group(2))
                lost.update(range(first, int(gone.group(3) or first) + 1))
            elif END.match(line):
                ended += 1
            else:
                remarks.append(line)
        assert ended == 1, f"{room}: no end: {reader.transcript[-5:]}"
        if last == number:
            return messages, lost, remarks
        number = last


def check(seen, durable, kept, lost, what):
    """seen: {number: text} of what was shown; durable: none of it may be missing."""
    for number, text in kept.items():
        assert seen.get(number, text) == text, f"{what}: {number} was {seen[number]}, is {text}"
    missing = set(seen) - set(kept)
    assert not (durable and missing), f"{what}: shown, and not in the log: {sorted(missing)[:20]}"
    assert not lost & set(kept), f"{what}: said to be lost, and given: {sorted(lost & set(kept))[:20]}"
    unsaid = sorted(missing - lost)
    assert not unsaid, f"{what}: missing without a word: {unsaid[:20]}"
