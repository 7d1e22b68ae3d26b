"""Workers replaced one by one on SIGHUP, and slots whose worker is gone: every stage, one at a time."""

import asyncio
import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.http.test_abuse import eventually
from tests.integration.http.wire import Raw, within

GET = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
MANY = 40  # connections: the chance that the kernel gives them all to one of two workers is 2 ** -39
RENEWED = [f"{stage} {i}" for i in (0, 1) for stage in ("starting", "serving", "draining", "gone")]


class Asked:
    """Many connections at once, each with one request under way."""

    def __init__(self, clients):
        self.clients = clients

    @classmethod
    async def of(cls, supervised):
        clients = [await Raw.connect(supervised) for _ in range(MANY)]
        self = cls(clients)
        await self.again()
        return self

    async def again(self):
        for client in self.clients:
            await client.send(GET)

    async def answers(self):
        """(slot, pid) of each: all are answered."""
        answers = [await client.response() for client in self.clients]
        assert {status for status, _, _ in answers} == {200}
        return [tuple(map(int, body.split())) for _, _, body in answers]

    async def close(self):
        for client in self.clients:
            await client.close()


async def ask_all(supervised):
    """slot -> pid of the workers that answer."""
    asked = await Asked.of(supervised)
    found = await asked.answers()
    await asked.close()
    assert len(set(found)) == len(dict(found)), "one process a slot"
    return dict(found)


def adopted(pid):
    """The sockets that a worker has twice: a sibling's, as handed down, and once more while it accepts on it."""
    links = Counter()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            links[os.readlink(fd)] += 1
    return {link for link, n in links.items() if n > 1 and link.startswith("socket:")}


@pytest.fixture
def start(supervise, tmp_path):
    """start() -> two workers that serve; see worker_targets.staged."""

    async def start():
        supervised = await supervise("staged", 2, 0, tmp_path)
        line = (await supervised.until("ready on"))[-1]
        supervised.port = int(line.rsplit(":", 1)[1])
        return supervised

    return start


@pytest.fixture
async def staged(start):
    """Two workers that serve."""
    return await start()


def hold(folder):
    """New workers wait until `release`."""
    os.mkfifo(folder / "hold")


async def release(folder):
    """The one that waits goes on; those after it too, when `hold` is gone."""
    await asyncio.to_thread(lambda: (folder / "hold").open("wb").close())


async def test_one_by_one_each_ready_before_the_old_one_drains(staged):
    before = await ask_all(staged)
    for pid in before.values():
        os.kill(pid, signal.SIGHUP)  # as from a terminal that ends: it is for the supervisor only
    staged.process.send_signal(signal.SIGHUP)
    assert await staged.until("gone 1") == RENEWED
    after = await ask_all(staged)
    assert before.keys() == after.keys() == {0, 1}
    assert not set(before.values()) & set(after.values())
    status, _, err = await staged.stop()
    assert (status, err) == (0, "")


async def test_what_waits_at_the_old_workers_socket_is_answered_by_the_new_one(staged):
    before = await ask_all(staged)
    os.kill(before[0], signal.SIGSTOP)
    try:
        asked = await Asked.of(staged)  # the kernel has taken them; half of them nobody accepts
        staged.process.send_signal(signal.SIGHUP)
        await staged.until("serving 0")
        found = await asked.answers()
    finally:
        os.kill(before[0], signal.SIGCONT)
    assert {slot for slot, _ in found} == {0, 1} and before[0] not in {pid for _, pid in found}
    await asked.close()
    await staged.until("gone 1")
    assert (await staged.stop())[::2] == (0, "")


async def test_a_client_in_the_middle_is_told_to_come_again(staged):
    """Its next request is answered by the old worker, whenever it comes; only then it has to connect anew."""
    asked = await Asked.of(staged)
    before = await asked.answers()
    staged.process.send_signal(signal.SIGHUP)
    await staged.until("draining 0")
    await asked.again()
    answers = [await client.response() for client in asked.clients]
    assert [tuple(map(int, body.split())) for _, _, body in answers] == before
    for (slot, _), (_, headers, _), client in zip(before, answers, asked.clients, strict=True):
        if slot == 0:
            assert headers[b"connection"] == b"close" and await client.rest() == b""
    await asked.close()
    await staged.until("gone 1")


async def test_a_new_worker_that_fails_leaves_the_old_ones(staged, tmp_path):
    before = await ask_all(staged)
    (tmp_path / "fail").touch()
    staged.process.send_signal(signal.SIGHUP)
    (said,) = await staged.told("the restart ends here")
    assert (
        "the new worker 0 does not serve: found a file that says fail. Not" in said
        and "serving as before: 0, 1" in said
    )
    assert await ask_all(staged) == before
    (tmp_path / "fail").unlink()
    staged.process.send_signal(signal.SIGHUP)
    assert (await staged.until("gone 1"))[1:] == RENEWED, "after the start that failed"
    assert not set(before.values()) & set((await ask_all(staged)).values())
    assert (await staged.stop())[0] == 0


async def test_a_new_worker_that_is_not_ready_in_time_leaves_the_old_ones(start, tmp_path, monkeypatch):
    monkeypatch.setenv("START_TIMEOUT_S", "5")  # the first ones need some of it
    supervised = await start()
    before = await ask_all(supervised)
    hold(tmp_path)
    supervised.process.send_signal(signal.SIGHUP)
    said = await supervised.told("the restart ends here")
    assert "worker 0 was not ready in 5 s: killed" in said[0]
    assert "the new worker 0 does not serve: it was not ready in 5 s, and was killed. Not" in said[1]
    assert await ask_all(supervised) == before
    assert (await supervised.stop())[0] == 0


async def test_a_restart_asked_for_during_one_is_made_after_it(staged, tmp_path):
    """What changed meanwhile may have missed the first workers of the one under way."""
    hold(tmp_path)
    staged.process.send_signal(signal.SIGHUP)
    await staged.until("starting 0")
    for _ in range(3):
        staged.process.send_signal(signal.SIGHUP)
    await release(tmp_path)
    (tmp_path / "hold").unlink()
    assert await staged.until("gone 1") == RENEWED[1:]
    assert await staged.until("gone 1") == RENEWED
    status, out, _ = await staged.stop()
    assert status == 0 and "starting" not in out


async def test_sigterm_during_a_restart_stops_all(staged, tmp_path):
    before = await ask_all(staged)
    hold(tmp_path)
    staged.process.send_signal(signal.SIGHUP)
    await staged.until("starting 0")
    status, out, err = await staged.stop()
    assert (status, err) == (0, "")
    assert sorted(out.split()) == sorted("draining 0 draining 1 gone 0 gone 1".split())
    assert not any(Path(f"/proc/{pid}").exists() for pid in before.values())


async def test_sigterm_hurries_a_replaced_worker(start, monkeypatch):
    """It waits for the last request of idle clients, very long here; the server's end does not."""
    monkeypatch.setenv("DRAIN_S", "1000")
    supervised = await start()
    asked = await Asked.of(supervised)
    await asked.answers()
    supervised.process.send_signal(signal.SIGHUP)
    await supervised.until("draining 0")
    status, out, _ = await supervised.stop()
    assert status == 0 and "gone 0" in out
    await asked.close()


# ---- crashes ----


async def test_a_killed_worker_costs_its_own_connections_only(staged):
    asked = await Asked.of(staged)
    slots = dict(before := await asked.answers())
    os.kill(slots[0], signal.SIGKILL)
    await staged.told("worker 0 ended with status -9")
    for (slot, pid), client in zip(before, asked.clients, strict=True):
        if slot == 0:
            assert await client.rest() == b""
        else:
            await client.send(GET)
            assert (await client.response())[2] == b"%d %d" % (slot, pid)
    await asked.close()
    await staged.until("serving 0")
    assert (await ask_all(staged))[1] == slots[1]


async def test_a_slot_without_a_worker_is_served_by_another(staged, tmp_path):
    """Also what waited at its socket when it died, and for as long as it cannot be started."""
    before = await ask_all(staged)
    assert not adopted(before[1])
    (tmp_path / "fail").touch()
    os.kill(before[0], signal.SIGSTOP)
    asked = await Asked.of(staged)
    os.kill(before[0], signal.SIGKILL)
    assert set(await asked.answers()) == {(1, before[1])}
    assert len(adopted(before[1])) == 1
    await asked.close()
    for _ in range(4):  # more often than a first start may fail
        await staged.told("worker 0 ended with status 4")
        assert set((await ask_all(staged)).items()) == {(1, before[1])}
    (tmp_path / "fail").unlink()
    await staged.until("serving 0")
    await eventually(lambda: not adopted(before[1]))
    after = await ask_all(staged)
    assert after[1] == before[1] and after[0] != before[0]
    assert (await staged.stop())[0] == 0


async def test_a_restart_starts_a_slot_that_waits_to_be_started_again(staged, tmp_path):
    before = await ask_all(staged)
    (tmp_path / "fail").touch()
    os.kill(before[0], signal.SIGKILL)
    for _ in range(3):
        await staged.told("worker 0 ended with status 4")
    (tmp_path / "fail").unlink()
    staged.process.send_signal(signal.SIGHUP)
    lines = await staged.until("gone 1")
    assert lines[-6:] == ["starting 0", "serving 0", *RENEWED[4:]]


async def test_one_worker_says_that_it_cannot_be_replaced(supervise):
    supervised = await (await supervise("serve", 1)).ready("1 worker")
    pid = await supervised.get()
    supervised.process.send_signal(signal.SIGHUP)
    await supervised.told("SIGHUP restarts nothing here")
    assert await supervised.get() == pid
    assert (await within(supervised.stop()))[0] == 0
