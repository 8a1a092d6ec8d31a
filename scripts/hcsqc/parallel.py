"""Threads that work ahead of the one that uses what they make."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor


def in_order(function: Callable, items: Iterable, threads: int, ahead: int) -> Iterator:
    """Yield `function(item)` for each item, in order, made by `threads` threads.

    At most `ahead` results wait, so that memory does not grow with the number of items. After an
    error, or when the caller stops, what has not begun is left undone.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
