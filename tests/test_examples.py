"""The goal-gradient loss in code that is there already, as docs/your_own_code.md shows it."""

import copy
import re
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import TESTS, assert_same
from ddpg import differences, make_args, make_batch, make_networks
from stable_baselines3 import DDPG, DQN, SAC, HerReplayBuffer

import ddpg_her_reengage
import envs  # noqa: F401

sys.path.append(str(TESTS.parent / "examples"))

from sb3_reengage import DDPGReenGAGE, DQNReenGAGE, SACReenGAGE, goal_gradient_loss


def test_the_six_lines_are_the_scripts_loss():
    page = (TESTS.parent / "docs" / "your_own_code.md").read_text()
    lines = re.search(r"```python\n(goal = .+?)```", page, re.DOTALL)[1]
    args = make_args(ddpg_her_reengage, alpha=0.7)
    critic, target_critic, _, target_actor = make_networks(ddpg_her_reengage, args)
    batch = make_batch(ddpg_her_reengage)

    def target(next_state, reward, goal):
        next_q = target_critic(next_state, target_actor(next_state, goal), goal)
        return reward + args.gamma * (1 - batch.terminated) * next_q

    given = dict(goal=batch.goal, state=batch.observation, action=batch.action, reward=batch.reward, alpha=0.7)
    given |= dict(next_state=batch.next_observation, q_network=critic, target=target, torch=torch)
    exec(lines, given | dict(F=torch.nn.functional), shown := {})
    loss, _ = ddpg_her_reengage.critic_loss(critic, target_critic, target_actor, batch, args)
    torch.testing.assert_close(shown["loss"], loss, rtol=1e-12, atol=0)


def test_the_pages_stable_baselines3_lines_train():
    page = (TESTS.parent / "docs" / "your_own_code.md").read_text()
    lines = re.search(r"```python\n(import gymnasium as gym.+?)```", page, re.DOTALL)[1]
    exec(lines.replace("10_000", "110"), shown := {})
    assert "train/gradient_loss" in shown["model"].logger.name_to_value


PAIRS = [(DDPGReenGAGE, DDPG), (SACReenGAGE, SAC), (DQNReenGAGE, DQN)]


def untrained(algorithm):
    """A small model with some episodes of random actions."""
    env_id = "BitFlip20-v0" if issubclass(algorithm, DQN) else "ContinuousSeek5-v0"
    env = gym.make(env_id, d=4, max_episode_steps=8)
    model = algorithm(
        "MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, learning_starts=10_000, seed=3, device="cpu",
        policy_kwargs=dict(net_arch=[16]),
    )  # fmt: skip
    model.learn(80)
    return model


def trained(algorithm, alpha, updates):
    """Networks and log after a few updates, always on the same transitions."""
    model = untrained(algorithm)
    model.alpha = alpha
    np.random.seed(0)  # noqa: NPY002 (what its buffer draws from)
    torch.manual_seed(0)
    model.train(updates, batch_size=32)
    assert model.policy.training
    return model.policy.state_dict(), model.logger.name_to_value


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_alpha_0_is_stable_baselines3s_own_algorithm(ours, theirs):
    (one, log), (other, their_log) = (trained(algorithm, 0.0, updates=1) for algorithm in (ours, theirs))
    assert log["train/value_loss"] == pytest.approx(their_log["train/loss" if theirs is DQN else "train/critic_loss"])
    followers = [name for name in one if "target" in name and theirs is DQN]  # they follow in its loop
    for name in one.keys() - followers:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_the_term_changes_the_critic_and_stays_finite(ours, theirs):
    (plain, _), (full, log) = (trained(ours, alpha, updates=20) for alpha in (0.0, 1.0))
    assert log["train/gradient_loss"] > 0
    assert all(torch.isfinite(value).all() for value in full.values())
    with pytest.raises(AssertionError):
        assert_same(plain, full)


@pytest.mark.parametrize("algorithm", [ours for ours, _ in PAIRS])
def test_the_gradients_are_by_every_goal_that_the_networks_see(algorithm):
    """The target's gradient goes through its policy, too, in DQN through the softmax; SAC's noise is what was drawn."""
    model = untrained(algorithm)
    np.random.seed(0)  # noqa: NPY002
    data = model.replay_buffer.sample(32)
    torch.manual_seed(0)
    if algorithm is SACReenGAGE:
        model.actor.action_log_prob(data.observations)  # the noise of the actor's loss is drawn first
    noise = torch.get_rng_state()

    def target(goal):
        torch.set_rng_state(noise)
        seen = data.next_observations | dict(desired_goal=goal)
        if algorithm is DQNReenGAGE:
            next_q = model.q_net_target(seen)
            value = (torch.softmax(next_q / model.temperature, 1) * next_q).sum(1)
        elif algorithm is SACReenGAGE:
            action, log_prob = model.actor.action_log_prob(seen)
            value = torch.minimum(*model.critic_target(seen, action))[:, 0] - model.log_ent_coef.exp() * log_prob
        else:
            value = model.critic_target(seen, model.actor_target(seen))[0][:, 0]
        return (1 - data.dones[:, 0]) * model.gamma * value

    def values(goal):
        seen = data.observations | dict(desired_goal=goal)
        if algorithm is DQNReenGAGE:
            return [model.q_net(seen).gather(1, data.actions.long())[:, 0]]
        return [q[:, 0] for q in model.critic(seen, data.actions)]

    goal = data.observations["desired_goal"].requires_grad_()
    (target_gradient,) = torch.autograd.grad(target(goal).sum(), goal)
    expected, weight = 0.0, 0.5 if algorithm is SACReenGAGE else 1.0
    for q in values(goal):
        (q_gradient,) = torch.autograd.grad(q.sum(), goal, retain_graph=True)
        square = (q_gradient - target_gradient).square().sum(1)
        expected += weight * (square * (data.rewards[:, 0] == -1)).mean().item()
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    model.train(1, batch_size=32)
    assert model.logger.name_to_value["train/gradient_loss"] == pytest.approx(expected, rel=1e-4)


def test_the_term_equals_finite_differences():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
    target = copy.deepcopy(network)
    torch.nn.init.normal_(target[0].weight)
    goal, rewards = torch.randn(10, 3, dtype=torch.float64), -(torch.arange(10) % 2).reshape(-1, 1).double()

    def gradient(net):
        return differences(lambda g: net(torch.from_numpy(g)).detach().numpy()[:, 0], goal.numpy())

    expected = (np.square(gradient(network) - gradient(target)).sum(1) * (rewards[:, 0] == -1).numpy()).mean()
    goal.requires_grad_()
    (target_gradient,) = torch.autograd.grad(target(goal).sum(), goal)
    term = goal_gradient_loss(network(goal), target_gradient, goal, rewards)
    assert term.item() == pytest.approx(expected, rel=1e-6)
    assert expected > 0.01
