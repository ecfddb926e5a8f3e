"""Bit for bit: the same seed gives the same run, and a stopped run continues like one that was not stopped."""

import importlib
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import (
    CONTINUOUS,
    DISCRETE,
    DISTINCT,
    ROOT,
    SCRIPTS,
    SEEK,
    SETS,
    SMALL,
    all_finite,
    assert_same,
    assert_same_runs,
    checkpoint,
    contents,
    episodes_of,
    evaluations,
    fitting,
    learned,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

HAND = "--env-id HandReach-v2 --num-envs 2 --utd-ratio 0.02 --learning-starts 0 --eval-frequency 200 --eval-episodes 2"
# Episodes end at different times here, goals are integers, the buffer is filled several times.
WALK = (
    "--env-id goal_envs:Walk-v0 --c-low 0 --num-envs 3 --eval-frequency 90 --learning-starts 60 --buffer-size 200 "
    "--normalize --random-action-probability 0.2"
)
FETCH = "--env-id FetchReach-v4 --num-envs 2 --eval-frequency 100 --learning-starts 100 --eval-episodes 2"
KINDS = {"hand": HAND, "walk": WALK, "fetch": FETCH}


@pytest.fixture(params=SCRIPTS[1:])
def script(request):
    """What this is about is the same text in ddpg_her.py as in ddpg_her_reengage.py (test_common.py)."""
    return request.param


def flags_of(script, kind):
    """The flags of a kind of run, for a script that may not have all of them."""
    if kind.startswith("seek"):
        return f"{SEEK[script]} --num-envs {kind.removeprefix('seek')} --buffer-size 130"
    flags = fitting(script, KINDS[kind])
    if script in DISCRETE + SETS and "goal_envs" not in flags:
        pytest.skip("an environment of another kind")
    if kind == "fetch" and script != DISTINCT[0]:
        pytest.skip("processes of environments are the same text in all scripts")
    return flags


def test_another_seed_gives_another_run(train, script):
    """That the same seed gives the same run is what all tests below are about."""
    one, other = (train(script, f"{seed}", SEEK[script], f"--total-timesteps 100 --seed {seed}") for seed in (5, 6))
    with pytest.raises(AssertionError):
        assert_same(learned(one), learned(other))


def rows(folder):
    path = folder / "evaluations.csv"
    return max(0, path.read_text().count("\n") - 1) if path.exists() else 0


def interrupt(started, folder, number, at_least=2):
    """Sends a signal at an arbitrary moment after some evaluations."""
    deadline = time.monotonic() + 200
    while rows(folder) < at_least:
        assert started.process.is_alive(), started.finish()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.3))
    started.kill(number)
    return started.finish()


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("seek1", signal.SIGINT),
        ("seek3", signal.SIGTERM),
        ("walk", signal.SIGINT),
        ("hand", signal.SIGTERM),
        ("fetch", signal.SIGINT),
    ],
)
def test_interrupted_twice_and_resumed(start, run, train, tmp_path, script, kind, number):
    flags, folder = flags_of(script, kind), tmp_path / "runs" / "r"
    words = [SMALL, flags, "--total-timesteps 1000000 --run-name r"]
    for _ in range(2):
        finished = interrupt(start(script, *words), folder, number, at_least=rows(folder) + 2)
        assert finished.status == 128 + number
        assert finished.err == ""
        message = re.fullmatch(
            rf"interrupted at step (\d+); continue with: python {script}\.py (--resume runs/r)",
            finished.out.splitlines()[-1],
        )
        step, words = int(message[1]), [message[2]]
        assert checkpoint(folder)["counters"]["global_step"] == step
    total = step + 60
    finished = run(script, *words, f"--total-timesteps {total}")
    assert finished.status == 0, finished.err
    assert checkpoint(folder)["counters"]["updates"] > 0
    assert_same_runs(folder, train(script, "uninterrupted", flags, f"--total-timesteps {total}"))


@pytest.mark.parametrize("kind", ["seek1", "seek3", "walk"])
def test_killed_and_resumed_from_a_periodic_checkpoint(start, run, train, tmp_path, script, kind):
    flags, folder = flags_of(script, kind), tmp_path / "runs" / "r"
    flags += " --checkpoint-frequency 70"
    started = start(script, SMALL, flags, "--total-timesteps 1000000 --run-name r")
    finished = interrupt(started, folder, signal.SIGKILL, at_least=4)
    assert finished.status == 128 + signal.SIGKILL
    step = checkpoint(folder)["counters"]["global_step"]
    assert step >= 70
    total = step + 100
    finished = run(script, f"--resume runs/r --total-timesteps {total}")
    assert finished.status == 0, finished.err
    assert shown(folder) == [int(row["global_step"]) for row in evaluations(folder)]
    assert_same_runs(folder, train(script, "uninterrupted", flags, f"--total-timesteps {total}"))


def shown(folder):
    """The steps whose evaluations TensorBoard shows."""
    return [event.step for event in EventAccumulator(str(folder)).Reload().Scalars("charts/success_rate")]


@pytest.mark.parametrize("script", DISTINCT[:1])
def test_tensorboard_shows_each_evaluation_once(run, train, script):
    """Also those that were made after the checkpoint that is resumed."""
    folder = train(script, "r", SEEK[script], "--total-timesteps 100")
    saved = (folder / "checkpoint.pt").read_bytes()
    for _ in range(2):
        time.sleep(1)  # the names of TensorBoard's files have whole seconds
        (folder / "checkpoint.pt").write_bytes(saved)
        assert run(script, "--resume runs/r --total-timesteps 200").status == 0
    assert shown(folder) == [0, 50, 100, 150, 200]


@pytest.mark.parametrize("kind", ["seek1", "walk"])
def test_a_finished_run_can_be_made_longer(run, train, script, kind):
    flags = flags_of(script, kind)
    # Totals that are evaluated anyway, so that both have the same rows.
    first, second = (200, 400) if kind != "walk" else (180, 270)
    folder = train(script, "r", flags, f"--total-timesteps {first}")
    assert contents(folder)["counters"]["global_step"] < second
    finished = run(script, f"--resume {folder}", f"--total-timesteps {second}")
    assert finished.status == 0, finished.err
    assert_same_runs(folder, train(script, "uninterrupted", flags, f"--total-timesteps {second}"))


def test_the_time_of_a_run_goes_on_where_it_is_resumed(run, train):
    folder = train(SCRIPTS[1], "r", SEEK[SCRIPTS[1]], "--total-timesteps 60")
    saved = checkpoint(folder)
    saved["counters"]["seconds"] = 1000.0
    torch.save(saved, folder / "checkpoint.pt")
    assert run(SCRIPTS[1], "--resume runs/r --total-timesteps 100").status == 0
    seconds = [float(row.rpartition(",")[2]) for row in (folder / "evaluations.csv").read_text().split()[1:]]
    assert seconds[0] < 1000 < seconds[-1]


def test_a_signal_before_anything_happened(start, run, train, tmp_path, script):
    """The first checkpoint is that of step 0 then."""
    folder = tmp_path / "runs" / "r"
    started = start(script, SMALL, SEEK[script], "--total-timesteps 200 --eval-episodes 1000 --run-name r")
    deadline = time.monotonic() + 100
    while not folder.exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    started.kill(signal.SIGINT)
    finished = started.finish()
    assert finished.status == 130
    assert "Traceback" not in finished.err
    assert checkpoint(folder)["counters"]["global_step"] == 0


def test_a_second_signal_stops_at_once(start, tmp_path, script):
    """In the middle of a round of very many updates; the checkpoint of the round before holds."""
    folder = tmp_path / "runs" / "r"
    flags = "--utd-ratio 100000 --learning-starts 0 --total-timesteps 1000000 --run-name r"
    started = start(script, SEEK[script], flags)
    deadline = time.monotonic() + 100
    while not (folder / "checkpoint.pt").exists():
        assert started.process.is_alive(), started.finish()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(1)
    started.kill(signal.SIGINT)
    time.sleep(0.5)
    assert started.process.is_alive()
    started.kill(signal.SIGINT)
    finished = started.finish()
    assert finished.status == 130
    assert finished.err.count("\n") == 1
    assert checkpoint(folder)["counters"]["updates"] == 0
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("script", DISTINCT[:1])
def test_signals_reach_the_processes_of_the_environments_too(run, tmp_path, script, number):
    """A terminal sends SIGINT, and a cluster SIGTERM, to all of them; the run is saved all the same."""
    command = [sys.executable, str(ROOT / f"{script}.py"), *SMALL.split(), *FETCH.split(), "--run-name", "r"]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen(command, cwd=tmp_path, **pipes, start_new_session=True)
    while rows(tmp_path / "runs" / "r") < 2:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 128 + number
    assert "Traceback" not in err
    assert "--resume runs/r" in out.splitlines()[-1]
    total = checkpoint(tmp_path / "runs/r")["counters"]["global_step"] + 50
    finished = run(script, f"--resume runs/r --total-timesteps {total}")
    assert (finished.status, finished.err) == (0, "")
    finished = run(script, "--evaluate runs/r")
    assert (finished.status, finished.err) == (0, "")


@pytest.mark.parametrize("script", DISTINCT)
def test_disk_full(tmp_path, script):
    """The limit on a file's size stands for it: the first checkpoint fits, one with more episodes does not."""
    flags = (
        f"{SMALL} {SEEK[script]} --run-name r --total-timesteps 8000 --checkpoint-frequency 500 --buffer-size 100000 "
        "--utd-ratio 0.05"
    )
    command = f"ulimit -f 150; exec {sys.executable} {ROOT}/{script}.py {shlex.join(flags.split())}"
    finished = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    folder = tmp_path / "runs" / "r"
    assert finished.returncode == 1
    assert finished.stderr.count("\n") == 1, finished.stderr
    assert "checkpoint.pt cannot be written" in finished.stderr
    assert sorted(path.name for path in folder.glob("*.pt")) == ["checkpoint.pt", "policy.pt"]
    assert not list(folder.glob("*.tmp"))
    assert checkpoint(folder)["counters"]["global_step"] < 8000


# ------------------------------------------------------------------------------------------------------- divergence


def failed(finished):
    """One line that says the step; returns that step."""
    assert finished.status == 1, finished
    assert finished.err.count("\n") == 1, finished.err
    assert "Traceback" not in finished.err
    return int(re.search(r"not finite.* at step (\d+)", finished.err)[1])


@pytest.mark.parametrize(
    ("normalize", "value", "part"),
    [
        ("--normalize", "NaN", "observation"),
        ("--no-normalize", "NaN", "observation"),
        ("--no-normalize", "NaN", "achieved_goal"),
        ("--no-normalize", "NaN", "reward"),
        ("--no-normalize", "1e30", "observation"),
    ],
)
def test_a_loss_that_is_not_finite(run, train, tmp_path, script, normalize, value, part):
    """The last good checkpoint is kept, and continues as if nothing had been wrong."""
    if script in DISCRETE and value == "1e30":
        pytest.skip("the Huber loss of large values is finite")
    if script in SETS and part == "reward":
        pytest.skip("the environment's twin with sets of goals has rewards of its own")
    flags = (
        f'--env-id goal_envs:Poison-v0 --env-kwargs {{"value":{value},"rarity":60,"part":"{part}"}} {normalize} '
        "--learning-starts 20 --eval-frequency 10000 --checkpoint-frequency 50 --eval-episodes 1 --utd-ratio 0.5"
    )
    step = failed(run(script, SMALL, fitting(script, flags), "--total-timesteps 5000 --run-name r"))
    folder = tmp_path / "runs" / "r"
    saved = checkpoint(folder)
    good = saved["counters"]["global_step"]
    assert step - 55 <= good < step - 5
    assert all_finite(folder)
    seen = torch.cat([episode[part] for episode in episodes_of(saved)])
    assert torch.isfinite(seen).all(), "what spoilt the run is in the checkpoint"
    total = step - 5  # an episode has 5 steps
    resumed = run(script, "--resume runs/r", f"--total-timesteps {total}")
    assert resumed.status == 0, resumed.err
    assert_same_runs(folder, train(script, "uninterrupted", fitting(script, flags), f"--total-timesteps {total}"))


@pytest.mark.parametrize("script", DISTINCT[:1])
def test_a_policy_that_is_not_finite_replaces_no_other(tmp_path, monkeypatch, script):
    module, policy = importlib.import_module(script), torch.nn.Linear(1, 1)
    monkeypatch.chdir(tmp_path)
    run = module.Run(module.Args(run_name="r"), dict(policy=policy), np.random.default_rng())
    run.save()
    torch.nn.init.constant_(policy.weight, float("nan"))
    with pytest.raises(FloatingPointError):
        run.save()
    for name in ("policy.pt", "checkpoint.pt"):
        saved = torch.load(run.folder / name, weights_only=True)
        assert torch.isfinite(saved["parts"]["policy"]["weight"]).all()


@pytest.mark.parametrize("script", CONTINUOUS)
def test_a_learning_rate_that_is_too_high(run, tmp_path, script):
    """Weights overflow at once, before a first good checkpoint other than that of the start."""
    flags = (
        '--env-id goal_envs:Poison-v0 --env-kwargs {"value":1e25,"rarity":1} --no-normalize --learning-rate 1 '
        "--learning-starts 20 --eval-frequency 1000 --gamma 0.999"
    )
    step = failed(run(script, SMALL, fitting(script, flags), "--total-timesteps 5000 --run-name r"))
    assert step >= 20
    assert all_finite(tmp_path / "runs" / "r")


# -------------------------------------------------------------------------------------------------------- the schedule


SCHEDULES = [(1, 1, 40, 100), (1, 0.43, 0, 100), (3, 1, 40, 120), (4, 0.21, 41, 130), (3, 2.5, 0, 100), (1, 0, 0, 50)]


@pytest.mark.parametrize(
    ("script", "num_envs", "utd_ratio", "learning_starts", "total"),
    [*((SCRIPTS[1], *schedule) for schedule in SCHEDULES), *((script, *SCHEDULES[3]) for script in SCRIPTS[2:])],
)
def test_as_many_updates_as_were_ordered(train, script, num_envs, utd_ratio, learning_starts, total):
    """utd_ratio for each step from learning_starts on; what is left over is not lost."""
    folder = train(
        script, "r", SEEK[script], f"--num-envs {num_envs} --utd-ratio {utd_ratio}",
        f"--learning-starts {learning_starts} --total-timesteps {total}",
    )  # fmt: skip
    steps = 10 * num_envs  # of a round
    ends = -(-total // steps) * steps
    saved = checkpoint(folder)
    updates = saved["counters"]["updates"]
    assert abs(updates - utd_ratio * (ends - learning_starts)) <= 0.5 + 1e-9
    for optimizer in (name for name in saved["parts"] if name.endswith("optimizer")):
        state = saved["parts"][optimizer]["state"]
        assert (state[0]["step"] if state else 0) == updates


@pytest.mark.parametrize("script", CONTINUOUS)
def test_random_actions_first(train, script):
    """Before learning_starts, actions are uniform."""
    folder = train(script, "r", SEEK[script], "--learning-starts 2000 --total-timesteps 2050 --eval-frequency 5000")
    episodes = contents(folder)["episodes"]
    actions = torch.cat([episode["action"] for episode in episodes[:200]]).flatten()
    assert len(actions) == 4000
    assert actions.std().item() == pytest.approx(1 / 3**0.5, abs=0.03)
    assert actions.mean().item() == pytest.approx(0, abs=0.05)
    assert (actions.abs() <= 1).all()
    edges = torch.histc(actions, 10, -1, 1) / len(actions)
    assert (edges - 0.1).abs().max() < 0.03
