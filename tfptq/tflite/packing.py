"""Bytes of packed records: numbers of few bytes, texts, and integers of a few bits each (``docs/format.md``)."""

import struct

import numpy as np

from tfptq.tflite.flatbuffer import FormatError

#: A number has at most so many bytes, and is below 2**32.
_NUMBER_BYTES = 5


class PackedWriter:
    """Puts parts of records one after the other."""

    def __init__(self):
        self.data = bytearray()

    def scalar(self, kind: str, value: int) -> None:
        """A number in a fixed little-endian form of ``struct``."""
        self.data += struct.pack("<" + kind, value)

    def number(self, value: int) -> None:
        """An unsigned LEB128, of as few bytes as possible."""
        while value > 0x7F:
            self.data.append(value & 0x7F | 0x80)
            value >>= 7
        self.data.append(value)

    def numbers(self, values: tuple[int, ...]) -> None:
        """Their count, and numbers."""
        for value in (len(values), *values):
            self.number(value)

    def text(self, text: str) -> None:
        """Its count of bytes, and UTF-8."""
        encoded = text.encode()
        self.number(len(encoded))
        self.data += encoded

    def floats(self, values: np.ndarray) -> None:
        """float32 values, without their count."""
        self.data += np.asarray(values, "<f4").tobytes()

    def bits(self, values: np.ndarray, width: int) -> None:
        """Numbers from 0 of ``width`` bits each, the first in the lowest bits, without their count."""
        bits = np.unpackbits(values.reshape(-1, 1).astype(np.uint8), axis=1, count=width, bitorder="little")
        self.data += np.packbits(bits, bitorder="little").tobytes()


class PackedReader:
    """Takes parts of records one after the other; never beyond the end."""

    def __init__(self, data: bytes):
        self._data = data
        self._at = 0

    @property
    def at_end(self) -> bool:
        """Whether everything is read."""
        return self._at == len(self._data)

    @property
    def position(self) -> int:
        """How many bytes are read."""
        return self._at

    def since(self, position: int) -> bytes:
        """The bytes that were read after the first ``position``."""
        return self._data[position : self._at]

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count > len(self._data) - self._at:
            raise FormatError("the block metadata ends inside the record of a weight")
        self._at += count
        return self._data[self._at - count : self._at]

    def scalar(self, kind: str) -> int:
        """The counterpart of ``PackedWriter.scalar``."""
        return struct.unpack("<" + kind, self.take(struct.calcsize(kind)))[0]

    def number(self) -> int:
        """The counterpart of ``PackedWriter.number``; more bytes than needed are taken as well."""
        value = 0
        for place in range(_NUMBER_BYTES):
            byte = self.scalar("B")
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80 and value < 2**32:
                return value
        raise FormatError("a number in the record of a weight has more than 32 bits")

    def numbers(self, most: int) -> tuple[int, ...]:
        """The counterpart of ``PackedWriter.numbers``, for ``most`` numbers at most."""
        count = self.number()
        if count > most:
            raise FormatError(f"the record of a weight lists {count} numbers where there can be {most}")
        return tuple(self.number() for _ in range(count))

    def text(self) -> str:
        """The counterpart of ``PackedWriter.text``."""
        try:
            return self.take(self.number()).decode("utf-8")
        except UnicodeDecodeError as error:
            raise FormatError("a text in the record of a weight is not UTF-8") from error

    def floats(self, count: int) -> np.ndarray:
        """float32 values."""
        return np.frombuffer(self.take(4 * count), "<f4").astype(np.float32)

    def bits(self, count: int, width: int) -> np.ndarray:
        """uint8 values of ``width`` bits, 1 to 8."""
        data = np.frombuffer(self.take(-(-count * width // 8)), np.uint8)
        bits = np.unpackbits(data, count=count * width, bitorder="little").reshape(count, width)
        return np.packbits(bits, axis=1, bitorder="little").reshape(count)
