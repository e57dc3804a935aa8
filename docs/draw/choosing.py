"""Which target, and which preset: two questions."""

from matplotlib.figure import Figure

from docs.draw.style import BLUE, GREEN, GREY, ORANGE, TEXT, arrow, box, canvas

TARGETS = (
    ("cpu", "phone, PC, server", "(default)"),
    ("web", "browser", "LiteRT.js"),
    ("micro", "microcontroller", "TFLite Micro"),
    ("npu", "NPU", "Vela and its like"),
    ("any", "not known", "INT8 only"),
)


def draw() -> Figure:
    """Targets in a row, presets as a tree below."""
    figure, axes = canvas(9.6, 6.45)
    axes.text(0.2, 6.15, "1.  Where will the file run?  That is the target.", fontsize=12, weight="bold", color=TEXT)
    for index, lines in enumerate(TARGETS):
        box(axes, (1.08 + 1.86 * index, 5.5), (1.7, 0.8), lines, BLUE if index == 0 else GREY)
    question = "2.  Quantize with the default and evaluate the file.  What is wrong with it?"
    axes.text(0.2, 4.7, question, fontsize=12, weight="bold", color=TEXT)
    box(axes, (1.15, 2.55), (1.9, 0.85), ("w8a8_shift", "8 bits", "(default)"), BLUE)
    steps = {
        4.05: ("too inaccurate", ("w8a8_channel", "8 bits,", "a scale per channel"), "still", _REPORT, ORANGE),
        3.05: ("too large", ("w4a8_channel", "4 bits,", "half the bytes"), "too inaccurate", _MIXED, GREEN),
        2.05: (
            "still too large",
            ("w2_mixed", "2, 4 and 8 bits", "layer by layer"),
            "too inaccurate",
            _MIXED_AT,
            GREEN,
        ),
        1.05: (
            "the NPU reads\nblock scales",
            ("w4a8_block", "4 bits,", "reordered blocks"),
            "wide layers",
            _FINE,
            GREY,
        ),
    }
    for y, (why, first, still, then, colour) in steps.items():
        axes.plot([2.1, 2.35, 2.35], [2.55, 2.55, y], color=GREY, linewidth=1.4)
        arrow(axes, (2.35, y), (4.0, y), why)
        box(axes, (4.95, y), (1.9, 0.8), first, colour)
        arrow(axes, (5.9, y), (7.3, y), still)
        box(axes, (8.4, y), (2.2, 0.8), then, colour)
    axes.text(
        0.2, 0.25, "Or let  tfptq.search  find the smallest file that is accurate enough.", fontsize=10, color=TEXT
    )
    return figure


_REPORT = ("see the report", "finer or float layers,", "activation_bits=16")
_MIXED = ("w4a8_mixed", "8 bits where the", "outputs are sensitive")
_MIXED_AT = ("another budget", "MixedPrecision(...,", "ratio=0.48)")
_FINE = ("w4a8_fine_block", "a scale for each", "16 input channels")
