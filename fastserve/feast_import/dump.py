"""Describe a Feast repo as JSON:  python -c "$(cat dump.py)" REPO OUTPUT.json

It is run by an interpreter that has `feast`, and reads what the repo's Python files declare, without touching Feast's
registry or stores. It imports nothing but feast and the standard library, and says only what is there: what
it means for fastserve is decided elsewhere. Attributes that a release of Feast does not have are left at None.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

FORMAT = 1


def dump(root: Path) -> dict[str, Any]:
    """The repo's settings and every object that its files declare."""
    import feast  # noqa: PLC0415  (found in the interpreter that runs this file)
    from feast.repo_config import load_repo_config  # noqa: PLC0415
    from feast.repo_operations import parse_repo  # noqa: PLC0415

    os.chdir(root)
    sys.path.insert(0, "")
    contents = parse_repo(root)
    config = load_repo_config(root, root / "feature_store.yaml")
    views = [
        *contents.feature_views,
        *contents.stream_feature_views,
        *getattr(contents, "label_views", []),
        *contents.on_demand_feature_views,
    ]
    return {
        "format": FORMAT,
        "feast_version": feast.__version__,
        "config": _config(config),
        "entities": [_entity(each) for each in contents.entities if each.name != "__dummy"],
        "sources": [_source(each) for each in contents.data_sources],
        "views": [_view(each) for each in views],
        "services": [_service(each) for each in contents.feature_services],
        "permissions": [each.name for each in getattr(contents, "permissions", [])],
    }


def _config(config: Any) -> dict[str, Any]:
    return {
        "project": config.project,
        "provider": str(config.provider),
        "registry": str(getattr(config.registry, "path", "")),
        "online_store": _kind(config.online_store),
        "offline_store": _kind(config.offline_store),
    }


def _kind(settings: Any) -> str:
    return str(getattr(settings, "type", "") or "")


def _about(obj: Any) -> dict[str, Any]:
    return {
        "description": getattr(obj, "description", "") or "",
        "tags": dict(getattr(obj, "tags", None) or {}),
        "owner": getattr(obj, "owner", "") or "",
    }


def _entity(entity: Any) -> dict[str, Any]:
    kind = getattr(entity.value_type, "name", "UNKNOWN")
    return {"name": entity.name, "join_key": entity.join_key, "value_type": kind, **_about(entity)}


def _source(source: Any) -> dict[str, Any] | None:
    if source is None:
        return None
    found = {
        "class": type(source).__name__,
        "name": source.name,
        "timestamp_field": source.timestamp_field or "",
        "created_timestamp_column": source.created_timestamp_column or "",
        "date_partition_column": getattr(source, "date_partition_column", "") or "",
        "field_mapping": dict(source.field_mapping or {}),
        **_about(source),
    }
    if type(source).__name__ == "FileSource":
        found["path"] = source.path
        found["file_format"] = type(source.file_format).__name__ if source.file_format else None
        found["s3_endpoint_override"] = getattr(source, "s3_endpoint_override", "") or ""
    if hasattr(source, "batch_source"):
        found["batch_source"] = _source(source.batch_source)
    return found


def _view(view: Any) -> dict[str, Any]:
    ttl = getattr(view, "ttl", None)
    source = getattr(view, "source", None)  # a label view's push source
    return {
        "class": type(view).__name__,
        "name": view.name,
        "entities": [name for name in getattr(view, "entities", []) if name != "__dummy"],
        "ttl_us": None if ttl is None else round(ttl.total_seconds() * 1_000_000),
        "features": [_field(each) for each in view.features],
        "entity_columns": [_field(each) for each in getattr(view, "entity_columns", [])],
        "source": _source(
            getattr(view, "stream_source", None) or source or getattr(view, "batch_source", None)
        ),
        "batch_source": _source(getattr(view, "batch_source", None)),
        "online": bool(getattr(view, "online", True)),
        "version": str(getattr(view, "version", "") or ""),
        "enable_validation": bool(getattr(view, "enable_validation", False)),
        "transformed": _is_transformed(view),
        "aggregations": len(getattr(view, "aggregations", None) or []),
        "source_views": [each.name for each in getattr(view, "source_views", None) or []],
        **_about(view),
    }


def _is_transformed(view: Any) -> bool:
    udf = getattr(view, "udf", None)
    return udf is not None or getattr(view, "feature_transformation", None) is not None


def _field(field: Any) -> dict[str, Any]:
    return {
        "name": field.name,
        "dtype": str(field.dtype),
        "description": getattr(field, "description", "") or "",
        "tags": dict(getattr(field, "tags", None) or {}),
        "vector_index": bool(getattr(field, "vector_index", False)),
    }


def _service(service: Any) -> dict[str, Any]:
    return {
        "name": service.name,
        "features": [_projection(each) for each in service.feature_view_projections],
        "refs": [str(each) for each in getattr(service, "_pending_feature_refs", None) or []],
        "logged": getattr(service, "logging_config", None) is not None,
        **_about(service),
    }


def _projection(part: Any) -> dict[str, Any]:
    return {
        "view": part.name,
        "alias": part.name_alias or "",
        "features": [each.name for each in part.features],
        "join_key_map": dict(part.join_key_map or {}),
    }


def main() -> None:
    """Entry point: a failure is one line on standard error, after Python's own traceback, and status 1."""
    root, output = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    output.write_text(json.dumps(dump(root), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
