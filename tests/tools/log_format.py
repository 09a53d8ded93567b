"""The bytes of segment files, written and read in Python after docs/log-format.md alone."""

import struct
from pathlib import Path

HEADER_BYTES = 64
FRAME_BYTES = 12
RECORD_MAX = 160 * 1024
START, END, ROOM, OPEN, MESSAGE, VOID = range(1, 7)
TEXT, NOTICE, TOPIC, KICK, MODE, RENAME = range(1, 7)
ACTION, DIRECT, MULTILINE = 2, 4, 8
PERSON = ["nick", "account", "host", "name", "away", "door"]

MESSAGE_FIXED = struct.Struct("<IIBBHQQQqQQQQqQ6HHII")
ROOM_FIXED = struct.Struct("<IQQQqQQHHH")
TREE = struct.Struct("<QQqQ")


def make_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


TABLE = make_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


# ---- writing -----------------------------------------------------------------------------------


def header(partition, base, segment_bytes, created_ns=0, version=1):
    fixed = b"rodalog\n" + struct.pack("<IIQQq", version, partition, base, segment_bytes, created_ns)
    fixed = fixed.ljust(60, b"\0")
    return fixed + struct.pack("<I", crc32c(fixed))


def frame(kind, body=b""):
    covered = bytes([kind, 0, 0, 0]) + body
    return struct.pack("<II", 8 + len(covered), crc32c(covered)) + covered


def start_record(sync=1, time_ns=0, sync_rooms=b""):
    return frame(START, struct.pack("<IqH", sync, time_ns, len(sync_rooms)) + sync_rooms)


def open_record(ids, floor=0):
    return frame(OPEN, struct.pack("<IQ", ids, floor))


def void_record(room, first, last):
    return frame(VOID, struct.pack("<IQQ", room, first, last))


def room_record(room):
    trees = room["trees"]
    folded, name = room["folded"].encode(), room["name"].encode()
    fixed = ROOM_FIXED.pack(
        room["room"], room["epoch"], room["number"], room["kept"], room["time_ns"], room["count"],
        room["closed"], len(trees), len(folded), len(name),
    )  # fmt: skip
    body = b"".join(TREE.pack(*tree) for tree in trees)
    return frame(ROOM, fixed + body + folded + name)


def message_record(m):
    sender = [m["sender"].get(field, "").encode() for field in PERSON]
    to, subject, text = (m[key].encode() for key in ("to", "subject", "text"))
    tags = [(key.encode(), value.encode()) for key, value in m["tags"]]
    fixed = MESSAGE_FIXED.pack(
        m["room"], m["flags"], m["kind"], m["durable"], len(tags), m["epoch"], m["number"],
        m["prev"], m["time_ns"], m["count"], m["back"], m["jump"], m["jump_number"],
        m["jump_time_ns"], m["person"], *[len(field) for field in sender], len(to), len(subject),
        len(text),
    )  # fmt: skip
    tail = b"".join(struct.pack("<HI", len(k), len(v)) + k + v for k, v in tags)
    return frame(MESSAGE, fixed + b"".join(sender) + to + subject + text + tail)


def add_tree(trees, position, number, time_ns):
    """The trees of a room with one more record."""
    if len(trees) >= 2 and trees[0][3] == trees[1][3]:
        return [(position, number, time_ns, 1 + 2 * trees[0][3])] + trees[2:]
    return [(position, number, time_ns, 1)] + trees


# ---- reading -----------------------------------------------------------------------------------


class Damaged(Exception):
    pass


class CutOff(Exception):
    pass


def read_header(data):
    if len(data) < HEADER_BYTES or data[:8] != b"rodalog\n":
        raise Damaged("no segment file")
    if struct.unpack_from("<I", data, 60)[0] != crc32c(data[:60]):
        raise Damaged("checksum of the header")
    version, partition, base, segment_bytes, created_ns = struct.unpack_from("<IIQQq", data, 8)
    if version != 1:
        raise Damaged(f"version {version}")
    return {"partition": partition, "base": base, "segment_bytes": segment_bytes, "created_ns": created_ns}


def read_frame(data, offset):
    """(type, body, length)"""
    if len(data) - offset < 4:
        raise CutOff
    (length,) = struct.unpack_from("<I", data, offset)
    if not FRAME_BYTES <= length <= RECORD_MAX:
        raise Damaged("length")
    if len(data) - offset < length:
        raise CutOff
    (crc,) = struct.unpack_from("<I", data, offset + 4)
    if crc != crc32c(data[offset + 8 : offset + length]):
        raise Damaged("checksum")
    return data[offset + 8], data[offset + 12 : offset + length], length


class Texts:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        self.at += length
        return self.data[self.at - length : self.at].decode()


def read_body(kind, body):
    if kind == START:
        sync, time_ns, length = struct.unpack_from("<IqH", body)
        return {"type": "start", "sync": sync, "time_ns": time_ns, "sync_rooms": Texts(body[14:]).take(length)}
    if kind == END:
        return {"type": "end"}
    if kind == OPEN:
        return {"type": "open", **dict(zip(["ids", "floor"], struct.unpack("<IQ", body)))}
    if kind == VOID:
        return {"type": "void", **dict(zip(["room", "from", "to"], struct.unpack("<IQQ", body)))}
    if kind == ROOM:
        keys = ["room", "epoch", "number", "kept", "time_ns", "count", "closed", "trees", "folded", "name"]
        room = {"type": "room", **dict(zip(keys, ROOM_FIXED.unpack_from(body)))}
        at = ROOM_FIXED.size + TREE.size * room["trees"]
        room["trees"] = [TREE.unpack_from(body, ROOM_FIXED.size + TREE.size * i) for i in range(room["trees"])]
        texts = Texts(body[at:])
        room["folded"], room["name"] = texts.take(room["folded"]), texts.take(room["name"])
        return room
    if kind != MESSAGE:
        raise Damaged("type")
    keys = ["room", "flags", "kind", "durable", "tags", "epoch", "number", "prev", "time_ns", "count", "back",
            "jump", "jump_number", "jump_time_ns", "person"]  # fmt: skip
    values = MESSAGE_FIXED.unpack_from(body)
    message = {"type": "message", **dict(zip(keys, values))}
    lengths = values[len(keys) :]
    texts = Texts(body[MESSAGE_FIXED.size :])
    message["sender"] = {field: texts.take(n) for field, n in zip(PERSON, lengths)}
    for key, length in zip(["to", "subject", "text"], lengths[6:]):
        message[key] = texts.take(length)
    tags = []
    for _ in range(message["tags"]):
        key, value = struct.unpack_from("<HI", texts.data, texts.at)
        texts.at += 6
        tags.append((texts.take(key), texts.take(value)))
    message["tags"] = tags
    return message


def read_records(data):
    """(offset, record) of each record behind the header, up to a torn tail."""
    offset = HEADER_BYTES
    while offset < len(data):
        try:
            kind, body, length = read_frame(data, offset)
        except CutOff:
            return
        yield offset, read_body(kind, body)
        offset += length


# ---- a log -------------------------------------------------------------------------------------


def partition_of(folded):
    """Where a room stands: SipHash-2-4 (Aumasson, Bernstein 2012) of its folded name."""
    mask = (1 << 64) - 1

    def rotate(x, by):
        return (x << by | x >> (64 - by)) & mask

    data = folded.encode()
    keys = struct.unpack("<QQ", b"roda stable hash")
    v = [k ^ c for k, c in zip(keys * 2, struct.unpack(">4Q", b"somepseudorandomlygeneratedbytes"))]

    def rounds(n):
        for _ in range(n):
            v[0] = (v[0] + v[1]) & mask
            v[2] = (v[2] + v[3]) & mask
            v[1] = rotate(v[1], 13) ^ v[0]
            v[3] = rotate(v[3], 16) ^ v[2]
            v[0] = rotate(v[0], 32)
            v[2] = (v[2] + v[1]) & mask
            v[0] = (v[0] + v[3]) & mask
            v[1] = rotate(v[1], 17) ^ v[2]
            v[3] = rotate(v[3], 21) ^ v[0]
            v[2] = rotate(v[2], 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 255
    rounds(4)
    return (v[0] ^ v[1] ^ v[2] ^ v[3]) % 64 % 16


class Partition:
    """Writes a partition as the broker does."""

    def __init__(self, directory, partition=3, base=0, segment_bytes=1 << 20):
        self.directory, self.partition, self.segment_bytes = Path(directory), partition, segment_bytes
        self.rooms = {}
        self.ids = 0
        self.base = None
        self.records = []  # (path, offset, length, message or None)
        self.begin(base)

    def path(self, base=None):
        base = self.base if base is None else base
        return self.directory / f"{self.partition:02d}-{base:016x}.segment"

    def begin(self, base=None):
        """A new segment with its snapshot."""
        if base is None:
            base = self.base + self.segment_bytes
        self.base = base
        self.size = 0
        with open(self.path(), "wb") as file:
            file.write(header(self.partition, base, self.segment_bytes, 5))
        self.size = HEADER_BYTES
        for room in self.rooms.values():
            self.put(room_record(room))
        self.put(open_record(self.ids))
        self.put(start_record())

    def put(self, data, message=None):
        with open(self.path(), "ab") as file:
            file.write(data)
        self.records.append((self.path(), self.size, len(data), message))
        self.size += len(data)
        return self.base + self.size - len(data)

    def room(self, name, folded=None):
        folded = folded or name.lower()
        if folded not in self.rooms:
            self.ids += 1
            self.rooms[folded] = {
                "room": self.ids, "epoch": 0xFEDCBA9876543210 + self.ids - 1, "number": 0, "kept": 0,
                "time_ns": 0, "count": 0, "closed": 0, "folded": folded, "name": name, "trees": [],
            }  # fmt: skip
            self.put(room_record(self.rooms[folded]))
        return self.rooms[folded]

    def build(self, name, text, time_ns, nick="bia", folded=None, number=None, **fields):
        """A message of a room, where the log stands now; it is not written."""
        room = self.room(name, folded)
        trees = add_tree(room["trees"], self.base + self.size, 0, 0)
        jump = trees[1] if len(trees) > 1 else (0, 0, 0, 0)
        message = {
            "room": room["room"], "flags": 0, "kind": TEXT, "durable": 0, "epoch": room["epoch"],
            "number": number or room["number"] + 1, "prev": room["number"], "time_ns": time_ns,
            "count": room["count"] + 1, "back": room["trees"][0][0] if room["trees"] else 0, "jump": jump[0],
            "jump_number": jump[1], "jump_time_ns": jump[2], "person": 7 if nick else 0,
            "sender": {"nick": nick, "door": "line"} if nick else {}, "to": name, "subject": "", "text": text,
            "tags": [],
        }  # fmt: skip
        message.update(fields)
        return room, message

    def say(self, name, text, time_ns, **fields):
        room, message = self.build(name, text, time_ns, **fields)
        position = self.put(message_record(message), message)
        room["trees"] = add_tree(room["trees"], position, message["number"], time_ns)
        room.update(number=message["number"], kept=message["number"], time_ns=time_ns, count=room["count"] + 1)
        return message
