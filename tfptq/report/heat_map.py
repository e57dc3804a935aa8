"""Heat maps as PNG files, from nothing but the standard library.

A PNG is a signature and chunks ``length, name, data, CRC-32``; the pixels are rows, each after a filter byte 0,
compressed as one zlib stream (W3C Portable Network Graphics specification, sections 5, 9 and 11).
"""

import base64
import struct
import zlib

import numpy as np

#: Colours from the smallest to the largest value: dark blue, teal, green, yellow; each lighter than the one before.
_COLOURS = np.array([(24, 28, 72), (28, 92, 128), (42, 148, 122), (134, 196, 88), (250, 230, 90)], np.float64)


def heat_map(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colour of each value in ``[rows, columns]`` between ``low`` and ``high``: uint8 ``[rows, columns, RGB]``."""
    shares = np.clip((np.asarray(values, np.float64) - low) / ((high - low) or 1.0), 0.0, 1.0)
    stops = np.linspace(0.0, 1.0, len(_COLOURS))
    channels = [np.interp(shares, stops, _COLOURS[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=2)).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """A PNG file with one pixel for each entry of uint8 ``[rows, columns, 3]``."""
    rows, columns, _ = pixels.shape
    lines = np.pad(pixels.reshape(rows, -1), ((0, 0), (1, 0)))  # filter byte 0 before each row
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)  # 8 bits, true colour
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def data_url(file: bytes) -> str:
    """A PNG file as text that can stand in a page."""
    return "data:image/png;base64," + base64.b64encode(file).decode("ascii")
