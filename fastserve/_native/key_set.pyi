from fastserve.batch.key_set_py import KeySet as KeySet
