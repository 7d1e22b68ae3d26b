"""Alembic's environment of the registry database; run by fastserve.registry.migrate."""
