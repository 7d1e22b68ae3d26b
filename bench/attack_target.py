"""A server to attack, in a process of its own: `python -m bench.attack_target LIMITS [CERT KEY [FILE]]`.

LIMITS is JSON of fastserve.http.limits.Limits. It prints {"ready", "port", "tls_port"}, and writes it into FILE.
GET / is answered at once, /big by 50 KB, /stats by the counters, /wait in a second. The HTTP/2 session is native
unless FASTSERVE_NO_EXTENSIONS=1.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import uvloop

from fastserve.http.h2 import Session
from fastserve.http.limits import Limits
from fastserve.http.message import Request, Response
from fastserve.http.server import Server, make_ssl_context

WAIT_S = 1.0
BIG = bytes(50_000)
ANSWER = b"right"


def resolve(answer: asyncio.Future[Response]) -> None:
    """Unless nobody waits any more."""
    if not answer.done():
        answer.set_result(Response(200, "text/plain", b"late"))


async def serve(limits: Limits, pair: list[str]) -> None:
    """Serve until it is killed."""
    loop = asyncio.get_running_loop()
    servers: list[Server] = []

    def handler(request: Request) -> Response | asyncio.Future[Response]:
        if request.path == "/wait":
            answer: asyncio.Future[Response] = loop.create_future()
            loop.call_later(WAIT_S, resolve, answer)
            return answer
        if request.path == "/big":
            return Response(200, "application/octet-stream", BIG)
        if request.path == "/stats":
            counts = [server.stats.as_dict() for server in servers]
            summed = {name: sum(one[name] for one in counts) for name in counts[0]}
            return Response(200, "application/json", json.dumps(summed).encode())
        return Response(200, "text/plain", ANSWER)

    servers.append(Server(handler, limits=limits))
    if pair:
        servers.append(Server(handler, limits=limits, ssl_context=make_ssl_context(pair[0], pair[1])))
    for server in servers:
        await server.start("127.0.0.1", 0)
    ports = {"port": servers[0].port, "tls_port": servers[-1].port, "session": Session.__module__}
    said = json.dumps({"ready": True} | ports)
    if len(pair) > 2:
        Path(pair[2]).write_text(said)
    print(said, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(Limits(**json.loads(sys.argv[1])), sys.argv[2:]))
