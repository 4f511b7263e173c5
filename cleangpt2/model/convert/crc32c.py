"""CRC-32C, the checksum in TensorFlow's files, at the speed of XOR.

Bits are the coefficients of a polynomial over GF(2), the first bit that of the highest power, and
the checksum is what remains of it after division by P. The textbook goes byte by byte, which
Python cannot do to half a gigabyte. But over GF(2) squaring goes term by term, so that

    P(x)^(2^k) = P(x^(2^k))

has as few terms as P, only 2^k times as far apart, and is a multiple of it. Long division by this
polynomial works on digits of 2^k bits at once: every step is the XOR of one long digit into 17
later ones, and 32 digits remain. Digits shrink from step to step, until the textbook's way is
quick enough for the rest.
"""

import numpy as np

# The powers of x in P below 32: x^32 = x^28 + x^27 + ... + 1 (modulo P).
_POWERS = (28, 27, 26, 25, 23, 22, 20, 19, 18, 14, 13, 11, 10, 9, 8, 6, 0)
_REVERSED_P = sum(1 << (31 - power) for power in _POWERS)  # a byte's lowest bit comes first
_GAP = 32 - max(_POWERS)  # so many digits in a row do not change each other
_DIGITS = (1 << 14, 1 << 10, 1 << 6)  # bytes; each leaves 32 digits to the next
_CHUNK = 1 << 22  # bytes that are divided at a time
_ONES = 0xFFFFFFFF


def _table() -> list[int]:
    """Remainders of the 256 bytes."""
    table = list(range(256))
    for _ in range(8):
        table = [(r >> 1) ^ (_REVERSED_P if r & 1 else 0) for r in table]
    return table


_TABLE = _table()


def crc32c(data: bytes | np.ndarray) -> int:
    """The checksum of bytes, given as such or as an array of ``uint8``.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    data = np.frombuffer(data, dtype=np.uint8)
    if data.size < 4:
        return _bytewise(data.tobytes(), _ONES) ^ _ONES
    rest = data[:4] ^ 0xFF  # the register starts with ones, which is this and one of zeros
    for start in range(4, data.size, _CHUNK):
        rest = _remainder(np.concatenate([rest, data[start : start + _CHUNK]]), _DIGITS[0])
    for digit in _DIGITS[1:]:
        rest = _remainder(rest, digit)
    return _bytewise(rest.tobytes(), 0) ^ _ONES


def masked(crc: int) -> int:
    """The form in which LevelDB and TensorFlow store it: a checksum of checksums is weak."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & _ONES


def _remainder(data: np.ndarray, digit: int) -> np.ndarray:
    """What is left of `data` after division by P(x^(8 * digit)); it has the same checksum."""
    n = -(-data.size // digit)
    if n <= 32:
        return data
    padded = np.zeros(n * digit, dtype=np.uint8)  # zeros before the highest power change nothing
    padded[padded.size - data.size :] = data
    digits = padded.view(np.uint64).reshape(n, -1)
    for first in range(0, n - 32, _GAP):
        leading = digits[first : min(first + _GAP, n - 32)]
        for power in _POWERS:
            at = first + 32 - power
            digits[at : at + len(leading)] ^= leading
    return padded[(n - 32) * digit :]


def _bytewise(data: bytes, crc: int) -> int:
    """The textbook's way, one table look-up a byte."""
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc
