"""Whether the commits that made a grid's rows learn the same, and as the last one: short trainings with each.

    python benchmarks/same_training.py

Rows of several commits can be compared where the sum of the absolute weights is the same in the end, and so are the
means of the evaluations; results/same_training.csv has them. Processors round differently: `--only SCRIPT` does all
trainings of one script anew. Needs git's history.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile

import joblib
import pandas as pd
import torch
from data import DDPG, DQN, MULTI, REENGAGE, RESULTS, SAC, merge
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
    *((("handreach", "both_actors"), script, HAND) for script in (DDPG, REENGAGE)),
    *(
        (("bitflip",), DQN, f"--env-id {env_id} --total-timesteps 4000{flags}")
        for env_id in ("BitFlip20-v0", "BitFlip-v0")
        for flags in ("", " --alpha 0", " --temperature 0", " --soft-target both", " --soft-target both-sampled")
    ),
    *((("sac",), SAC, SEEK + flags) for flags in ("", " --alpha 0")),
    *(
        (("multi", "multi_full"), MULTI, f"--env-id {env_id} {SETS} --alpha {flags}")
        for env_id in ("DriveSeek-v0", "NoisySeek-v0")
        for flags in ("0", "0.5", "0.5 --separate-encoders")
    ),
]


SAME = ["sum", "success_rate", "episodic_return"]  # columns that should have one value for all commits


def learned(script: str, flags: str, commit: str) -> list[float]:
    """After a run of a commit's script: the sum of the absolute weights, and the means of its evaluations."""
    command = [sys.executable, f"{script}.py", *shlex.split(flags), "--run-name", "same"]
    with tempfile.TemporaryDirectory() as folder:
        files = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=files, check=True)
        options = dict(env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, check=True)
        subprocess.run(command, cwd=folder, **options)
        parts = torch.load(f"{folder}/runs/same/checkpoint.pt", map_location="cpu", weights_only=True)["parts"]
        evaluated = pd.read_csv(f"{folder}/runs/same/evaluations.csv")
    networks = [part for name, part in parts.items() if "optimizer" not in name and name != "buffer"]
    weights = sum(value.double().abs().sum().item() for network in networks for value in network.values())
    return [weights, *evaluated[SAME[1:]].mean()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    scripts = [DDPG, REENGAGE, SAC, DQN, MULTI]
    parser.add_argument("--only", choices=scripts, nargs="+", default=scripts, metavar="SCRIPT")
    args = parser.parse_args()
    tasks, now = [], git("log", "-1", "--format=%h")
    for grids, script, flags in RUNS:
        if script not in args.only:
            continue
        made_by = pd.concat([pd.read_csv(RESULTS / f"{grid}.csv", dtype=str) for grid in grids])
        commits = {*made_by.query("script == @script").commit, now}
        tasks += [(script, flags, commit) for commit in sorted(commits)]
    pool = joblib.Parallel(n_jobs=-1, backend="threading", return_as="generator")
    values = list(tqdm(pool(joblib.delayed(learned)(*task) for task in tasks), total=len(tasks)))
    table = pd.DataFrame(tasks, columns=["script", "flags", "commit"])
    table[SAME] = values
    merge("same_training", table, ["script"])
    different = table.groupby(["script", "flags"])[SAME].nunique().gt(1).any(axis=1)
    sys.exit(f"these differ: {list(different[different].index)}" if different.any() else 0)


if __name__ == "__main__":
    main()
