"""Load tests: Locust users over HTTP/2 and HTTP/1.1, open or closed loop, every answer checked. docs/load-testing.md.

    python -m loadtest --rate 300 --seconds 20      # its own data, store and server
    locust -f loadtest/locustfile.py --host http://127.0.0.1:6566 --rate 300

Nothing imports this package but bench/, which takes its data (data.py) and its keys (keys.py).
"""
