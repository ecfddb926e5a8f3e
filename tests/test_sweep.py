"""benchmarks/sweep.py as it is used: runs end, fail, are interrupted and gone on with, and are collected."""

import fcntl
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import sweep as module
import torch
from conftest import ROOT

SMALL = "--env-id ContinuousSeek5-v0 --batch-size 16 --hidden-size 16 --learning-starts 0 --eval-frequency 500"
DRIVER = """
import sys
sys.path.insert(0, {benchmarks!r})
import sweep
from pathlib import Path

sweep.ROOT = Path.cwd()
sweep.RESULTS = Path.cwd() / "results"
sweep.GRIDS = dict(
    short=[(2, "ddpg_her", {small!r} + " --total-timesteps 500"), (1, "ddpg_her", "--env-id Nowhere-v0")],
    long=[(1, "ddpg_her", {small!r} + " --total-timesteps 1500")],
)
sweep.main()
"""


@pytest.fixture
def sweep(tmp_path):
    """Starts sweep.py with two small grids, in a folder of its own without git's history."""
    (tmp_path / "results").mkdir()
    for name in ("ddpg_her.py", "envs.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    driver = DRIVER.format(benchmarks=str(ROOT / "benchmarks"), small=SMALL)

    def start(*words: str) -> subprocess.Popen:
        command = [sys.executable, "-c", driver, *words]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return subprocess.Popen(command, cwd=tmp_path, **pipes)

    return start


def log_of_long(folder):
    return folder / "runs" / f"{module.run_name('long', 'ddpg_her', f'{SMALL} --total-timesteps 1500', 1)}.log"


def test_finished_runs_are_collected_and_a_failing_one_is_named(sweep, tmp_path):
    first = sweep("short", "--jobs", "2")
    said, _ = first.communicate()
    assert first.returncode == 1
    assert "2 of 3 runs have ended" in said
    assert "exit status 2: ddpg_her.py --env-id Nowhere-v0" in said
    rows = pd.read_csv(tmp_path / "results" / "short.csv")
    assert rows.groupby("seed").global_step.apply(list).to_dict() == {1: [0, 500], 2: [0, 500]}
    for seed in (1, 2):
        folder = tmp_path / "runs" / module.run_name("short", "ddpg_her", f"{SMALL} --total-timesteps 500", seed)
        assert torch.load(folder / "policy.pt", weights_only=True)["args"]["seed"] == seed
    said, _ = sweep("short", "--only", "seed 1$", "--dry-run").communicate()
    assert "--total-timesteps 500 --seed 1: finished" in said
    assert "1 of 2 runs are to be done" in said


def test_what_another_sweep_runs_is_left_to_it(sweep, tmp_path):
    log = log_of_long(tmp_path)
    log.parent.mkdir(parents=True)
    with open(log, "a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # as a sweep does while it trains
        process = sweep("long")
        said, _ = process.communicate()
    assert process.returncode == 1
    assert "another sweep runs it: ddpg_her.py" in said
    assert list(tmp_path.glob("runs/long/*")) == [log]


def test_what_another_sweep_has_ended_is_not_run_again(tmp_path, monkeypatch):
    """In a folder without git's history, where no run is known to be of today's script."""
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    assert module.state("long", "ddpg_her", SMALL, 1) == "new"  # when both sweeps began
    row = dict(script="ddpg_her", flags=SMALL, seed=1, global_step=0, machine="one", commit="")
    pd.DataFrame([row]).to_csv(tmp_path / "long.csv", index=False)
    assert module.run("long", "ddpg_her", SMALL, 1, "new").startswith("another sweep has ended it: ddpg_her.py")


@pytest.mark.parametrize("changed", [False, True])
def test_an_interrupted_run_saves_and_is_gone_on_with(sweep, tmp_path, changed):
    """From where it was, or from its start where its script does something else now."""
    first = sweep("long", "--jobs", "2")
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob("runs/long/*/evaluations.csv")):
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    said, _ = first.communicate()
    assert first.returncode == 1
    assert "the same command continues" in said
    script = tmp_path / "ddpg_her.py"
    source = script.read_text()
    script.unlink()
    script.write_text(source + ("CHANGED = True\n" if changed else "# no change\n"))
    second = sweep("long")
    second.communicate()
    assert second.returncode == 0
    assert log_of_long(tmp_path).read_text().count("       0 steps") == 1 + changed
    steps = pd.read_csv(tmp_path / "results" / "long.csv").global_step
    assert steps.tolist() == list(range(0, 1_501, 500))
    assert [path.suffix for path in tmp_path.glob("runs/long/*") if path.is_file()] == [".log"]


def test_code_makes_runs_outdated_and_comments_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROOT", tmp_path)
    script, environments = tmp_path / "ddpg_her.py", tmp_path / "envs.py"
    script.write_text("a = 1\n")
    environments.write_text("b = 1\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "both"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    made_by = module.commit("ddpg_her")
    made_with = module.code("ddpg_her", made_by)
    assert module.code("ddpg_her") == made_with
    script.write_text('"""One."""\na = 1  # one\n')
    assert module.code("ddpg_her") == made_with
    assert module.commit("ddpg_her") == f"{made_by}+"  # files that no commit has
    assert module.code("ddpg_her", f"{made_by}+") != made_with
    environments.write_text("b = 2\n")
    assert module.code("ddpg_her") != made_with
