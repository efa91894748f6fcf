"""How long and how much: ``python simulate.py costs.json [--minutes 1000000]``.

A discrete simulation of files that are handed to slots (one job each) of nodes that fail now and then. The
costs per frame come from measure.py; what a GPU does, prices and rates are assumptions that stand in
ASSUMED and can be changed there. It prints a table and where the bottleneck is.
"""

import argparse
import heapq
import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

ASSUMED = {
    "frame_rate": 25.0,
    "mean_minutes_per_file": 10.0,  # log-normal, sigma 1: many short files, a few of hours
    "gpu_s_per_frame": 0.006,  # attribute encoder, mapper, generator and landmarks of one face
    "network_share_of_render": 0.8,  # what a GPU takes off the processor in the render pass
    "storage_bytes_per_s": 1.0e9,  # shared file system, all nodes together
    "node_failures_per_day": 0.1,  # spot machines are taken away
    "dispatch_s": 0.003,  # the driver's own work per job, one after the other
    "price_per_hour": {"cpu": 0.55, "gpu": 1.30},
}
CORES, THREADS = 16, 2


@dataclass(frozen=True)
class Machine:
    """A kind of node: its slots, and the seconds that one takes for a frame and for loading networks."""

    kind: str
    slots: int
    frame_s: float
    load_s: float
    bottleneck: str


def machine(kind: str, costs: dict) -> Machine:
    """Return what one node does: a GPU takes the networks of the render pass off its cores."""
    passes = dict(costs["cpu_s_per_frame"])
    if kind == "gpu":
        passes["render"] = passes.get("render", 0.0) * (1 - ASSUMED["network_share_of_render"])
    slots = CORES // THREADS
    frame_s, bottleneck = sum(passes.values()) / THREADS, max(passes, key=passes.get) + " (cores)"
    if kind == "gpu" and ASSUMED["gpu_s_per_frame"] * slots > frame_s:
        frame_s, bottleneck = ASSUMED["gpu_s_per_frame"] * slots, "GPU"
    return Machine(kind, slots, frame_s, costs["cpu_s_per_file"] / THREADS, bottleneck)


def file_lengths_s(minutes: float, seed: int = 1) -> list[float]:
    """Draw files until they add up."""
    generator, lengths, left = random.Random(seed), [], minutes * 60  # noqa: S311
    location = math.log(ASSUMED["mean_minutes_per_file"] * 60) - 0.5
    while left > 0:
        lengths.append(min(generator.lognormvariate(location, 1.0), left))
        left -= lengths[-1]
    return lengths


def simulate(lengths: list[float], kind: Machine, nodes: int) -> tuple[float, float]:
    """Hand out the files; return the hours it takes and the share of work lost to failures.

    The worst case: a lost job begins anew. In truth its finished parts are still on the shared storage.
    """
    generator, slots = random.Random(2), nodes * kind.slots  # noqa: S311
    free = [0.0] * slots
    driver = busy = lost = 0.0
    failure_rate = ASSUMED["node_failures_per_day"] / 86400
    for length in lengths:
        driver = max(driver, heapq.heappop(free)) + ASSUMED["dispatch_s"]
        needed = length * ASSUMED["frame_rate"] * kind.frame_s + kind.load_s
        spent = needed
        while (survives := generator.expovariate(failure_rate)) < needed:
            lost += survives
            spent += survives
        busy += spent
        heapq.heappush(free, driver + spent)
    return max(free) / 3600, lost / busy


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("costs", type=Path)
    parser.add_argument("--minutes", type=float, default=1e6)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--longest-first", action="store_true", help="as in a batch of their own")
    options = parser.parse_args()
    costs = json.loads(options.costs.read_text())
    lengths = file_lengths_s(options.minutes)
    if options.longest_first:
        lengths.sort(reverse=True)
    seconds = sum(lengths)
    # Each source is read four times (hash, analysis, render, audit), each result written and read once.
    storage_h = 6 * seconds * costs["bytes_per_s_in"] / ASSUMED["storage_bytes_per_s"] / 3600
    print(f"{len(lengths)} files, {seconds / 60:.0f} minutes; costs of {costs['clip']} {costs['size']}")
    print("| nodes | kind | days | cost | video minutes per hour | lost work | bottleneck |")
    print("|---|---|---|---|---|---|---|")
    for kind in (machine("cpu", costs), machine("gpu", costs)):
        for nodes in options.nodes:
            hours, lost = simulate(lengths, kind, nodes)
            even = seconds * ASSUMED["frame_rate"] * kind.frame_s / kind.slots / nodes / 3600
            limit = kind.bottleneck
            if storage_h > hours:
                hours, limit = storage_h, "storage"
            elif hours > 1.3 * even:
                limit = "the longest files"
            price = hours * nodes * ASSUMED["price_per_hour"][kind.kind]
            print(
                f"| {nodes} | {kind.kind} | {hours / 24:.1f} | {price:,.0f} | {seconds / 60 / hours:,.0f} "
                f"| {lost:.1%} | {limit} |"
            )


if __name__ == "__main__":
    main()
