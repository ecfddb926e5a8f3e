"""Runs a named grid of trainings and collects their evaluations in benchmarks/results/<grid>.csv.

    python benchmarks/sweep.py continuousseek --jobs 2

Each run is a process, with one thread of PyTorch where there are as many `--jobs` as cores, which is the default; with
fewer they share the cores. It lives in runs/<grid>/ until its evaluations are in the csv, which is what a finished run
is; then its checkpoint goes, its policy stays. A sweep can be interrupted and started again: finished runs are skipped,
unfinished ones continue from their checkpoint, or begin anew where their script has changed. A run that fails does not
stop the others, and is named at the end. `--dry-run` lists the runs with the time that they should take, and says of a
finished one where its script has changed since; `--again` runs those anew. `--only PATTERN` takes the runs whose
command matches it: on a cluster with a shared file system, `--only "seed 3$"` is a job of its own. `--seeds 100 102`
takes other seeds, whose evaluations are in <grid>_seeds_100_102.csv.
"""

import argparse
import ast
import datetime
import fcntl
import functools
import hashlib
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import joblib
import numpy as np
import pandas as pd
import torch
from data import DDPG, DQN, EQUAL, FULL, MULTI, REENGAGE, RESULTS, ROOT, RULE, SAC, SHORT, SMALL, evaluations
from machine import machine
from tqdm import tqdm

RUN = ["script", "flags", "seed"]  # what names a run in a csv
RUNNING: list[subprocess.Popen] = []  # all that this process has started
STOPPED = threading.Event()  # no run begins after it
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
    # The soft target in both terms where exact values tell little: an experiment, with --seeds 100 101
    "bitflip_readings": [(2, DQN, "--env-id BitFlip20-v0 --soft-target both --temperature 1")],
    "sac": [
        (5, SAC, f"--env-id ContinuousSeek{d}-v0 --alpha {alpha:g}")
        for d, alpha in ((5, 0), (5, 0.04), (10, 0), (10, 0.02))
    ],
    "multi": [
        (seeds, MULTI, f"--env-id {env_id} --alpha {alpha:g}{flags} {SMALL}")
        for env_id, best in (("DriveSeek-v0", 0.1), ("NoisySeek-v0", 0.5))
        for seeds, alpha, flags in ((5, 0, ""), (5, best, ""), (5, best, " --separate-encoders"))
    ],
    "multi_full": [(1, MULTI, f"--env-id DriveSeek-v0 --alpha {alpha:g} {FULL}") for alpha in (0, 0.1)],
    # Whether the curves differ from the paper's because of who is evaluated: the column success_rate_actor
    "both_actors": [
        (seeds, script, f"--env-id {env_id}{flags}")
        for seeds, env_id, variants in (
            (5, "ContinuousSeek5-v0", ((DDPG, ""), (REENGAGE, ""), (DDPG, EQUAL[5]))),
            (3, "ContinuousSeek10-v0", ((DDPG, ""), (REENGAGE, ""), (DDPG, EQUAL[10]))),
            (5, "ContinuousSeek20-v0", ((DDPG, SHORT), (REENGAGE, SHORT), (DDPG, EQUAL[20]))),
            (5, "HandReach-v2", ((DDPG, ""), (REENGAGE, " --alpha 0.01"))),
        )
        for script, flags in variants
    ],
    "alpha_rule": [
        (3, RULE, f"--env-id {env_id} --script {script} --share 0.3 --alpha {1 / d:g}")
        for env_id, d, script in (
            ("ContinuousSeek5-v0", 5, REENGAGE),
            ("ContinuousSeek10-v0", 10, REENGAGE),
            ("BitFlip20-v0", 20, DQN),
            ("BitFlip-v0", 40, DQN),
            ("HandReach-v2", 15, REENGAGE),
            ("ContinuousSeek5-v0", 5, SAC),
            ("ContinuousSeek10-v0", 10, SAC),
        )
    ],
}


def run_name(name: str, script: str, flags: str, seed: int) -> str:
    """The folder of a run under runs/."""
    return f"{name}/{script}__{flags.replace('--', '').replace(' ', '_')}__seed_{seed}"


def command_of(script: str, flags: str, seed: int) -> str:
    return f"{script}.py {flags} --seed {seed}"


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def sources(script: str) -> list[str]:
    """The files that make a run: its script and the environments; what takes a script needs all of them."""
    taken = (DDPG, REENGAGE, SAC, DQN) if script == RULE else ()
    return [f"{name}.py" for name in ("envs", script, *taken)]


def commit(script: str) -> str:
    """The last commit that changed a run's files, with a + where they differ from it."""
    changed = git("status", "--porcelain", "--", *sources(script))
    return git("log", "-1", "--format=%h", "--", *sources(script)) + "+" * bool(changed)


@functools.cache
def syntax(source: str) -> str:
    """What a source does: its syntax without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def code(script: str, made_by: str = "") -> str:
    """What tells whether a run's files do the same: their syntax as a number, today's or that of a commit."""
    files = [git("show", f"{made_by}:{name}") if made_by else (ROOT / name).read_text() for name in sources(script)]
    return hashlib.sha256("".join(map(syntax, files)).encode()).hexdigest()


def results(name: str) -> pd.DataFrame:
    """The evaluations of all finished runs, one row each."""
    path = RESULTS / f"{name}.csv"
    return evaluations(path) if path.exists() else pd.DataFrame(columns=[*RUN, "machine", "commit"])


def state(name: str, script: str, flags: str, seed: int) -> str:
    """What has become of a run: new, unfinished, finished, or finished with another form of the script."""
    rows = results(name)
    rows = rows[(rows[RUN] == [script, flags, seed]).all(axis=1)]
    if len(rows):
        made_by = rows["commit"].iloc[0]
        same = made_by and code(script, made_by) == code(script)
        return "finished" if same else f"finished with {made_by or 'no commit'}, since when it has changed"
    return "unfinished" if (ROOT / "runs" / run_name(name, script, flags, seed) / "checkpoint.pt").exists() else "new"


def train(command: list[str], log: IO) -> int:
    """Runs a command, whose output goes to the log; its exit status.

    It inherits the log's lock, so that the run stays locked where this sweep is killed.
    """
    # In a session of its own, so that Ctrl-C reaches it through stop alone: with two signals it would not save
    options = dict(cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    with subprocess.Popen(command, **options) as process:
        RUNNING.append(process)
        if STOPPED.is_set():  # it began while the others were told
            process.terminate()
        return process.wait()


def run(name: str, script: str, flags: str, seed: int, listed: str) -> str | None:
    """Trains one run to its end and collects it, if no other sweep does; returns what went wrong.

    Its output goes to a log beside its folder; listed is its state when the sweep began.
    """
    path = ROOT / "runs" / f"{run_name(name, script, flags, seed)}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return f"another sweep runs it: {command_of(script, flags, seed)}"
        if state(name, script, flags, seed) not in ("new", "unfinished", listed):
            return f"another sweep has ended it: {command_of(script, flags, seed)}"
        return run_alone(name, script, flags, seed, log)


def run_alone(name: str, script: str, flags: str, seed: int, log: IO) -> str | None:
    """Trains one run to its end, from its checkpoint where there is one, and collects it; returns what went wrong."""
    if STOPPED.is_set():
        return "stopped"
    run_folder = run_name(name, script, flags, seed)
    folder = ROOT / "runs" / run_folder
    begun = folder.parent / f"{folder.name}.begun"
    command = [sys.executable, f"{script}.py", *shlex.split(flags)]
    saved = begun.exists() and (folder / "checkpoint.pt").exists()
    made, by = json.loads(begun.read_text()) if saved else (None, None)
    same = by == code(script)
    if same and has_ended(folder):  # a sweep was killed before it collected it
        return collect(name, made)
    if same and script != RULE:  # whose running means no checkpoint has
        command += ["--resume", f"runs/{run_folder}"]
    else:
        shutil.rmtree(folder, ignore_errors=True)  # of a broken run, or of another form of the script
        command += ["--seed", str(seed), "--run-name", run_folder]
        made = dict(script=script, flags=flags, seed=seed, date=f"{datetime.date.today()}", machine=machine())
        made |= dict(commit=commit(script))
        begun.write_text(json.dumps([made, code(script)]))
    status = train(command, log)
    if status:
        end_of_log = Path(log.name).read_text().strip().splitlines()[-1:]
        return f"exit status {status}: {' '.join(command[1:])}\n    {end_of_log}"
    return collect(name, made)


def has_ended(folder: Path) -> bool:
    """Whether a run's checkpoint is that of its end."""
    saved = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True, mmap=True)
    return saved["counters"]["global_step"] >= saved["args"]["total_timesteps"]


def expected_minutes(name: str, script: str, flags: str) -> float:
    """How long a run took, or else one of the script on the environment, here if it was; nan where none was."""
    rows = results(name)
    rows = rows[(rows["script"] == script) & rows["flags"].str.startswith(" ".join(flags.split()[:2]))]
    for nearer in (rows["flags"] == flags, rows["machine"] == machine()):
        nearer = nearer[rows.index]
        rows = rows[nearer] if nearer.any() else rows
    return np.nan if rows.empty else rows.groupby(["flags", "seed"]).wall_seconds.max().median() / 60


def runs_of(grid: str, seeds: list[int] | None) -> list[tuple[str, str, int]]:
    """Script, flags and seed of all runs of a grid, seed by seed; with seeds instead of the grid's own."""
    runs = [(script, flags, seed) for n, script, flags in GRIDS[grid] for seed in seeds or range(1, n + 1)]
    return sorted(runs, key=lambda run: run[2])


def collect(name: str, made: dict) -> None:
    """Writes the evaluations of a run that has ended to the csv, in the place of older ones of the same run."""
    key = [made[column] for column in RUN]
    folder = ROOT / "runs" / run_name(name, *key)
    with open(ROOT / "runs" / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another sweep of the grid may collect
        others = results(name)
        others = others[(others[RUN] != key).any(axis=1)]
        rows = pd.read_csv(folder / "evaluations.csv").assign(**made)
        rows = rows if others.empty else pd.concat([others, rows])
        rows.sort_values([*RUN, "global_step"]).to_csv(RESULTS / f"{name}.tmp", index=False)
        os.replace(RESULTS / f"{name}.tmp", RESULTS / f"{name}.csv")  # what interrupts it leaves the old one
    (folder / "checkpoint.pt").unlink(missing_ok=True)  # most of it is the replay buffer; policy.pt stays
    (folder.parent / f"{folder.name}.begun").unlink(missing_ok=True)


def stop(*_) -> None:
    """At Ctrl-C and the like: lets the runs of this machine finish their round and save, and begins no other."""
    STOPPED.set()
    for process in RUNNING:  # one that has ended takes no signal
        process.terminate()


def estimate(minutes: list[float], jobs: int) -> str:
    """How long runs take together; nan is one of which no time is known."""
    unknown, longest = np.isnan(minutes).sum(), np.nanmax([*minutes, 0])
    together = f"about {max(np.nansum(minutes) / jobs, longest):.0f} minutes with {jobs} at a time"
    return together + f", and {unknown} of which no time is known" * bool(unknown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", choices=GRIDS)
    parser.add_argument("--jobs", type=int, default=joblib.cpu_count(), help="runs at the same time")
    parser.add_argument("--seeds", type=int, nargs=2, metavar=("FIRST", "LAST"), help="instead of the grid's own")
    parser.add_argument("--only", default="", help="runs whose command matches this expression")
    parser.add_argument("--dry-run", action="store_true", help="list the runs and start none")
    parser.add_argument("--again", action="store_true", help="run anew what another form of a script has made")
    args = parser.parse_args()
    seeds, name = None, args.grid
    if args.seeds:
        seeds = list(range(args.seeds[0], args.seeds[1] + 1))
        name = f"{args.grid}_seeds_{args.seeds[0]}_{args.seeds[1]}"
    runs = [run for run in runs_of(args.grid, seeds) if re.search(args.only, command_of(*run))]
    states = [state(name, *run) for run in runs]
    wanted = [known in ("new", "unfinished") or (args.again and known != "finished") for known in states]
    tasks = [(*each, known) for each, known in itertools.compress(zip(runs, states, strict=True), wanted)]
    known_times = name if (RESULTS / f"{name}.csv").exists() else args.grid
    minutes = [expected_minutes(known_times, script, flags) for script, flags, *_ in tasks]
    if args.dry_run:
        for each, known in zip(runs, states, strict=True):
            print(f"{expected_minutes(known_times, *each[:2]):6.1f} min  {command_of(*each)}: {known}")
    print(f"{len(tasks)} of {len(runs)} runs are to be done: {estimate(minutes, args.jobs)}")
    if args.dry_run:
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)  # a KeyboardInterrupt could be lost in a library
    os.environ["OMP_NUM_THREADS"] = f"{max(1, joblib.cpu_count() // args.jobs)}"  # of the runs, which inherit it
    ended, failed = 0, []
    pool = joblib.Parallel(n_jobs=args.jobs, backend="threading", return_as="generator_unordered")
    calls = (joblib.delayed(run)(name, *task) for task in tasks)
    for problem in tqdm(pool(calls), total=len(tasks), unit="run"):
        ended += problem is None
        if problem and not STOPPED.is_set():
            failed.append(problem)
    path = (RESULTS / f"{name}.csv").relative_to(ROOT)
    print(f"{ended} of {len(tasks)} runs have ended: {path}", *failed, sep="\n")
    sys.exit("stopped: the same command continues" if STOPPED.is_set() else bool(failed))


if __name__ == "__main__":
    main()
