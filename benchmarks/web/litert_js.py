"""LiteRT.js as a runtime beside LiteRT: one thread, WebAssembly, in headless Chromium."""

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from benchmarks.web.browser import ROOT, Page, open_page

PAGE = "benchmarks/web/measure.html"
PACKAGE = "examples/web/node_modules/@litertjs/core"
#: Time that one file is run for, in seconds, and the rounds that this is divided into.
SECONDS, ROUNDS = 0.15, 3


@dataclass(frozen=True)
class LiteRtJs:
    """The page that runs files; made by ``open_litert_js``."""

    page: Page

    @property
    def versions(self) -> dict[str, str]:
        """Of the runtime and of the browser."""
        package = json.loads((ROOT / PACKAGE / "package.json").read_text(encoding="utf-8"))
        return {"litert_js": package["version"], "browser": self.page.call("Browser.getVersion")["product"]}

    def seconds(self, files: Mapping[str, bytes]) -> dict[str, float]:
        """Time of one run of each file, the median of least ones; the files take turns."""
        texts = {name: _text(data) for name, data in files.items()}
        found = self.page.apply("millisecondsOf", texts, SECONDS, ROUNDS)
        return {name: value / 1e3 for name, value in found.items()}

    def outputs(self, content: bytes, samples: np.ndarray) -> np.ndarray:
        """Outputs float32 ``[N, outputs]`` of a file with one input and one output, for float32 samples ``[N, ...]``.

        Raises:
            RuntimeError: LiteRT.js refuses the file.
        """
        found = self.page.apply("outputsOf", _text(content), [_text(sample.tobytes()) for sample in samples])
        return np.array(found, np.float32)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


@contextmanager
def open_litert_js() -> Iterator[LiteRtJs]:
    """LiteRT.js as ``examples/web/package.json`` names it.

    Raises:
        FileNotFoundError: it is not installed, or there is no browser.
    """
    if not (ROOT / PACKAGE).exists():
        raise FileNotFoundError(f"{PACKAGE} is not there: run `make web`, which installs LiteRT.js with npm")
    with open_page(PAGE) as page:
        yield LiteRtJs(page)
