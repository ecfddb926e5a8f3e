"""Runs a named grid of trainings and collects their evaluations in benchmarks/results/<grid>.csv.

    python benchmarks/sweep.py continuousseek --jobs 2

Each run is one process with one thread of PyTorch and lives in runs/<grid>/. A sweep can be killed and started again:
finished runs are skipped, unfinished ones continue from their checkpoint. A run that fails does not stop the others,
and is named at the end. `--dry-run` lists the runs with the time that they should take, and says of a finished one
where its script has changed since; `--again` runs those anew. `--seeds 100 102` takes other seeds, whose evaluations
are in <grid>_seeds_100_102.csv, and `--only PATTERN` the runs whose command matches it. On a cluster the same
command takes `--backend dask --address HOST:PORT` or `--backend ray --address auto` (install dask[distributed] or ray;
the checkout must be on a file system that all machines share).
"""

import argparse
import datetime
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from machine import machine
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

DDPG, REENGAGE, SAC, DQN, MULTI = (
    *("ddpg_her", "ddpg_her_reengage", "sac_her_reengage", "dqn_her_reengage"),
    "ddpg_multi_reengage",
)
SMALL = "--hidden-size 64 --batch-size 128 --total-timesteps 80000"  # a size that a CPU can afford
# grid → how many seeds, from 1, script and flags
GRIDS = {
    "continuousseek": [
        (10, DDPG, "--env-id ContinuousSeek5-v0"),
        (10, REENGAGE, "--env-id ContinuousSeek5-v0"),
        (5, REENGAGE, "--env-id ContinuousSeek5-v0 --alpha 0.02"),
        (5, REENGAGE, "--env-id ContinuousSeek5-v0 --alpha 0.06"),
        (10, DDPG, "--env-id ContinuousSeek10-v0"),
        (10, REENGAGE, "--env-id ContinuousSeek10-v0"),
        (5, REENGAGE, "--env-id ContinuousSeek10-v0 --alpha 0.01"),
        (5, REENGAGE, "--env-id ContinuousSeek10-v0 --alpha 0.03"),
        (5, DDPG, "--env-id ContinuousSeek20-v0"),
        (5, REENGAGE, "--env-id ContinuousSeek20-v0"),
    ],
    "handreach": [
        (5, DDPG, "--env-id HandReach-v2"),
        (5, REENGAGE, "--env-id HandReach-v2 --alpha 0.01"),
        (3, REENGAGE, "--env-id HandReach-v2 --alpha 0.005"),
        (3, REENGAGE, "--env-id HandReach-v2 --alpha 0.02"),
    ],
    "bitflip": [
        (seeds, DQN, f"--env-id {env_id}{flags}")
        for env_id in ("BitFlip20-v0", "BitFlip-v0")
        for seeds, flags in (
            (5, " --alpha 0"),
            (5, ""),
            (3, " --temperature 0"),
            (3, " --temperature 1"),
            (3, " --soft-target both"),
            (3, " --soft-target both-sampled"),
        )
    ],
    "sac": [
        (5, SAC, f"--env-id ContinuousSeek{d}-v0 --alpha {alpha:g}")
        for d, alpha in ((5, 0), (5, 0.04), (10, 0), (10, 0.02))
    ],
    "multi": [
        (seeds, MULTI, f"--env-id {env_id} --alpha {alpha:g} {SMALL}{flags}")
        for env_id, best in (("DriveSeek-v0", 0.1), ("NoisySeek-v0", 0.5))
        for seeds, alpha, flags in ((5, 0, ""), (5, best, ""), (3, best, " --separate-encoders"))
    ],
}


def run_name(grid: str, script: str, flags: str, seed: int) -> str:
    """The folder of a run under runs/."""
    return f"{grid}/{script}__{flags.replace('--', '').replace(' ', '_')}__seed_{seed}"


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def commit(script: str) -> str:
    """The commit that a script is of, with a + where it, or the environments, differ from it."""
    changed = git("status", "--porcelain", "--", f"{script}.py", "envs.py")
    return git("rev-parse", "--short", "HEAD") + "+" * bool(changed)


def state(grid: str, script: str, flags: str, seed: int) -> str:
    """What has become of a run: new, unfinished, finished, or finished with another form of the script."""
    folder = ROOT / "runs" / run_name(grid, script, flags, seed)
    if not (folder / "finished").exists():
        return "unfinished" if (folder / "checkpoint.pt").exists() else "new"
    made_by = (folder / "finished").read_text()
    command = ["git", "diff", "--quiet", made_by, "--", f"{script}.py", "envs.py"]
    same = "+" not in made_by and subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL).returncode == 0
    return "finished" if same else f"finished with {made_by}, since when the script has changed"


def run(grid: str, script: str, flags: str, seed: int, threads: int, again: bool) -> str | None:
    """Trains one run to its end, from its checkpoint where there is one; returns what went wrong.

    Its output goes to a log beside its folder.
    """
    name = run_name(grid, script, flags, seed)
    folder, known = ROOT / "runs" / name, state(grid, script, flags, seed)
    if again and "changed" in known:
        shutil.rmtree(folder)
    elif "finished" in known.split():
        return None
    command = [sys.executable, f"{script}.py"]
    if (folder / "checkpoint.pt").exists():
        command += ["--resume", f"runs/{name}"]
    else:
        shutil.rmtree(folder, ignore_errors=True)  # it broke before its first checkpoint
        command += [*flags.split(), "--seed", str(seed), "--run-name", name]
    folder.parent.mkdir(parents=True, exist_ok=True)
    made_by, environment = commit(script), os.environ | {"OMP_NUM_THREADS": str(threads)}
    log = folder.parent / f"{folder.name}.log"
    with open(log, "a") as file:
        status = subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=file).returncode
    if status:
        return f"exit status {status}: {' '.join(command[1:])}\n    {log.read_text().strip().splitlines()[-1:]}"
    (folder / "finished").write_text(made_by)
    return None


def expected_minutes(grid: str, script: str, flags: str) -> float:
    """How long a run took when the grid's csv was made, or one of the script on the environment; nan where none was."""
    path = RESULTS / f"{grid}.csv"
    rows = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["script", "flags", "seed", "wall_seconds"])
    rows = rows[(rows["script"] == script) & rows["flags"].str.startswith(" ".join(flags.split()[:2]))]
    same = rows[rows["flags"] == flags]
    rows = rows if same.empty else same
    return rows.groupby("seed").wall_seconds.max().median() / 60


def dry_run(tasks: list[tuple[str, str, str, int]], jobs: int, again: bool) -> None:
    """Prints the runs, what has become of them, and the minutes that those left should take."""
    left, unknown = 0.0, 0
    for grid, script, flags, seed in tasks:
        minutes, known = expected_minutes(grid, script, flags), state(grid, script, flags, seed)
        if "finished" not in known.split() or (again and "changed" in known):
            left, unknown = left + np.nan_to_num(minutes), unknown + np.isnan(minutes)
        print(f"{minutes:6.1f} minutes  {script}.py {flags} --seed {seed}: {known}")
    rest = f", and {unknown} of which no time is known" if unknown else ""
    print(f"{len(tasks)} runs; what is left should take {left / jobs:.0f} minutes with {jobs} at a time{rest}")


def runs_of(grid: str, seeds: list[int] | None) -> list[tuple[str, str, int]]:
    """Script, flags and seed of all runs of a grid, seed by seed; with seeds instead of the grid's own."""
    runs = [(script, flags, seed) for n, script, flags in GRIDS[grid] for seed in seeds or range(1, n + 1)]
    return sorted(runs, key=lambda run: run[2])


def collect(grid: str, seeds: list[int] | None, name: str) -> Path:
    """Writes the evaluations of a grid's finished runs, one row each."""
    frames = []
    for script, flags, seed in runs_of(grid, seeds):
        folder = ROOT / "runs" / run_name(grid, script, flags, seed)
        if (folder / "finished").exists():
            frame = pd.read_csv(folder / "evaluations.csv")
            date = datetime.date.fromtimestamp((folder / "finished").stat().st_mtime)
            made = dict(date=date, machine=machine(), commit=(folder / "finished").read_text())
            frames.append(frame.assign(script=script, flags=flags, seed=seed, **made))
    path = RESULTS / f"{name}.csv"
    if frames:
        pd.concat(frames).to_csv(path, index=False)
    return path


def use_cluster(backend: str, address: str | None) -> None:
    """Connects joblib to an existing engine."""
    if backend == "ray":
        import ray
        from ray.util.joblib import register_ray

        ray.init(address=address)  # None: that of RAY_ADDRESS, or a cluster on this machine alone
        register_ray()
    if backend == "dask":
        from dask.distributed import Client

        Client(address)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", choices=GRIDS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at the same time")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch per run")
    parser.add_argument("--backend", choices=("loky", "ray", "dask"), default="loky")
    parser.add_argument("--address", help="of dask's scheduler, or of the ray cluster")
    parser.add_argument("--seeds", type=int, nargs=2, metavar=("FIRST", "LAST"), help="instead of the grid's own")
    parser.add_argument("--only", default="", help="runs whose command matches this expression")
    parser.add_argument("--dry-run", action="store_true", help="list the runs and start none")
    parser.add_argument("--again", action="store_true", help="run anew what another form of a script has made")
    args = parser.parse_args()
    seeds, name = None, args.grid
    if args.seeds:
        seeds = list(range(args.seeds[0], args.seeds[1] + 1))
        name = f"{args.grid}_seeds_{args.seeds[0]}_{args.seeds[1]}"
    runs = runs_of(args.grid, seeds)
    tasks = [(args.grid, *run) for run in runs if re.search(args.only, f"{run[0]}.py {run[1]}")]
    if args.dry_run:
        return dry_run(tasks, args.jobs, args.again)
    use_cluster(args.backend, args.address)
    failed = []
    with joblib.parallel_config(backend=args.backend, n_jobs=args.jobs):
        return_as = "list" if args.backend == "ray" else "generator_unordered"  # ray's has no generator
        calls = (joblib.delayed(run)(*task, args.threads, args.again) for task in tasks)
        for problem in tqdm(joblib.Parallel(return_as=return_as)(calls), total=len(tasks), unit="run"):
            collect(args.grid, seeds, name)
            failed += [problem] if problem else []
    path = collect(args.grid, seeds, name).relative_to(ROOT)
    print(f"{len(tasks) - len(failed)} of {len(tasks)} runs are finished: {path}", *failed, sep="\n")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
