"""Clients for the tests: raw bytes, an `h2` client on a socket, and programs in subprocesses."""

import asyncio
import shutil

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset
from hyperframe.frame import Frame

WAIT_S = 20  # for anything that must happen: far above what it takes
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


async def within(awaitable):
    """Its result; fails instead of hanging."""
    return await asyncio.wait_for(awaitable, WAIT_S)


class Raw:
    """A TCP (or TLS) connection that sends what it is told."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, server, **kwargs):
        return cls(*await asyncio.open_connection("127.0.0.1", server.port, **kwargs))

    @classmethod
    async def of(cls, port):
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()

    async def close(self):
        self.writer.close()
        try:
            await within(self.writer.wait_closed())
        except OSError:
            pass

    async def send(self, data):
        self.writer.write(data)
        await within(self.writer.drain())

    async def rest(self):
        """All bytes until the server closes."""
        got = b""
        try:
            while data := await within(self.reader.read(1 << 16)):
                got += data
        except ConnectionError:
            pass
        return got

    async def response(self):
        """(status, headers, body) of one HTTP/1.1 answer with a content-length."""
        head = (await within(self.reader.readuntil(b"\r\n\r\n"))).split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in head[1:] if line)
        body = await within(self.reader.readexactly(int(headers.get(b"content-length", 0))))
        return int(head[0].split()[1]), headers, body


class H2Client(Raw):
    """An HTTP/2 client; events are collected by stream."""

    def __init__(self, reader, writer):
        super().__init__(reader, writer)
        self.conn = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.conn.initiate_connection()
        self.status = {}
        self.bodies = {}
        self.ended = set()
        self.resets = {}
        self.goaways = []
        self.eof = False

    async def flush(self):
        await self.send(self.conn.data_to_send())

    async def request(self, stream_id, path="/", body=b"", end=True, method="POST"):
        headers = [(":method", method), (":scheme", "http"), (":authority", "h"), (":path", path)]
        self.conn.send_headers(stream_id, headers, end_stream=end and not body)
        if body:
            self.conn.send_data(stream_id, body, end_stream=end)
        await self.flush()

    async def until(self, condition):
        """Read and react until `condition()`, or the end of the connection."""
        while not condition() and not self.eof:
            try:
                data = await within(self.reader.read(1 << 16))
            except ConnectionError:
                data = b""
            self.eof = not data
            for event in self.conn.receive_data(data):
                self.on_event(event)
            try:
                await self.flush()
            except ConnectionError:
                self.eof = True
        return self

    def on_event(self, event):
        match event:
            case ResponseReceived():
                self.status[event.stream_id] = int(dict(event.headers)[b":status"])
            case DataReceived():
                self.bodies.setdefault(event.stream_id, bytearray()).extend(event.data)
                self.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case StreamEnded():
                self.ended.add(event.stream_id)
            case StreamReset():
                self.resets[event.stream_id] = int(event.error_code)
            case ConnectionTerminated():
                self.goaways.append((int(event.error_code), event.last_stream_id))

    async def get(self, stream_id, path="/", body=b""):
        """(status, body) of one request."""
        await self.request(stream_id, path, body)
        await self.until(lambda: stream_id in self.ended)
        return self.status[stream_id], bytes(self.bodies.get(stream_id, b""))


def frames_of(data):
    """The whole frames at the start of `data`."""
    frames = []
    while len(data) >= 9:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        if len(data) < 9 + length:
            break
        frame.parse_body(memoryview(data[9 : 9 + length]))
        frames.append(frame)
        data = data[9 + length :]
    return frames


async def run(*command, check=True):
    """(stdout, stderr) of a program; skips when it is not installed."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert not check or process.returncode == 0, (command, process.returncode, out, err)
    return out, err
