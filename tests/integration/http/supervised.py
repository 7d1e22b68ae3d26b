"""`worker_targets.py` in a subprocess."""

import asyncio
import re
import signal
import sys
from pathlib import Path

from tests.integration.http.wire import Raw, within

ROOT = Path(__file__).parents[3]


class Supervised:
    """A supervisor with its workers."""

    def __init__(self, process):
        self.process = process
        self.port = 0

    @classmethod
    async def start(cls, scenario, count, port=0, *rest):
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.integration.http.worker_targets",
                *map(str, (scenario, count, port, *rest)),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=ROOT,
            )
        )

    async def line(self):
        return (await within(self.process.stdout.readline())).decode().strip()

    async def ready(self, workers):
        match = re.fullmatch(rf"fastserve: {workers} ready on 127\.0\.0\.1:(\d+)", await self.line())
        assert match
        self.port = int(match[1])
        return self

    async def until(self, text):
        """The lines of stdout up to the one with that text."""
        lines = [await self.line()]
        while text not in lines[-1]:
            assert lines[-1], lines
            lines.append(await self.line())
        return lines

    async def told(self, text):
        """The lines of stderr up to the one with that text."""
        lines = []
        while not lines or text not in lines[-1]:
            lines.append((await within(self.process.stderr.readline())).decode())
            assert lines[-1], lines
        return lines

    async def end(self):
        """(status, rest of stdout, rest of stderr)."""
        out, err = await within(self.process.communicate())
        return self.process.returncode, out.decode(), err.decode()

    async def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return await self.end()

    async def get(self, path="/"):
        """The body of one answer on a fresh connection; None when it breaks."""
        try:
            async with await Raw.connect(self) as client:
                await client.send(b"GET %b HTTP/1.1\r\nhost: h\r\n\r\n" % path.encode())
                return (await client.response())[2]
        except (ConnectionError, asyncio.IncompleteReadError):
            return None
