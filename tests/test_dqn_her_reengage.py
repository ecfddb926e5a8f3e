"""DQN: its losses against finite differences and formulas written by hand; exploration."""

import goal_envs  # noqa: F401 (registers DiscreteWalk-v0)
import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import SEEK, SMALL, all_finite, assert_same_runs, contents
from ddpg import (
    BATCH,
    GOAL,
    OBSERVATION,
    assert_gradient,
    assert_term_gradient,
    differences,
    forward,
    input_gradient,
    make_args,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import dqn_her_reengage as dqn

ACTIONS, ALPHA = 5, 0.7
SOFT_TARGETS = ("gradient", "both", "both-sampled")


def make_networks(args, seed=0):
    """Q-network and target network, with biases that are not zero, and values that mostly are negative."""
    torch.manual_seed(seed)
    networks = [dqn.QNetwork(OBSERVATION, GOAL, ACTIONS, args).double() for _ in range(2)]
    for network in networks:
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.8)
        with torch.no_grad():
            network.net[-1].bias -= 2
    return networks


def make_batch(seed=0, rewards=(-1.0, 0.0)):
    """Random transitions; some are terminated, rewards alternate."""
    rng = np.random.default_rng(seed)
    normal = {name: rng.normal(size=(BATCH, OBSERVATION)) for name in ("observation", "next_observation")}
    return dqn.Batch(
        action=torch.from_numpy(rng.integers(ACTIONS, size=(BATCH, 1))),
        reward=torch.tensor(rewards, dtype=torch.float64).repeat(BATCH)[:BATCH],
        terminated=torch.from_numpy((np.arange(BATCH) % 5 == 0).astype(float)),
        goal=torch.from_numpy(rng.normal(size=(BATCH, GOAL))),
        reward_gradient=torch.zeros(BATCH, GOAL, dtype=torch.float64),
        **{name: torch.from_numpy(column) for name, column in normal.items()},
    )


def q_of_action(network, batch):
    """g → Q(s, a, g), in numpy."""
    return lambda goal: np.take_along_axis(forward(network, batch.observation, goal)[0], batch.action.numpy(), 1)[:, 0]


def softmax(x):
    weights = np.exp(x - x.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def targets(target_q_network, batch, args, temperature, reward=None):
    """g → y_τ(g), with its clipping, in numpy; reward may be a function of the goal."""

    def target(goal):
        next_q = forward(target_q_network, batch.next_observation, goal)[0]
        value = next_q.max(axis=1) if temperature == 0 else (softmax(next_q / temperature) * next_q).sum(axis=1)
        r = batch.reward.numpy() if reward is None else reward(goal)
        y = r + args.gamma * (1 - batch.terminated.numpy()) * value
        return np.clip(y, -1 / (1 - args.gamma), 0) if args.clip_target else y

    return target


def gradient_term(networks, batch, args):
    """The goal-gradient term, and its gradient by the network's parameters: what alpha adds, divided by alpha."""
    losses, gradients = [], []
    for alpha in (0.0, ALPHA):
        loss, metrics = dqn.critic_loss(*networks, batch, dqn.replace(args, alpha=alpha))
        losses.append(loss.item())
        gradients.append(torch.autograd.grad(loss, list(networks[0].parameters()), allow_unused=True))
    term = (losses[1] - losses[0]) / ALPHA
    assert metrics["gradient_loss"].item() == pytest.approx(term, rel=1e-9)
    return term, [(after - before).numpy() / ALPHA for before, after in zip(*gradients, strict=True)]


# ------------------------------------------------------------------------------------------------------- the value term


@pytest.mark.parametrize("soft_target", SOFT_TARGETS)
@pytest.mark.parametrize("temperature", [0.0, 0.5])
@pytest.mark.parametrize("clip_target", [False, True])
def test_value_loss_is_hubers(soft_target, temperature, clip_target):
    args = make_args(dqn, soft_target=soft_target, temperature=temperature, clip_target=clip_target, gamma=0.8)
    networks, batch = make_networks(args), make_batch()
    target = targets(networks[1], batch, args, 0 if soft_target == "gradient" else temperature)(batch.goal.numpy())
    assert not clip_target or 0 < ((target == -5) | (target == 0)).mean() < 1
    q = q_of_action(networks[0], batch)(batch.goal.numpy())
    error = np.abs(q - target)
    assert 0 < (error > 1).mean() < 1
    expected = np.where(error <= 1, error**2 / 2, error - 0.5).mean()
    for alpha in (0.0, ALPHA):
        loss, metrics = dqn.critic_loss(*networks, batch, dqn.replace(args, alpha=alpha))
        assert loss.shape == ()
        assert metrics["value_loss"].item() == pytest.approx(expected, rel=1e-12)
        assert metrics["q"].item() == pytest.approx(q.mean(), rel=1e-12)
        assert (loss.item() == metrics["value_loss"].item()) == (alpha == 0)


def test_alpha_0_costs_nothing_and_is_dqn(monkeypatch):
    """No gradient by the goal, no softmax, and the same whatever the temperature."""
    args = make_args(dqn, alpha=0.0)
    networks, batch = make_networks(args), make_batch()

    def refuse(*args, **kwargs):
        raise AssertionError("computed in vain")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    monkeypatch.setattr(dqn.F, "softmax", refuse)
    followed = []  # whether autograd follows the goal, and the target
    networks[0].register_forward_pre_hook(lambda network, inputs: followed.append(inputs[1].requires_grad))
    networks[1].register_forward_hook(lambda network, inputs, output: followed.append(output.requires_grad))
    losses = [dqn.critic_loss(*networks, batch, dqn.replace(args, temperature=t))[0] for t in (0.0, 0.3, 2.0)]
    assert followed == [False] * 6
    assert len({loss.item() for loss in losses}) == 1


# ---------------------------------------------------------------------------------------------------- the gradient term


@pytest.mark.parametrize("clip_target", [False, True])
@pytest.mark.parametrize(("c_low", "rewards"), [(-1.0, (-1.0, 0.0)), (0.0, (0.0, 1.0, 0.0)), (-1.0, (-1.0,))])
@pytest.mark.parametrize("temperature", [0.0, 0.3, 2.0])
def test_term_equals_finite_differences(clip_target, c_low, rewards, temperature):
    """Also that the softmax's weights change with the goal."""
    args = make_args(dqn, c_low=c_low, clip_target=clip_target, gamma=0.8, temperature=temperature)
    networks, batch = make_networks(args), make_batch(rewards=rewards)
    goal = batch.goal.numpy()
    target = targets(networks[1], batch, args, temperature)
    target_gradient = differences(target, goal)
    difference = differences(q_of_action(networks[0], batch), goal) - target_gradient
    counted = batch.reward.numpy() == c_low
    if clip_target:
        active = (target(goal) == -5) | (target(goal) == 0)
        assert 0 < active[counted].sum() < counted.sum()
        assert not target_gradient[active].any()
    expected = (np.square(difference).sum(axis=1) * counted).sum() / BATCH  # sum over goals, mean over the whole batch
    for soft_target in SOFT_TARGETS:
        term, _ = gradient_term(networks, batch, dqn.replace(args, soft_target=soft_target))
        assert term == pytest.approx(expected, rel=1e-6)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    hidden_layers=st.integers(1, 3),
    gamma=st.sampled_from([0.5, 0.98]),
    temperature=st.sampled_from([0.2, 0.5, 3.0]),
)
def test_term_and_its_gradient_equal_the_chain_written_by_hand(seed, hidden_layers, gamma, temperature):
    """∇_g Σ_a p_a Q_a = Σ_a p_a (1 + (Q_a − Σ_b p_b Q_b)/τ) ∇_g Q_a, where p = softmax(Q/τ)."""
    args = make_args(dqn, hidden_layers=hidden_layers, gamma=gamma, temperature=temperature)
    networks, batch = make_networks(args, seed), make_batch(seed)

    chosen = np.eye(ACTIONS)[batch.action.numpy()[:, 0]]
    _, weights, masks, _ = forward(networks[0], batch.observation, batch.goal)
    q_gradient = input_gradient(weights, masks, chosen)[:, OBSERVATION:]

    next_q, *target_network, _ = forward(networks[1], batch.next_observation, batch.goal)
    p = softmax(next_q / temperature)
    outward = p * (1 + (next_q - (p * next_q).sum(axis=1, keepdims=True)) / temperature)
    target_gradient = input_gradient(*target_network, outward)[:, OBSERVATION:]
    target_gradient *= gamma * (1 - batch.terminated.numpy()[:, None])

    residual = (q_gradient - target_gradient) * (batch.reward.numpy()[:, None] == -1)
    term, gradients = gradient_term(networks, batch, args)
    assert term == pytest.approx(np.square(residual).sum() / BATCH, rel=1e-9)

    assert_term_gradient(gradients, weights, masks, chosen, residual)


def test_small_temperatures_approach_the_maximum_away_from_ties():
    args = make_args(dqn)
    networks, batch = make_networks(args), make_batch(rewards=(-1.0,))
    next_q = np.sort(forward(networks[1], batch.next_observation, batch.goal)[0], axis=1)
    clear = next_q[:, -1] - next_q[:, -2] > 0.05
    assert 10 < clear.sum() < BATCH  # there are ties nearly, too
    batch = dqn.Batch(*(column[torch.from_numpy(clear)] for column in batch))
    terms = [gradient_term(networks, batch, dqn.replace(args, temperature=t))[0] for t in (0.0, 1e-3, 0.5)]
    assert terms[1] == pytest.approx(terms[0], rel=1e-9)
    assert terms[2] != pytest.approx(terms[0], rel=0.01)


def test_termination_stops_the_bootstrap_and_its_gradient():
    args = make_args(dqn)
    networks, batch = make_networks(args), make_batch(rewards=(-1.0,))
    batch = batch._replace(terminated=torch.ones(BATCH, dtype=torch.float64))
    q_gradient = differences(q_of_action(networks[0], batch), batch.goal.numpy())
    assert gradient_term(networks, batch, args)[0] == pytest.approx(np.square(q_gradient).sum() / BATCH, rel=1e-6)


def test_no_transition_counted_means_no_term():
    args = make_args(dqn)
    term, gradients = gradient_term(make_networks(args), make_batch(rewards=(0.0,)), args)
    assert term == 0
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("soft_target", SOFT_TARGETS)
def test_loss_has_the_right_gradient_and_none_reaches_the_target(soft_target):
    args = make_args(dqn, alpha=0.3, soft_target=soft_target)
    networks, batch = make_networks(args), make_batch()
    assert_gradient(lambda: dqn.critic_loss(*networks, batch, args)[0], networks[0])
    # Even if the target's parameters could have a gradient, none reaches them.
    dqn.critic_loss(*networks, batch, args)[0].backward()
    assert all(parameter.grad is None for parameter in networks[1].parameters())
    assert batch.goal.grad is None
    assert not batch.goal.requires_grad


class SpaceOnly(gym.Env):
    """Spaces of the sizes that make_networks uses, for states of observation and achieved goal; one step."""

    spec = gym.envs.registration.EnvSpec("SpaceOnly-v0", max_episode_steps=1)
    compute_reward = None

    def __init__(self):
        box = gym.spaces.Box(-1, 1, (GOAL,))
        observation = gym.spaces.Box(-1, 1, (OBSERVATION - GOAL,))
        self.observation_space = gym.spaces.Dict(observation=observation, achieved_goal=box, desired_goal=box)
        self.action_space = gym.spaces.Discrete(ACTIONS, start=3, dtype=np.int32)


@pytest.mark.parametrize(
    ("dense", "clip_target"), [(False, False), (False, True), (True, False)], ids=["sparse", "clipped", "dense"]
)
@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "normalised"])
def test_gradient_is_by_the_goal_as_the_network_sees_it(dense, normalize, clip_target):
    flags = dict(dense=dense, normalize=normalize, clip_target=clip_target, buffer_size=BATCH, her_k=0)
    args, rng, env = make_args(dqn, **flags), np.random.default_rng(0), SpaceOnly()
    networks, policy, raw = make_networks(args), dqn.Policy(env, args), make_batch()
    if normalize:
        policy.observation_norm.update(rng.normal(size=(100, OBSERVATION)) * 2 + 1)
        policy.goal_norm.update(rng.normal(size=(100, GOAL)) * [0.3, 2, 5] - 1)
    episodes = dqn.empty_episodes(BATCH, env)
    for name in ("observation", "achieved_goal"):
        episodes[name] = rng.normal(size=episodes[name].shape)
    episodes["desired_goal"] = rng.normal(size=(BATCH, GOAL)) * [0.3, 2, 5] - 1
    episodes["length"], episodes["action"][:, 0] = 1, raw.action
    episodes["reward"], episodes["terminated"] = raw.reward[:, None], raw.terminated[:, None]
    achieved, desired = episodes["achieved_goal"][:, 1], episodes["desired_goal"]
    mean, std = (policy.goal_norm.mean.numpy(), policy.goal_norm.std.numpy()) if normalize else (0, 1)

    def reward(goal):  # R = −‖achieved − goal‖₂, of the normalised goal
        return -np.linalg.norm(achieved - (goal * std + mean), axis=1)

    if dense:
        episodes["reward"][:, 0] = -np.linalg.norm(achieved - desired, axis=1)
    buffer = dqn.HerReplayBuffer(env, args, rng)
    buffer.add(episodes)
    buffer._draw = lambda n: (np.arange(n), np.zeros(n, np.int64))  # each transition once
    columns = buffer.sample(BATCH, policy)._asdict().items()
    exact = {name: column.double() for name, column in columns if name != "action"}
    batch = dqn.Batch(action=raw.action, **exact)
    assert batch.terminated.equal(raw.terminated)
    goal = batch.goal.numpy()
    assert not normalize or (np.abs(goal) < 5).all()
    np.testing.assert_allclose(goal * std + mean, desired, rtol=1e-5, atol=5e-6)
    target = targets(networks[1], batch, args, args.temperature, reward if dense else None)
    difference = differences(q_of_action(networks[0], batch), goal) - differences(target, goal)
    counted = np.ones(BATCH) if dense else batch.reward.numpy() == -1
    term, gradients = gradient_term(networks, batch, args)
    assert term == pytest.approx((np.square(difference).sum(axis=1) * counted).mean(), rel=1e-5)
    assert any(np.abs(gradient).max() > 0.01 for gradient in gradients)


# -------------------------------------------------------------------------------------------------------------- actions


def explore(q, random, rng, **settings):
    """What a policy whose action values are q, (num_envs, actions), does."""
    policy = dqn.Policy(SpaceOnly(), make_args(dqn, **settings))
    policy.q_values = lambda observation: q
    return policy.explore({}, random, rng)


@pytest.mark.parametrize(
    "settings", [dict(), dict(soft_target="both"), dict(soft_target="both-sampled", temperature=0)]
)
def test_exploration_is_epsilon_greedy(settings):
    rng, q = np.random.default_rng(0), np.tile(np.float32([0, 3, 1, 2]), (50_000, 1))
    action = explore(q, 0.3, rng, **settings)
    assert (action.shape, action.dtype) == ((50_000, 1), np.int64)
    frequencies = np.bincount(action[:, 0], minlength=4) / len(q)
    np.testing.assert_allclose(frequencies, [0.075, 0.775, 0.075, 0.075], atol=0.008)
    assert (explore(q, 0.0, rng, **settings) == 1).all()
    np.testing.assert_array_equal(q[0], [0, 3, 1, 2])


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_sampled_actions_have_the_softmaxs_probabilities(temperature):
    rng, q = np.random.default_rng(0), np.tile(np.float32([0, 1, -0.5]), (50_000, 1))
    p = softmax(q[:1] / temperature)[0]
    for epsilon in (0.0, 0.4):
        action = explore(q, epsilon, rng, soft_target="both-sampled", temperature=temperature)
        frequencies = np.bincount(action[:, 0], minlength=3) / len(q)
        np.testing.assert_allclose(frequencies, (1 - epsilon) * p + epsilon / 3, atol=0.01)


@pytest.mark.parametrize(("soft_target", "temperature"), [("both", 1e6), ("both-sampled", 1e6), ("both-sampled", 0)])
def test_only_both_sampled_samples_in_training(train, monkeypatch, soft_target, temperature):
    """At a temperature of 0 it is greedy as well; at a very high one, uniform."""
    flags = f"{SEEK['dqn_her_reengage']} --soft-target {soft_target} --temperature {temperature} --alpha 0"
    folder = train(
        "dqn_her_reengage", "r", flags, "--random-action-probability 0 --learning-starts 0 --total-timesteps 1000",
        "--utd-ratio 0 --eval-frequency 1000",
    )  # fmt: skip
    actions = torch.cat([episode["action"] for episode in contents(folder)["episodes"]])
    frequencies = np.bincount(actions[:, 0], minlength=10) / len(actions)
    if soft_target == "both-sampled" and temperature > 0:
        np.testing.assert_allclose(frequencies, 0.1, atol=0.04)
    else:
        assert frequencies.max() > 0.2  # of a network that has not learned


def test_random_actions_first(train):
    """Before learning_starts, actions are uniform."""
    flags = "--learning-starts 2000 --total-timesteps 2050 --eval-frequency 5000"
    folder = train("dqn_her_reengage", "r", SEEK["dqn_her_reengage"], flags)
    actions = torch.cat([episode["action"] for episode in contents(folder)["episodes"][:200]])
    assert actions.shape == (2000, 1)
    np.testing.assert_allclose(np.bincount(actions[:, 0], minlength=10) / 2000, 0.1, atol=0.03)


def test_policy_is_greedy():
    args = make_args(dqn, normalize=False)
    policy, observation = dqn.Policy(SpaceOnly(), args), observations(9)
    q = forward(policy.q_network, *(observation[name] for name in ("observation", "achieved_goal", "desired_goal")))[0]
    np.testing.assert_allclose(policy.q_values(observation), q, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(policy(observation), q.argmax(axis=1)[:, None])


def observations(n):
    rng, space = np.random.default_rng(0), SpaceOnly().observation_space
    return {name: rng.normal(size=(n, *part.shape)).astype(np.float32) for name, part in space.items()}


def test_environments_count_from_the_spaces_first_action():
    """The episodes' actions are 0, 1, …; the environment's begin at 3."""
    env, action, seen = SpaceOnly(), np.arange(9)[:, None] % ACTIONS, []

    class Once:
        num_envs = 9

        def reset(self, seed):
            return observations(9), {}

        def step(self, action):
            seen.append(action)
            yes = np.ones(9, np.bool_)
            return observations(9), np.zeros(9), ~yes, yes, dict(is_success=yes)

    episodes = dqn.play(lambda observation: action, env, Once(), (0,))
    np.testing.assert_array_equal(episodes["action"][:, 0], action)
    np.testing.assert_array_equal(seen, [3 + action[:, 0]])
    assert all(env.action_space.contains(each) for each in seen[0])


# ------------------------------------------------------------------------------------------------------------- the runs


def test_alpha_is_1_over_d_or_what_was_asked_for():
    for env_id, alpha in (("BitFlip-v0", 1 / 40), ("BitFlip20-v0", 1 / 20)):
        assert dqn.parse_args(["--env-id", env_id]).alpha == alpha
        for asked in (0, 0.3):
            args = dqn.parse_args(["--env-id", env_id, "--alpha", str(asked), "--batch-size", "33"])
            assert (args.alpha, args.batch_size, args.num_envs, args.temperature) == (asked, 33, 16, 0.5)


def test_a_temperature_that_is_too_small_stops_the_run(run, tmp_path):
    """Q / τ overflows in the first updates, after step 50, and the loss is checked after them."""
    flags = f"{SEEK['dqn_her_reengage']} --temperature 1e-42 --total-timesteps 200 --run-name r"
    finished = run("dqn_her_reengage", SMALL, flags)
    assert finished.status == 1
    assert "not finite at step 50" in finished.err
    assert finished.err.count("\n") == 1
    assert all_finite(tmp_path / "runs" / "r")


def test_both_sampled_continues_bit_for_bit(run, train):
    flags = f"{SEEK['dqn_her_reengage']} --soft-target both-sampled"
    folder = train("dqn_her_reengage", "r", flags, "--total-timesteps 150")
    assert run("dqn_her_reengage", "--resume runs/r --total-timesteps 250").status == 0
    assert_same_runs(folder, train("dqn_her_reengage", "uninterrupted", flags, "--total-timesteps 250"))
