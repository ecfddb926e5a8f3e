"""SAC's losses with the goal-gradient term, against numpy and finite differences; the squashed Gaussian."""

import itertools
import math
from types import SimpleNamespace

import goal_envs  # noqa: F401 (registers Walk-v0)
import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import SEEK, checkpoint
from ddpg import (
    ACTION,
    BATCH,
    GOAL,
    assert_gradient,
    differences,
    forward,
    make_args,
    make_batch,
    make_networks,
    optimize,
)

import sac_her_reengage as sac

ALPHA, SEED = 0.7, 11


@pytest.fixture
def temperature():
    return sac.Temperature(0.3).double()


def critic_loss(networks, temperature, batch, args):
    """The loss with the same noise at every call."""
    critic, target_critic, actor, _ = networks
    torch.manual_seed(SEED)
    return sac.critic_loss(critic, target_critic, actor, temperature, batch, args)


def q_values(critic, *inputs):
    """Both critics in numpy, (2, batch)."""
    return np.stack([forward(SimpleNamespace(net=net), *inputs)[0][:, 0] for net in critic.nets])


def sample(actor, observation, goal):
    """The action drawn with SEED's noise, and its log-probability, in numpy."""
    mean, log_std = np.split(forward(actor, observation, goal)[0], 2, axis=1)
    torch.manual_seed(SEED)
    noise = torch.randn(BATCH, ACTION, dtype=torch.float64).numpy()
    x = mean + np.exp(log_std) * noise
    log_normal = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
    return np.tanh(x), (log_normal + 2 * np.log(np.cosh(x))).sum(1)  # 1 − tanh² = 1 / cosh²


def soft_target(networks, temperature, batch, args, reward=None):
    """y(g), with its clipping; reward may be a function of the goal."""
    _, target_critic, actor, _ = networks

    def target(goal):
        action, log_prob = sample(actor, batch.next_observation, goal)
        next_q = q_values(target_critic, batch.next_observation, action, goal).min(0)
        r = batch.reward.numpy() if reward is None else reward(goal)
        value = next_q - temperature().item() * log_prob
        y = r + args.gamma * (1 - batch.terminated.numpy()) * value
        return np.clip(y, -1 / (1 - args.gamma), 0) if args.clip_target else y

    return target


# --------------------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("clip_target", [False, True])
@pytest.mark.parametrize("alpha", [0.0, ALPHA])
def test_value_loss_is_soft_and_takes_the_smaller_critic(temperature, alpha, clip_target):
    args = make_args(sac, alpha=alpha, clip_target=clip_target, gamma=0.8)
    networks, batch = make_networks(sac, args), make_batch(sac)
    target = soft_target(networks, temperature, batch, args)(batch.goal.numpy())
    q = q_values(networks[0], batch.observation, batch.action, batch.goal)
    expected = 0.5 * np.square(q - target).mean(1).sum()
    loss, metrics = critic_loss(networks, temperature, batch, args)
    assert metrics["value_loss"].item() == pytest.approx(expected, rel=1e-10)
    assert metrics["q"].item() == pytest.approx(q.mean(), rel=1e-10)
    assert (loss.item() == metrics["value_loss"].item()) == (alpha == 0)
    assert ("gradient_loss" in metrics) == (alpha > 0)


@pytest.mark.parametrize("clip_target", [False, True])
@pytest.mark.parametrize(("c_low", "rewards"), [(-1.0, (-1.0, 0.0)), (0.0, (0.0, 1.0, 0.0)), (-1.0, (-1.0,))])
def test_gradient_term_equals_finite_differences(temperature, clip_target, c_low, rewards):
    """Through the reparameterised action, its log-probability and the minimum over the critics."""
    args = make_args(sac, alpha=ALPHA, c_low=c_low, clip_target=clip_target, gamma=0.8)
    networks, batch = make_networks(sac, args), make_batch(sac, rewards=rewards)
    critic, target_critic, actor, _ = networks
    goal = batch.goal.numpy()
    next_action, _ = sample(actor, batch.next_observation, goal)
    assert 0 < q_values(target_critic, batch.next_observation, next_action, goal).argmin(0).mean() < 1
    target_gradient = differences(soft_target(networks, temperature, batch, args), goal)
    q_gradients = [
        differences(lambda g, i=i: q_values(critic, batch.observation, batch.action, g)[i], goal) for i in range(2)
    ]
    counted = batch.reward.numpy() == c_low
    expected = 0.5 * sum((np.square(each - target_gradient).sum(1) * counted).sum() / BATCH for each in q_gradients)
    loss, metrics = critic_loss(networks, temperature, batch, args)
    assert metrics["gradient_loss"].item() == pytest.approx(expected, rel=1e-5)
    assert (loss - metrics["value_loss"]).item() == pytest.approx(ALPHA * expected, rel=1e-5)


@pytest.mark.parametrize("alpha", [0.0, ALPHA])
def test_autograd_follows_goal_and_target_for_the_term_alone(temperature, alpha):
    args, followed = make_args(sac, alpha=alpha), []
    networks = make_networks(sac, args)
    networks[0].register_forward_pre_hook(lambda network, inputs: followed.append(inputs[2].requires_grad))
    networks[1].register_forward_hook(lambda network, inputs, output: followed.append(output[0].requires_grad))
    critic_loss(networks, temperature, make_batch(sac), args)
    assert followed == [alpha > 0] * 2


def test_entropy_is_part_of_the_targets_gradient(temperature):
    """With critics that ignore goal and action, the term is the gradient of −γ η log π alone."""
    args = make_args(sac, alpha=ALPHA)
    networks, batch = make_networks(sac, args), make_batch(sac, rewards=(-1.0,))
    with torch.no_grad():
        for net in (*networks[0].nets, *networks[1].nets):
            net[0].weight[:, -(ACTION + GOAL) :] = 0
    scale = args.gamma * temperature().item() * (1 - batch.terminated.numpy())[:, None]
    gradient = differences(lambda goal: sample(networks[2], batch.next_observation, goal)[1], batch.goal.numpy())
    expected = np.square(scale * gradient).sum(1).mean()  # half of it for each critic
    assert expected > 0.01
    _, metrics = critic_loss(networks, temperature, batch, args)
    assert metrics["gradient_loss"].item() == pytest.approx(expected, rel=1e-5)


def test_dense_rewards_have_a_gradient(temperature):
    args = make_args(sac, alpha=ALPHA, dense=True)
    networks, rng = make_networks(sac, args), np.random.default_rng(0)
    achieved = rng.normal(size=(BATCH, GOAL))
    batch = make_batch(sac)

    def reward(goal):
        return -np.linalg.norm(achieved - goal, axis=1)

    goal = batch.goal.numpy()
    gradient = torch.nn.functional.normalize(torch.from_numpy(achieved) - batch.goal, dim=1)
    batch = batch._replace(reward=torch.from_numpy(reward(goal)), reward_gradient=gradient)
    target_gradient = differences(soft_target(networks, temperature, batch, args, reward), goal)
    expected = 0
    for i in range(2):
        q_gradient = differences(lambda g, i=i: q_values(networks[0], batch.observation, batch.action, g)[i], goal)
        expected += 0.5 * np.square(q_gradient - target_gradient).sum(1).mean()
    _, metrics = critic_loss(networks, temperature, batch, args)
    assert metrics["gradient_loss"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("alpha", [0.0, ALPHA])
def test_critic_loss_has_the_right_gradient_for_both_critics(temperature, alpha):
    args = make_args(sac, alpha=alpha)
    networks, batch = make_networks(sac, args), make_batch(sac)
    for net in networks[0].nets:
        assert_gradient(lambda: critic_loss(networks, temperature, batch, args)[0], net)


def test_actor_loss_and_its_gradient(temperature):
    args = make_args(sac)
    networks, batch = make_networks(sac, args), make_batch(sac)
    critic, _, actor, _ = networks

    def actor_loss():
        torch.manual_seed(SEED)
        return sac.actor_loss(actor, critic, temperature, batch)

    action, log_prob = sample(actor, batch.observation, batch.goal)
    q = q_values(critic, batch.observation, action, batch.goal).min(0)
    loss, entropy = actor_loss()
    assert loss.item() == pytest.approx(np.mean(temperature().item() * log_prob - q), rel=1e-10)
    assert entropy.item() == pytest.approx(-log_prob.mean(), rel=1e-10)
    assert_gradient(lambda: actor_loss()[0], actor)


def test_losses_train_only_what_they_should(temperature):
    args = make_args(sac, alpha=ALPHA)
    networks, batch = make_networks(sac, args), make_batch(sac)
    critic, _, actor, _ = networks
    parts = [*networks, temperature]

    def with_gradient():
        seen = [any(p.grad is not None and p.grad.any() for p in part.parameters()) for part in parts]
        for part in parts:
            part.zero_grad()
        return seen

    critic_loss(networks, temperature, batch, args)[0].backward()
    assert with_gradient() == [True, False, False, False, False]
    _, entropy = sac.actor_loss(actor, critic, temperature, batch)
    sac.temperature_loss(temperature, entropy, -2.0).backward()
    assert with_gradient() == [False, False, False, False, True]


def test_temperature_rises_while_the_entropy_is_too_low():
    for entropy, sign in ((-5.0, 1), (1.0, -1)):
        temperature = sac.Temperature(0.3)
        optimizer = torch.optim.Adam(temperature.parameters(), lr=0.01)
        optimize(temperature, optimizer, sac.temperature_loss(temperature, torch.tensor(entropy), -2.0))
        assert temperature.log.item() == pytest.approx(math.log(0.3) + sign * 0.01, abs=1e-6)


# ----------------------------------------------------------------------------------------------------------- the policy


def policy_of(mean, log_std):
    """An actor whose Gaussian is the same everywhere."""
    return constant(sac.Actor(1, 1, len(mean), make_args(sac, hidden_layers=1)).double(), mean, log_std)


def constant(actor, mean, log_std):
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.zero_()
        actor.net[-1].bias.copy_(torch.tensor([*mean, *log_std]))
    return actor


def test_log_probability_is_a_density():
    """Against a histogram of many actions, and against the formula with atanh."""
    actor, n = policy_of([0.4], [-0.3]), 400_000
    zeros = torch.zeros(n, 1).double()
    action, log_prob = (x.detach().numpy() for x in actor.sample(zeros, zeros))
    action = action[:, 0]
    x, std = np.arctanh(action), np.exp(-0.3)
    density = np.exp(-0.5 * ((x - 0.4) / std) ** 2) / (std * np.sqrt(2 * np.pi) * (1 - action**2))
    np.testing.assert_allclose(np.exp(log_prob), density, rtol=1e-6)
    seen, edges = np.histogram(action, bins=20, range=(-0.95, 0.95))
    middle = [density[(action >= low) & (action < high)].mean() for low, high in itertools.pairwise(edges)]
    np.testing.assert_allclose(seen / n / np.diff(edges), middle, rtol=0.15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mean", [60.0, -60.0, 300.0])
def test_saturated_actions_have_finite_log_probability_and_gradient(mean, dtype):
    actor = policy_of([mean, 0.0], [1.0, 100.0]).to(dtype)
    torch.manual_seed(SEED)
    goal = torch.zeros(500, 1, dtype=dtype, requires_grad=True)
    with torch.no_grad():
        actor.net[0].weight.fill_(0.1)
        actor.net[-1].weight.fill_(0.1)
    action, log_prob = actor.sample(torch.ones(500, 1, dtype=dtype), goal)
    assert (action[:, 0].abs() == 1).all()
    assert action[:, 1].abs().max() <= 1
    assert torch.isfinite(log_prob).all()
    (gradient,) = torch.autograd.grad(log_prob.sum(), goal)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(("limit", "beyond", "inside"), [(-20, -50, -19), (2, 5, 1.9)])
def test_the_deviation_has_limits(limit, beyond, inside):
    samples = []
    for log_std in (limit, beyond, inside):
        torch.manual_seed(SEED)
        action, _ = policy_of([0.0], [log_std]).sample(torch.zeros(9, 1).double(), torch.zeros(9, 1).double())
        samples.append(action)
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])


def test_evaluation_uses_the_mean_and_training_draws():
    actor = policy_of([0.5, -0.2], [-1.0, 0.3])
    zeros = torch.zeros(100_000, 1).double()
    np.testing.assert_allclose(actor(zeros[:5], zeros[:5]).detach(), [np.tanh([0.5, -0.2])] * 5, rtol=1e-6)
    action, _ = actor.sample(zeros, zeros)
    x = torch.atanh(action)
    np.testing.assert_allclose(x.mean(0).detach(), [0.5, -0.2], atol=0.02)
    np.testing.assert_allclose(x.std(0).detach(), np.exp([-1.0, 0.3]), rtol=0.02)


def test_exploration_draws_and_replaces_some_actions():
    """The policy that is evaluated takes the mean; exploration draws from the Gaussian, or uniformly."""
    env, n = gym.make("goal_envs:Walk-v0"), 50_000
    policy, rng = sac.Policy(env, make_args(sac)), np.random.default_rng(0)
    spaces = env.observation_space.spaces.items()
    observation = {name: np.zeros((n, *space.shape), space.dtype) for name, space in spaces}
    constant(policy.actor, [0.5, -0.2], [-1.0, 0.3])
    np.testing.assert_allclose(policy(observation), np.tile(np.tanh([0.5, -0.2]), (n, 1)), rtol=1e-6)
    torch.manual_seed(SEED)
    x = np.arctanh(policy.explore(observation, 0.0, rng).clip(-1 + 1e-7, 1 - 1e-7))
    np.testing.assert_allclose(x.mean(0), [0.5, -0.2], atol=0.03)
    np.testing.assert_allclose(x.std(0), np.exp([-1.0, 0.3]), rtol=0.03)

    constant(policy.actor, [0.5, -0.2], [-20.0, -20.0])  # hardly any noise
    action = policy(observation)
    np.testing.assert_allclose(policy.explore(observation, 0.0, rng), action, atol=1e-6)
    mixed = policy.explore(observation, 0.3, rng)
    random = (np.abs(mixed - action) > 1e-6).any(axis=1)
    assert random.mean() == pytest.approx(0.3, abs=0.01)
    assert (mixed[random] != action[random]).all()
    assert mixed[random].std(axis=0) == pytest.approx([1 / np.sqrt(3)] * 2, rel=0.03)


# ------------------------------------------------------------------------------------------------------------- the runs


@pytest.mark.parametrize(("flag", "moves"), [("", True), ("--no-autotune", False)])
def test_temperature_is_learned_or_fixed(train, flag, moves):
    flags = f"{SEEK['sac_her_reengage']} --total-timesteps 100 --temperature 0.25 {flag}"
    folder = train("sac_her_reengage", "r", flags)
    log = checkpoint(folder)["parts"]["temperature"]["log"].item()
    assert (abs(log - math.log(0.25)) > 1e-3) == moves
