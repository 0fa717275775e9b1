"""A headless Chromium for tests, driven over its DevTools protocol.

It needs an installed Chromium or Chrome and nothing else; a whole driver would be a large dependency for few tests.
"""

import base64
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection, connect

from tests.programs import CHROMIUM, find_program

DEADLINE_SECONDS: Final = 30.0  # A cold start on a busy machine with two cores took 8.


@contextmanager
def open_page(url: str) -> Iterator["Page"]:
    """A browser of its own, with an empty profile, that has loaded `url`."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            find_program(*CHROMIUM),
            "--headless",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-quic",
            # What a page asks of another host fails at once, also on a machine with a network.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            "--window-size=1400,1000",
            # Chromium refuses to run as root with its sandbox; the pages are our own.
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
            "about:blank",
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(_devtools_address(Path(profile), process), max_size=None, compression=None) as connection:
                yield Page(connection, url)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _devtools_address(profile: Path, process: "subprocess.Popen[bytes]") -> str:
    """The WebSocket that Chromium announces in a file of its profile: the port, then the path."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            port, path = (profile / "DevToolsActivePort").read_text().split()
        except (FileNotFoundError, ValueError):
            time.sleep(0.05)
        else:
            return f"ws://127.0.0.1:{port}{path}"
    raise TimeoutError(f"{process.args!r} did not start; exit code {process.poll()}")


class Page:
    """One tab.

    `requests` are the addresses that it requested, `complaints` errors, warnings and blocked loads.
    """

    def __init__(self, connection: ClientConnection, url: str) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._connection = connection
        self._session: str | None = None
        self._last_id = 0
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        self._call("Page.navigate", url=url)
        self.wait_for("document.URL !== 'about:blank' && document.readyState === 'complete'")

    @property
    def hosts(self) -> set[str]:
        """`host:port` of everything requested over the network."""
        return {urlsplit(url).netloc for url in self.requests if urlsplit(url).scheme not in {"data", "blob", "about"}}

    def evaluate(self, expression: str) -> Any:
        """Return the JSON value of a JavaScript expression in the page.

        An exception in the page is raised here, too.
        """
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']['exception']['description']}")
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until the JavaScript `expression` is true."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not self.evaluate(f"Boolean({expression})"):
            if time.monotonic() > deadline:
                text = self.evaluate("document.body.innerText")
                raise AssertionError(f"never true: {expression}\ncomplaints: {self.complaints}\nshown: {text}")
            time.sleep(0.05)

    def click(self, selector: str, text: str = "") -> None:
        """Click the first element that matches `selector` and contains `text`, once there is one."""
        matching = f"[...document.querySelectorAll({json.dumps(selector)})]"
        element = f"{matching}.find(e => e.textContent.includes({json.dumps(text)}))"
        self.wait_for(element)
        self.evaluate(f"{element}.click()")

    def type(self, selector: str, text: str) -> None:
        """Type into the field that matches `selector`, once there is one, as a keyboard would."""
        self.wait_for(f"document.querySelector({json.dumps(selector)})")
        self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        self._call("Input.insertText", text=text)

    def navigate(self, url: str) -> None:
        """Load another page."""
        self._call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def resize(self, width: int, height: int) -> None:
        """Set the size of the window, in CSS pixels."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer_colours(self, scheme: str) -> None:
        """Emulate a system with a `light` or `dark` theme."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", features=features)

    def press(self, key: str) -> None:
        """Press a key, such as `Tab`, `Enter` or `Escape`."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27}
        for kind in ("rawKeyDown", "char", "keyUp") if key == "Enter" else ("rawKeyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind != "keyUp" else {}
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key], **text)

    def go_offline(self, is_offline: bool) -> None:
        """Cut the page off from the network, or connect it again."""
        self._call(
            "Network.emulateNetworkConditions",
            offline=is_offline,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )

    def hold(self, pattern: str) -> None:
        """Answer no request to addresses that match `pattern` (with `*`) until `release`."""
        self._call("Fetch.enable", patterns=[{"urlPattern": pattern}])

    def release(self) -> None:
        """Let all requests that were held go on."""
        self._call("Fetch.disable")

    def choose_files(self, selector: str, *paths: Path) -> None:
        """Choose files in the file input that matches `selector`, once there is one."""
        self.wait_for(f"document.querySelector({json.dumps(selector)})")
        document = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def hide_scrollbars(self) -> None:
        """Show no scrollbars, as on a phone."""
        self._call("Emulation.setScrollbarsHidden", hidden=True)

    def screenshot(self) -> bytes:
        """Return a screenshot as PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def _call(self, method: str, **params: object) -> dict[str, Any]:
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._connection.send(json.dumps(message))
        while True:
            answer: dict[str, Any] = json.loads(self._connection.recv(DEADLINE_SECONDS))
            if answer.get("id") == self._last_id:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer.get("method"), answer.get("params", {}))

    def _note(self, event: str | None, params: dict[str, Any]) -> None:
        match event:
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Network.loadingFailed" if not params.get("canceled"):
                self.complaints.append(f"not loaded: {params.get('blockedReason') or params['errorText']}")
            case "Log.entryAdded" if params["entry"]["level"] in {"warning", "error"}:
                self.complaints.append(f"{params['entry']['text']} ({params['entry'].get('url')})")
            case "Runtime.consoleAPICalled" if params["type"] in {"warning", "error", "assert"}:
                self.complaints.append(str([argument.get("value") for argument in params["args"]]))
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.complaints.append(details.get("exception", {}).get("description") or details["text"])
