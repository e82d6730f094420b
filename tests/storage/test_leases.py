"""One holder at a time, a dead one frees its lease, a lost one is noticed."""

from __future__ import annotations

import json
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from storage import leases
from storage.filesystem import Store
from storage.leases import Lease, LeaseHeldError, LeaseLostError, holder_of
from tests.storage import processes

HOLD = """
import sys, time
from storage.filesystem import Store
from storage.leases import Lease
with Lease(Store(sys.argv[1]), "stage-1", seconds=60):
    print("held", flush=True)
    time.sleep(600)
"""


def numbers(store: Store, name: str = "stage-1") -> list[str]:
    return [path.rpartition("/")[2] for path in store.listing(f"leases/{name}")]


def write_lease(store: Store, number: int, *, age: float = 0.0, **values: Any) -> None:
    """A lease of another machine that was acquired `age` seconds ago."""
    acquired = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - age))
    record = {"token": "t", "host": "elsewhere", "boot": "b", "pid": 1, "acquired": acquired, "seconds": 60.0}
    store.create_json(f"leases/stage-1/{number:06d}.json", {**record, "locked": True, **values})


def test_a_held_lease_is_refused_by_name_of_its_holder(store: Store) -> None:
    with Lease(store, "stage-1") as lease:
        assert lease.number == 1
        holder = holder_of(store, "stage-1")
        assert holder is not None
        with pytest.raises(LeaseHeldError, match=f"process {holder['pid']} on {holder['host']}") as caught:
            Lease(store, "stage-1").acquire()
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (copy.name, copy.holder, str(copy)) == ("stage-1", holder, str(caught.value))
        lease.check()
    assert holder_of(store, "stage-1") is None


def test_leases_are_numbered_and_nothing_is_deleted(store: Store) -> None:
    for number in (1, 2, 3):
        with Lease(store, "stage-1") as lease:
            assert lease.number == number
    assert numbers(store) == [f"{n:06d}{suffix}.json" for n in (1, 2, 3) for suffix in ("", ".released")]


def test_one_object_can_hold_again_but_not_twice(store: Store) -> None:
    lease = Lease(store, "stage-1")
    with lease, pytest.raises(RuntimeError, match="already"):
        lease.acquire()
    with lease:
        assert lease.number == 2
        assert holder_of(store, "stage-1") is not None
    lease.release()
    assert holder_of(store, "stage-1") is None


def test_leases_of_different_names_do_not_meet(store: Store) -> None:
    with Lease(store, "stage-1"), Lease(store, "stage-10") as other:
        assert other.number == 1


def test_a_lease_of_another_machine_stands_until_it_expires(store: Store) -> None:
    write_lease(store, 1, age=50)
    assert holder_of(store, "stage-1") is not None
    with pytest.raises(LeaseHeldError, match="elsewhere"):
        Lease(store, "stage-1").acquire()
    write_lease(store, 2, age=70)
    assert holder_of(store, "stage-1") is None
    with Lease(store, "stage-1") as lease:
        assert lease.number == 3


def test_renewing_keeps_a_lease(store: Store) -> None:
    write_lease(store, 1, age=500)
    store.replace("leases/stage-1/000001.renewed.json", json.dumps({"renewed": time.time() - 50}).encode())
    assert holder_of(store, "stage-1") is not None
    store.replace("leases/stage-1/000001.renewed.json", json.dumps({"renewed": time.time() - 70}).encode())
    assert holder_of(store, "stage-1") is None


def test_a_lease_renews_itself(store: Store) -> None:
    with Lease(store, "stage-1", seconds=0.45) as lease:
        time.sleep(0.9)
        lease.check()
        assert holder_of(store, "stage-1") is not None
        assert "000001.renewed.json" in numbers(store)


def test_a_short_lease_stands_from_the_moment_it_is_taken(store: Store) -> None:
    # Time stamps in whole seconds would make it look expired already.
    with Lease(store, "stage-1", seconds=3.0):
        assert holder_of(store, "stage-1") is not None
    store.create_json("leases/x/000001.json", {"acquired": leases.now(), "seconds": 0.5, "host": "elsewhere"})
    assert holder_of(store, "x") is not None


def test_a_lost_lease_is_seen_by_its_holder(store: Store) -> None:
    with Lease(store, "stage-1", seconds=0.3) as lease:
        write_lease(store, 2)
        deadline = time.monotonic() + 10
        while not lease.lost and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(LeaseLostError, match="stage-1 number 1 was taken over"):
            lease.check()
    assert "000001.released.json" not in numbers(store)
    with pytest.raises(LeaseHeldError):
        Lease(store, "stage-1").acquire()


def test_a_holder_that_slept_looks_before_it_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lease(store, "stage-1", seconds=60) as lease:
        write_lease(store, 2)
        lease.check()  # nothing is read while the last renewal is fresh
        now = time.time()
        monkeypatch.setattr(leases.time, "time", lambda: now + 120)
        with pytest.raises(LeaseLostError):
            lease.check()


def test_of_two_that_take_over_one_wins(shared_store: Store) -> None:
    for round_number in range(3):
        write_lease(shared_store, 10 * round_number + 1, age=1000)
        barrier = threading.Barrier(4)

        def attempt(_: int, barrier: threading.Barrier = barrier) -> Lease | None:
            lease = Lease(Store(shared_store.url), "stage-1")
            barrier.wait()
            try:
                return lease.acquire()
            except LeaseHeldError:
                return None

        with ThreadPoolExecutor(4) as pool:
            held = [lease for lease in pool.map(attempt, range(4)) if lease is not None]
        assert len(held) == 1
        held[0].release()


RACE = """
import sys
from storage.filesystem import Store
from storage.leases import Lease, LeaseHeldError
store = Store(sys.argv[1])
store.exists("warm")
print("ready", flush=True)
sys.stdin.readline()
try:
    lease = Lease(store, "stage-1").acquire()
except LeaseHeldError as error:
    print("lost", flush=True)
else:
    print("won", flush=True)
    sys.stdin.readline()
"""


def test_of_two_processes_one_gets_the_lease(shared_store: Store) -> None:
    racers = [processes.start(RACE, shared_store.url) for _ in range(2)]
    for racer in racers:
        processes.wait_for(racer, "ready")
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    said = [racer.stdout.readline().strip() for racer in racers if racer.stdout is not None]
    for racer in racers:
        racer.communicate("\n", timeout=30)
    assert sorted(said) == ["lost", "won"]


def test_a_killed_holder_on_this_machine_frees_its_lease_at_once(local_store: Store) -> None:
    holder = processes.start(HOLD, local_store.url)
    processes.wait_for(holder, "held")
    assert holder_of(local_store, "stage-1") is not None
    with pytest.raises(LeaseHeldError):
        Lease(local_store, "stage-1").acquire()
    processes.kill(holder)
    assert holder_of(local_store, "stage-1") is None
    with Lease(local_store, "stage-1") as lease:
        assert lease.number == 2


def test_a_killed_holder_in_an_object_store_frees_its_lease_when_it_expires(s3_store: Store) -> None:
    holder = processes.start(HOLD.replace("seconds=60", "seconds=1"), s3_store.url)
    processes.wait_for(holder, "held")
    processes.kill(holder)
    assert holder_of(s3_store, "stage-1") is not None
    with pytest.raises(LeaseHeldError):
        Lease(s3_store, "stage-1").acquire()
    time.sleep(1.5)
    with Lease(s3_store, "stage-1") as lease:
        assert lease.number == 2


def test_a_free_lock_says_nothing_about_a_holder_on_another_machine(local_store: Store) -> None:
    # The same folder over NFS, a machine of the same name: only its boot tells them apart.
    write_lease(local_store, 1, **{**leases._machine(), "boot": "another"})
    with pytest.raises(LeaseHeldError):
        Lease(local_store, "stage-1").acquire()
    assert holder_of(local_store, "stage-1") is not None


def test_a_free_lock_says_nothing_about_a_holder_that_had_none(local_store: Store) -> None:
    write_lease(local_store, 1, **leases._machine(), locked=False)
    with pytest.raises(LeaseHeldError):
        Lease(local_store, "stage-1").acquire()


def test_a_lock_that_stays_taken_does_not_outlast_the_lease(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A child that outlives the killed holder may keep its lock file; expiry is what counts then.
    monkeypatch.setattr(leases, "LOCK_WAIT", 0.05)
    stuck = leases.take_lock(local_store.local("leases/stage-1.lock"), 0)
    write_lease(local_store, 1, age=1000)
    with Lease(local_store, "stage-1") as lease:
        assert lease.number == 2
        stuck.release()
        with pytest.raises(LeaseHeldError):
            Lease(local_store, "stage-1").acquire()


def test_looking_at_a_lease_does_not_get_in_the_way_of_taking_it(local_store: Store) -> None:
    write_lease(local_store, 1, **leases._machine())
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            holder_of(local_store, "stage-1")

    local_store.local("leases/stage-1.lock").touch()
    watchers = [threading.Thread(target=look) for _ in range(3)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(5):
            with Lease(local_store, "stage-1"):
                pass
    finally:
        stop.set()
        for watcher in watchers:
            watcher.join()


def test_a_lease_may_be_given_back_by_another_thread(local_store: Store) -> None:
    lease = Lease(local_store, "stage-1").acquire()
    other = threading.Thread(target=lease.release)
    other.start()
    other.join()
    assert not leases._is_locked(local_store.local("leases/stage-1.lock"))
    with Lease(local_store, "stage-1"):
        pass


def test_a_damaged_lease_does_not_stand_for_ever(store: Store) -> None:
    store.create("leases/stage-1/000001.json", b"{")
    assert holder_of(store, "stage-1") is None
    with Lease(store, "stage-1") as lease:
        assert lease.number == 2


class Unreachable(Store):
    """A store that stops answering."""

    broken = False

    def _full(self, path: str) -> str:
        if self.broken:
            raise OSError("out of reach")
        return super()._full(path)


def test_a_store_out_of_reach_neither_ends_the_work_nor_spoils_its_end(tmp_path: Path) -> None:
    store = Unreachable(tmp_path)
    with Lease(store, "stage-1", seconds=0.3) as lease:
        store.broken = True
        time.sleep(0.6)
        lease.check()
        store.broken = False
        time.sleep(0.3)
        lease.check()
        assert holder_of(store, "stage-1") is not None
        store.broken = True
    store.broken = False
    assert not leases._is_locked(store.local("leases/stage-1.lock"))


def test_a_failed_acquisition_leaves_no_lock(local_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str, value: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(local_store, "create_json", fail)
    with pytest.raises(OSError, match="disk full"):
        Lease(local_store, "stage-1").acquire()
    assert not leases._is_locked(local_store.local("leases/stage-1.lock"))
