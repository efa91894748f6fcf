"""Three ways to run independent work behind one protocol: here, in processes, on a Ray cluster."""

from __future__ import annotations

from vidanon.jobs.executors.base import PAUSE, Executor, Failure, Outcome, Report

KINDS = ("serial", "processes", "ray")

__all__ = ["KINDS", "PAUSE", "Executor", "Failure", "Outcome", "Report", "make_executor"]


def make_executor(
    kind: str, workers: int, threads: int = 1, gpus: float = 0.0, address: str = "local"
) -> Executor:
    """Return an executor by name.

    Args:
        kind: ``serial``, ``processes`` or ``ray``.
        workers: how many items are worked on at a time; serial always takes one.
        threads: cores that one worker uses; Ray reserves them.
        gpus: share of a GPU that one worker uses; Ray reserves it.
        address: Ray only: ``local`` starts Ray here, ``auto`` joins the cluster this machine belongs to.

    Raises:
        SettingsError: no such executor, or Ray is not installed.
    """
    from vidanon.errors import SettingsError

    if kind == "serial":
        from vidanon.jobs.executors.serial import SerialExecutor

        return SerialExecutor()
    if kind == "processes":
        from vidanon.jobs.executors.processes import ProcessExecutor

        return ProcessExecutor(workers)
    if kind == "ray":
        from vidanon.jobs.executors.ray import RayExecutor

        return RayExecutor(workers, threads, gpus, address)
    raise SettingsError(f"executor '{kind}' does not exist; choose one of {', '.join(KINDS)}")
