"""A browser that is told what to do: Chromium, by W3C WebDriver."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
PATIENCE = 60
"""Seconds after which a page is taken to never come to what is waited for."""
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """A window of Chromium. Elements are named by CSS selectors."""

    def __init__(self, client: httpx.Client, session: str) -> None:
        self._client = client
        self._session = session

    def command(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._client.request(method, f"/session/{self._session}{path}", json=body)
        value = answer.json()["value"]
        assert answer.is_success, value["message"]
        return value

    def cdp(self, name: str, **parameters: Any) -> Any:
        """Send a command of the Chrome DevTools Protocol."""
        return self.command("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def open(self, url: str) -> None:
        self.command("POST", "/url", {"url": url})

    def window(self, width: int, height: int, dark: bool = False) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.cdp("Emulation.setDeviceMetricsOverride", **metrics)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.cdp("Emulation.setEmulatedMedia", features=features)

    def evaluate(self, expression: str, *arguments: Any) -> Any:
        """Return the value of an expression of JavaScript, awaited; it sees ``arguments``."""
        script = f"return (async (...given) => {expression})(...arguments)"
        return self.command("POST", "/execute/sync", {"script": script, "args": arguments})

    def wait(self, expression: str, *arguments: Any) -> Any:
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + PATIENCE
        while not (value := self.evaluate(expression, *arguments)):
            assert time.monotonic() < end, f"never true: {expression}; the page says: {self.text('main')}"
            time.sleep(0.05)
        return value

    def find(self, selector: str) -> str:
        element = self.command("POST", "/element", {"using": "css selector", "value": selector})
        return f"/element/{element[_ELEMENT]}"

    def text(self, selector: str) -> str:
        text: str = self.command("GET", f"{self.find(selector)}/text")
        return text

    def click(self, selector: str) -> None:
        self.command("POST", f"{self.find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        """Type into a control; for one that takes files, their paths."""
        self.command("POST", f"{self.find(selector)}/value", {"text": text})

    def clear(self, selector: str) -> None:
        self.command("POST", f"{self.find(selector)}/clear", {})

    def drag(self, selector: str, places: list[tuple[int, int]]) -> None:
        """Press in an element, and go from place to place, in pixels from its centre."""
        origin = {_ELEMENT: self.find(selector).rpartition("/")[2]}
        moves: list[dict[str, Any]] = [
            {"type": "pointerMove", "origin": origin, "x": x, "y": y, "duration": 20} for x, y in places
        ]
        moves.insert(1, {"type": "pointerDown", "button": 0})
        moves.append({"type": "pointerUp", "button": 0})
        self.command("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": moves}]})

    def screenshot(self) -> bytes:
        """Return a PNG of the whole page."""
        shot = self.cdp("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def requested(self) -> list[str]:
        """Return the URLs that were asked for since the last call."""
        events = (json.loads(entry["message"])["message"] for entry in self._log("performance"))
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """Return what the console showed as warnings and errors since the last call."""
        return [entry["message"] for entry in self._log("browser") if entry["level"] in ("WARNING", "SEVERE")]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.command("POST", "/se/log", {"type": kind})
        return entries


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser with files of its own."""
    # Chromium names a socket by a path in this folder, and the system takes at most 107 bytes for it.
    with tempfile.TemporaryDirectory(prefix="chromium-") as folder:
        yield from _browsing(folder)


def _browsing(folder: str) -> Iterator[Browser]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    driver = subprocess.Popen(
        [str(DRIVER), f"--port={port}"],
        env={**os.environ, "TMPDIR": folder},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={folder}/user"]
    options = {"binary": CHROMIUM, "args": arguments}
    wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"}}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, trust_env=False) as client:
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    client.get("/status")
                    break
                except httpx.ConnectError:
                    assert time.monotonic() < end, "chromedriver does not start"
                    time.sleep(0.1)
            answer = client.post("/session", json={"capabilities": {"alwaysMatch": wanted}})
            assert answer.is_success, answer.text
            browser = Browser(client, answer.json()["value"]["sessionId"])
            try:
                yield browser
            finally:
                browser.command("DELETE", "")
    finally:
        driver.send_signal(signal.SIGTERM)
        driver.wait(30)
