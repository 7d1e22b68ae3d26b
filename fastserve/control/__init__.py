"""The control plane: registry, jobs, metrics and health over REST, on aiohttp."""
