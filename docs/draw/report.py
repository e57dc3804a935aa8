"""The picture of a report on its page: ``python -m docs.draw.report``. It needs Chromium.

The report is that of ``examples/digits.py`` at 4 bits; the picture is its first screens.
"""

import base64
import tempfile
from pathlib import Path

from tfptq import quantize_keras_model

# isort: split
import keras

from benchmarks.web.browser import open_page
from examples.digits import build_model, load_data, train

PICTURE = Path(__file__).parents[1] / "pictures" / "report.png"
WIDTH, HEIGHT = 1000, 1000


def main() -> None:
    """Train, quantize, save the report, and photograph it."""
    keras.utils.set_random_seed(0)
    x_train, _, y_train, _ = load_data()
    model = build_model()
    train(model, x_train, y_train)
    result = quantize_keras_model(model, x_train[:256], "w4a8_channel", progress=False)
    with tempfile.TemporaryDirectory() as folder:
        result.report.save(Path(folder) / "report.html")
        with open_page("report.html", Path(folder)) as page:
            page.resize(WIDTH, HEIGHT)
            found = page.call("Page.captureScreenshot", format="png")
    PICTURE.write_bytes(base64.b64decode(found["data"]))


if __name__ == "__main__":
    main()
