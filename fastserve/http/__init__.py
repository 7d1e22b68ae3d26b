"""The data plane's HTTP front end: bytes in, `Handler` called, bytes out. It knows no features.

message.py      <- START HERE. Request, Response, Handler: the seam
server.py       Server (one port, every protocol), make_ssl_context
workers.py      run_workers: processes sharing the port; supervisor.py starts, replaces and stops them,
                worker.py is one worker's side of it
limits.py       Limits: every bound and time-out     stats.py    Stats: counters
connection.py   what connections share: the handler call, back-pressure, time-outs, closing
h1.py           HTTP/1.1 on httptools
h2.py           HTTP/2 on a session; session.py is the session's contract, its twins are
                h2_py.py (the `h2` library; frames.py counts frames) and _ext/h2.pyx (libnghttp2)
replies.py      the answers given without a handler

Nothing is imported here: the native session imports message.py, and handlers need no server.
"""
