"""The dump of a Feast repo as fastserve definitions, with a note for all that has no counterpart.

Nothing is dropped in silence: an object, or a part of one, is either in the definitions or in the notes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

from fastserve.definitions import (
    Definition,
    Entity,
    FeatureService,
    FeatureView,
    FeatureViewProjection,
    Field,
    FileSource,
    PushSource,
    Source,
    parse_ref,
)
from fastserve.definitions.field import RESERVED
from fastserve.definitions.validate import NAME, find_problems
from fastserve.errors import RequestError
from fastserve.feast_import import types

What: TypeAlias = Literal["left out", "changed", "to mend"]
Columns: TypeAlias = Callable[[str], Mapping[str, str] | None]

_STREAMS: Final = ("KafkaSource", "KinesisSource")
_NAME_WHY: Final = "names are letters, digits and _, not starting with a digit; rename it in Feast first"


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that is not here as it was in Feast: what happened to it, and why."""

    where: str
    what: What
    why: str


@dataclass(frozen=True, slots=True)
class Translated:
    """What came of a dump.

    Attributes:
        entities, views, services, push_sources: definitions; the views hold their file sources.
        notes: what is left out or changed, in the dump's order.
    """

    entities: tuple[Entity, ...]
    views: tuple[FeatureView, ...]
    services: tuple[FeatureService, ...]
    push_sources: tuple[PushSource, ...]
    notes: tuple[Note, ...]

    @property
    def objects(self) -> tuple[Definition, ...]:
        """All of them, as `apply` takes them."""
        return (*self.entities, *self.push_sources, *self.views, *self.services)


def translate(dump: Mapping[str, Any], columns: Columns, place: Callable[[str], str]) -> Translated:
    """Translate.

    Args:
        dump: what dump.py wrote.
        columns: a source's path -> its columns and what Feast calls their types; None if it cannot be read.
        place: a path as Feast's repo has it -> as the new repo should have it.
    """
    translator = _Translator(dump, columns, place)
    entities = tuple(filter(None, map(translator.entity, dump["entities"])))
    translator.entities = {entity.name: entity for entity in entities}
    views = tuple(filter(None, map(translator.view, dump["views"])))
    translator.views = {view.name: view for view in views}
    services = tuple(filter(None, map(translator.service, dump["services"])))
    push_sources = tuple(filter(None, map(translator.lone_source, dump["sources"])))
    for name in dump.get("permissions", ()):
        translator.note(f"Permission {name!r}", "left out", "who may do what is not the repo's business here")
    made = Translated(entities, views, services, push_sources, ())
    problems = tuple(Note(p.where, "to mend", f"{p.message}; {p.fix}") for p in find_problems(made.objects))
    return replace(made, notes=(*translator.notes, *problems))


class _Translator:
    def __init__(self, dump: Mapping[str, Any], columns: Columns, place: Callable[[str], str]) -> None:
        self.dump = dump
        self.columns = columns
        self.place = place
        self.notes: list[Note] = []
        self.entities: dict[str, Entity] = {}
        self.views: dict[str, FeatureView] = {}
        self.sources: dict[str, Source | None] = {}

    def note(self, where: str, what: What, why: str) -> None:
        note = Note(where, what, why)
        if note not in self.notes:
            self.notes.append(note)

    def leave_out(self, where: str, why: str) -> None:
        self.note(where, "left out", why)

    # ---- entities -------------------------------------------------------------------------------

    def entity(self, raw: Mapping[str, Any]) -> Entity | None:
        where = f"Entity {raw['name']!r}"
        if not NAME.fullmatch(raw["name"]) or not NAME.fullmatch(raw["join_key"]):
            self.leave_out(where, _NAME_WHY)
            return None
        kind = self.key_type(where, raw)
        if kind is None:
            return None
        return Entity(raw["name"], raw["join_key"], kind, **_about(raw))

    def key_type(self, where: str, raw: Mapping[str, Any]) -> str | None:
        """What the entity declares, else what views declare of its column, else what their files hold."""
        if raw["value_type"] != "UNKNOWN":
            kind = types.VALUE_TYPES.get(raw["value_type"])
            if kind is None:
                why = f"{raw['value_type']} is no type of a join key; use an integer or a string"
                self.note(where, "left out", why)
            return kind
        for feast in self.key_candidates(raw):
            if feast in types.KEYS:
                return types.KEYS[feast]
        self.note(where, "changed", "the type of its join key is declared nowhere; taken as string: check it")
        return "string"

    def key_candidates(self, raw: Mapping[str, Any]) -> list[str]:
        views = [v for v in self.dump["views"] if raw["name"] in v["entities"]]
        # A label view declares String for a key whose type it does not know.
        sure = [c["dtype"] for v in views if v["class"] != "LabelView" for c in _named(v, raw["join_key"])]
        found = []
        for view in views:
            source = view["batch_source"] or {}
            column = {name: c for c, name in source.get("field_mapping", {}).items()}.get(raw["join_key"])
            known = (self.columns(source["path"]) if source.get("path") else None) or {}
            found.append(known.get(column or raw["join_key"], ""))
        return [*sure, *found, *(c["dtype"] for v in views for c in _named(v, raw["join_key"]))]

    # ---- sources --------------------------------------------------------------------------------

    def source(self, raw: Mapping[str, Any] | None) -> Source | None:
        if raw is None:
            return None
        if raw["name"] not in self.sources:
            self.sources[raw["name"]] = self.make_source(raw, f"{raw['class']} {raw['name']!r}")
        return self.sources[raw["name"]]

    def make_source(self, raw: Mapping[str, Any], where: str) -> Source | None:
        if raw["class"] == "FileSource":
            return self.file_source(raw, where)
        batch = self.source(raw.get("batch_source"))
        files = batch if isinstance(batch, FileSource) else None
        if raw["class"] == "PushSource":
            if not NAME.fullmatch(raw["name"]):
                self.note(where, "left out", f"{_NAME_WHY}; its files are read all the same")
                return files
            return PushSource(raw["name"], files, **_about(raw))
        if raw["class"] in _STREAMS:
            rest = "its batch source is read" if files else "rows can be pushed"
            self.note(where, "left out", f"streams are not read here; push their rows; {rest}")
        else:
            self.note(
                where,
                "left out",
                "only files are read here; export the table to Parquet and name a FileSource",
            )
        return files

    def file_source(self, raw: Mapping[str, Any], where: str) -> FileSource:
        path = self.place(raw["path"])
        if raw.get("s3_endpoint_override"):
            self.note(where, "changed", "s3_endpoint_override is not carried over; set AWS_ENDPOINT_URL")
        if raw["date_partition_column"]:
            self.note(where, "changed", "date_partition_column is not needed: files are pruned by statistics")
        return FileSource(
            path,
            raw["timestamp_field"] or self.time_column(raw, where),
            raw["created_timestamp_column"] or None,
            name="" if raw["name"] == raw["path"] else raw["name"],
            field_mapping=raw["field_mapping"],
            format={"DeltaFormat": "delta"}.get(raw["file_format"] or "", "parquet"),
            **_about(raw),
        )

    def time_column(self, raw: Mapping[str, Any], where: str) -> str:
        """The file's only column of times, as Feast finds it."""
        known = self.columns(raw["path"]) or {}
        times = [c for c, t in known.items() if t == "UnixTimestamp" and c != raw["created_timestamp_column"]]
        if len(times) == 1:
            return times[0]
        self.note(where, "changed", "no timestamp_field is declared; event_timestamp is assumed: check it")
        return "event_timestamp"

    def lone_source(self, raw: Mapping[str, Any]) -> PushSource | None:
        """A push source; other sources come with their views."""
        if raw["class"] == "RequestSource":
            why = "it comes with the on-demand view that reads it, as one of its sources: docs/on-demand.md"
            self.leave_out(f"RequestSource {raw['name']!r}", why)
            return None
        source = self.source(raw)
        return source if isinstance(source, PushSource) else None

    # ---- views ----------------------------------------------------------------------------------

    def view(self, raw: Mapping[str, Any]) -> FeatureView | None:
        where = f"{raw['class']} {raw['name']!r}"
        why = self.why_no_view(raw)
        if why:
            self.leave_out(where, why)
            return None
        fields = self.fields(raw, where)
        if not fields:
            self.leave_out(where, "none of its features can be carried over")
            return None
        if raw["ttl_us"] == 0:
            self.note(where, "changed", "ttl 0 means no ttl in Feast, and is written as none here")
        if raw["version"] not in ("", "latest"):
            self.note(where, "changed", f"it is pinned to {raw['version']}; versions count anew from 1 here")
        source = self.source(raw["source"])
        if source is None:
            self.note(
                where, "changed", "it has no files here: rows come by push and write-to-online-store only"
            )
        return FeatureView(
            raw["name"],
            entities=raw["entities"],
            schema=fields,
            source=source,
            ttl=f"{raw['ttl_us']}us" if raw["ttl_us"] else None,
            online=raw["online"],
            **_about(raw),
        )

    def why_no_view(self, raw: Mapping[str, Any]) -> str:
        if raw["class"] == "OnDemandFeatureView":
            return (
                "its function is over pandas or lists; write it over numpy columns under @on_demand_feature_view: "
                "docs/on-demand.md"
            )
        if raw["transformed"] or raw["aggregations"]:
            return "its transformation runs inside Feast; write the result to files or push it, as a view"
        if raw["source_views"]:
            return "it is derived from other views inside Feast; write the result to files, as a view"
        if not NAME.fullmatch(raw["name"]):
            return _NAME_WHY
        missing = [name for name in raw["entities"] if name not in self.entities]
        return f"its entity {missing[0]!r} is left out" if missing else ""

    def fields(self, raw: Mapping[str, Any], where: str) -> list[Field]:
        features = raw["features"] or self.features_in_file(raw, where)
        return [field for each in features if (field := self.field(each, where)) is not None]

    def features_in_file(self, raw: Mapping[str, Any], where: str) -> Sequence[Mapping[str, Any]]:
        """Without a schema Feast takes every column of the file that is no key and no time."""
        source = raw["batch_source"] or {}
        known = (self.columns(source["path"]) if source.get("path") else None) or {}
        keys = {key for name in raw["entities"] for key in self.entities[name].join_keys}
        others = {source.get("timestamp_field"), source.get("created_timestamp_column"), *keys}
        mapping = source.get("field_mapping", {})
        if known:
            self.note(
                where, "changed", "no schema is declared; its features are the columns its file has now"
            )
        names = {mapping.get(column, column): dtype for column, dtype in known.items()}
        return [
            {"name": name, "dtype": dtype, "description": "", "tags": {}, "vector_index": False}
            for name, dtype in names.items()
            if name not in others
        ]

    def field(self, raw: Mapping[str, Any], view: str) -> Field | None:
        where, name = f"{view}, feature {raw['name']!r}", raw["name"]
        if not NAME.fullmatch(name) or name in RESERVED or name.startswith("__"):
            self.leave_out(where, _NAME_WHY)
            return None
        dtype = types.field_type(raw["dtype"])
        if dtype is None:
            self.leave_out(where, f"{raw['dtype']}: {types.why_not(raw['dtype'])}")
            return None
        if types.change_of(raw["dtype"]):
            self.note(where, "changed", f"{raw['dtype']} {types.change_of(raw['dtype'])}")
        if raw["vector_index"]:
            self.note(where, "changed", "vectors are served here, not searched: its index is left out")
        return Field(name, dtype, description=raw["description"], tags=raw["tags"])

    # ---- services -------------------------------------------------------------------------------

    def service(self, raw: Mapping[str, Any]) -> FeatureService | None:
        where = f"FeatureService {raw['name']!r}"
        if not NAME.fullmatch(raw["name"]):
            self.leave_out(where, _NAME_WHY)
            return None
        parts = [part for each in raw["features"] if (part := self.part(each, where)) is not None]
        parts += [part for ref in raw["refs"] if (part := self.part(_of_ref(ref), where)) is not None]
        if raw["logged"]:
            self.note(where, "changed", "what is served is not logged here: logging_config is left out")
        if not parts:
            self.leave_out(where, "none of its features can be carried over")
            return None
        return FeatureService(raw["name"], parts, **_about(raw))

    def part(self, raw: Mapping[str, Any], where: str) -> FeatureViewProjection | None:
        view = self.views.get(raw["view"])
        if view is None:
            self.note(where, "changed", f"without {raw['view']!r}, which is left out")
            return None
        wanted = raw["features"] or view.feature_names
        kept = tuple(name for name in wanted if name in view.feature_names)
        if len(kept) < len(wanted):
            gone = ", ".join(name for name in wanted if name not in kept)
            self.note(where, "changed", f"without what is left out of {raw['view']!r}: {gone}")
        if not kept:
            return None
        part = view[list(kept)].with_join_key_map(raw["join_key_map"])
        return part.with_name(raw["alias"]) if raw["alias"] else part


def _about(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {name: raw[name] for name in ("description", "tags", "owner")}


def _named(view: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return [column for column in view["entity_columns"] if column["name"] == name]


def _of_ref(ref: str) -> dict[str, Any]:
    try:
        part = parse_ref(ref)
    except RequestError:  # a whole view
        return {"view": ref, "alias": "", "features": [], "join_key_map": {}}
    return {"view": part.view, "alias": "", "features": list(part.features), "join_key_map": {}}
