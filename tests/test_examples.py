"""The goal-gradient loss in Stable-Baselines3, as docs/your_own_code.md shows it."""

import copy
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import TESTS, assert_same
from ddpg import differences
from stable_baselines3 import DDPG, DQN, SAC, HerReplayBuffer

import envs  # noqa: F401

sys.path.append(str(TESTS.parent / "examples"))

from sb3_reengage import DDPGReenGAGE, DQNReenGAGE, SACReenGAGE, goal_gradient_loss

PAIRS = [(DDPGReenGAGE, DDPG), (SACReenGAGE, SAC), (DQNReenGAGE, DQN)]


def trained(algorithm, alpha, updates):
    """A small model after a few updates, always on the same transitions."""
    env_id = "BitFlip20-v0" if issubclass(algorithm, DQN) else "ContinuousSeek5-v0"
    env = gym.make(env_id, d=4, max_episode_steps=8)
    model = algorithm(
        "MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, learning_starts=10_000, seed=3, device="cpu",
        policy_kwargs=dict(net_arch=[16]),
    )  # fmt: skip
    model.learn(80)  # random actions
    model.alpha = alpha
    np.random.seed(0)  # noqa: NPY002 (what its buffer draws from)
    torch.manual_seed(0)
    model.train(updates, batch_size=32)
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
