"""Changes of good files that make bad ones: bits, words with extreme values, cuts, copies and splices."""

from collections.abc import Callable, Sequence

import numpy as np

#: Words that readers trip over.
_WORDS = (0, 1, 2, 4, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
#: Texts that readers of texts trip over.
_TEXTS = (b"[" * 40, b"{", b"\xff", b"1e999", b"9" * 50, b"NaN", b"\\ud800", b'"', b"\0", b"-", b"null", b"\n", b"\x1b")
_LONGEST = 64


def mutated(corpus: Sequence[bytes], rng: np.random.Generator, marker: bytes = b"") -> bytes:
    """A changed copy of one of some files; half of the changes are behind the last ``marker`` in it."""
    data = bytearray(corpus[rng.integers(len(corpus))])
    for _ in range(rng.integers(1, 4)):
        _MUTATIONS[rng.integers(len(_MUTATIONS))](data, _Places(rng, data, marker), corpus)
    return bytes(data)


class _Places:
    """Random numbers, and places in a file of which half are behind its marker."""

    def __init__(self, rng: np.random.Generator, data: bytearray, marker: bytes):
        self.rng = rng
        self._start = max(data.rfind(marker), 0) if marker else 0

    def place(self, data: bytearray) -> int:
        """An index, or 0 in a file of nothing."""
        start = self._start if self._start < len(data) and self.rng.random() < 0.5 else 0
        return int(self.rng.integers(start, max(len(data), start + 1)))

    def length(self) -> int:
        """Of a part."""
        return int(self.rng.integers(1, _LONGEST))


def _flip(data: bytearray, places: _Places, corpus: Sequence[bytes]) -> None:
    if data:
        data[places.place(data)] ^= 1 << int(places.rng.integers(8))


def _set_byte(data: bytearray, places: _Places, corpus: Sequence[bytes]) -> None:
    if data:
        data[places.place(data)] = int(places.rng.integers(256))


def _set_word(data: bytearray, places: _Places, corpus: Sequence[bytes]) -> None:
    width = int(places.rng.choice([1, 2, 4, 8]))
    word = int(places.rng.choice(_WORDS)).to_bytes(8, "little")[:width]
    at = places.place(data) // width * width
    data[at : at + width] = word[: max(len(data) - at, 0)]


def _add_to_word(data: bytearray, places: _Places, corpus: Sequence[bytes]) -> None:
    at = places.place(data) // 4 * 4
    if at + 4 <= len(data):
        word = int.from_bytes(data[at : at + 4], "little") + int(places.rng.integers(-8, 9))
        data[at : at + 4] = (word % 2**32).to_bytes(4, "little")


def _cut(data: bytearray, places: _Places, corpus: Sequence[bytes]) -> None:
    at = places.place(data)
    del data[at : at + places.length()]


def _truncate(data: bytearray, places: _Places, corpus: Sequence[bytes]) -> None:
    if places.rng.random() < 0.2:
        del data[places.place(data) :]


def _insert(data: bytearray, places: _Places, corpus: Sequence[bytes]) -> None:
    at = places.place(data)
    data[at:at] = places.rng.bytes(places.length())


def _insert_text(data: bytearray, places: _Places, corpus: Sequence[bytes]) -> None:
    at = places.place(data)
    text = _TEXTS[places.rng.integers(len(_TEXTS))]
    data[at : at + (len(text) if places.rng.random() < 0.5 else 0)] = text


def _copy(data: bytearray, places: _Places, corpus: Sequence[bytes]) -> None:
    source, at, length = places.place(data), places.place(data), places.length()
    part = data[source : source + length]
    data[at : at + len(part)] = part


def _splice(data: bytearray, places: _Places, corpus: Sequence[bytes]) -> None:
    other = bytearray(corpus[places.rng.integers(len(corpus))])
    at, source, length = places.place(data), places.place(other), places.length()
    part = other[source : source + length]
    data[at : at + len(part)] = part


#: Those that keep the places of everything are more frequent: most others are refused at once.
_MUTATIONS: tuple[Callable[[bytearray, _Places, Sequence[bytes]], None], ...] = (
    *(_flip,) * 4,
    *(_set_byte,) * 2,
    *(_set_word,) * 4,
    *(_add_to_word,) * 4,
    *(_cut, _truncate, _insert, _insert_text, _copy, _splice),
)
