"""Fraud while it happens: train on windows of events, then decide on payments as they come, from a stream.

The card's history is made up and ends now. `make demo-fraud` runs it; each `$` line is a command you can type yourself.
Nothing but this machine is needed: events, windows and rows lie in LMDB.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from model import Model, fit
from prepare import DAY_US, US, Columns, history, live, make_cards, write

from fastserve import FeatureStore
from fastserve.client import Client
from fastserve.timeutil import format_timestamp, now_us

HERE = Path(__file__).resolve().parent
SERVICE = "fraud"
ASKED = ["card_id", "amount", "lat", "lon"]
DAYS, TEST_DAYS = 21, 4
WARM_DAYS = 7  # before, the longest window would not be full
PACE_S = 0.03  # between two payments


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def tool(name: str) -> str:
    return shutil.which(name, path=str(Path(sys.executable).parent)) or name


def shell(*command: str) -> str:
    """Run a command of this installation as a user would, and show it."""
    print(f"$ {' '.join(command)}", flush=True)
    done = subprocess.run(
        [tool(command[0]), *command[1:]], cwd=HERE, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}exit code {done.returncode}")
    return done.stdout


@contextmanager
def running(*command: str) -> Iterator[dict]:
    """A command that works until SIGTERM, and what it says when it is ready."""
    print(f"$ {' '.join(command)} &", flush=True)
    words = [tool(command[0]), *command[1:], "--json"]
    process = subprocess.Popen(words, cwd=HERE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            sys.exit(f"{' '.join(command)}: exit code {process.wait(20)}")
        yield json.loads(line)
    finally:
        process.terminate()
        print(f"{command[1]} stopped with exit code {process.wait(20)}")


def matrix(columns: dict[str, list], names: list[str]) -> np.ndarray:
    """The model's input, float64[n, C]: null becomes 0."""
    return np.array([[value or 0 for value in columns[name]] for name in names], float).T


def train(paid: pa.Table, now: int) -> tuple[Model, list[str]]:
    """A model of what was known just before each payment, and the names of its features.

    A window holds what happened up to its time: at the time of a payment, the payment too, which is not there when the
    decision is asked for. So labels are a microsecond earlier.
    """
    at = paid["paid_at"].cast(pa.int64()).to_numpy()
    labels = paid.select([*ASKED, "fraud"]).append_column("event_timestamp", pa.array(at - 1).cast(US))
    warm = at >= now - (DAYS - WARM_DAYS) * DAY_US
    labels, at = labels.filter(pa.array(warm)), at[warm]
    with FeatureStore(HERE) as store:
        table = store.get_historical_features(labels, service=SERVICE).to_arrow()
    names = [name for name in table.column_names if name not in labels.column_names]
    print(f"{len(table):,} payments, {len(names)} features: {', '.join(names)}")
    features, fraud = matrix(table.to_pydict(), names), table["fraud"].to_numpy()
    past = at < now - TEST_DAYS * DAY_US
    model = fit(features[past], fraud[past])
    print(f"model: trained on {past.sum():,} payments, {fraud[past].sum()} of them fraud")
    told(f"on the {TEST_DAYS} days after", model.score(features[~past]) > 0.5, fraud[~past])
    return model, names


def told(when: str, declined: np.ndarray, fraud: np.ndarray) -> None:
    right = int((declined & fraud).sum())
    print(
        f"{when}: {right} of {fraud.sum()} frauds declined, and {declined.sum() - right} of {(~fraud).sum()} others"
    )


def decide(client: Client, model: Model, names: list[str], coming: Columns) -> None:
    """Ask for each payment's features, score them, then tell the stream that it happened, whatever was decided."""
    reads, decisions, declined = [], [], []
    for number in range(len(coming["card_id"])):
        payment = {name: values[number].item() for name, values in coming.items() if name != "fraud"}
        begin = time.perf_counter()
        found = client.get_online_features(
            service=SERVICE, entities={name: [payment[name]] for name in ASKED}
        )
        reads.append(time.perf_counter() - begin)
        declined.append(bool(model.score(matrix(found.to_dict(), names))[0] > 0.5))
        decisions.append(time.perf_counter() - begin)
        now = format_timestamp(now_us())
        event = payment | {"payment_id": f"live{number}", "event_timestamp": now, "paid_at": now}
        client.push("payments", [event])
        time.sleep(PACE_S)
    told("live", np.array(declined), coming["fraud"])
    print(f"{len(reads)} reads by HTTP of {len(names)} features, one at a time: {tail(reads)}")
    print(f"decisions, a read and its score: {tail(decisions)}")


def tail(seconds: list[float]) -> str:
    p50, p99 = np.percentile(np.array(seconds) * 1e3, [50, 99])
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"


def wait(payments: int) -> None:
    """Return when all payments that were pushed are in the windows, and in history."""
    deadline = time.monotonic() + 30
    command = [tool("fastserve"), "stream", "status", "--json"]
    events = HERE / ".fastserve" / "offline" / SERVICE / ".events" / "payments" / "card_id"
    while time.monotonic() < deadline:
        done = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, check=True)
        applied = sum(shard.get("applied", 0) for shard in json.loads(done.stdout))
        if applied >= payments and DeltaTable.is_deltatable(str(events)):
            if DeltaTable(str(events)).to_pyarrow_dataset().count_rows() >= payments:
                return
        time.sleep(0.2)
    sys.exit(f"the worker did not apply and append {payments} payments in 30 s")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cards", type=int, default=400)
    options.add_argument("--payments", type=int, default=400, help="to decide on while they come")
    options.add_argument("--seed", type=int, default=7)
    args = options.parse_args()
    for name in (".fastserve", "data"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    os.chdir(HERE)
    rng, now = np.random.default_rng(args.seed), now_us()
    cards = make_cards(args.cards, rng)
    paid = history(cards, DAYS, now, rng)
    write(cards, paid, now - (DAYS + 1) * DAY_US)

    say(f"{args.cards} cards and their {len(paid):,} payments of {DAYS} days, made up from seed {args.seed}")
    print(shell("fastserve", "apply").splitlines()[-1])

    say("train on what was known just before each payment")
    model, names = train(paid, now)

    say("windows of the history go online")
    summary = json.loads(shell("materializer", "run", "--incremental"))
    for view in summary["views"]:
        print(f"  {view['view']}: {view['rows_read']:,} read, {view['rows_online_written']:,} cards online")

    coming = live(cards, args.payments, rng)
    say(
        f"{len(coming['fraud'])} payments come, {round(1 / PACE_S)} a second; each is decided on, then pushed"
    )
    with running("fastserve", "stream", "run"), running("fastserve", "serve", "--port", "0") as ready:
        with Client(f"http://127.0.0.1:{ready['port']}") as client:
            decide(client, model, names, coming)
        wait(len(coming["fraud"]))
        say("verify: what is served now, made again from history, events of the stream included")
        print(shell("fastserve", "verify", "--service", SERVICE), end="")


if __name__ == "__main__":
    main()
