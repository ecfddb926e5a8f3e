"""Whether the commits that made a grid's rows learn the same, and as the last one: short trainings with each.

    python benchmarks/same_training.py

A commit's weights are told by the sum of their absolute values. Rows of several commits can be compared where it is the
same; results/same_training.csv has it. Needs git's history.
"""

import os
import shlex
import subprocess
import sys
import tempfile

import joblib
import pandas as pd
import torch
from data import DDPG, DQN, MULTI, REENGAGE, RESULTS, SAC
from sweep import ROOT, git
from tqdm import tqdm

SEEK = "--env-id ContinuousSeek5-v0 --total-timesteps 1500 --learning-starts 500 --eval-frequency 1000 --batch-size 64"
SETS = (
    "--hidden-size 32 --batch-size 32 --total-timesteps 1200 --learning-starts 500 --eval-frequency 4000 "
    "--eval-episodes 4"
)
HAND = "--env-id HandReach-v2 --total-timesteps 3000 --eval-frequency 10000 --eval-episodes 16"
RUNS = [  # grids, script, flags
    *((("continuousseek", "both_actors"), script, SEEK) for script in (DDPG, REENGAGE)),
    *((("handreach",), script, HAND) for script in (DDPG, REENGAGE)),
    *(
        (("bitflip",), DQN, f"--env-id {env_id} --total-timesteps 4000{flags}")
        for env_id in ("BitFlip20-v0", "BitFlip-v0")
        for flags in ("", " --alpha 0", " --temperature 0", " --soft-target both")
    ),
    *((("sac",), SAC, SEEK + flags) for flags in ("", " --alpha 0")),
    *(
        (("multi",), MULTI, f"--env-id {env_id} {SETS} --alpha {flags}")
        for env_id in ("DriveSeek-v0", "NoisySeek-v0")
        for flags in ("0", "0.5", "0.5 --separate-encoders")
    ),
]


def learned(script: str, flags: str, commit: str) -> float:
    """The sum of the absolute weights after a run of a commit's script."""
    command = [sys.executable, f"{script}.py", *shlex.split(flags), "--run-name", "same"]
    with tempfile.TemporaryDirectory() as folder:
        files = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=files, check=True)
        options = dict(env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, check=True)
        subprocess.run(command, cwd=folder, **options)
        parts = torch.load(f"{folder}/runs/same/checkpoint.pt", map_location="cpu", weights_only=True)["parts"]
    networks = [part for name, part in parts.items() if "optimizer" not in name and name != "buffer"]
    return sum(value.double().abs().sum().item() for network in networks for value in network.values())


def main() -> None:
    tasks, now = [], git("log", "-1", "--format=%h")
    for grids, script, flags in RUNS:
        made_by = pd.concat([pd.read_csv(RESULTS / f"{grid}.csv", dtype=str) for grid in grids])
        commits = {*made_by.query("script == @script").commit, now}
        tasks += [(script, flags, commit) for commit in sorted(commits)]
    pool = joblib.Parallel(n_jobs=-1, backend="threading", return_as="generator")
    sums = list(tqdm(pool(joblib.delayed(learned)(*task) for task in tasks), total=len(tasks)))
    table = pd.DataFrame(tasks, columns=["script", "flags", "commit"]).assign(sum=sums)
    table.to_csv(RESULTS / "same_training.csv", index=False)
    different = table.groupby(["script", "flags"])["sum"].nunique().gt(1)
    sys.exit(f"these differ: {list(different[different].index)}" if different.any() else 0)


if __name__ == "__main__":
    main()
