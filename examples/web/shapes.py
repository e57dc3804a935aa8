"""Pictures of shapes, drawn at random: data for a small network that needs no download."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

LABELS = ("circle", "square", "triangle", "star", "cross", "heart")
SIZE = 48
#: Pictures are drawn larger and made smaller, for smooth edges.
_FINE = 4


def draw_pictures(count: int, seed: int, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 ``[count, size, size, 3]``, and labels int ``[count]``; equally many of each class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % len(LABELS))
    return np.stack([_picture(rng, label, size) for label in labels]), labels


def _picture(rng: np.random.Generator, label: int, size: int) -> np.ndarray:
    """One shape of any colour, place, size and angle in front of a gradient, with noise."""
    whole = size * _FINE
    ground, ink = _two_colours(rng)
    image = _gradient(rng, ground, whole)
    radius = rng.uniform(0.2, 0.42) * whole
    centre = rng.uniform(radius, whole - radius, 2)
    angle = rng.uniform(-0.45, 0.45)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = _outline(label) @ turn.T * radius + centre
    ImageDraw.Draw(image).polygon([tuple(point) for point in points], fill=tuple(ink))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.8) * _FINE)).resize(
        (size, size), Image.Resampling.BOX
    )
    return np.clip(np.asarray(image) + rng.normal(0, rng.uniform(0, 10), (size, size, 3)), 0, 255).astype(np.uint8)


def _outline(label: int) -> np.ndarray:
    """Corners ``[points, 2]`` of a shape in the unit circle; y points down."""
    turns = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    match LABELS[label]:
        case "circle":
            return np.stack([np.cos(turns), np.sin(turns)], axis=1)
        case "square":
            return 0.75 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        case "triangle":
            return np.array([[0, -1], [0.87, 0.6], [-0.87, 0.6]])
        case "star":
            radii = np.where(np.arange(10) % 2, 0.42, 1.0)
            return radii[:, None] * np.stack([np.sin(turns[::6]), -np.cos(turns[::6])], axis=1)
        case "cross":
            quarter = np.array([[0.3, -0.95], [0.3, -0.3], [0.95, -0.3]])
            return np.concatenate([quarter @ np.linalg.matrix_power([[0, 1], [-1, 0]], at) for at in range(4)])
        case _:
            x = 16 * np.sin(turns) ** 3
            y = 13 * np.cos(turns) - 5 * np.cos(2 * turns) - 2 * np.cos(3 * turns) - np.cos(4 * turns)
            return np.stack([x, -y], axis=1) / 17


def _two_colours(rng: np.random.Generator) -> np.ndarray:
    """Two colours that can be told apart, int ``[2, 3]``."""
    while True:
        colours = rng.integers(0, 256, (2, 3))
        if np.abs(np.diff(colours @ [0.3, 0.6, 0.1])) > 60:
            return colours


def _gradient(rng: np.random.Generator, colour: np.ndarray, size: int) -> Image.Image:
    """A picture from a colour to a slightly different one, in any direction."""
    direction, other = rng.normal(size=2), np.clip(colour + rng.integers(-40, 41, 3), 0, 255)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    share = (1 + np.tanh(direction[0] * x + direction[1] * y))[..., None] / 2
    return Image.fromarray((colour * (1 - share) + other * share).astype(np.uint8))
