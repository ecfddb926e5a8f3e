"""Milliseconds per update of the five scripts on a GPU, kernel by kernel and as one CUDA graph, and per training step.

    python benchmarks/gpu_speed.py

An update is timed alone, on one batch, many times. A training step is everything that an environment step of a run
costs, update included: the difference of a longer and a shorter run, divided by the difference of their steps. Sizes
are those of speed.py (ContinuousSeek20 and BitFlip-v0, batch 256 and 128); Multi-ReenGAGE has the paper's on DriveSeek.
The csv has medians.
"""

import datetime
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module

import pandas as pd
import torch
from data import merge
from machine import machine

SEEK = dict(env_id="ContinuousSeek-v0", batch_size=256, learning_starts=0)
SIZES = {
    "ddpg_her": SEEK,
    "ddpg_her_reengage": SEEK,
    "sac_her_reengage": SEEK,
    "dqn_her_reengage": dict(env_id="BitFlip-v0"),  # a step is that of 16 environments, with an update for each
    "ddpg_multi_reengage": dict(env_id="DriveSeek-v0", learning_starts=0),
}
UPDATES, REPEATS = 200, 3
SHORT, LONG = 200, 600  # steps of the two runs


def milliseconds(function: Callable, *args) -> float:
    """How long a call takes, until the GPU has done its work."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    function(*args)
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


def repeat(update: Callable, batch) -> None:
    for _ in range(UPDATES):
        update(batch)


def measure(name: str) -> dict:
    """A row of the csv: milliseconds of a script's update in both ways and of its training step."""
    script, seen = import_module(name), {}

    class Graph(script.CudaGraph):
        def __call__(self, batch):
            seen.update(update=self.function, batch=batch)
            return super().__call__(batch)

    def train(steps: int) -> None:
        args = script.PAPER_SETTINGS[SIZES[name]["env_id"]] | SIZES[name]
        args |= dict(total_timesteps=steps * args.get("num_envs", 1), run_name=str(time.time_ns()))
        args |= dict(eval_frequency=10**9, eval_episodes=1, checkpoint_frequency=10**9)
        script.train(script.Args(**args))

    graph, script.CudaGraph = script.CudaGraph, Graph
    train(SHORT)  # so that everything is set up
    script.CudaGraph = graph
    row = dict(script=name, env_id=SIZES[name]["env_id"])
    for way, update in dict(kernels=seen["update"], graph=graph(seen["update"])).items():
        repeat(update, seen["batch"])
        times = [milliseconds(repeat, update, seen["batch"]) / UPDATES for _ in range(REPEATS)]
        row[f"update_ms_{way}"] = statistics.median(times)
    steps = [(milliseconds(train, LONG) - milliseconds(train, SHORT)) / (LONG - SHORT) for _ in range(REPEATS)]
    return row | dict(step_ms_graph=statistics.median(steps))


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("gpu_speed.py needs a GPU that PyTorch can use (CUDA)")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the runs' folders go there
        for name in SIZES:
            rows.append(measure(name))
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows).round(3).assign(repeats=REPEATS, date=datetime.date.today(), machine=machine())
    merge("gpu_speed", table.assign(torch=torch.__version__), ["script", "machine"])


if __name__ == "__main__":
    main()
