from fastserve.cache.l1_py import RowCache as RowCache
