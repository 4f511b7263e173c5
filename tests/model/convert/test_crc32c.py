"""The fast checksum is the checksum."""

import numpy as np
import pytest

from cleangpt2.model.convert.crc32c import crc32c, masked
from tests.model.convert import writers

# Of RFC 3720, B.4.
VECTORS = {
    bytes(32): 0x8A9136AA,
    b"\xff" * 32: 0x62A8AB43,
    bytes(range(32)): 0x46DD794E,
    bytes(range(31, -1, -1)): 0x113FDB5C,
    b"123456789": 0xE3069283,
    b"": 0,
}


@pytest.mark.parametrize(("data", "crc"), VECTORS.items())
def test_the_published_vectors(data, crc):
    assert crc32c(data) == crc == writers.crc32c(data)


@pytest.mark.parametrize(
    "size", [1, 3, 4, 5, 63, 64, 2047, 2048, 2049, 32768, 32772, 65537, 99_991]
)
def test_every_length_agrees_with_the_definition(size):
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    assert crc32c(data) == crc32c(data.tobytes()) == writers.crc32c(data.tobytes())


def test_data_longer_than_what_is_divided_at_a_time(monkeypatch):
    monkeypatch.setattr("cleangpt2.model.convert.crc32c._CHUNK", 1 << 15)
    data = np.random.default_rng(0).integers(0, 256, 120_001, dtype=np.uint8).tobytes()
    assert crc32c(data) == writers.crc32c(data)


def test_a_flipped_bit_and_a_leading_zero_change_it():
    data = bytes(5000)
    assert len({crc32c(data), crc32c(data[1:]), crc32c(data[:2500] + b"\1" + data[2501:])}) == 3


def test_the_stored_form_is_that_of_the_format():
    for crc in (0, 1, 0xFFFFFFFF, 0x8A9136AA):
        assert masked(crc).to_bytes(4, "little") == writers.mask(crc)
