"""The way of a kernel through the package, for the page on architecture."""

from matplotlib.figure import Figure

from docs.draw.style import BLUE, GREEN, ORANGE, arrow, box, canvas

STEPS = (
    ("1. find", "float_file/matching.py", "Kernel: id, values, uses", BLUE),
    ("2. plan", "lowering/choose_layout.py", "KernelPlan: config, layouts", BLUE),
    ("3. measure", "fit/measure.py", "mean inputs, ranges", BLUE),
    ("4. decide", "fit/order.py: plan_fit", "statistics or not, and why", BLUE),
    ("5. fit", "fit/kernel.py", "QuantizedKernel: codes, bias", GREEN),
    ("6. headroom", "fit/order.py", "biases and ranges that fit", GREEN),
    ("7. write", "tflite/layouts/, lowering/emit.py", "its Layout writes it", GREEN),
    ("8. tell", "describe.py, simulation/, report/", "read it, derive nothing", ORANGE),
)


def draw() -> Figure:
    """Eight boxes in two rows."""
    figure, axes = canvas(10.6, 2.75)
    width, height = 2.35, 0.85
    for index, (*lines, colour) in enumerate(STEPS):
        row, column = divmod(index, 4)
        middle = 1.3 + 2.67 * column, 2.1 - 1.35 * row
        box(axes, middle, (width, height), lines, colour)
        if column < 3:
            arrow(axes, (middle[0] + width / 2, middle[1]), (middle[0] + 2.67 - width / 2, middle[1]))
    right, left, between = 1.3 + 2.67 * 3, 1.3, 1.43
    axes.plot([right, right, left], [2.1 - height / 2, between, between], color="#8a8f98", linewidth=1.4)
    arrow(axes, (left, between), (left, 0.75 + height / 2))
    return figure
