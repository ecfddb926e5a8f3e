"""Where a training step of ddpg_her_reengage.py spends its time, with one thread; the step is that of speed.py.

    python benchmarks/profile_step.py

times the parts of a run from outside and writes benchmarks/results/profile_step.csv, in milliseconds per step: medians
of --repeats differences between a longer and a shorter run. "the rest" is Python between the parts.
"""

import argparse
import datetime
import os
import tempfile
import time
from collections import Counter

import pandas as pd
import torch
from data import RESULTS
from machine import software
from speed import run_script

import ddpg_her_reengage as script

SHORT, LONG = 1_100, 2_100  # environment steps of the two runs; training starts at 1,000
PARTS = {  # label → where the function is, and its name
    "critic's loss, with both goal gradients": [(script, "critic_loss")],
    "actor's loss": [(script, "actor_loss")],
    "backward passes of both losses": [(torch.Tensor, "backward")],
    "sampling and relabelling": [(script.HerReplayBuffer, "sample")],
    "Adam, gradients set to none, targets": [
        *((torch.optim.Adam, name) for name in ("step", "zero_grad")), (torch, "_foreach_lerp_"),
    ],
    "playing and storing": [(script, "play"), (script.HerReplayBuffer, "add"), (script.Run, "advance")],
}  # fmt: skip


def timed(function, label: str, seconds: Counter):
    """The function, adding what it takes to seconds[label]."""

    def call(*args, **kwargs):
        start = time.perf_counter()
        result = function(*args, **kwargs)
        seconds[label] += time.perf_counter() - start
        return result

    return call


def parts_of(steps: int, seconds: Counter) -> Counter:
    """Seconds of each part, and of the whole, in a run of so many steps."""
    seconds.clear()
    timed(run_script, "a training step", seconds)(script, steps, alpha=0.01)
    return Counter(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    seconds, rows = Counter(), []
    for label, functions in PARTS.items():
        for owner, name in functions:
            setattr(owner, name, timed(getattr(owner, name), label, seconds))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the runs' folders go there
        for _ in range(repeats):
            short, long = parts_of(SHORT, seconds), parts_of(LONG, seconds)
            rows.append({label: 1e3 * (long[label] - short[label]) / (LONG - SHORT) for label in long})
    table = pd.DataFrame(rows)
    table["the rest"] = table["a training step"] - table[list(PARTS)].sum(axis=1)
    result = table.median().round(2).rename("ms").rename_axis("part").reset_index()
    result = result.assign(repeats=repeats, date=datetime.date.today(), machine=software())
    result.to_csv(RESULTS / "profile_step.csv", index=False)
    print(result[["part", "ms"]].to_string(index=False))


if __name__ == "__main__":
    main()
