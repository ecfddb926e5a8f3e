"""Runs the tasks of tests/test_learning.py with twenty seeds each: how much room do their thresholds leave?

    python benchmarks/learning_margin.py --jobs 2

writes benchmarks/results/learning_margin.csv, and prints the smallest rises beside those that the tests ask for.
"""

import argparse
import datetime
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import joblib
import pandas as pd
from data import RESULTS, ROOT
from machine import machine

sys.path.append(str(ROOT / "tests"))
from test_learning import COMMON, TASKS


def run(task: tuple, seed: int) -> dict:
    """One run's first and last value of what the task measures."""
    script, flags, column, _ = task
    command = [sys.executable, str(ROOT / f"{script}.py"), *COMMON.split(), *flags.split(), "--seed", str(seed)]
    environment = os.environ | dict(PYTHONPATH=str(ROOT / "tests"))
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        values = pd.read_csv(Path(folder, "runs", "r", "evaluations.csv"))[column]
    return dict(script=script, flags=flags, seed=seed, first=values.iloc[0], last=values.iloc[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--seeds", type=int, default=20)
    args = parser.parse_args()
    pairs = [(task, seed) for task in TASKS for seed in range(1, args.seeds + 1)]
    rows = joblib.Parallel(n_jobs=args.jobs)(joblib.delayed(run)(*pair) for pair in pairs)
    frame = pd.DataFrame(rows).assign(date=datetime.date.today(), machine=machine())
    frame.to_csv(RESULTS / "learning_margin.csv", index=False)
    for script, flags, _, rise in TASKS:
        rows = frame[(frame.script == script) & (frame["flags"] == flags)]
        print(f"{script:20} {(rows['last'] - rows['first']).min():.2f} at least; the test asks for {rise}")


if __name__ == "__main__":
    main()
