"""Whose turn it is: items of many flows, taken so that a large flow does not hold up a small one."""

from collections import deque
from collections.abc import Hashable, Iterable
from heapq import heappop, heappush
from itertools import count, islice
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Flow(Generic[Item]):
    """What one request has waiting, in its order.

    Attributes:
        key: only items of one key are taken together.
        items: each with its cost.
    """

    __slots__ = ("end", "gone", "items", "key")

    def __init__(self, key: Hashable = None) -> None:
        self.key = key
        self.items: deque[tuple[Item, int]] = deque()
        self.end = 0.0  # in the queue's time, when what was taken and is next will have been served
        self.gone = False


class FairQueue(Generic[Item]):
    """Fair queueing: the flow that has been served least since it came is served next.

    Time is what each waiting flow would have been served if all were served at once and alike, in the unit of the
    costs. A flow that arrives starts now; one with many items has its next one later, by the cost of each that was
    taken. So what has just arrived comes before the rest of what is large, and nothing waits for ever. It is for use
    under a lock.

    Attributes:
        cost: of all that waits.
    """

    def __init__(self) -> None:
        self.cost = 0
        self._heap: list[tuple[float, int, Flow[Item]]] = []
        self._order = count()
        self._now = 0.0

    def __bool__(self) -> bool:
        return self.cost > 0

    def add(self, flow: Flow[Item], items: Iterable[tuple[Item, int]]) -> None:
        """Let items, each with its cost above 0, wait behind what the flow already has."""
        if flow.gone:
            return
        waits = bool(flow.items)
        before = len(flow.items)
        flow.items.extend(items)
        self.cost += sum(cost for _, cost in islice(flow.items, before, None))
        if flow.items and not waits:
            self._push(flow)

    def drop(self, flow: Flow[Item]) -> None:
        """Forget what a flow has waiting, and what it may still add."""
        self.cost -= sum(cost for _, cost in flow.items)
        flow.items.clear()
        flow.gone = True

    def take(self, budget: int) -> list[Item]:
        """The items whose turn it is, of one key, up to a total cost: at least one, where any waits."""
        taken: list[Item] = []
        others: list[tuple[float, int, Flow[Item]]] = []
        key: Hashable = None
        served, flows = 0, len(self._heap)
        while self._heap:
            start, order, flow = heappop(self._heap)
            if not flow.items:
                continue
            if taken and flow.key != key:
                others.append((start, order, flow))
                continue
            item, cost = flow.items[0]
            if taken and served + cost > budget:
                others.append((start, order, flow))
                break
            flow.items.popleft()
            taken.append(item)
            key, served = flow.key, served + cost
            if flow.items:
                self._push(flow)
        for entry in others:
            heappush(self._heap, entry)
        self.cost -= served
        self._now += served / max(flows, 1)
        return taken

    def _push(self, flow: Flow[Item]) -> None:
        start = max(flow.end, self._now)
        flow.end = start + flow.items[0][1]
        heappush(self._heap, (start, next(self._order), flow))
