"""The same before a real Redis, whose URL is the argument: reads that are answered, and reads that are given up."""

import asyncio
import sys

from fastserve.batch import ReadBatch
from fastserve.errors import StoreError
from fastserve.online import open_store
from tests.isolated.meter import ITERATIONS, WARM_UP, held, report

NATIVES = ("resp",)
AT_ONCE = 100


async def reads(store: object, total: int) -> None:
    loop = asyncio.get_running_loop()
    for start in range(0, total, AT_ONCE):
        waiting = [loop.create_future() for _ in range(AT_ONCE)]

        def done(error: StoreError | None, future: "asyncio.Future[None]") -> None:
            future.set_result(None)

        for k, future in enumerate(waiting):
            i = start + k
            batch = ReadBatch([b"7:%d" % (i % 500), b"7:%d" % (i * 7 % 500), b"none"])
            store.fetch(batch, lambda error, future=future: done(error, future), i)
            if k % 10 == 3:
                batch.abandon()
                future.set_result(None)
        await asyncio.gather(*waiting)


async def main(url: str) -> None:
    store = open_store(url)
    await store.put_many([b"7:%d" % i for i in range(400)], [bytes(40 + i) for i in range(400)])
    await reads(store, WARM_UP)
    before = held()
    await reads(store, ITERATIONS)
    after = held()
    await store.close()
    report(before, after)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
