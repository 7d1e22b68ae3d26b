from fastserve.streaming.event_ids_py import IdTable as IdTable
from fastserve.streaming.event_ids_py import id_hashes as id_hashes
