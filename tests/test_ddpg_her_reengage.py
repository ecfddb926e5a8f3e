"""The goal-gradient loss: against finite differences, a chain written by hand, and the baseline."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import SEEK, assert_same, assert_same_runs, checkpoint, learned
from ddpg import (
    ACTION,
    BATCH,
    GOAL,
    OBSERVATION,
    assert_term_gradient,
    differences,
    forward,
    input_gradient,
    make_args,
    make_batch,
    make_networks,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import ddpg_her
import ddpg_her_reengage as reengage

ALPHA = 0.7


def gradient_term(networks, batch, args):
    """The goal-gradient term, and its gradient by the critic's parameters: what alpha adds, divided by alpha."""
    critic, target_critic, _, target_actor = networks
    losses, gradients = [], []
    for alpha in (0.0, ALPHA):
        args = reengage.replace(args, alpha=alpha)
        loss, metrics = reengage.critic_loss(critic, target_critic, target_actor, batch, args)
        losses.append(loss.item())
        gradients.append(torch.autograd.grad(loss, list(critic.parameters()), allow_unused=True))
    term = (losses[1] - losses[0]) / ALPHA
    assert metrics["gradient_loss"].item() == pytest.approx(term, rel=1e-9)
    return term, [(after - before).numpy() / ALPHA for before, after in zip(*gradients, strict=True)]


def q_values(critic, observation, action):
    return lambda goal: forward(critic, observation, action, goal)[0][:, 0]


def targets(target_critic, target_actor, batch, args, reward=None):
    """y(g), with its clipping; reward may be a function of the goal."""

    def target(goal):
        action = np.tanh(forward(target_actor, batch.next_observation, goal)[0])
        next_q = forward(target_critic, batch.next_observation, action, goal)[0][:, 0]
        r = batch.reward.numpy() if reward is None else reward(goal)
        y = r + args.gamma * (1 - batch.terminated.numpy()) * next_q
        return np.clip(y, -1 / (1 - args.gamma), 0) if args.clip_target else y

    return target


# ------------------------------------------------------------------------------------------------------ sparse, Eq. 9


@pytest.mark.parametrize("clip_target", [False, True])
@pytest.mark.parametrize(("c_low", "rewards"), [(-1.0, (-1.0, 0.0)), (0.0, (0.0, 1.0, 0.0)), (-1.0, (-1.0,))])
def test_term_equals_finite_differences(clip_target, c_low, rewards):
    args = make_args(reengage, c_low=c_low, clip_target=clip_target, gamma=0.8)
    critic, target_critic, _, target_actor = networks = make_networks(reengage, args)
    batch = make_batch(reengage, rewards=rewards)
    goal = batch.goal.numpy()
    target = targets(target_critic, target_actor, batch, args)
    target_gradient = differences(target, goal)
    difference = differences(q_values(critic, batch.observation, batch.action), goal) - target_gradient
    counted = batch.reward.numpy() == c_low
    if clip_target:
        active = (target(goal) == -5) | (target(goal) == 0)
        assert active[counted].any()
        assert c_low == 0 or not active[counted].all()  # targets of rewards from 0 up are above the range
        assert not target_gradient[active].any()
    expected = (np.square(difference).sum(axis=1) * counted).sum() / BATCH  # sum over goals, mean over the whole batch
    assert gradient_term(networks, batch, args)[0] == pytest.approx(expected, rel=1e-6)


def test_target_gradient_goes_through_the_target_actor():
    """With a target actor that ignores the goal, the term is another one; finite differences tell the right one."""
    args = make_args(reengage)
    critic, target_critic, _, target_actor = make_networks(reengage, args)
    batch = make_batch(reengage, rewards=(-1.0,))
    with torch.no_grad():  # the direct way from the goal to the target critic is cut
        target_critic.net[0].weight[:, OBSERVATION + ACTION :] = 0
    target_gradient = differences(targets(target_critic, target_actor, batch, args), batch.goal.numpy())
    assert np.abs(target_gradient).max() > 0.05
    q_gradient = differences(q_values(critic, batch.observation, batch.action), batch.goal.numpy())
    expected = np.square(q_gradient - target_gradient).sum(axis=1).mean()
    term, _ = gradient_term([critic, target_critic, None, target_actor], batch, args)
    assert term == pytest.approx(expected, rel=1e-6)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    clip_target=st.booleans(),
    hidden_layers=st.integers(1, 3),
    gamma=st.sampled_from([0.5, 0.9, 0.98]),
)
def test_term_and_its_gradient_equal_the_chain_written_by_hand(seed, clip_target, hidden_layers, gamma):
    """∇_g Q = P W₁ᵀ D₁ W₂ᵀ D₂ … w of a ReLU network with masks D; the masks do not change with the weights."""
    args = make_args(reengage, clip_target=clip_target, hidden_layers=hidden_layers, gamma=gamma)
    critic, target_critic, _, target_actor = networks = make_networks(reengage, args, seed)
    batch = make_batch(reengage, seed)

    ones = np.ones((BATCH, 1))
    _, weights, masks, _ = forward(critic, batch.observation, batch.action, batch.goal)
    q_gradient = input_gradient(weights, masks, ones)[:, OBSERVATION + ACTION :]

    before_tanh, actor_weights, actor_masks, _ = forward(target_actor, batch.next_observation, batch.goal)
    next_action = np.tanh(before_tanh)
    _, *target_network, _ = forward(target_critic, batch.next_observation, next_action, batch.goal)
    by_input = input_gradient(*target_network, ones)
    by_action = by_input[:, OBSERVATION : OBSERVATION + ACTION]
    through_actor = input_gradient(actor_weights, actor_masks, by_action * (1 - next_action**2))[:, OBSERVATION:]
    scale = args.gamma * (1 - batch.terminated.numpy()[:, None])
    y = targets(target_critic, target_actor, batch, reengage.replace(args, clip_target=False))(batch.goal.numpy())
    inside = (y > -1 / (1 - args.gamma)) & (y < 0) if clip_target else np.ones(BATCH)
    target_gradient = scale * inside[:, None] * (by_input[:, OBSERVATION + ACTION :] + through_actor)

    counted = batch.reward.numpy()[:, None] == -1
    residual = (q_gradient - target_gradient) * counted
    term, gradients = gradient_term(networks, batch, args)
    assert term == pytest.approx(np.square(residual).sum() / BATCH, rel=1e-9)

    assert_term_gradient(gradients, weights, masks, ones, residual)


def test_no_transition_counted_means_no_term():
    args = make_args(reengage)
    networks = make_networks(reengage, args)
    term, gradients = gradient_term(networks, make_batch(reengage, rewards=(0.0,)), args)
    assert term == 0
    assert not any(gradient.any() for gradient in gradients)


def test_value_loss_is_the_baselines():
    args = make_args(reengage, alpha=ALPHA)
    critic, target_critic, _, target_actor = make_networks(reengage, args)
    batch = make_batch(reengage)
    baseline, _ = ddpg_her.critic_loss(critic, target_critic, target_actor, batch, make_args(ddpg_her))
    _, metrics = reengage.critic_loss(critic, target_critic, target_actor, batch, args)
    assert metrics["value_loss"].item() == baseline.item()
    plain, _ = reengage.critic_loss(critic, target_critic, target_actor, batch, reengage.replace(args, alpha=0.0))
    assert plain.item() == baseline.item()


@pytest.mark.parametrize("alpha", [0.0, ALPHA])
def test_autograd_follows_goal_and_target_for_the_term_alone(alpha):
    args, followed = make_args(reengage, alpha=alpha), []
    critic, target_critic, _, target_actor = make_networks(reengage, args)
    critic.register_forward_pre_hook(lambda network, inputs: followed.append(inputs[2].requires_grad))
    target_critic.register_forward_hook(lambda network, inputs, output: followed.append(output.requires_grad))
    reengage.critic_loss(critic, target_critic, target_actor, make_batch(reengage), args)
    assert followed == [alpha > 0] * 2


def test_goals_of_the_batch_are_left_alone():
    args = make_args(reengage, alpha=ALPHA)
    critic, target_critic, _, target_actor = make_networks(reengage, args)
    batch = make_batch(reengage)
    reengage.critic_loss(critic, target_critic, target_actor, batch, args)
    assert not batch.goal.requires_grad
    assert batch.goal.grad is None


# ------------------------------------------------------------------------------------------ normalisation; dense, Eq. 8


class Space(gym.Env):
    """Spaces of the sizes that make_networks uses, and rewards of both kinds; it is not played."""

    spec = gym.envs.registration.EnvSpec("Space-v0", max_episode_steps=1)

    def __init__(self, dense):
        self.dense = dense
        goal, observation = (gym.spaces.Box(-100, 100, (n,), np.float64) for n in (GOAL, OBSERVATION - GOAL))
        self.observation_space = gym.spaces.Dict(observation=observation, achieved_goal=goal, desired_goal=goal)
        self.action_space = gym.spaces.Box(-1, 1, (ACTION,))

    def compute_reward(self, achieved_goal, desired_goal, info):
        distance = np.linalg.norm(achieved_goal - desired_goal, axis=-1)
        return -distance if self.dense else (distance < 5) - 1.0


def replayed_batch(args, seed=0):
    """A batch as training makes it, in double precision, its achieved goals and its policy; half is relabelled."""
    env, rng = Space(args.dense), np.random.default_rng(seed)
    policy, buffer = reengage.Policy(env, args), reengage.HerReplayBuffer(env, args, rng)
    episodes = reengage.empty_episodes(200, env)
    for name, scale, shift in (("observation", 2, 1), ("achieved_goal", [0.3, 2, 5], -1), ("desired_goal", 2, 0)):
        episodes[name] = rng.normal(size=episodes[name].shape) * scale + shift
    episodes["action"] = np.tanh(rng.normal(size=episodes["action"].shape))
    episodes["reward"][:, 0] = env.compute_reward(episodes["achieved_goal"][:, 1], episodes["desired_goal"], {})
    episodes["terminated"], episodes["length"] = rng.random((200, 1)) < 0.2, 1
    buffer.add(episodes)
    policy.update_normalizers(episodes)
    batch = buffer.sample(args.batch_size, policy)
    row = (batch.action.numpy()[:, None] == episodes["action"][:, 0]).all(axis=-1).argmax(axis=1)
    batch = reengage.Batch(*(column.double() for column in batch))
    return batch, episodes["achieved_goal"][row, 1], policy


@pytest.mark.parametrize(
    ("dense", "clip_target"), [(False, False), (False, True), (True, False)], ids=["sparse", "clipped", "dense"]
)
@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "normalised"])
def test_gradient_is_by_the_goal_as_the_networks_see_it(dense, normalize, clip_target):
    """Also where hindsight has replaced the goal: its reward and the gradient of this are the new goal's."""
    flags = dict(dense=dense, normalize=normalize, clip_target=clip_target, batch_size=BATCH)
    args = make_args(reengage, **flags, her_k=1, her_strategy="random")
    critic, target_critic, _, target_actor = networks = make_networks(reengage, args)
    batch, achieved_goal, policy = replayed_batch(args)
    goal = batch.goal.numpy()
    assert not normalize or (np.abs(goal) < 5).all()
    mean, std = (policy.goal_norm.mean.numpy(), policy.goal_norm.std.numpy()) if normalize else (0, 1)
    assert not normalize or std.max() > 2 * std.min()

    def reward(goal):  # R = −‖achieved − goal‖₂, of the normalised goal
        return -np.linalg.norm(achieved_goal - (goal * std + mean), axis=1)

    assert reward(goal).max() < -0.1  # no goal is reached exactly, where a distance has no gradient
    np.testing.assert_allclose(batch.reward, reward(goal) if dense else (reward(goal) > -5) - 1.0, rtol=1e-5)
    assert batch.reward.min() < batch.reward.max()
    target = targets(target_critic, target_actor, batch, args, reward if dense else None)
    difference = differences(q_values(critic, batch.observation, batch.action), goal) - differences(target, goal)
    counted = np.ones(BATCH) if dense else batch.reward.numpy() == -1
    expected = (np.square(difference).sum(axis=1) * counted).mean()
    term, gradients = gradient_term(networks, batch, args)
    assert term == pytest.approx(expected, rel=1e-5)
    assert any(np.abs(gradient).max() > 0.01 for gradient in gradients)


def test_dense_counts_every_transition_and_survives_a_reached_goal():
    """At the goal itself the distance has no gradient; 0 is used, and nothing becomes infinite.

    In episodes of one step, the last achieved goal is the one that a step achieves itself.
    """
    flags = dict(dense=True, normalize=False, batch_size=BATCH, c_low=-1.0)
    args = make_args(reengage, **flags, her_k=1, her_strategy="final")
    networks = make_networks(reengage, args)
    batch, achieved_goal, _ = replayed_batch(args)
    reached = np.isclose(batch.goal, achieved_goal).all(axis=1)
    assert 5 < reached.sum() < BATCH - 5
    assert not batch.reward_gradient[reached].any()
    np.testing.assert_allclose(batch.reward_gradient[~reached].norm(dim=1), 1, rtol=1e-6)
    term, gradients = gradient_term(networks, batch, args)
    assert np.isfinite(term)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    alone = sum(
        gradient_term(networks, reengage.Batch(*(column[i : i + 1] for column in batch)), args)[0] for i in range(BATCH)
    )
    assert term == pytest.approx(alone / BATCH, rel=1e-9)


# ------------------------------------------------------------------------------------------------- beside the baseline

HAND = (  # the settings of HandReach-v2, in miniature
    "--env-id HandReach-v2 --num-envs 2 --utd-ratio 0.03 --total-timesteps 400 --eval-frequency 200"
)
AWKWARD = (
    '--env-id goal_envs:Poison-v0 --env-kwargs {"rarity":1000000000} --normalize --clip-target --action-l2 1 '
    "--learning-starts 30 --num-envs 3 --total-timesteps 300 --eval-frequency 100 --utd-ratio 0.7 --gamma 0.6"
)


@pytest.mark.parametrize("flags", [f"{SEEK['ddpg_her']} --total-timesteps 300 --learning-rate 1e-3", AWKWARD, HAND])
def test_alpha_0_is_the_baseline_to_the_last_bit(train, flags):
    baseline, plain, full = (
        train(script, name, flags, alpha)
        for script, name, alpha in (
            ("ddpg_her", "baseline", ""),
            ("ddpg_her_reengage", "plain", "--alpha 0"),
            ("ddpg_her_reengage", "full", "--alpha 0.05"),
        )
    )
    assert_same_runs(baseline, plain)
    assert checkpoint(baseline)["parts"]["critic_optimizer"]["state"][0]["step"] > 5
    with pytest.raises(AssertionError):
        assert_same(learned(baseline)["critic"], learned(full)["critic"])
