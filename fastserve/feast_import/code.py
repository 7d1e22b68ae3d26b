"""Definitions as a Python file that a person would have written.

variables: one per object, named after it; sources first, then entities, views, services
calls:     on one line where they fit in 100 columns, else one argument a line
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from fastserve.definitions import (
    Entity,
    FeatureService,
    FeatureView,
    FeatureViewProjection,
    Field,
    FileSource,
    PushSource,
    Source,
    batch_source,
)
from fastserve.definitions.inputs import format_of
from fastserve.feast_import.translate import Translated
from fastserve.timeutil import format_duration

WIDTH: Final = 100
_IMPORTED: Final = ("Entity", "FeatureService", "FeatureView", "Field", "FileSource", "PushSource")


def features_py(made: Translated, origin: str) -> str:
    """The text of features.py.

    Args:
        made: the definitions.
        origin: what the docstring says of where they come from.
    """
    names = _Names()
    sources = _sources(made)
    blocks = [f"{names.of(s)} = {_source(s, names)}" for s in sources]
    blocks += [f"{names.of(e)} = {_entity(e)}" for e in made.entities]
    blocks += [f"{names.of(v)} = {_view(v, made.entities, names)}" for v in made.views]
    blocks += [f"{names.of(s)} = {_service(s, made.views, names)}" for s in made.services]
    body = "\n\n".join(blocks)
    used = [name for name in _IMPORTED if re.search(rf"\b{name}\(", body)]
    # json.dumps escapes what would end the docstring.
    head = (
        f'"""{json.dumps(origin, ensure_ascii=False)[1:-1]}"""\n\nfrom fastserve import {", ".join(used)}\n'
    )
    return f"{head}\n{body}\n"


class _Names:
    """A variable for each object; objects of different kinds may share a name, variables may not."""

    def __init__(self) -> None:
        self._taken: dict[str, tuple[str, str]] = {}
        self._names: dict[tuple[str, str], str] = {}

    def of(self, obj: Any) -> str:
        key = (type(obj).__name__, obj.name)
        if key not in self._names:
            self._names[key] = self._free(key)
        return self._names[key]

    def _free(self, key: tuple[str, str]) -> str:
        kind, name = key
        plain = re.sub(r"\W+", "_", name.rsplit("/", 1)[-1], flags=re.ASCII).strip("_") or "unnamed"
        if plain[0].isdigit() or keyword.iskeyword(plain) or plain in _IMPORTED:
            plain = f"_{plain}" if plain[0].isdigit() else f"{plain}_"
        suffix = {"FeatureView": "view", "FeatureService": "service", "Entity": "entity"}.get(kind, "source")
        candidates: Iterable[str] = (plain, f"{plain}_{suffix}", *(f"{plain}_{i}" for i in range(2, 10_000)))
        chosen = next(c for c in candidates if c not in self._taken)
        self._taken[chosen] = key
        return chosen


def _sources(made: Translated) -> list[Source]:
    """Every source once, files before the push sources that hold them."""
    found: list[Source] = []
    for source in (*(v.source for v in made.views), *made.push_sources):
        for each in (batch_source(source), source):
            if each is not None and each not in found:
                found.append(each)
    return found


# ---- objects ------------------------------------------------------------------------------------


def _source(source: Source, names: _Names) -> str:
    if isinstance(source, PushSource):
        files = [] if source.batch_source is None else [f"batch_source={names.of(source.batch_source)}"]
        return _call("PushSource", [_text(source.name), *files, *_about(source)])
    assert isinstance(source, FileSource)  # all that the importer makes
    args = [_text(source.path)]
    args += [f"name={_text(source.name)}"] if source.name != source.path else []
    args.append(f"timestamp_field={_text(source.timestamp_field)}")
    if source.created_timestamp_column:
        args.append(f"created_timestamp_column={_text(source.created_timestamp_column)}")
    if source.field_mapping:
        args.append(f"field_mapping={_mapping(source.field_mapping)}")
    if source.format != format_of(source.path):
        args.append(f"format={_text(source.format)}")
    return _call("FileSource", [*args, *_about(source)])


def _entity(entity: Entity) -> str:
    keys = [] if entity.join_keys == (entity.name,) else [f"join_keys={_text(entity.join_keys[0])}"]
    return _call("Entity", [_text(entity.name), *keys, f"dtype={_text(entity.dtypes[0])}", *_about(entity)])


def _view(view: FeatureView, entities: Sequence[Entity], names: _Names) -> str:
    by_name = {entity.name: entity for entity in entities}
    args = [_text(view.name)]
    if view.entities:
        args.append(f"entities={_list([names.of(by_name[name]) for name in view.entities])}")
    args.append(f"schema={_list([_field(field) for field in view.schema], lines=True)}")
    args += [] if view.source is None else [f"source={names.of(view.source)}"]
    args += [] if view.ttl_us is None else [f"ttl={_text(format_duration(view.ttl_us))}"]
    args += [] if view.online else ["online=False"]
    return _call("FeatureView", [*args, *_about(view)], lines=True)


def _field(field: Field) -> str:
    return _call("Field", [_text(field.name), _text(field.dtype), *_about(field)])


def _service(service: FeatureService, views: Sequence[FeatureView], names: _Names) -> str:
    by_name = {view.name: view for view in views}
    parts = [_part(part, by_name[part.view], names) for part in service.features]
    return _call("FeatureService", [_text(service.name), f"features={_list(parts)}", *_about(service)])


def _part(part: FeatureViewProjection, view: FeatureView, names: _Names) -> str:
    text = names.of(view)
    if part.features != view.feature_names:
        text += f"[{_list([_text(name) for name in part.features])}]"
    if part.alias:
        text += f".with_name({_text(part.alias)})"
    if part.join_key_map:
        text += f".with_join_key_map({_mapping(part.join_key_map)})"
    return text


def _about(obj: Any) -> list[str]:
    found = [f"description={_text(obj.description)}"] if obj.description else []
    found += [f"tags={_mapping(obj.tags)}"] if obj.tags else []
    return found + ([f"owner={_text(obj.owner)}"] if getattr(obj, "owner", "") else [])


# ---- text ---------------------------------------------------------------------------------------


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _mapping(values: Mapping[str, str]) -> str:
    return _bracketed("{", [f"{_text(k)}: {_text(v)}" for k, v in values.items()], "}")


def _list(items: Sequence[str], *, lines: bool = False) -> str:
    return _bracketed("[", items, "]", lines=lines)


def _call(name: str, args: Sequence[str], *, lines: bool = False) -> str:
    return _bracketed(f"{name}(", args, ")", lines=lines)


def _bracketed(start: str, items: Sequence[str], end: str, *, lines: bool = False) -> str:
    one = f"{start}{', '.join(items)}{end}"
    if not lines and len(one) < WIDTH - 20 and "\n" not in one:
        return one
    indented = ",\n".join(items).replace("\n", "\n    ")
    return f"{start}\n    {indented},\n{end}"
