"""The kept inputs: corpus/<target>.txt, an input a line in base64, the short ones first."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable
from hashlib import sha1
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


def load(target: str) -> list[bytes]:
    """The inputs that are kept for a target."""
    path = FOLDER / f"{target}.txt"
    return [b64decode(line) for line in path.read_text().splitlines()] if path.exists() else []


def save(target: str, inputs: Iterable[bytes]) -> None:
    """Keep these and no others."""
    ordered = sorted(set(inputs), key=lambda data: (len(data), data))
    (FOLDER / f"{target}.txt").write_text("".join(b64encode(data).decode() + "\n" for data in ordered))


def unpack(target: str, folder: Path) -> None:
    """As libFuzzer has it: a file an input."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in load(target):
        (folder / sha1(data).hexdigest()).write_bytes(data)


def pack(target: str, folder: Path) -> int:
    """Keep what is in a folder of libFuzzer's; how many."""
    inputs = [path.read_bytes() for path in folder.iterdir()]
    save(target, inputs)
    return len(inputs)
