"""What an aggregated view computes, feature by feature, for people."""

from __future__ import annotations

from fastserve.aggregations.compile import compile_program
from fastserve.aggregations.size import row_size
from fastserve.definitions import AggregatedFeatureView
from fastserve.definitions.aggregation import EVERY
from fastserve.timeutil import format_duration


def described_features(view: AggregatedFeatureView) -> dict[str, dict[str, str]]:
    """Feature -> its function, column, window and hop, and by how much the window's tail may be too long."""
    program = compile_program(view)
    columns = {name: a.column for a in view.aggregations for name, _ in a.features()}
    found = {}
    for output in program.outputs:
        hop_us = program.levels[output.level].hop_us
        exact = hop_us == 1
        about = {"function": output.function}
        if columns[output.name] != EVERY:
            about["column"] = columns[output.name]
        about["window"] = format_duration(output.window_us)
        about["hop"] = "exact" if exact else format_duration(hop_us)
        if not exact:
            share = 100 * hop_us / output.window_us
            about["tail"] = f"less than {format_duration(hop_us)} too long: {share:.2g} % of the window"
        found[output.name] = about
    return found


def described_row(view: AggregatedFeatureView) -> dict[str, int | str]:
    """How large an entity's online row gets: tiles and bytes, as row_size has them."""
    size = row_size(compile_program(view))
    if size is None:
        return {"bytes": "as many as events in the longest exact window take"}
    most = "as many as its texts take" if size.most is None else size.most
    return {"tiles": size.tiles, "bytes": size.usual, "bytes_at_most": most}
