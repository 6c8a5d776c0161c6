"""A page in Debian's chromium, driven by its DevTools protocol: nothing to install."""

import asyncio
import base64
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

_PATIENCE = 300.0  # seconds, on a busy machine


class Tab:
    """One tab.

    Args:
        socket: to its DevTools.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._number = socket, 0

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol and returns its result.

        Raises:
            RuntimeError: the browser says why not.
        """
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            answer = await self._socket.receive_json(timeout=_PATIENCE)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression.

        Raises:
            RuntimeError: it throws.
        """
        found = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script[:80]}: {found['exceptionDetails'].get('exception', {}).get('description')}")
        return found["result"].get("value")

    async def until(self, script: str) -> Any:
        """Waits until an expression is true, and returns its value.

        Raises:
            TimeoutError: it never is.
        """
        async with asyncio.timeout(_PATIENCE):
            while not (value := await self.run(script)):
                await asyncio.sleep(0.3)
        return value

    async def screenshot(self, file: Path, height: int | None = None) -> None:
        """Writes what the tab shows, or its uppermost `height` pixels, as PNG."""
        size = await self.run("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": min(height or size[1], size[1]), "scale": 1}
        shot = await self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))


@contextlib.asynccontextmanager
async def open_tab(address: str, width: int, height: int) -> AsyncIterator[Tab]:
    """A page in a browser of its own, which ends with the block.

    Raises:
        FileNotFoundError: there is no chromium on this machine.
    """
    program = shutil.which("chromium")
    if program is None:
        raise FileNotFoundError("There is no chromium here.")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
                   f"--window-size={width},{height}", f"--user-data-dir={profile}", "--remote-debugging-port=0",
                   "--remote-debugging-address=127.0.0.1", "about:blank"]  # fmt: skip
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = await _port(Path(profile, "DevToolsActivePort"), browser)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    found = next(entry for entry in await answer.json() if entry["type"] == "page")
                async with session.ws_connect(found["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    tab = Tab(socket)
                    await tab.call("Page.navigate", url=address)
                    await tab.until("document.readyState === 'complete' && location.href !== 'about:blank'")
                    yield tab
        finally:
            browser.terminate()
            browser.wait(60)


async def _port(file: Path, browser: "subprocess.Popen[bytes]") -> str:
    async with asyncio.timeout(_PATIENCE):
        while not (file.exists() and file.read_text()):
            assert browser.poll() is None, "chromium ended at once"
            await asyncio.sleep(0.2)
    return file.read_text().split()[0]
