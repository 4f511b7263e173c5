"""The index of a TensorFlow checkpoint: which tensor lies where in the data files.

A checkpoint ("tensor bundle") is an index and one or more files of raw numbers. The index is a
table of LevelDB:

    blocks of sorted keys, each followed by a type byte and a checksum, and the last of them
    an index of the others; at the end a footer of 48 bytes that says where that one is

    entry of a block   bytes shared with the key before, bytes of its own, bytes of the value;
                       then the own bytes and the value

Under the empty key stands a ``BundleHeaderProto``, under each tensor's name a
``BundleEntryProto``, both in protobuf's encoding. It is a stranger's file: every length is checked
before it is used, and whatever does not fit raises ``ValueError``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from cleangpt2.model.convert.crc32c import crc32c, masked

LARGEST = 1 << 22
"""Bytes of an index. One of GPT-2's largest size, with its optimiser, has a hundred thousand."""

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48
_TRAILER = 5  # after each block: type, checksum
_LONGEST_KEY = 256

Proto = dict[int, list[int | bytes]]
"""Field number -> its values in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """Where one tensor is and what it is."""

    dtype: int
    """TensorFlow's number of the data type."""
    shape: tuple[int, ...]
    shard: int
    """Which of the data files."""
    offset: int
    size: int
    """In bytes."""
    crc: int
    """Masked CRC-32C of these bytes."""
    sliced: bool
    """Whether only parts of it are stored, each under a key of its own."""


def read_index(data: bytes) -> tuple[int, dict[str, Entry]]:
    """The number of data files, and the tensors by name.

    Raises:
        ValueError: What is wrong with the file.
    """
    if data[-8:] != _MAGIC or len(data) < _FOOTER:
        raise ValueError("it does not end as an index does")
    footer = data[-_FOOTER:]
    _, at = _handle(footer, 0)  # of the block of metadata, which TensorFlow leaves empty
    index, _ = _handle(footer, at)
    entries: dict[str, Entry] = {}
    shards, end, last = 0, 0, None
    for _, value in _pairs(_block(data, *index)):
        offset, size = _handle(value, 0)[0]
        if offset < end:  # or many entries could name one block, and reading never end
            raise ValueError("its blocks overlap")
        end = offset + size
        for key, content in _pairs(_block(data, offset, size)):
            if last is not None and key <= last:
                raise ValueError("its names are not in order")
            last = key
            if not key:
                shards = _header(content)
            else:
                entries[_name(key)] = _entry(content)
    if any(entry.shard >= shards for entry in entries.values()) or not shards:
        raise ValueError("it names data files that its header does not count")
    return shards, entries


def _name(key: bytes) -> str:
    if not (name := key.decode()).isprintable():
        raise ValueError("a name in it cannot be printed")
    return name


def _header(content: bytes) -> int:
    """The number of data files, from a ``BundleHeaderProto``."""
    fields = _fields(content)
    if _number(fields, 2) != 0:
        raise ValueError("its numbers are big-endian, which cannot be read")
    if not 1 <= (shards := _number(fields, 1)) < 10**5:
        raise ValueError(f"it names {shards} data files")
    return shards


def _entry(content: bytes) -> Entry:
    fields = _fields(content)
    shape = _fields(_last(fields, 2, b""))
    sizes = [_number(_fields(dim), 1) for dim in shape.get(2, []) if isinstance(dim, bytes)]
    return Entry(
        dtype=_number(fields, 1),
        shape=tuple(sizes),
        shard=_number(fields, 3),
        offset=_number(fields, 4),
        size=_number(fields, 5),
        crc=_number(fields, 6),
        sliced=7 in fields,
    )


# ---- LevelDB's table ---------------------------------------------------------------------------


def _block(data: bytes, offset: int, size: int) -> bytes:
    """The entries of a block, without the list of restarts that ends it."""
    end = offset + size
    if end + _TRAILER > len(data) - _FOOTER:
        raise ValueError("a block reaches past its end")
    if masked(crc32c(data[offset : end + 1])) != int.from_bytes(data[end + 1 : end + 5], "little"):
        raise ValueError("the checksum of a block is wrong")
    if data[end] != 0:
        raise ValueError("its blocks are compressed, which cannot be read")
    restarts = int.from_bytes(data[max(offset, end - 4) : end], "little")
    if size < 4 * (restarts + 1):
        raise ValueError("a block is shorter than its list of restarts")
    return data[offset : end - 4 * (restarts + 1)]


def _pairs(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a block."""
    key, at = b"", 0
    while at < len(block):
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        middle, end = at + own, at + own + length
        if shared > len(key) or shared + own > _LONGEST_KEY or end > len(block):
            raise ValueError("an entry reaches past its block")
        key = key[:shared] + block[at:middle]
        yield key, block[middle:end]
        at = end


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and where the next number stands."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, lowest first, and where the next one stands.

    >>> _varint(bytes([0x96, 0x01, 0x07]), 0)
    (150, 2)
    """
    value = 0
    for place in range(min(10, len(data) - at)):  # ten bytes make 64 bits
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("a number has no end")


# ---- protobuf ----------------------------------------------------------------------------------


def _fields(message: bytes) -> Proto:
    """The fields of a message; what they mean its definition says.

    >>> _fields(bytes([0x08, 0x96, 0x01, 0x12, 0x02, 0x68, 0x69]))
    {1: [150], 2: [b'hi']}
    """
    found: Proto = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value: int | bytes
        if tag & 7 == 0:
            value, at = _varint(message, at)
        else:
            size, at = _varint(message, at) if tag & 7 == 2 else ({1: 8, 5: 4}.get(tag & 7, 0), at)
            value, at = message[at : at + size], at + size
            if at > len(message) or not (size or tag & 7 == 2):
                raise ValueError("a field is cut short or of an unknown kind")
        found.setdefault(tag >> 3, []).append(value)
    return found


def _last(fields: Proto, number: int, default: bytes) -> bytes:
    """A field that holds bytes; of several, the last one counts."""
    value = fields.get(number, [default])[-1]
    if not isinstance(value, bytes):
        raise ValueError(f"field {number} holds a number")
    return value


def _number(fields: Proto, number: int) -> int:
    """A field that holds a whole number, 0 where there is none; of several, the last one counts."""
    value = fields.get(number, [0])[-1]
    if isinstance(value, bytes) and len(value) > 8:
        raise ValueError(f"field {number} holds no number")
    return int.from_bytes(value, "little") if isinstance(value, bytes) else value
