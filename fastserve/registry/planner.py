"""From the registry's state and an applied set to a plan: pure, no I/O.

The set is laid over what is registered (upsert). That union must be valid as a whole, and no view version
may change in a way that rows already written could not be read by: both rules are checked here, nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from fastserve.definitions import (
    BatchSource,
    Definition,
    Entity,
    EventSource,
    FeatureService,
    FeatureView,
    OnDemandFeatureView,
    PushSource,
)
from fastserve.definitions.serde import canonical_json, kind_of
from fastserve.definitions.validate import find_problems, join_keys_of, label, resolve
from fastserve.errors import BreakingChangeError, DefinitionError, Problem
from fastserve.registry.aggregated import changed_meaning
from fastserve.registry.diff import compare, default_text, ttl_text
from fastserve.registry.plan import Action, Change, Plan
from fastserve.registry.snapshot import RegisteredView, Snapshot, fields_of

Key = tuple[
    str, str, int
]  # kind, name, version (0 where there are no versions); one kind for views of all kinds
_ORDER: Final = ("entity", "push_source", "event_source", "feature_view", "feature_service")


def key_of(obj: Definition) -> Key:
    """What identifies an object within a project; views of all kinds share their names."""
    if isinstance(obj, FeatureView):
        return "feature_view", obj.name, obj.version
    return kind_of(obj), obj.name, 0


def make_plan(current: Snapshot, objects: Sequence[Definition], *, prune: bool = False) -> Plan:
    """What applying `objects` to `current` changes.

    Raises:
        DefinitionError: the union of both does not hold together; all problems.
        BreakingChangeError: a view changed incompatibly under its version; all such changes.
    """
    _check_kinds(objects)
    declared = _declared(objects)
    old = {key_of(o): o for o in current.definitions()}
    new = {key_of(o): o for o in declared}
    kept = {} if prune else {key: o for key, o in old.items() if key not in new}
    if prune:
        _check_pruned(old, new)
    union = [*kept.values(), *declared]
    breaking = list(_breaking(current, kept | new))
    if breaking:  # before others: a removed feature would otherwise be blamed on the services that name it
        _check_union(current, union, only_of=tuple(problem.where.split(",")[0] for problem in breaking))
        raise BreakingChangeError(breaking)
    _check_union(current, union)
    keys = sorted(old | new, key=lambda k: (_ORDER.index(k[0]), k[1], k[2]))
    changes = tuple(_change(current, key, old.get(key), new.get(key), prune) for key in keys)
    return Plan(current.project, current.revision, changes)


def _check_kinds(objects: Sequence[object]) -> None:
    """A list of definitions may hold anything before it is checked: a name, a Field, a list of lists."""
    wrong = [o for o in objects if not isinstance(o, Definition)]
    if wrong:
        fix = "give the Entity, FeatureView, FeatureService and source objects themselves"
        raise DefinitionError(
            [Problem(repr(o), f"is a {type(o).__name__}, no definition", fix) for o in wrong]
        )


def _declared(objects: Sequence[Definition]) -> list[Definition]:
    """The objects to register: with the push and event sources inside views, which are written to by name."""
    declared: list[Definition] = []
    declared += (o for o in objects if not isinstance(o, BatchSource))  # those live inside views
    for view in objects:
        if isinstance(view, FeatureView) and isinstance(view.source, (PushSource, EventSource)):
            if view.source not in declared:
                declared.append(view.source)
    return declared


def _change(
    current: Snapshot, key: Key, old: Definition | None, new: Definition | None, prune: bool
) -> Change:
    _, name, version = key
    present = new or old
    assert present is not None
    kind, shown = kind_of(present), version or None
    if new is None:
        action: Action = "retire" if prune else "keep"
        notes = tuple(_retire_notes(present)) if prune else ()
        return Change(action, kind, name, shown, notes=notes, definition=old)
    if old is None:
        return Change(
            "create", kind, name, shown, compare(None, new), tuple(_create_notes(current, new)), new
        )
    if canonical_json(old) == canonical_json(new):
        return Change("unchanged", kind, name, shown, definition=new)
    update_notes: tuple[str, ...] = ()
    if isinstance(new, FeatureView):
        update_notes = tuple(_update_notes(current.views[name, version], new))
    return Change("update", kind, name, shown, compare(old, new), update_notes, new)


def _check_union(
    current: Snapshot, union: Sequence[Definition], only_of: tuple[str, ...] | None = None
) -> None:
    """Problems that are registered already, from before a rule was made, are not this apply's fault.

    With `only_of`, labels of views: what is wrong with these themselves. That a window or a filter is misspelt is told
    before what the slip would change.
    """
    problems = list(find_problems(union))
    if only_of is not None:
        problems = [problem for problem in problems if problem.where.startswith(only_of)]
    if problems:
        before = set(find_problems(current.definitions()))
        problems = [problem for problem in problems if problem not in before]
    if problems:
        raise DefinitionError(problems)


def _check_pruned(old: Mapping[Key, Definition], new: Mapping[Key, Definition]) -> None:
    """A view that a remaining service uses cannot go."""
    views = {(o.name, o.version): o for o in (*old.values(), *new.values()) if isinstance(o, FeatureView)}
    remaining = {(o.name, o.version): o for o in new.values() if isinstance(o, FeatureView)}
    problems = [
        Problem(
            label(service),
            f"uses {label(views[part.view, used.version])}, which prune would retire",
            "keep the view in the repo, or take it out of the service",
        )
        for service in new.values()
        if isinstance(service, FeatureService)
        for part in service.features
        if resolve(part, remaining) is None and (used := resolve(part, views)) is not None
    ]
    if problems:
        raise DefinitionError(problems)


# ---- breaking changes ----------------------------------------------------------------------------


def _breaking(current: Snapshot, union: Mapping[Key, Definition]) -> Iterator[Problem]:
    entities = {o.name: o for o in union.values() if isinstance(o, Entity)}
    following: dict[str, int] = {}  # view name -> its next free version
    for _, name, version in (*union, *(("", *key) for key in current.views)):
        following[name] = max(following.get(name, 0), version + 1)
    for (name, version), registered in current.views.items():
        new = union.get(("feature_view", name, version))
        if isinstance(new, FeatureView):
            yield from _breaking_kind(registered, new, following[name])
            yield from _breaking_fields(registered, new, following[name])
            yield from _breaking_keys(registered, new, entities, following[name])
            yield from changed_meaning(registered.view, new, following[name])


def _breaking_kind(old: RegisteredView, new: FeatureView, following: int) -> Iterator[Problem]:
    was, now = type(old.view).__name__, type(new).__name__
    if was != now:
        fix = f"declare version={following} of the view; both are served until the old one is retired"
        yield Problem(label(new), f"changed from {was} to {now}", fix)


def _breaking_fields(old: RegisteredView, new: FeatureView, following: int) -> Iterator[Problem]:
    fix = f"declare version={following} of the view; both are served until the old one is retired"
    added = [f for f in new.schema if old.view.field(f.name) is None]
    for field in old.view.schema:
        where = f"{label(new)}, feature {field.name!r}"
        now = new.field(field.name)
        if now is None:
            renamed = next((a.name for a in added if a.dtype == field.dtype), None)
            guess = f" (renamed to {renamed!r}?)" if renamed else ""
            yield Problem(where, f"was removed{guess}", f"keep it, or {fix}")
        elif now.dtype != field.dtype:
            yield Problem(where, f"changed its type from {field.dtype} to {now.dtype}", fix)


def _breaking_keys(
    old: RegisteredView, new: FeatureView, entities: dict[str, Entity], following: int
) -> Iterator[Problem]:
    if not set(new.entities) <= set(entities):
        return  # an undeclared entity: a problem of the definitions
    keys = join_keys_of(new, entities)
    if set(old.view.entities) != set(new.entities):
        yield Problem(
            label(new),
            f"changed its entities from {_listed(old.view.entities)} to {_listed(new.entities)}",
            f"declare version={following} of the view",
        )
    elif keys != old.join_keys:
        before, after = _typed(dict(old.join_keys)), _typed(keys)
        yield Problem(
            label(new),
            f"its join keys changed from {before} to {after} through {_entities(new)}",
            f"leave that entity as it was; declare the new keys as another Entity and version={following} "
            "of the view on it",
        )


def _entities(view: FeatureView) -> str:
    return f"{'entities' if len(view.entities) > 1 else 'entity'} {_listed(view.entities)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _typed(keys: dict[str, str]) -> str:
    return ", ".join(f"{key} {dtype}" for key, dtype in keys.items()) or "none"


# ---- notes ---------------------------------------------------------------------------------------


def _create_notes(current: Snapshot, new: Definition) -> Iterator[str]:
    if isinstance(new, FeatureView) and current.versions(new.name):
        others = ", ".join(f"v{v}" for v in current.versions(new.name))
        yield f"a further version: {others} is served beside it; refs without a version mean the newest"


def _retire_notes(old: Definition) -> Iterator[str]:
    if isinstance(old, OnDemandFeatureView):
        yield "no longer served"
    elif isinstance(old, FeatureView):
        yield "no longer served or materialized; applied again, it starts empty under a new view id"


def _update_notes(registered: RegisteredView, new: FeatureView) -> Iterator[str]:
    old = registered.view
    if isinstance(old, OnDemandFeatureView) and isinstance(new, OnDemandFeatureView):
        yield from _function_notes(old, new)
        return
    if fields_of(old) != fields_of(new):
        yield _layout_note(registered, new)
    for field in new.schema:
        before = old.field(field.name)
        if before is not None and default_text(before) != default_text(field):
            yield f"default of {field.name}: takes effect at once where no row, or one older than it, applies"
    if old.ttl_us != new.ttl_us:
        yield _ttl_note(old.ttl_us, new.ttl_us)
    if old.source != new.source:
        yield "source changed: rows already stored stay until they are materialized again"
    if old.online and not new.online:
        yield "online off: rows already online stay; materialization no longer refreshes them"
    if new.online and not old.online:
        yield "online on: empty until the next materialization"


def _function_notes(old: OnDemandFeatureView, new: OnDemandFeatureView) -> Iterator[str]:
    if (old.function, old.code, old.sources) != (new.function, new.code, new.sources):
        yield (
            "computed in another way from now on, in training sets too: a new version would keep both; servers "
            "answer UNAVAILABLE until they have this repo"
        )
    known = {field.name for field in old.request}
    added = [field.name for field in new.request if field.name not in known]
    if added:
        yield f"requests and spines have to give {_listed(added)} too, from now on"


def _layout_note(registered: RegisteredView, new: FeatureView) -> str:
    known = {(known.names, known.dtypes): known.layout_id for known in registered.layouts}
    added = [f for f in new.schema if registered.view.field(f.name) is None]
    what = ", ".join(f"+field {f.name} ({default_text(f)})" for f in added) or "fields in another order"
    again = known.get(fields_of(new))
    if again is not None:
        return f"back to layout {again}: {what}"
    layout_id = registered.layouts[-1].layout_id + 1
    back = "; those already stored get no value for it: a new version of the view would" if added else ""
    return f"new layout {layout_id}: {what}; rows of older layouts stay readable{back}"


def _ttl_note(old: int | None, new: int | None) -> str:
    change = f"ttl {ttl_text(old) or 'none'} -> {ttl_text(new) or 'none'}"
    if new is None or (old is not None and new > old):
        return f"{change}: rows already dropped come back with the next materialization"
    return f"{change}: older rows read as OUTSIDE_MAX_AGE from now on"
