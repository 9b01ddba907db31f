"""How many threads an estimator's ``n_jobs`` allows."""

from __future__ import annotations

from contextlib import AbstractContextManager

from joblib import effective_n_jobs

from fastlstm.threads import at_most


def threads_of(n_jobs: int | None) -> AbstractContextManager[None]:
    """Limit the threads of calls inside a ``with`` block to what joblib makes of ``n_jobs``.

    That is 1 of None, unless a ``joblib.parallel_config`` says otherwise.
    """
    return at_most(effective_n_jobs(n_jobs))
