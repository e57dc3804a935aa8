"""Headless Chromium that is told what to do from Python, by the DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/ (domains Runtime, Page, Emulation, Input)
"""

import base64
import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import websocket

ROOT = Path(__file__).resolve().parents[2]
#: Seconds that the browser may take to start, and that an expression may take unless told otherwise.
START, PATIENCE = 60.0, 600.0
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


class _Handler(SimpleHTTPRequestHandler):
    def end_headers(self):
        # An isolated page has a clock of 5 microseconds instead of 100.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *_):
        """Say nothing."""


class Page:
    """A page in the browser; made by ``open_page``."""

    def __init__(self, address: str):
        self._socket = websocket.create_connection(address, suppress_origin=True, timeout=PATIENCE)
        self._count = 0

    def call(self, method: str, timeout: float = PATIENCE, **parameters: Any) -> dict:
        """A command of the protocol.

        Raises:
            RuntimeError: the browser refuses it.
            TimeoutError: no answer came.
        """
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        until = time.monotonic() + timeout
        while True:
            self._socket.settimeout(max(until - time.monotonic(), 0.01))
            try:
                message = json.loads(self._socket.recv())
            except websocket.WebSocketTimeoutException as error:
                raise TimeoutError(f"the browser did not answer {method} within {timeout:g} seconds") from error
            if message.get("id") == self._count:
                break
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']['message']}")
        return message["result"]

    def evaluate(self, expression: str, timeout: float = PATIENCE) -> Any:
        """Value of a JavaScript expression, of what a promise yields.

        Raises:
            RuntimeError: it throws; the message is that of the error.
        """
        options = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
        found = self.call("Runtime.evaluate", timeout, expression=expression, **options)
        if "exceptionDetails" in found:
            thrown = found["exceptionDetails"].get("exception", {})
            raise RuntimeError(thrown.get("description") or thrown.get("value") or str(found["exceptionDetails"]))
        return found["result"].get("value")

    def apply(self, function: str, *arguments: Any, timeout: float = PATIENCE) -> Any:
        """What a function of the page returns for arguments that JSON can hold."""
        return self.evaluate(f"{function}({', '.join(map(json.dumps, arguments))})", timeout)

    def resize(self, width: int, height: int, mobile: bool = False) -> None:
        """Give the page another size, in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def drag(self, points: list[tuple[float, float]]) -> None:
        """Draw a line with the mouse, in CSS pixels."""
        kinds = ["mousePressed", *["mouseMoved"] * len(points), "mouseReleased"]
        for kind, (x, y) in zip(kinds, [points[0], *points, points[-1]], strict=True):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def screenshot(self) -> bytes:
        """The whole page, as PNG."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(found["data"])

    def close(self) -> None:
        """Leave the page."""
        self._socket.close()


@contextmanager
def open_page(path: str, root: Path = ROOT) -> Iterator[Page]:
    """Serve a folder on this machine, and open one of its pages.

    The browser is the one that ``CHROMIUM`` names, or is found.

    Raises:
        FileNotFoundError: there is no browser.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, _chromium(profile) as port:
            page = Page(_page_address(port))
            try:
                page.call("Page.enable")
                page.call("Page.navigate", url=f"http://127.0.0.1:{server.server_address[1]}/{path}")
                page.evaluate("new Promise(done => document.readyState === 'complete' ? done() : onload = done)")
                yield page
            finally:
                page.close()
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _chromium(profile: str) -> Iterator[int]:
    """A browser with a fresh profile; yields the port that it listens on."""
    name = os.environ.get("CHROMIUM") or next(filter(shutil.which, _NAMES), None)
    if name is None:
        raise FileNotFoundError(
            "no Chromium found; install it (Debian: apt-get install chromium), or name it: CHROMIUM="
        )
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0"]
    with open(Path(profile) / "log.txt", "wb") as log:
        process = subprocess.Popen([name, *flags, f"--user-data-dir={profile}", "about:blank"], stdout=log, stderr=log)
    try:
        yield _port(process, Path(profile))
    finally:
        process.terminate()
        process.wait(timeout=START)


def _port(process: subprocess.Popen, profile: Path) -> int:
    until = time.monotonic() + START
    while time.monotonic() < until and process.poll() is None:
        file = profile / "DevToolsActivePort"
        if file.exists() and re.match(r"\d+\n", text := file.read_text(encoding="utf-8")):
            return int(text.splitlines()[0])
        time.sleep(0.05)
    raise RuntimeError(f"the browser did not start: {(profile / 'log.txt').read_text(encoding='utf-8')[-2000:]}")


def _page_address(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=START) as answer:
        pages = [it for it in json.load(answer) if it["type"] == "page"]
    return pages[0]["webSocketDebuggerUrl"]
