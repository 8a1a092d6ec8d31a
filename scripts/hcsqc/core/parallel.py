"""Threads that work ahead of the one that uses what they make."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    ahead: int,
    size: Callable[[Result], int] = lambda result: 0,
    most: int = 0,
) -> Generator[Result, None, None]:
    """Yield `function(item)` for each item, in order, made by `threads` threads.

    At most `ahead` results wait, so that memory does not grow with the number of items, and none
    but the next is begun while the sizes of those that wait add up to more than `most`. After an
    error, or when the caller stops, what has not begun is left undone.
    """
    waiting: deque[Future[Result]] = deque()
    sizes: dict[int, int] = {}
    room = threading.Condition()
    wanted, stopped = 0, False

    def make(number: int, item: Item) -> Result:
        with room:
            room.wait_for(lambda: stopped or number == wanted or sum(sizes.values()) <= most)
        if stopped:
            raise CancelledError
        result = function(item)
        with room:
            sizes[number] = size(result)
        return result

    def take() -> Result:
        nonlocal wanted
        result = waiting.popleft().result()
        with room:
            del sizes[wanted]
            wanted += 1
            room.notify_all()
        return result

    with ThreadPoolExecutor(threads) as pool:
        try:
            for number, item in enumerate(items):
                waiting.append(pool.submit(make, number, item))
                if len(waiting) > ahead:
                    yield take()
            while waiting:
                yield take()
        finally:
            for future in waiting:
                future.cancel()
            with room:
                stopped = True
                room.notify_all()
