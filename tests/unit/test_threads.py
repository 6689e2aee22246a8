"""Blocks on one thread may overlap, and leave BLAS as they found it."""

from contextlib import ExitStack

from threadpoolctl import threadpool_info, threadpool_limits

from causal.core.threads import one_thread


def n_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_the_last_block_that_ends_gives_the_threads_back() -> None:
    with threadpool_limits(limits=2, user_api="blas"):
        first, second = ExitStack(), ExitStack()
        before = n_threads()
        first.enter_context(one_thread())
        second.enter_context(one_thread())
        first.close()
        assert n_threads() == {1}
        second.close()
        assert n_threads() == before
