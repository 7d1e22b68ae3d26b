"""Sources that are a query: DuckDB over declared inputs, and nothing else within its reach. START AT query.py."""
