"""Bytes of keys and rows: what the materializer writes and the server reads."""
