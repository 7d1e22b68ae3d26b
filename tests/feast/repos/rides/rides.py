"""A Feast repo: composite keys, a mapped column, a push source, one view joined twice, features of no entity."""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Bool, Float32, Float64, Int32, Int64, String

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64, tags={"pii": "no"})
customer = Entity(
    name="customer", join_keys=["customer_id"], value_type=ValueType.STRING, owner="crm@example.org"
)
location = Entity(
    name="location", join_keys=["location_id"], value_type=ValueType.INT32, description='a "place"'
)

driver_source = FileSource(
    name="driver_files",
    path="data/drivers.parquet",
    timestamp_field="event_timestamp",
    created_timestamp_column="created",
)
driver_push = PushSource(name="driver_push", batch_source=driver_source)
pair_source = FileSource(
    path="data/pairs.parquet",
    timestamp_field="at",
    created_timestamp_column="known_at",
    field_mapping={"n": "rides"},
)
location_source = FileSource(
    name="location_files", path="data/locations.parquet", timestamp_field="event_timestamp"
)
global_source = FileSource(name="global_files", path="data/global.parquet", timestamp_field="event_timestamp")

driver_stats = FeatureView(
    name="driver_stats",
    entities=[driver],
    ttl=timedelta(hours=6),
    schema=[
        Field(name="conv_rate", dtype=Float32, description="share of offers taken"),
        Field(name="rating", dtype=Float64),
        Field(name="trips", dtype=Int64, tags={"unit": "1"}),
        Field(name="level", dtype=Int32),
        Field(name="active", dtype=Bool),
        Field(name="vehicle", dtype=String),
    ],
    source=driver_push,
    owner="fleet@example.org",
    tags={"team": "fleet"},
)
pair_stats = FeatureView(
    name="pair_stats",
    entities=[driver, customer],
    ttl=timedelta(days=3),
    schema=[Field(name="rides", dtype=Int64), Field(name="spent", dtype=Float64)],
    source=pair_source,
)
location_stats = FeatureView(
    name="location_stats",
    entities=[location],
    ttl=timedelta(days=30),
    schema=[Field(name="temperature", dtype=Float32), Field(name="name", dtype=String)],
    source=location_source,
)
global_stats = FeatureView(
    name="global_stats",
    ttl=timedelta(days=0),
    schema=[Field(name="open_rides", dtype=Int64), Field(name="surge", dtype=Float64)],
    source=global_source,
)

ride_model = FeatureService(
    name="ride_model",
    features=[
        driver_stats[["trips", "conv_rate"]],
        location_stats.with_name("origin").with_join_key_map({"location_id": "origin_id"}),
        location_stats[["temperature"]]
        .with_name("destination")
        .with_join_key_map({"location_id": "destination_id"}),
        global_stats,
    ],
    tags={"model": "eta"},
    owner="ml@example.org",
)
pair_model = FeatureService(name="pair_model", features=[pair_stats, driver_stats[["vehicle"]]])
