"""Whose turn it is: small behind large, large behind many small, keys apart, and what is dropped."""

import pytest

from mlx_embed.serve.fair import FairQueue, Flow


def flow(queue: FairQueue[str], name: str, count: int, cost: int = 10, key: object = None) -> Flow[str]:
    made: Flow[str] = Flow(key)
    queue.add(made, [(f"{name}{i}", cost) for i in range(count)])
    return made


def test_in_order_where_nothing_else_waits() -> None:
    queue: FairQueue[str] = FairQueue()
    flow(queue, "a", 5)
    assert queue.take(30) == ["a0", "a1", "a2"]
    assert queue.take(30) == ["a3", "a4"]
    assert not queue
    assert queue.take(30) == []


def test_a_small_flow_behind_a_large_one_is_in_the_next_batch() -> None:
    queue: FairQueue[str] = FairQueue()
    flow(queue, "large", 1000)
    for _ in range(20):
        assert len(queue.take(100)) == 10
    flow(queue, "query", 1)
    assert "query0" in queue.take(100)


def test_a_small_flow_behind_many_large_ones_waits_for_one_item_of_each() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(50):
        flow(queue, f"large{number}-", 1000)
    for _ in range(23):
        queue.take(100)
    flow(queue, "query", 1)
    assert "query0" in [name for _ in range(6) for name in queue.take(100)]


def test_a_large_flow_is_served_though_small_ones_keep_coming() -> None:
    queue: FairQueue[str] = FairQueue()
    flow(queue, "large", 20)
    served = []
    for turn in range(200):
        for number in range(10):  # as many as a batch holds
            flow(queue, f"small{turn}-{number}-", 1)
        served += queue.take(100)
    assert [name for name in served if name.startswith("large")] == [f"large{i}" for i in range(20)]


def test_a_flow_gets_its_share_of_the_tokens_not_of_the_texts() -> None:
    queue: FairQueue[str] = FairQueue()
    flow(queue, "long", 100, cost=40)
    flow(queue, "short", 100, cost=10)
    taken = [name for _ in range(10) for name in queue.take(80)]
    long, short = (sum(name.startswith(kind) for name in taken) for kind in ("long", "short"))
    assert long == pytest.approx(10, abs=1)
    assert short == pytest.approx(40, abs=4)


def test_what_exceeds_the_budget_is_taken_alone() -> None:
    queue: FairQueue[str] = FairQueue()
    flow(queue, "huge", 2, cost=500)
    assert queue.take(100) == ["huge0"]
    assert queue.take(100) == ["huge1"]


def test_keys_do_not_mix_and_none_waits_for_ever() -> None:
    queue: FairQueue[str] = FairQueue()
    flow(queue, "a", 3, key="A")
    flow(queue, "b", 3, key="B")
    flow(queue, "c", 3, key="A")
    batches = []
    while queue:
        batches.append(queue.take(40))
    assert all(len({name[0] == "b" for name in batch}) == 1 for batch in batches)
    assert sorted(name for batch in batches for name in batch) == [f"{k}{i}" for k in "abc" for i in range(3)]
    assert batches[0] == ["a0", "c0", "a1", "c1"]
    assert batches[1] == ["b0", "b1", "b2"]


def test_a_dropped_flow_is_gone_and_stays_gone() -> None:
    queue: FairQueue[str] = FairQueue()
    gone = flow(queue, "gone", 3)
    flow(queue, "kept", 1)
    queue.drop(gone)
    queue.add(gone, [("late", 10)])
    assert queue.take(100) == ["kept0"]
    assert not queue


def test_items_added_later_follow_those_of_their_flow() -> None:
    queue: FairQueue[str] = FairQueue()
    first = flow(queue, "a", 1)
    queue.add(first, [("a1", 10)])
    assert queue.take(100) == ["a0", "a1"]
    queue.add(first, [("a2", 10)])
    assert queue.take(100) == ["a2"]
