"""What the tests of the scripts share: how to run a script as users do, and how to compare runs."""

import csv
import importlib
import multiprocessing
import os
import re
import runpy
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # several threads each would make tests side by side many times slower
if os.environ.get("TEST_ON_GPU") != "1":  # bit for bit is true of a CPU
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

# A machine that is slow or busy is no fault of the code.
calm = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("calm", deadline=None, derandomize=True, suppress_health_check=calm)
settings.load_profile("calm")

ROOT = Path(os.environ.get("SCRIPTS", Path(__file__).parent.parent))  # SCRIPTS: test copies of the scripts elsewhere
TESTS = Path(__file__).parent
SMALL = "--hidden-layers 1 --hidden-size 16 --batch-size 16 --buffer-size 4000 --eval-episodes 4"
# A script and the flags of a small task that takes a few seconds at most.
SEEK = {
    "ddpg_her": '--env-id ContinuousSeek5-v0 --env-kwargs {"d":2} --learning-starts 40 --eval-frequency 50',
    "ddpg_her_reengage": '--env-id ContinuousSeek5-v0 --env-kwargs {"d":2} --learning-starts 40 --eval-frequency 50',
    "sac_her_reengage": '--env-id ContinuousSeek5-v0 --env-kwargs {"d":2} --learning-starts 40 --eval-frequency 50',
    "dqn_her_reengage": (
        '--env-id BitFlip20-v0 --env-kwargs {"d":10,"max_episode_steps":10} --learning-starts 40 --eval-frequency 50 '
        "--num-envs 1 --utd-ratio 1"
    ),
    "ddpg_multi_reengage": (
        '--env-id NoisySeek-v0 --env-kwargs {"max_episode_steps":10} --learning-starts 40 --eval-frequency 50'
    ),
}
SCRIPTS = list(SEEK)
DISCRETE = ["dqn_her_reengage"]  # scripts for Discrete actions
CONTINUOUS = [script for script in SCRIPTS if script not in DISCRETE]
SETS = ["ddpg_multi_reengage"]  # scripts for sets of goals
TARGET_ACTOR = ["ddpg_her", "ddpg_her_reengage"]  # scripts whose policy is the average of actors
SINGLE = [script for script in SCRIPTS if script not in SETS]
DISTINCT = ["ddpg_her_reengage", *DISCRETE, *SETS]  # enough where the text is the same in all scripts (test_common.py)


def fitting(script, flags):
    """The flags, naming the environments' twins (goal_envs.py) with Discrete actions or sets of goals where needed."""
    if script in DISCRETE:
        return re.sub(
            r"(?:\w+:)?(Walk|OneGoal|Strict|Poison|Endless|Broken|FetchReach)", r"goal_envs:Discrete\1", flags
        )
    if script in SETS:
        flags = re.sub(r"(?:\w+:)?(Walk|Poison|Endless|Broken|FetchReach)-", r"goal_envs:SetOf\1-", flags)
        return re.sub(r" --(dense\b|(c-low|her-k|her-strategy) \S+)", "", flags)
    return flags


@pytest.fixture(params=SCRIPTS)
def script(request):
    """The name of each script in turn."""
    return request.param


@pytest.fixture
def module(script):
    """The script, imported."""
    return importlib.import_module(script)


def pytest_configure(config):
    sys.path[:0] = [str(ROOT), str(TESTS.parent / "benchmarks")]
    for script in [*SCRIPTS, "theory_check"]:  # before a benchmark is imported, which puts its own folder first
        importlib.import_module(script)


# ------------------------------------------------------------------------------------------------------------ processes


@dataclass
class Finished:
    status: int  # as the shell sees it
    out: str
    err: str


class Started:
    """A script that runs as `__main__` in a process of its own, forked from one that has imported PyTorch."""

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["envs", "torch.utils.tensorboard", "torch._dynamo", "tyro", "tqdm", "imageio", "pytest", "hypothesis"]
    )

    def __init__(self, script, argv, folder, logs):
        self.logs = [logs / "stdout", logs / "stderr"]
        for log in self.logs:
            log.touch()
        self.process = self.context.Process(target=_main, args=(str(script), argv, folder, self.logs))
        self.process.start()

    def kill(self, number):
        os.kill(self.process.pid, number)

    def finish(self):
        self.process.join(300)
        assert self.process.exitcode is not None, "still running"
        status = self.process.exitcode
        return Finished(status if status >= 0 else 128 - status, *(log.read_text() for log in self.logs))


def _main(script, argv, folder, logs):
    os.chdir(folder)
    multiprocessing.set_start_method(None, force=True)  # Python's own for the processes of environments, as users have
    for descriptor, log in enumerate(logs, start=1):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    # What Python itself does for `python script argv`
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1, closefd=False), os.fdopen(2, "w", 1, closefd=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path[:0] = [str(Path(script).parent), str(TESTS)]
    sys.argv = [script, *argv]
    runpy.run_path(script, run_name="__main__")


@pytest.fixture
def start(tmp_path, tmp_path_factory):
    """Starts `python script.py flags` in tmp_path; flags are strings of words, or lists of words."""
    started = []

    def start(script, *flags):
        argv = [word for part in flags for word in (part.split() if isinstance(part, str) else part)]
        path = script if isinstance(script, Path) else ROOT / f"{script}.py"
        started.append(Started(path, argv, tmp_path, tmp_path_factory.mktemp("logs")))
        return started[-1]

    yield start
    for each in started:
        if each.process.is_alive():
            each.process.kill()


@pytest.fixture
def run(start):
    """Runs `python script.py flags` in tmp_path to its end."""
    return lambda script, *flags: start(script, *flags).finish()


@pytest.fixture
def train(run, tmp_path):
    """Trains as run/<name> without an error; returns its folder."""

    def train(script, name, *flags):
        finished = run(script, SMALL, *flags, f"--run-name {name}")
        assert finished.status == 0, finished.err
        return tmp_path / "runs" / name

    return train


# ----------------------------------------------------------------------------------------------------------- comparing


def evaluations(folder):
    """The rows of evaluations.csv without the time."""
    with open(folder / "evaluations.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert all(float(row.pop("wall_seconds")) >= 0 for row in rows)
    return rows


def checkpoint(folder):
    return torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)


def learned(folder):
    """The networks and normalisers of a run's checkpoint."""
    parts = checkpoint(folder)["parts"]
    return {name: parts[name] for name in parts if name != "buffer" and not name.endswith("optimizer")}


def all_finite(folder):
    return all(torch.isfinite(value).all() for network in learned(folder).values() for value in network.values())


def episodes_of(saved):
    """The episodes in a checkpoint's buffer, each a dict of arrays that end where it ends."""
    module = importlib.import_module(saved["script"])
    dtype = module.empty_episodes(1, module.make_env(module.Args(**saved["args"]))).dtype
    limit = dtype["reward"].shape[0]
    extra = {name: dtype[name].shape[0] - limit for name in ("observation", "achieved_goal", "action", "terminated")}
    episodes = []
    for episode in saved["parts"]["buffer"]["episodes"].numpy().view(dtype):
        parts = {name: episode[name] for name in dtype.names}
        ends = {name: parts[name][: episode["length"] + more] for name, more in (extra | dict(reward=0)).items()}
        episodes.append({name: torch.from_numpy(np.array(part)) for name, part in (parts | ends).items()})
    return episodes


def contents(folder):
    """All that a run has learned and will need, without times."""
    saved = checkpoint(folder)
    counters = saved["counters"]
    del counters["seconds"]
    for row in counters["evaluations"]:
        del row["wall_seconds"]
    random = dict(rng=saved["rng"], torch_rng=saved["torch_rng"])
    return dict(parts=saved["parts"], counters=counters, random=random, episodes=episodes_of(saved))


def assert_same(one, other, where=""):
    """Equal to the last bit."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for i in range(len(one)):
            assert_same(one[i], other[i], f"{where}/{i}")
    elif isinstance(one, (torch.Tensor, np.ndarray, np.generic)):
        assert one.dtype == other.dtype, where
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other), err_msg=where, strict=True)
    else:
        assert one == other, where


def assert_same_runs(folder, other):
    """The same to the last bit, except for times."""
    assert_same(contents(folder), contents(other))
    assert evaluations(folder) == evaluations(other)
