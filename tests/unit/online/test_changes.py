"""Change messages: what a writer packs, a reader finds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastserve.batch.batch_py import ReadBatch
from fastserve.online.changes import channel_of, pack_keys


@given(keys=st.lists(st.binary(max_size=300)))
def test_what_is_packed_is_found(keys: list[bytes]) -> None:
    assert ReadBatch.from_packed(pack_keys(keys)).keys() == keys


def test_a_key_too_long_for_a_message_is_left_out() -> None:
    assert ReadBatch.from_packed(pack_keys([b"a", bytes(65_536), b"b"])).keys() == [b"a", b"b"]
    assert ReadBatch.from_packed(pack_keys([bytes(65_535)])).keys() == [bytes(65_535)]


def test_databases_of_a_server_have_channels_of_their_own() -> None:
    assert channel_of(0) != channel_of(1)
