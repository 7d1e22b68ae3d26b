from fastserve.online.fetcher_py import Fetcher as Fetcher
