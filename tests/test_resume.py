"""Bit for bit: the same seed gives the same run, and a stopped run continues like one that was not stopped."""

import os
import random
import re
import signal
import time

import pytest
import torch
from conftest import (
    CONTINUOUS,
    DISCRETE,
    SEEK,
    SETS,
    SMALL,
    all_finite,
    assert_same,
    assert_same_runs,
    checkpoint,
    contents,
    fitting,
    learned,
)

HAND = (
    "--env-id HandReach-v2 --num-envs 2 --train-frequency 100 --gradient-steps 2 --target-network-frequency 2 "
    "--eval-frequency 200 --eval-episodes 2"
)
# Episodes end at different times here, goals are integers, the buffer is filled several times.
WALK = (
    "--env-id goal_envs:Walk-v0 --c-low 0 --num-envs 3 --eval-frequency 90 --learning-starts 60 --buffer-size 200 "
    "--normalize --random-action-probability 0.2"
)
FETCH = "--env-id FetchReach-v4 --num-envs 2 --eval-frequency 100 --learning-starts 100 --eval-episodes 2"
MAZE = (
    '--env-id PointMaze_UMaze-v3 --env-kwargs {"max_episode_steps":40} --c-low 0 --num-envs 2 --eval-frequency 100 '
    "--learning-starts 100 --eval-episodes 2"
)
KINDS = {"hand": HAND, "walk": WALK, "fetch": FETCH, "maze": MAZE}


def flags_of(script, kind):
    """The flags of a kind of run, for a script that may not have all of them."""
    if kind.startswith("seek"):
        return f"{SEEK[script]} --num-envs {kind.removeprefix('seek')} --buffer-size 130"
    flags = fitting(script, KINDS[kind] if "reengage" in script else KINDS[kind].replace("--c-low 0", ""))
    if script in DISCRETE + SETS and "goal_envs" not in flags:
        pytest.skip("an environment of another kind")
    return flags


@pytest.mark.parametrize("kind", ["seek1", "walk", "hand"])
def test_the_same_seed_gives_the_same_run(train, script, kind):
    flags = flags_of(script, kind)
    one, again, other = (
        train(script, name, flags, f"--total-timesteps 240 --seed {seed}")
        for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    assert_same_runs(one, again)
    with pytest.raises(AssertionError):
        assert_same(learned(one), learned(other))
    assert contents(one)["episodes"][0]["observation"].shape == contents(again)["episodes"][0]["observation"].shape


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
        ("walk", signal.SIGTERM),
        ("hand", signal.SIGTERM),
        ("fetch", signal.SIGINT),
        ("maze", signal.SIGINT),
    ],
)
def test_interrupted_twice_and_resumed(start, run, train, tmp_path, script, kind, number):
    flags, folder = flags_of(script, kind), tmp_path / "runs" / "r"
    started = start(script, SMALL, flags, "--total-timesteps 1000000 --run-name r")
    command = None
    for _ in range(2):
        finished = interrupt(started, folder, number, at_least=rows(folder) + 2)
        assert finished.status == 128 + number
        assert finished.err == ""
        message = re.fullmatch(
            rf"interrupted at step (\d+); continue with: python {script}\.py (--resume runs/r)",
            finished.out.splitlines()[-1],
        )
        step, command = int(message[1]), message[2]
        assert checkpoint(folder)["progress"]["global_step"] == step
        started = start(script, command)
    interrupt(started, folder, signal.SIGKILL, at_least=0)
    total = step + 60
    finished = run(script, command, f"--total-timesteps {total}")
    assert finished.status == 0, finished.err
    assert checkpoint(folder)["progress"]["updates"] > 0
    assert_same_runs(folder, train(script, "uninterrupted", flags, f"--total-timesteps {total}"))


@pytest.mark.parametrize("kind", ["seek1", "seek3", "walk"])
def test_killed_and_resumed_from_a_periodic_checkpoint(start, run, train, tmp_path, script, kind):
    flags, folder = flags_of(script, kind), tmp_path / "runs" / "r"
    flags += " --checkpoint-frequency 70"
    started = start(script, SMALL, flags, "--total-timesteps 1000000 --run-name r")
    finished = interrupt(started, folder, signal.SIGKILL, at_least=4)
    assert finished.status == 128 + signal.SIGKILL
    step = checkpoint(folder)["progress"]["global_step"]
    assert 0 < step % 70 < 3 or step % 70 == 0
    total = step + 100
    finished = run(script, f"--resume runs/r --total-timesteps {total}")
    assert finished.status == 0, finished.err
    assert_same_runs(folder, train(script, "uninterrupted", flags, f"--total-timesteps {total}"))


@pytest.mark.parametrize("kind", ["seek1", "walk", "hand"])
def test_a_finished_run_can_be_made_longer(run, train, script, kind):
    flags = flags_of(script, kind)
    # Totals that are evaluated anyway, so that both have the same rows.
    first, second = (200, 400) if kind != "walk" else (180, 270)
    folder = train(script, "r", flags, f"--total-timesteps {first}")
    assert contents(folder)["progress"]["global_step"] < second
    finished = run(script, f"--resume {folder}", f"--total-timesteps {second}")
    assert finished.status == 0, finished.err
    assert_same_runs(folder, train(script, "uninterrupted", flags, f"--total-timesteps {second}"))


def test_a_signal_before_anything_happened(start, run, train, tmp_path, script):
    """The first checkpoint is that of step 0 then."""
    folder = tmp_path / "runs" / "r"
    started = start(script, SMALL, SEEK[script], "--total-timesteps 200 --eval-episodes 3000 --run-name r")
    deadline = time.monotonic() + 100
    while not folder.exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    started.kill(signal.SIGINT)
    finished = started.finish()
    assert finished.status == 130
    assert "Traceback" not in finished.err


def test_no_checkpoint_is_ever_half_written(start, run, tmp_path, script):
    """Killed at any moment, also while it saves."""
    folder = tmp_path / "runs" / "r"
    started = start(
        script,
        SMALL,
        SEEK[script],
        "--checkpoint-frequency 1 --total-timesteps 1000000 --run-name r --learning-starts 5",
    )
    for _ in range(3):
        interrupt(started, folder, signal.SIGKILL, at_least=1)
        before = checkpoint(folder)["progress"]["global_step"]
        started = start(script, "--resume runs/r")
        deadline = time.monotonic() + 100
        while os.stat(folder / "checkpoint.pt").st_size == 0 and time.monotonic() < deadline:
            time.sleep(0.001)
    interrupt(started, folder, signal.SIGTERM, at_least=1)
    assert checkpoint(folder)["progress"]["global_step"] >= before


# ------------------------------------------------------------------------------------------------------- divergence


def failed(finished):
    """One line that says the step; returns that step."""
    assert finished.status == 1, finished
    assert finished.err.count("\n") == 1, finished.err
    assert "Traceback" not in finished.err
    return int(re.search(r"not finite.* at step (\d+)", finished.err)[1])


@pytest.mark.parametrize(
    ("normalize", "value"), [("--normalize", "NaN"), ("--no-normalize", "NaN"), ("--no-normalize", "1e30")]
)
def test_a_loss_that_is_not_finite(run, train, tmp_path, script, normalize, value):
    """The last good checkpoint is kept, and continues as if nothing had been wrong."""
    if script in DISCRETE and value == "1e30":
        pytest.skip("the Huber loss of large values is finite")
    flags = (
        f'--env-id goal_envs:Poison-v0 --env-kwargs {{"value":{value},"rarity":60}} {normalize} '
        "--learning-starts 20 --eval-frequency 10000 --checkpoint-frequency 7 --eval-episodes 1 "
        "--train-frequency 20 --gradient-steps 10"
    )
    step = failed(run(script, SMALL, fitting(script, flags), "--total-timesteps 5000 --run-name r"))
    folder = tmp_path / "runs" / "r"
    saved = checkpoint(folder)
    good = saved["progress"]["global_step"]
    assert 30 < step - 25 <= good <= step
    assert all_finite(folder)
    buffer = saved["parts"]["buffer"]
    finished = buffer["length"] > 0
    assert torch.isfinite(buffer["observation"][finished]).all(), "what spoilt the run is in the checkpoint"
    total = step - 1
    assert total > good
    resumed = run(script, "--resume runs/r", f"--total-timesteps {total}")
    assert resumed.status == 0, resumed.err
    assert_same_runs(folder, train(script, "uninterrupted", fitting(script, flags), f"--total-timesteps {total}"))


@pytest.mark.parametrize("script", CONTINUOUS)
def test_a_learning_rate_that_is_too_high(run, tmp_path, script):
    """Weights overflow at once, before a first good checkpoint other than that of the start."""
    flags = (
        '--env-id goal_envs:Poison-v0 --env-kwargs {"value":1e18,"rarity":1} --no-normalize --learning-rate 1 '
        "--learning-starts 20 --eval-frequency 1000 --gamma 0.999"
    )
    step = failed(run(script, SMALL, fitting(script, flags), "--total-timesteps 5000 --run-name r"))
    assert step >= 20
    assert all_finite(tmp_path / "runs" / "r")


# -------------------------------------------------------------------------------------------------------- the schedule


@pytest.mark.parametrize(
    ("num_envs", "train_frequency", "gradient_steps", "learning_starts", "total"),
    [(1, 1, 1, 40, 100), (1, 7, 3, 0, 100), (3, 1, 1, 40, 120), (4, 10, 2, 41, 130), (3, 2, 1, 0, 100)],
)
def test_as_many_updates_as_were_ordered(
    train, script, num_envs, train_frequency, gradient_steps, learning_starts, total
):
    """gradient_steps for every train_frequency steps, from learning_starts or the end of the first episode on."""
    folder = train(
        script, "r", SEEK[script],
        f"--num-envs {num_envs} --train-frequency {train_frequency} --gradient-steps {gradient_steps}",
        f"--learning-starts {learning_starts} --total-timesteps {total}",
    )  # fmt: skip
    begins = max(learning_starts, 10 * num_envs)  # episodes last 10 steps
    expected = 0
    for step in range(num_envs, total + num_envs, num_envs):
        phases = sum(1 for t in range(step - num_envs + 1, step + 1) if t % train_frequency == 0)
        expected += phases * gradient_steps * (step >= begins)
        if step >= total:
            break
    saved = checkpoint(folder)
    assert saved["progress"]["updates"] == expected
    for optimizer in (name for name in saved["parts"] if name.endswith("optimizer")):
        assert saved["parts"][optimizer]["state"][0]["step"] == expected


def test_targets_follow_every_so_many_updates(train, script):
    """With τ = 1, the targets are the networks of the last update whose number is a multiple."""
    flags = f"{SEEK[script]} --tau 1 --target-network-frequency 3"
    later = contents(train(script, "later", flags, "--total-timesteps 47"))
    assert later["progress"]["updates"] == 8
    later = later["parts"]
    multiple = contents(train(script, "multiple", flags, "--total-timesteps 45"))["parts"]  # updates 1 to 6
    targets = [name for name in later if name.startswith("target_")]
    assert targets
    for target in targets:
        name = target.removeprefix("target_")
        assert_same(later[target], multiple[name])
        assert_same(multiple[target], multiple[name])
        assert not any(torch.equal(later[name][weight], multiple[name][weight]) for weight in later[name])


def test_learning_rate_drops(train, script):
    """The last update is that of step 80."""
    for drop, rate in ((79, 0.001), (80, 0.003), ("inf", 0.003)):
        flags = f"--learning-rate 3e-3 --total-timesteps 80 --learning-rate-drop {drop}"
        parts = checkpoint(train(script, f"drop_{drop}", SEEK[script], flags))["parts"]
        rates = [parts[name]["param_groups"][0]["lr"] for name in parts if name.endswith("optimizer")]
        assert rates
        assert rates == pytest.approx([rate] * len(rates), rel=1e-12)


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
