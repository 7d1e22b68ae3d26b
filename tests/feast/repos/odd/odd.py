"""A Feast repo of what is hard to carry over: every type, ttl 0, inferred columns, streams, transformations."""

from datetime import timedelta

import pandas as pd
from feast import (
    BatchFeatureView,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    KafkaSource,
    RequestSource,
    ValueType,
)
from feast.data_format import JsonFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import (
    Array,
    Bool,
    Bytes,
    Float32,
    Float64,
    Int32,
    Int64,
    Json,
    Map,
    Set,
    String,
    UnixTimestamp,
)

item = Entity(name="item", join_keys=["item_id"], description="its type stands in the file only")
moment = Entity(name="moment", join_keys=["moment_at"], value_type=ValueType.UNIX_TIMESTAMP)

kinds_source = FileSource(path="data/kinds.parquet", timestamp_field="event_timestamp")
kinds = FeatureView(
    name="kinds",
    entities=[item],
    ttl=timedelta(days=0),
    schema=[
        Field(name="flag", dtype=Bool),
        Field(name="small", dtype=Int32),
        Field(name="big", dtype=Int64),
        Field(name="single", dtype=Float32),
        Field(name="double", dtype=Float64),
        Field(name="text", dtype=String),
        Field(name="blob", dtype=Bytes),
        Field(name="moment", dtype=UnixTimestamp),
        Field(name="config", dtype=Json),
        Field(name="flags", dtype=Array(Bool)),
        Field(name="smalls", dtype=Array(Int32)),
        Field(name="bigs", dtype=Array(Int64)),
        Field(name="singles", dtype=Array(Float32)),
        Field(name="doubles", dtype=Array(Float64)),
        Field(name="texts", dtype=Array(String)),
        Field(name="blobs", dtype=Array(Bytes)),
        Field(name="moments", dtype=Array(UnixTimestamp)),
        Field(name="extras", dtype=Map),
        Field(name="labels", dtype=Set(String)),
    ],
    source=kinds_source,
)
inferred = FeatureView(
    name="inferred",
    entities=[item],
    ttl=None,
    source=FileSource(path="data/inferred.parquet", timestamp_field="event_timestamp"),
)
clicks = FeatureView(
    name="clicks",
    entities=[item],
    ttl=timedelta(days=2),
    schema=[Field(name="n_clicks", dtype=Int64)],
    source=KafkaSource(
        name="click_stream",
        kafka_bootstrap_servers="localhost:9092",
        topic="clicks",
        message_format=JsonFormat(schema_json="item_id integer, n_clicks integer"),
        timestamp_field="event_timestamp",
        batch_source=FileSource(
            name="click_files", path="data/clicks.parquet", timestamp_field="event_timestamp"
        ),
    ),
)
by_moment = FeatureView(
    name="by_moment",
    entities=[moment],
    schema=[Field(name="n_clicks", dtype=Int64)],
    source=FileSource(name="moment_files", path="data/moments.parquet", timestamp_field="event_timestamp"),
)
doubled = BatchFeatureView(
    name="doubled",
    entities=[item],
    schema=[Field(name="n_clicks", dtype=Int64)],
    mode="pandas",
    source=FileSource(name="doubled_files", path="data/clicks.parquet", timestamp_field="event_timestamp"),
    udf=lambda frame: frame * 2,
)
at_request = RequestSource(name="at_request", schema=[Field(name="bid", dtype=Float64)])


@on_demand_feature_view(sources=[clicks, at_request], schema=[Field(name="bid_rate", dtype=Float64)])
def bids(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"bid_rate": inputs["n_clicks"] * inputs["bid"]})


item_model = FeatureService(
    name="item_model", features=[kinds[["flag", "big", "singles", "extras"]], clicks, bids]
)
bid_model = FeatureService(name="bid_model", features=[bids])
