"""How many threads an estimator's ``n_jobs`` allows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from joblib import effective_n_jobs

from fastlstm.threads import MAX_THREADS, get_num_threads, set_num_threads

# The limit is the process's: of blocks in several threads at once the least counts, and the last
# one to leave puts back what there was before the first.
_lock = threading.Lock()
_limits: list[int] = []
_before = 0


@contextmanager
def threads_of(n_jobs: int | None) -> Iterator[None]:
    """Limit the threads of calls inside a ``with`` block to what joblib makes of ``n_jobs``.

    That is 1 of None, unless a ``joblib.parallel_config`` says otherwise.
    """
    global _before
    limit = min(effective_n_jobs(n_jobs), MAX_THREADS)
    with _lock:
        if not _limits:
            _before = get_num_threads()
        _limits.append(limit)
        set_num_threads(min(_limits))
    try:
        yield
    finally:
        with _lock:
            _limits.remove(limit)
            set_num_threads(min(_limits, default=_before))
