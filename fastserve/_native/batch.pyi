from fastserve.batch.batch_py import ReadBatch as ReadBatch
