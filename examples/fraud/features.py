"""What is known of a card when somebody pays with it: its habits, its last payments, and this one beside them."""

from __future__ import annotations

from typing import Any

from fastserve import (
    AggregatedFeatureView,
    Aggregation,
    Entity,
    EventSource,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    Float64,
    Int64,
    RequestSource,
    Timestamp,
    on_demand_feature_view,
)
from fastserve.on_demand import haversine_km, hours_since, ratio

WINDOWS = ["5m", "1h", "24h"]

card = Entity("card", "card_id", Int64)

habits = FeatureView(
    "habits",
    entities=[card],
    schema=[
        Field("mean_amount", Float64, description="of a payment in the year before"),
        Field("home_lat", Float64),
        Field("home_lon", Float64),
    ],
    source=FileSource("data/habits.parquet"),
    description="the card's profile",
    owner="cards",
)

payments = EventSource(
    "payments",
    FileSource("data/payments.parquet"),
    schema=[
        Field("amount", Float64),
        Field("merchant_id", Int64),
        Field("lat", Float64),
        Field("lon", Float64),
        Field("paid_at", Timestamp, description="the event's time, as a value"),
    ],
    event_id="payment_id",
    lateness="10m",
    owner="payments",
)

spend = AggregatedFeatureView(
    "spend",
    entities=[card],
    source=payments,
    aggregations=[
        Aggregation("*", "count", windows=WINDOWS),
        Aggregation("amount", "sum", windows=WINDOWS),
        Aggregation("amount", "mean", windows=WINDOWS),
        Aggregation("amount", "max", windows=WINDOWS),
        Aggregation("merchant_id", "count_distinct", windows=WINDOWS),
    ],
    owner="payments",
)

last_payment = AggregatedFeatureView(
    "last_payment",
    entities=[card],
    source=payments,
    aggregations=[
        Aggregation("lat", "last", windows=["7d"], name="last_lat"),
        Aggregation("lon", "last", windows=["7d"], name="last_lon"),
        Aggregation("paid_at", "last", windows=["7d"], name="last_paid_at"),
    ],
    owner="payments",
)

asked = RequestSource(
    "asked", schema=[Field("amount", Float64), Field("lat", Float64), Field("lon", Float64)]
)


@on_demand_feature_view(
    sources=[habits, asked],
    schema=[
        Field("times_mean", Float64, description="the amount over the card's mean"),
        Field("km_from_home", Float64),
    ],
    owner="risk",
)
def beside_habits(inputs: dict[str, Any]) -> dict[str, Any]:
    """The payment beside the card's profile; null for a card that has none."""
    return {
        "times_mean": ratio(inputs["amount"], inputs["mean_amount"]),
        "km_from_home": haversine_km(inputs["home_lat"], inputs["home_lon"], inputs["lat"], inputs["lon"]),
    }


@on_demand_feature_view(
    sources=[last_payment, asked],
    schema=[Field("hours_since_last", Float64), Field("km_from_last", Float64)],
    owner="risk",
)
def beside_last(inputs: dict[str, Any], at: Any) -> dict[str, Any]:
    """The payment beside the one before; null where there was none for a week."""
    return {
        "hours_since_last": hours_since(inputs["last_paid_at"], at),
        "km_from_last": haversine_km(inputs["last_lat"], inputs["last_lon"], inputs["lat"], inputs["lon"]),
    }


fraud = FeatureService(
    "fraud",
    features=[habits[["mean_amount"]], spend, beside_habits, beside_last],
    description="everything the model reads before a payment is let through",
    owner="risk",
)
