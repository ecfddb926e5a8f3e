"""Environment steps per second: one environment, Gymnasium's vector environments, and the batches of envs.py.

`script` is the scripts' own make_vector_env, here of an environment without a batch: from two on, a process each.

    python benchmarks/env_speed.py

takes about four minutes and writes benchmarks/results/env_speed.csv. Each way of stepping runs whole episodes with
random actions for at least --seconds; the ways take turns --repeats times, so that what else the machine does hits all
of them alike, and the median is reported. Actions are drawn beforehand; resets count.
"""

import argparse
import csv
import datetime
import os
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import gymnasium as gym
import numpy as np
from machine import processor

from ddpg_her import make_vector_env  # registers the environments as well

CASES = [
    # id, number of environments, ways
    ("HandReach-v2", 16, ["single", "sync", "async", "batch"]),
    ("ContinuousSeek-v0", 100, ["single", "sync", "batch"]),
    ("BitFlip-v0", 100, ["single", "sync", "batch"]),
    ("DriveSeek-v0", 100, ["single", "sync", "batch"]),
    ("NoisySeek-v0", 100, ["single", "sync", "batch"]),
    *(("FetchPush-v4", num_envs, ["sync", "script"]) for num_envs in (1, 2, 4)),
]
RESULTS = Path(__file__).parent / "results" / "env_speed.csv"


class Stepper:
    """One way of stepping ``num_envs`` environments of an id, and the rates that it reached."""

    def __init__(self, id, num_envs, way):
        self.id, self.way, self.num_envs, self.rates = id, way, 1 if way == "single" else num_envs, []
        if way == "single":
            self.env = gym.make(id)
        elif way == "script":
            self.env = make_vector_env(gym.make(id), num_envs)
        else:
            mode = "vector_entry_point" if way == "batch" else way
            self.env = gym.make_vec(id, num_envs=num_envs, vectorization_mode=mode)
        self.limit = gym.spec(id).max_episode_steps
        self.env.action_space.seed(0)
        self.actions = [self.env.action_space.sample() for _ in range(self.limit)]
        self.env.reset(seed=0)

    def measure(self, seconds):
        """Append the environment steps per second of whole episodes."""
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            self.env.reset()
            for action in self.actions:
                self.env.step(action)
            steps += self.limit * self.num_envs
        self.rates.append(steps / (time.perf_counter() - start))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="time of one measurement, at least")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each way")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    machine = {
        "date": datetime.date.today().isoformat(),
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "gymnasium": version("gymnasium"),
        "gymnasium_robotics": version("gymnasium-robotics"),
        "mujoco": version("mujoco"),
        "numpy": np.__version__,
        "load_before": os.getloadavg()[0],  # processes that wanted a core, over the last minute: 0 is an idle machine
    }
    rows = []
    for id, num_envs, ways in CASES:
        steppers = [Stepper(id, num_envs, way) for way in ways]
        for _ in range(args.repeats):
            for stepper in steppers:
                stepper.measure(args.seconds)
        for stepper in steppers:
            stepper.env.close()
            rate = statistics.median(stepper.rates)
            low, high = min(stepper.rates), max(stepper.rates)
            print(
                f"{id:20} {stepper.way:7} {stepper.num_envs:4} environments {rate:10.0f} steps/s ({low:.0f}–{high:.0f})"
            )
            result = {"id": id, "way": stepper.way, "num_envs": stepper.num_envs, "steps_per_second": round(rate)}
            rows.append(result | {"lowest": round(low), "highest": round(high), "repeats": args.repeats} | machine)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
