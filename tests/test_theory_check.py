"""theory_check.py: the environments and the model class, the losses, both measurements, the bias, the command."""

import csv
import functools
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import ddpg_her_reengage as reengage
import theory_check
from theory_check import (
    FAMILIES,
    GAMMA,
    METHODS,
    DenseRotation,
    SparseRotation,
    Task,
    actor,
    collect,
    critic_loss,
    linearise,
    measure,
    random_rotation,
    relabel,
    rotate,
    skew,
    td_errors,
)

SCRIPT = Path(theory_check.__file__)
DIM = 5


@pytest.fixture(params=list(FAMILIES))
def family(request):
    return request.param


@pytest.fixture
def problem(family):
    """A family, its true rotation, another one, and transitions."""
    rng = np.random.default_rng(0)
    truth, other = random_rotation(DIM, rng), random_rotation(DIM, rng)
    return family, truth, other, collect(FAMILIES[family].env(truth.numpy()), 12, rng)


def task(measurement, family, method, dim, trial=0):
    return Task(0, measurement, family, METHODS[method], dim, trial)


# Environments


@pytest.mark.filterwarnings("ignore:.*Box observation space (minimum|maximum) value is.*infinity")
def test_environments_pass_gymnasiums_check(family):
    check_env(FAMILIES[family].env(random_rotation(DIM, np.random.default_rng(0))), skip_render_check=True)


def test_dense_environment_follows_its_definition():
    rotation = random_rotation(DIM, np.random.default_rng(0)).numpy()
    env = DenseRotation(rotation)
    before, _ = env.reset(seed=0)
    action = np.full(DIM, 0.1)
    after, reward, terminated, truncated, _ = env.step(action)
    assert np.allclose(after["observation"], before["observation"] + rotation @ action)
    assert reward == pytest.approx(before["desired_goal"] @ after["observation"])
    assert (terminated, truncated) == (False, False)


def test_sparse_environment_stores_the_action_then_rewards_it():
    rotation = random_rotation(DIM, np.random.default_rng(0)).numpy()
    env = SparseRotation(rotation)
    before, _ = env.reset(seed=0)
    s1, action = before["observation"][:DIM], np.full(DIM, 0.1)
    stored, reward, *_ = env.step(action)
    assert np.allclose(stored["observation"], np.concatenate([np.zeros(DIM), s1 + rotation @ action]))
    assert reward == 0.0  # exactly c_low
    loaded, reward, *_ = env.step(-action)
    assert np.allclose(loaded["observation"], np.concatenate([s1 + rotation @ action, np.zeros(DIM)]))
    assert reward == pytest.approx(before["desired_goal"] @ (s1 + rotation @ action))


def test_long_actions_are_scaled_to_the_unit_ball():
    env = DenseRotation(np.eye(DIM))
    before, _ = env.reset(seed=0)
    after, *_ = env.step(np.ones(DIM))
    assert np.linalg.norm(after["observation"] - before["observation"]) == pytest.approx(1.0)


def test_rewards_broadcast_over_batches():
    achieved, goal = np.random.default_rng(0).normal(size=(2, 7, 3, DIM))
    assert DenseRotation(np.eye(DIM)).compute_reward(achieved, goal, {}).shape == (7, 3)


def test_rotations_have_determinant_one():
    rng = np.random.default_rng(0)
    rotations = torch.stack([random_rotation(DIM, rng) for _ in range(20)])
    assert torch.allclose(rotations @ rotations.mT, torch.eye(DIM, dtype=torch.float64).expand(20, -1, -1))
    assert torch.allclose(torch.linalg.det(rotations), torch.ones(20, dtype=torch.float64))


def test_transitions_are_unique_and_each_acting_one_has_its_own_goal(problem):
    family, _, _, batch = problem
    rows = torch.cat([part.reshape(len(batch.reward), -1) for part in batch], dim=1)
    assert len(torch.unique(rows, dim=0)) == len(rows) == 12 * FAMILIES[family].env.period
    assert len(torch.unique(batch.goal, dim=0)) == 12


def test_relabelling_changes_goals_and_rewards_only(problem):
    family, truth, _, batch = problem
    copies = relabel(batch, 3, FAMILIES[family].env(truth.numpy()), np.random.default_rng(1))
    assert torch.equal(copies.next_observation[::3], batch.next_observation)
    assert len(torch.unique(copies.goal, dim=0)) == 3 * len(batch.goal)
    assert torch.allclose(copies.reward, (copies.goal * copies.next_observation[:, :DIM]).sum(-1))


# The model class


def test_q_of_the_true_rotation_solves_the_bellman_equation(problem):
    family, truth, other, batch = problem
    assert td_errors(truth, truth, batch, family, alpha=1.0).abs().max() < 1e-12 / (1 - GAMMA) ** 2
    assert td_errors(other, other, batch, family, alpha=1.0).abs().max() > 0.1


def test_the_policy_maximises_q(problem):
    family, truth, _, batch = problem
    critic = FAMILIES[family].critic
    best = critic(truth, batch.observation, actor(truth, batch.goal), batch.goal)
    for seed in range(50):
        noise = torch.from_numpy(np.random.default_rng(seed).normal(size=batch.action.shape))
        action = noise / noise.norm(dim=-1, keepdim=True)
        assert (critic(truth, batch.observation, action, batch.goal) <= best + 1e-12).all()


# The losses


def test_critic_loss_is_the_training_scripts(problem):
    family, truth, other, batch = problem
    args = reengage.Args(alpha=0.3, gamma=GAMMA, c_low=theory_check.C_LOW, dense=family == "dense")
    critic, target_critic = (functools.partial(FAMILIES[family].critic, rotation) for rotation in (other, truth))
    of_script = reengage.Batch(
        **batch._asdict(), terminated=torch.zeros_like(batch.reward), reward_gradient=batch.next_observation[:, :DIM]
    )
    expected, _ = reengage.critic_loss(critic, target_critic, lambda s, g: actor(truth, g), of_script, args)
    assert critic_loss(other, truth, batch, family, 0.3).item() == pytest.approx(expected.item(), rel=1e-12)


def test_losses_reduce_to_the_forms_in_the_proof(problem):
    """DDPG: gᵀ(Ũ − U)a. ReenGAGE: (Ũ − U)a. Up to one factor, and nothing from loading transitions."""
    family, truth, other, batch = problem
    factor = 1 / (1 - GAMMA) if family == "dense" else GAMMA / (1 - GAMMA**2)
    difference = factor * rotate(other - truth, batch.action)
    if family == "sparse":
        difference = difference * (batch.observation[:, :DIM] != 0).any(-1, keepdim=True)
    errors = td_errors(other, other, batch, family, alpha=4.0)
    assert torch.allclose(errors[:, 0], (batch.goal * difference).sum(-1), atol=1e-10)
    assert torch.allclose(errors[:, 1:], 2.0 * difference, atol=1e-10)
    assert torch.equal(td_errors(other, other, batch, family, alpha=0.0), errors[:, :1])


def test_no_gradient_flows_into_the_target(problem):
    family, truth, other, batch = problem
    rotation, target = other.clone().requires_grad_(), truth.clone().requires_grad_()
    critic_loss(rotation, target, batch, family, alpha=1.0).backward()
    assert rotation.grad.abs().max() > 0
    assert target.grad is None


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_jacobian_with_a_frozen_target_is_that_of_both_copies_moving(problem, alpha):
    family, _, other, batch = problem
    errors, jacobian = linearise(other, batch, family, alpha)

    def moved(coordinates):
        rotation = torch.matrix_exp(skew(coordinates, DIM)) @ other
        everything = td_errors(rotation, rotation, batch, family, alpha).detach().T.flatten()
        return everything[says_something]

    everything = td_errors(other, other, batch, family, alpha).detach().T.flatten()
    says_something = everything.abs() > 1e-9
    assert torch.allclose(errors, everything[says_something])
    for step in 1e-6 * torch.eye(DIM * (DIM - 1) // 2, dtype=torch.float64):
        numerical = (moved(step) - moved(-step)) / 2e-6
        assert torch.allclose(jacobian @ (step / 1e-6), numerical, atol=1e-6)


# The measurements


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("dim", [3, 4, 7, 12])
def test_identifiability_equals_the_theory(family, method, dim):
    row = measure(task("identifiability", family, method, dim))
    assert row["transitions"] == row["theory"] == (dim * (dim - 1) // 2 if method == "DDPG" else dim - 1)
    assert row["all_transitions"] == row["transitions"] * (2 if family == "sparse" else 1)


@pytest.mark.parametrize("alpha", [0.01, 1.0])
def test_reengage_learns_from_as_many_transitions_as_identify(family, alpha):
    method = METHODS["ReenGAGE"]._replace(alpha=alpha)
    rows = [measure(task("learning", family, "ReenGAGE", 6, trial)._replace(method=method)) for trial in range(3)]
    assert [row["transitions"] for row in rows] == [5, 5, 5]
    assert not any(row["stuck_starts"] or row["ambiguous_counts"] for row in rows)


def test_ddpg_does_not_learn_from_fewer_than_identify(family):
    row = measure(task("learning", family, "DDPG", 6))
    assert 15 <= row["transitions"] < np.inf


@pytest.mark.parametrize(("is_zero", "calls"), [(True, 7), (False, 7 * theory_check.STARTS)])
def test_the_first_start_with_zero_loss_is_the_answer(monkeypatch, is_zero, calls):
    """Even a wrong one: which start is right, a learner cannot know. Failures count where the theory asks no more."""
    made = []
    monkeypatch.setattr(theory_check, "minimise", lambda start, *rest: made.append(start) or (start, is_zero))
    row = measure(task("learning", "dense", "DDPG", 6))
    assert row["transitions"] == np.inf
    assert len(made) == calls  # at 1, 2, 4, 8, 16, 32 and 36 transitions, the last three of which are at least 15
    assert (row["stuck_starts"], row["ambiguous_counts"]) == ((0, 3) if is_zero else (3 * theory_check.STARTS, 0))
    for other in (dict(trial=1), dict(seed=1)):
        measure(task("learning", "dense", "DDPG", 6)._replace(**other))
    assert len({tuple(start.flatten().tolist()) for start in made[::calls]}) == 3  # each has its own problem


def test_bisection_finds_the_smallest_count():
    for answer in range(1, 60):
        assert theory_check.smallest(lambda count, answer=answer: count >= answer, limit=64) == answer
        rough = theory_check.smallest(lambda count, answer=answer: count >= answer, 64, theory_check.RESOLUTION)
        assert answer <= rough <= answer + max(1, answer / 16)
    assert theory_check.smallest(lambda count: False, limit=64) == np.inf


def test_threshold_is_the_count_that_90_percent_of_the_trials_need():
    assert theory_check.threshold(np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 100])) == 9


def test_slope_of_a_power_law():
    dims = np.array([4, 8, 32])
    assert theory_check.slope(dims, 3.0 * dims**1.5) == pytest.approx(1.5)


def law(dim):
    return dim * (dim - 1) / 2


@pytest.mark.parametrize(
    ("needed", "holds"),  # d → transitions of ten trials
    [
        (lambda d: 10 * [law(d)], True),
        (lambda d: 10 * [1.5 * law(d)], True),
        (lambda d: 9 * [law(d)] + [0.9 * law(d)], False),  # fewer than the law says
        (lambda d: 10 * [d**3 / 3], False),  # another exponent
        (lambda d: 9 * [law(d)] + [(40 if d == 16 else 1) * law(d)], False),  # too wide an interval
        (lambda d: 9 * [law(d)] + [np.inf], False),  # one that never learns
        (lambda d: 10 * [np.inf], False),
    ],
)
def test_learning_holds_at_the_law_or_a_multiple_of_it(needed, holds):
    kind = {"measurement": "learning", "family": "dense", "method": "DDPG"}
    rows = [{**kind, "dim": dim, "transitions": count} for dim in (4, 8, 16) for count in needed(dim)]
    assert theory_check.exponent(rows, *kind.values(), seed=0)["holds"] == holds


def test_the_exponents_interval_is_that_of_95_percent_of_the_resamples():
    kind = {"measurement": "learning", "family": "dense", "method": "DDPG"}
    rng, dims = np.random.default_rng(1), np.array([4, 8, 16])
    needed = {dim: np.round(law(dim) * rng.uniform(1, 2, 10)) for dim in dims}
    rows = [{**kind, "dim": dim, "transitions": count} for dim in dims for count in needed[dim]]
    row = theory_check.exponent(rows, *kind.values(), seed=0)
    thresholds = [np.sort(rng.choice(needed[dim], (20_000, 10)))[:, 8] for dim in dims]  # 9 of 10 trials
    slopes = np.polyfit(np.log(dims), np.log(thresholds), 1)[0]
    for quantile, bound in ((0.025, row["low"]), (0.975, row["high"])):
        assert abs(np.mean(slopes <= bound) - quantile) < 0.015 or abs(np.quantile(slopes, quantile) - bound) < 0.01


# The bias


@pytest.fixture(scope="module")
def bias():
    return theory_check.measure_bias(seed=3, samples=1000)


def test_closed_form_of_the_bias_equals_the_simulation(bias):
    for row in bias:
        assert abs(row["simulated_true"] - row["true"]) <= 5 * row["standard_error"] + 1e-6
        assert row["simulated_masked"] == pytest.approx(row["masked"], abs=1e-6)
        assert row["holds"]
    assert all(later["bias"] > earlier["bias"] for earlier, later in pairwise(bias))
    assert bias[0]["bias"] == 0.0


def test_another_bias_does_not_hold(monkeypatch):
    exact = theory_check.exact_gradients
    monkeypatch.setattr(theory_check, "exact_gradients", lambda *args: (exact(*args)[0] + 1, exact(*args)[1]))
    assert not any(row["holds"] for row in theory_check.measure_bias(seed=3, samples=1000))


def test_determinism_removes_the_bias(bias):
    assert bias[0]["slip"] == bias[0]["bias"] == bias[0]["standard_error"] == 0.0
    assert bias[0]["simulated_bias"] == pytest.approx(0.0, abs=1e-6)


def test_where_actions_mostly_slip_the_masked_gradient_has_the_wrong_sign(bias):
    assert bias[-1]["true"] < 0 < bias[-1]["masked"]


@pytest.mark.parametrize("slip", [0.0, 0.3, 0.8])
def test_q_of_the_slipping_environment_solves_its_bellman_equation(slip):
    rng = np.random.default_rng(0)
    rotation = random_rotation(DIM, rng)
    s1, s2, action, goal = torch.from_numpy(rng.normal(size=(4, 20, DIM)))
    action = action / action.norm(dim=-1, keepdim=True)
    zero, turned = torch.zeros_like(s1), rotate(rotation, action)

    def q(state, action):
        return theory_check.slip_critic(rotation, state, action, goal, slip)

    def value(after):
        best = theory_check.slip_actor(rotation, goal, slip)
        assert (q(after, best) >= q(after, -best)).all()
        return (goal * after[:, :DIM]).sum(-1) + GAMMA * q(after, best)

    stored, slipped = torch.cat([zero, s1 + turned], 1), torch.cat([s1 - turned, zero], 1)
    acting = (1 - slip) * value(stored) + slip * value(slipped)
    assert torch.allclose(q(torch.cat([s1, s2], 1), action), acting)
    assert torch.allclose(q(torch.cat([zero, s2], 1), action), value(torch.cat([s2, zero], 1)))
    if slip == 0:
        state = torch.cat([s1, s2], 1)
        assert torch.allclose(q(state, action), theory_check.sparse_critic(rotation, state, action, goal))


# The command


SMALL = ["--quick", "--dims", "8", "16"]


def test_the_theory_holds_in_small_dimensions(tmp_path, monkeypatch):
    measured, measure_all = [], theory_check.measure_all

    def measure_once(tasks):
        measured.extend([] if measured else measure_all(tasks))
        return measured

    monkeypatch.setattr(theory_check, "measure_all", measure_once)
    arguments = [*SMALL, "--seed", "9", "--out", str(tmp_path)]
    assert theory_check.main(arguments) == 0
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == [f"theory_check{end}" for end in (".csv", ".png", "_bias.csv", "_exponents.csv")]
    with (tmp_path / "theory_check.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["seed"] for row in rows} == {"9"}
    trials = {int(row["trial"]) for row in rows}
    learning = [row for row in rows if row["measurement"] == "learning"]
    assert len(trials) == theory_check.QUICK_TRIALS
    assert len(learning) == len(FAMILIES) * len(METHODS) * 2 * len(trials)
    exact = theory_check.exact_gradients
    monkeypatch.setattr(theory_check, "exact_gradients", lambda *args: (exact(*args)[0] + 1, exact(*args)[1]))
    assert theory_check.main(arguments) == 1  # the same trials with another bias


def test_the_same_seed_writes_the_same_files(tmp_path):
    first, second = folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        theory_check.main(["--quick", "--dims", "4", "8", "--trials", "2", "--out", str(folder)])
    assert list(first.iterdir())
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name


def test_swapped_losses_do_not_hold(tmp_path, monkeypatch, capsys):
    reengage, ddpg = METHODS["ReenGAGE"], METHODS["DDPG"]
    monkeypatch.setitem(METHODS, "ReenGAGE", reengage._replace(alpha=ddpg.alpha))
    monkeypatch.setitem(METHODS, "DDPG", ddpg._replace(alpha=reengage.alpha))
    assert theory_check.main([*SMALL, "--trials", "2", "--out", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert "DOES NOT HOLD" in output
    verdicts = [line.split()[-1] for line in output.splitlines() if " ReenGAGE " in line or " DDPG  " in line]
    assert verdicts == ["NO"] * 8


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--dims", "4"], "--dims needs at least two"),
        (["--dims", "4", "4"], "--dims needs at least two"),
        (["--dims"], "--dims needs at least two"),
        (["--dims", "2", "8"], "between 3 and 64"),
        (["--dims", "8", "65"], "between 3 and 64"),
        (["--trials", "1"], "--trials must be at least 2"),
        (["--seed", "-1"], "--seed must be 0 or larger"),
        (["--out", str(SCRIPT)], "cannot be a folder"),
        (["--out", str(SCRIPT / "below")], "cannot be a folder"),
    ],
)
def test_bad_values_get_one_line(arguments, reason, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert theory_check.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert reason in captured.err
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_nothing_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(theory_check, "find_spec", lambda name: None)
    assert theory_check.main(["--out", str(tmp_path / "out")]) == 2
    assert "pip install matplotlib" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_ends_without_a_traceback(tmp_path):
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "out")]
    # Shells start background jobs with SIGINT ignored, and so would be what the tests start.
    listening = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=listening)
    while "theory_check:" not in (read := process.stderr.read(20)):  # the progress bar
        assert read, "it has ended"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert list((tmp_path / "out").iterdir()) == []
