"""Cards and their payments, made up: the same for the same seed, but for the day they end on.

A holder pays near home, mostly at the same few merchants, now and then on a journey. A thief pays several times within
minutes, far away, at any merchant, and more than the holder would; some thieves are careful, so no rule finds them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
US = pa.timestamp("us", "UTC")
DAY_US = 86_400_000_000
MERCHANTS, USUAL = 2_000, 12

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Cards:
    """n cards: mean amount, home in degrees, float64[n] each; usual merchants, int64[n, USUAL]."""

    mean_amount: np.ndarray
    lat: np.ndarray
    lon: np.ndarray
    merchants: np.ndarray


def make_cards(n: int, rng: np.random.Generator) -> Cards:
    return Cards(
        mean_amount=np.exp(rng.normal(3.2, 0.6, n)),
        lat=rng.normal(48, 4, n),
        lon=rng.normal(9, 6, n),
        merchants=rng.integers(0, MERCHANTS, (n, USUAL)),
    )


def by_holder(cards: Cards, which: np.ndarray, rng: np.random.Generator) -> Columns:
    """A payment of each card in `which`, int64[m], by its holder."""
    m = len(which)
    journey = np.where(rng.random(m) < 0.03, 6.0, 0.1)  # degrees from home, as a rule
    return {
        "card_id": which,
        "amount": np.round(cards.mean_amount[which] * np.exp(rng.normal(-0.2, 0.6, m)), 2) + 0.5,
        "merchant_id": cards.merchants[which, rng.integers(0, USUAL, m)],
        "lat": cards.lat[which] + rng.normal(0, 1, m) * journey,
        "lon": cards.lon[which] + rng.normal(0, 1, m) * journey,
        "fraud": np.zeros(m, bool),
    }


def by_thief(cards: Cards, which: np.ndarray, rng: np.random.Generator) -> Columns:
    """A payment of each card in `which`, int64[m], by somebody else."""
    m = len(which)
    return {
        "card_id": which,
        "amount": np.round(cards.mean_amount[which] * rng.uniform(0.8, 6, m), 2) + 0.5,
        "merchant_id": rng.integers(0, MERCHANTS, m),
        "lat": cards.lat[which] + rng.normal(0, 3, m),
        "lon": cards.lon[which] + rng.normal(0, 4, m),
        "fraud": np.ones(m, bool),
    }


def in_order(when: np.ndarray, parts: list[Columns]) -> tuple[np.ndarray, Columns]:
    """The payments of all parts, ordered by `when`, which has their times one part after the other."""
    order = np.argsort(when, kind="stable")
    return when[order], {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}


def history(cards: Cards, days: int, until_us: int, rng: np.random.Generator) -> pa.Table:
    """Payments of `days` until `until_us` (exclusive), in their order: three a day and card, one card in six stolen."""
    n = len(cards.lat)
    start = until_us - days * DAY_US
    holders = rng.integers(0, n, 3 * n * days)
    stolen = rng.choice(n, n // 6, replace=False)
    begin = rng.integers(start, until_us - DAY_US, len(stolen))
    times = rng.integers(3, 9, len(stolen))  # how often the thief pays
    thieves = np.repeat(stolen, times)
    burst = np.repeat(begin, times) + rng.integers(0, 20 * 60_000_000, len(thieves))
    when = np.concatenate([rng.integers(start, until_us, len(holders)), burst])
    when, columns = in_order(when, [by_holder(cards, holders, rng), by_thief(cards, thieves, rng)])
    at = pa.array(when, pa.int64()).cast(US)
    ids = pa.array([f"h{number}" for number in range(len(when))])
    arrays = {name: pa.array(values) for name, values in columns.items()}
    return pa.table(arrays | {"payment_id": ids, "event_timestamp": at, "paid_at": at})


def live(cards: Cards, n: int, rng: np.random.Generator) -> Columns:
    """About n payments to come, in their order, one in eight by a thief.

    They come within seconds, so a holder may pay right behind the thief, which looks like one more of the thief's.
    """
    thieves = np.repeat(rng.choice(len(cards.lat), max(n // 40, 1), replace=False), 5)
    holders = rng.integers(0, len(cards.lat), max(n - len(thieves), 0))
    begin = np.repeat(rng.random(len(thieves) // 5) * 0.8, 5)
    when = np.concatenate([rng.random(len(holders)), begin + rng.random(len(thieves)) * 0.2])
    return in_order(when, [by_holder(cards, holders, rng), by_thief(cards, thieves, rng)])[1]


def write(cards: Cards, paid: pa.Table, start_us: int) -> None:
    """`data/habits.parquet`, known since `start_us`, and `data/payments.parquet`, which has no labels."""
    (HERE / "data").mkdir(exist_ok=True)
    n = len(cards.lat)
    profile = {"card_id": np.arange(n), "mean_amount": cards.mean_amount}
    profile |= {"home_lat": cards.lat, "home_lon": cards.lon}
    since = pa.array([start_us] * n, pa.int64()).cast(US)
    pq.write_table(pa.table(profile | {"event_timestamp": since}), HERE / "data" / "habits.parquet")
    pq.write_table(paid.drop_columns(["fraud"]), HERE / "data" / "payments.parquet")
