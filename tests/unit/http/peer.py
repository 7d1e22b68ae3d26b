"""Two ends of an HTTP/2 connection in memory: our session, and the `h2` library as the client."""

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from hyperframe.frame import Frame

from fastserve.http.gate import Gate
from fastserve.http.limits import Limits
from fastserve.http.message import Response
from fastserve.http.replies import INTERNAL, rejections
from fastserve.http.stats import Stats

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def head(method="POST", path="/x?a=1", extra=()):
    return [
        (":method", method),
        (":scheme", "http"),
        (":authority", "host"),
        (":path", path),
        *extra,
    ]


class Owner:
    """Answers with `answer(request)`; None leaves the request waiting."""

    def __init__(self, answer, limits):
        self.answer = answer
        self.stats = Stats()
        self.rejections = rejections(limits)
        self.gate = Gate(["/gated"])
        self.requests = []
        self.cancelled = []
        self.failures = []

    def on_request(self, stream_id, request):
        self.requests.append((stream_id, request))
        return self.answer(request)

    def on_cancel(self, stream_id):
        self.cancelled.append(stream_id)

    def on_failure(self, error):
        self.failures.append(error)
        return INTERNAL


class Answer:
    """What the client saw of one stream."""

    def __init__(self):
        self.headers = {}
        self.informational = []
        self.body = bytearray()
        self.ended = False
        self.reset = None

    @property
    def status(self):
        return int(self.headers[b":status"])


class Peer:
    """A session and a client. `pump` carries bytes both ways until nothing moves."""

    def __init__(self, impl, answer=None, limits=None, now=100.0, window=None):
        self.limits = limits or Limits()
        self.owner = Owner(answer or (lambda r: Response(200, "text/plain", r.body)), self.limits)
        self.session = impl(self.owner, self.limits, now)
        self.now = now
        self.client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.client.initiate_connection()
        if window:
            self.client.increment_flow_control_window(window)
        self.answers = {}
        self.goaways = []
        self.output = bytearray()  # all that the session sent

    def request(self, stream_id, body=b"", headers=None, end=True):
        headers = headers or head()
        self.client.send_headers(stream_id, headers, end_stream=end and not body)
        if body:
            self.client.send_data(stream_id, body, end_stream=end)

    def pump(self):
        while True:
            up = self.client.data_to_send()
            if up:
                self.session.feed(up, self.now)
            down = self.session.data_to_send(1 << 16)
            if down:
                self.receive(down)
            if not up and not down:
                return self

    def receive(self, data):
        self.output += data
        for event in self.client.receive_data(data):
            self.on_event(event)

    def on_event(self, event):
        if isinstance(event, ConnectionTerminated):
            self.goaways.append((int(event.error_code), event.last_stream_id))
            return
        if not hasattr(event, "stream_id") or not event.stream_id:
            return
        answer = self.answers.setdefault(event.stream_id, Answer())
        match event:
            case ResponseReceived():
                answer.headers = dict(event.headers)
            case InformationalResponseReceived():
                answer.informational.append(dict(event.headers)[b":status"])
            case DataReceived():
                answer.body += event.data
                self.client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case StreamEnded():
                answer.ended = True
            case StreamReset():
                answer.reset = int(event.error_code)

    def raw(self, data):
        """Bytes past the client's state machine, straight into the session."""
        self.session.feed(data, self.now)
        return self.take()

    def take(self):
        """All output now, not shown to the client."""
        out = b""
        while more := self.session.data_to_send(1 << 16):
            out += more
        self.output += out
        return out


def parse_frames(data):
    """The frames of whole output."""
    view, frames = memoryview(bytes(data)), []
    while len(view):
        frame, length = Frame.parse_frame_header(view[:9])
        frame.parse_body(view[9 : 9 + length])
        frames.append(frame)
        view = view[9 + length :]
    return frames
