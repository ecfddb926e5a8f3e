"""Whether the commits that made a grid's rows learn the same, and as today's files do: short trainings with each.

    python benchmarks/same_training.py

A commit's weights are told by the sum of their absolute values. Rows of several commits can be compared where it is the
same; results/same_training.csv has it. Needs git's history.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch
from data import BOTH, DDPG, DQN, MULTI, REENGAGE, RESULTS, SAC
from sweep import ROOT
from tqdm import tqdm

SEEK = "--env-id ContinuousSeek5-v0 --total-timesteps 1500 --learning-starts 500 --eval-frequency 1000 --batch-size 64"
SETS = (
    "--env-id DriveSeek-v0 --hidden-size 32 --batch-size 32 --total-timesteps 1200 --learning-starts 500 "
    "--eval-frequency 4000 --eval-episodes 4"
)
BITS = "--env-id BitFlip20-v0 --total-timesteps 4000"
HAND = "--env-id HandReach-v2 --total-timesteps 3000 --eval-frequency 10000 --eval-episodes 16"
RUNS = [  # grid, script, flags
    *(("continuousseek", script, SEEK) for script in (DDPG, REENGAGE)),
    *(("handreach", script, HAND) for script in (DDPG, REENGAGE)),
    *(("bitflip", DQN, BITS + flags) for flags in ("", " --alpha 0", " --temperature 0", " --soft-target both")),
    *(("sac", SAC, SEEK + flags) for flags in ("", " --alpha 0")),
    *(("multi", MULTI, SETS + flags) for flags in ("", " --alpha 0")),
    *(("both_actors", BOTH, f"{SEEK} --script {script}") for script in (DDPG, REENGAGE)),
]


def learned(folder: Path, script: str, flags: str) -> float:
    """The sum of the absolute weights after a run of the script that lies in a folder."""
    command = [sys.executable, f"{script}.py", *shlex.split(flags), "--run-name", "same"]
    with tempfile.TemporaryDirectory() as runs:
        options = dict(env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, check=True)
        subprocess.run([command[0], folder / command[1], *command[2:]], cwd=runs, **options)
        parts = torch.load(f"{runs}/runs/same/checkpoint.pt", map_location="cpu", weights_only=True)["parts"]
    networks = [part for name, part in parts.items() if "optimizer" not in name and name != "buffer"]
    return sum(value.double().abs().sum().item() for network in networks for value in network.values())


def main() -> None:
    rows = []
    for grid, script, flags in tqdm(RUNS):
        made_by = pd.read_csv(RESULTS / f"{grid}.csv", dtype=str).query("script == @script").commit.unique()
        for commit in sorted(made_by):
            with tempfile.TemporaryDirectory() as folder:
                files = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
                subprocess.run(["tar", "-x", "-C", folder], input=files, check=True)
                rows.append([script, flags, commit, learned(Path(folder), script, flags)])
        rows.append([script, flags, "today's", learned(ROOT, script, flags)])
    table = pd.DataFrame(rows, columns=["script", "flags", "commit", "sum"])
    table.to_csv(RESULTS / "same_training.csv", index=False)
    different = table.groupby(["script", "flags"])["sum"].nunique().gt(1)
    sys.exit(f"these differ: {list(different[different].index)}" if different.any() else 0)


if __name__ == "__main__":
    main()
