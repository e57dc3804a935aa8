"""Draw all pictures: ``python -m docs.draw [folder]``."""

import sys
from pathlib import Path

from docs.draw import attention_round, blocks, choosing, kernel_way, shift_scaler
from docs.draw.style import write

PICTURES = {
    "attention_round": attention_round.draw,
    "blocks": blocks.draw,
    "choosing": choosing.draw,
    "kernel_way": kernel_way.draw,
    "shift_scaler": shift_scaler.draw,
}


def main(folder: Path) -> None:
    """Write every picture as SVG."""
    for name, draw in PICTURES.items():
        write(draw, folder / f"{name}.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "pictures")
