"""Environment steps per second: one environment, Gymnasium's vector environments, and the batches of envs.py.

    python benchmarks/env_speed.py

takes about two minutes and writes benchmarks/results/env_speed.csv. Each way of stepping runs whole episodes with
random actions for at least --seconds; the ways take turns --repeats times, so that what else the machine does hits all
of them alike, and the median is reported. Actions are drawn beforehand; resets count.
"""

import argparse
import datetime
import os
import statistics
import time
from importlib.metadata import version

import gymnasium as gym
import pandas as pd
from data import RESULTS
from machine import machine

import envs  # noqa: F401  registers the environments

WAYS = ("single", "sync", "async", "batch")
CASES = [  # id, number of environments, ways
    ("HandReach-v2", 16, WAYS),
    *((f"{name}-v0", 100, [*WAYS[:2], "batch"]) for name in ("ContinuousSeek", "BitFlip", "DriveSeek", "NoisySeek")),
]


class Stepper:
    """One way of stepping `num_envs` environments of an id, and the rates that it reached."""

    def __init__(self, id: str, num_envs: int, way: str):
        self.way, self.num_envs, self.rates = way, 1 if way == "single" else num_envs, []
        if way == "single":
            self.env = gym.make(id)
        else:
            mode = "vector_entry_point" if way == "batch" else way
            self.env = gym.make_vec(id, num_envs=num_envs, vectorization_mode=mode)
        self.limit = gym.spec(id).max_episode_steps
        self.env.action_space.seed(0)
        self.actions = [self.env.action_space.sample() for _ in range(self.limit)]
        self.env.reset(seed=0)

    def measure(self, seconds: float) -> None:
        """Appends the environment steps per second of whole episodes."""
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            self.env.reset()
            for action in self.actions:
                self.env.step(action)
            steps += self.limit * self.num_envs
        self.rates.append(steps / (time.perf_counter() - start))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="time of one measurement, at least")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each way")
    args = parser.parse_args()
    rows, load_before = [], os.getloadavg()[0]  # processes that wanted a core in the last minute: 0 is an idle machine
    for id, num_envs, ways in CASES:
        steppers = [Stepper(id, num_envs, way) for way in ways]
        for _ in range(args.repeats):
            for stepper in steppers:
                stepper.measure(args.seconds)
        for stepper in steppers:
            stepper.env.close()
            rate, low, high = (round(f(stepper.rates)) for f in (statistics.median, min, max))
            row = dict(
                id=id, way=stepper.way, num_envs=stepper.num_envs, steps_per_second=rate, lowest=low, highest=high
            )
            print(*row.values(), flush=True)
            rows.append(row)
    software = ", ".join(f"{name} {version(name)}" for name in ("gymnasium", "gymnasium-robotics", "mujoco", "numpy"))
    table = pd.DataFrame(rows).assign(repeats=args.repeats, date=datetime.date.today(), machine=machine())
    table.assign(software=software, load_before=load_before).to_csv(RESULTS / "env_speed.csv", index=False)


if __name__ == "__main__":
    main()
