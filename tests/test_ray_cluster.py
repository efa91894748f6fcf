"""Two raylets on this machine count as two nodes of a cluster; one of them is killed in mid-run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vidanon.jobs.executors import Report, make_executor


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    small = {"object_store_memory": 80 * 1024 * 1024, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1} | small)
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def where(item: tuple[int, str], report: Report) -> tuple[int, str]:
    """Write down which node works on an item, take a while, return the node."""
    import ray

    number, folder = item
    node = ray.get_runtime_context().get_node_id()
    with (Path(folder) / f"{number}.{node}").open("a") as file:
        file.write("x")
    time.sleep(0.4)
    return number, node


def test_jobs_of_a_killed_node_are_done_elsewhere(cluster: Any, tmp_path: Path) -> None:
    second = cluster.add_node(num_cpus=1, object_store_memory=80 * 1024 * 1024)
    cluster.wait_for_nodes()
    outcomes = make_executor("ray", workers=2).imap(where, [(number, str(tmp_path)) for number in range(16)])
    results = []
    for outcome in outcomes:
        assert outcome.failure is None and outcome.value is not None, outcome.failure
        results.append(outcome.value)
        on_second = [number for number, node in results if node == second.node_id]
        if second is not None and len(results) >= 4 and on_second and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            cluster.remove_node(second, allow_graceful=False)
    assert sorted(number for number, _ in results) == list(range(16))
    assert {node for _, node in results[-4:]} == {cluster.head_node.node_id}
    assert (tmp_path / "killed").exists()
