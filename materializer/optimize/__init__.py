"""Upkeep of offline tables: old rows out, small files joined, large dates ordered by entity, unused files deleted."""
