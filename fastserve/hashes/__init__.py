"""Hashes that are the same in every process, on every machine and for ever: what is dealt out by them stays there."""
