"""DDPG with hindsight experience replay (HER) and the goal-gradient loss of ReenGAGE.

A goal-conditioned critic should match its target for all goals, so besides the value its gradient with respect to
the goal g is matched (Levine and Feizi, "Goal-Conditioned Q-learning as Knowledge Distillation", AAAI 2023). With the
target y(g) = R(s', g) + γ Q_θ'(s', π_φ'(s', g), g), the critic minimises the mean over the batch of

    (Q_θ(s, a, g) − y(g))²  +  α · 1[R(s', g) = c_low] · ‖∇_g Q_θ(s, a, g) − ∇_g y(g)‖²                       (Eq. 9)

and the actor −Q_θ(s, π_φ(s, g), g) (Eq. 5). For dense rewards (--dense) the indicator is dropped and ∇_g y includes
∇_g R (Eq. 8). `critic_loss` is the method; everything else is ddpg_her.py, and --alpha 0 is ddpg_her.py.

    python ddpg_her_reengage.py --env-id HandReach-v2 --alpha 0.01
"""

import argparse
import contextlib
import copy
import csv
import difflib
import itertools
import json
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal, NamedTuple

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

import envs  # noqa: F401  the paper's environments; remove this line where the file is copied alone

with contextlib.suppress(ImportError):  # Fetch, Shadow hand and maze environments, where installed
    import gymnasium_robotics  # noqa: F401


@dataclass
class Args:
    env_id: str = "HandReach-v2"
    """any multi-goal Gymnasium environment with Box actions; `module:Id-v0` imports the module first"""
    env_kwargs: str = "{}"
    """keywords of the environment as JSON, such as '{"max_episode_steps": 20}'"""
    alpha: float = 0.01
    """weight α of the goal-gradient loss, summed over goal dimensions; 0 is plain DDPG+HER"""
    c_low: float = -1.0
    """reward of a goal that is not reached: only these transitions count in the goal-gradient loss"""
    dense: bool = False
    """the reward is −‖achieved − goal‖₂: use its gradient, and count all transitions (Eq. 8)"""
    seed: int = 1
    """seed of everything random"""
    total_timesteps: int = 200_000
    """environment steps of the whole run, over all environments"""
    num_envs: int = 1
    """environments that step together"""
    hidden_layers: int = 3
    """hidden layers of actor and critic"""
    hidden_size: int = 256
    """units per hidden layer"""
    xavier: bool = False
    """Xavier-uniform weights and zero biases instead of PyTorch's initialisation"""
    observe_achieved_goal: bool = False
    """show the networks the achieved goal beside the observation, as Stable-Baselines3 does"""
    learning_rate: float = 1e-3
    """Adam's learning rate, actor and critic"""
    learning_rate_drop: float = math.inf
    """environment steps after which the learning rate is a third; inf: never"""
    batch_size: int = 256
    """transitions per update"""
    buffer_size: int = 1_000_000
    """transitions in the replay buffer"""
    gamma: float = 0.98
    """discount factor γ"""
    tau: float = 0.005
    """fraction τ by which a target update moves the target networks"""
    train_frequency: int = 1
    """environment steps between training phases"""
    gradient_steps: int = 1
    """updates in a training phase"""
    target_network_frequency: int = 1
    """updates between target updates"""
    learning_starts: int = 1_000
    """environment steps with uniformly random actions before training"""
    exploration_noise: float = 0.2
    """standard deviation of the noise on actions, which are in [−1, 1]"""
    random_action_probability: float = 0.3
    """probability of a uniformly random action"""
    her_strategy: Literal["future", "final", "episode", "random"] = "future"
    """where hindsight goals come from: a later step, the last or any step of the episode, or any episode"""
    her_k: int = 4
    """hindsight goals per original goal: k/(k + 1) of a batch is relabelled; 0 is plain DDPG"""
    normalize: bool = True
    """normalise observations and goals by their running mean and standard deviation"""
    action_l2: float = 0.0
    """weight of the mean squared action in the actor's loss"""
    clip_target: bool = False
    """clip the critic's target to [−1/(1 − γ), 0], the range of returns of {−1, 0} rewards"""
    eval_frequency: int = 5_000
    """environment steps between evaluations"""
    eval_episodes: int = 50
    """episodes per evaluation"""
    checkpoint_frequency: int = 100_000
    """environment steps between checkpoints"""
    torch_threads: int = 0
    """threads of PyTorch on the CPU; 0 is PyTorch's own choice"""
    cuda: bool = True
    """use CUDA where it is present"""
    run_name: str = ""
    """name of the folder under runs/; default: environment, script, seed and time"""
    resume: str = ""
    """folder of a run (runs/<run_name>) to continue to --total-timesteps"""
    evaluate: str = ""
    """folder of a run (runs/<run_name>) to evaluate instead of training"""
    capture_video: bool = False
    """write a GIF of a few episodes after the last evaluation"""


CONTINUOUS_SEEK = dict(
    hidden_layers=2, observe_achieved_goal=True, normalize=False, gamma=0.95,
    exploration_noise=0.03, random_action_probability=0.0, eval_frequency=2_000, eval_episodes=50,
)  # fmt: skip
PAPER_SETTINGS = {
    "ContinuousSeek5-v0": CONTINUOUS_SEEK | dict(batch_size=512, learning_rate=1e-3, total_timesteps=12_000),
    "ContinuousSeek10-v0": CONTINUOUS_SEEK | dict(batch_size=256, learning_rate=5e-4, total_timesteps=50_000),
    "ContinuousSeek20-v0": CONTINUOUS_SEEK | dict(batch_size=256, learning_rate=5e-4, total_timesteps=400_000),
    # Plappert et al. (2018): num_envs=38, batch_size=4864, train_frequency=1900 and one target update a phase.
    "HandReach-v2": dict(
        xavier=True, num_envs=16, batch_size=512, learning_rate_drop=300_000, train_frequency=800,
        gradient_steps=40, target_network_frequency=10, tau=0.05, learning_starts=0, action_l2=1.0,
        clip_target=True, total_timesteps=800_000, eval_frequency=20_000, eval_episodes=100,
    ),
}  # fmt: skip
PAPER_SETTINGS["ContinuousSeek-v0"] = PAPER_SETTINGS["ContinuousSeek20-v0"]
REENGAGE_SETTINGS = {  # instead of the baseline's where alpha is not 0; α is 0.2/d
    "ContinuousSeek-v0": dict(alpha=0.01, batch_size=128, learning_rate=5e-4),
    "ContinuousSeek5-v0": dict(alpha=0.04, batch_size=512, learning_rate=1.5e-3),
    "ContinuousSeek10-v0": dict(alpha=0.02, batch_size=512, learning_rate=1e-3),
    "ContinuousSeek20-v0": dict(alpha=0.01, batch_size=128, learning_rate=5e-4),
}

COLUMNS = ("global_step", "success_rate", "episodic_return", "wall_seconds")  # of evaluations.csv
VIDEO_EPISODES = 4
LOG_FREQUENCY = 1_000  # environment steps between TensorBoard entries, at least
CHANGEABLE_LATER = {
    "total_timesteps", "eval_episodes", "checkpoint_frequency", "torch_threads", "cuda", "resume", "evaluate",
    "capture_video",
}  # fmt: skip
TRAINING, EVALUATION = 0, 1  # which of a run's two streams of episodes a seed belongs to


class InputError(ValueError):
    """What the user asked for cannot be done; the message says what is wrong and what to do."""


# --------------------------------------------------------------------------------------------------------- networks


def mlp(inputs: int, outputs: int, args: Args) -> nn.Sequential:
    """A ReLU network with args.hidden_layers layers of args.hidden_size units."""
    sizes = [inputs, *[args.hidden_size] * args.hidden_layers, outputs]
    layers = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        linear = nn.Linear(fan_in, fan_out)
        if args.xavier:  # Plappert et al. (2018)
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


class Actor(nn.Module):
    """Deterministic policy π(s, g): actions in [−1, 1], (batch, action_dim)."""

    def __init__(self, observation_dim: int, goal_dim: int, action_dim: int, args: Args):
        super().__init__()
        self.net = mlp(observation_dim + goal_dim, action_dim, args)

    def forward(self, observation: Tensor, goal: Tensor) -> Tensor:
        return torch.tanh(self.net(torch.cat([observation, goal], dim=-1)))


class Critic(nn.Module):
    """Action value Q(s, a, g), (batch,)."""

    def __init__(self, observation_dim: int, goal_dim: int, action_dim: int, args: Args):
        super().__init__()
        self.net = mlp(observation_dim + action_dim + goal_dim, 1, args)

    def forward(self, observation: Tensor, action: Tensor, goal: Tensor) -> Tensor:
        return self.net(torch.cat([observation, action, goal], dim=-1)).squeeze(-1)


# ----------------------------------------------------------------------------------------------------- replay buffer


class Normalizer(nn.Module):
    """Subtracts the running mean, divides by the running standard deviation (at least 0.01) and clips to ±5."""

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(2, dim, dtype=torch.float64))  # of x and of x²
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def update(self, x: np.ndarray) -> None:
        """Counts the rows of x, (n, dim)."""
        x = x.astype(np.float64)
        self.count += len(x)
        self.sums += torch.as_tensor(np.stack([x.sum(0), np.square(x).sum(0)]), device=self.sums.device)
        mean, mean_square = self.sums / self.count
        self.mean.copy_(mean)
        self.std.copy_((mean_square - mean.square()).clamp(min=0.01**2).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) / self.std).clamp(-5, 5)


class Batch(NamedTuple):
    """Relabelled transitions as the networks see them, (batch, ...); goals and observations are normalised."""

    observation: Tensor
    action: Tensor
    reward: Tensor
    next_observation: Tensor
    terminated: Tensor
    goal: Tensor
    reward_gradient: Tensor | None = None  # ∇_g R, only with --dense


class HerReplayBuffer:
    """Whole episodes in a ring of slots, relabelled when sampled (Andrychowicz et al. 2017).

    Goals keep the environment's shape and dtype, because rewards are recomputed with its own
    `compute_reward(achieved_goal, desired_goal, info)`, for many transitions at once and with an empty info.
    """

    def __init__(self, env: gym.Env, args: Args, rng: np.random.Generator):
        limit = env.spec.max_episode_steps
        slots = args.buffer_size // limit
        achieved, desired = env.observation_space["achieved_goal"], env.observation_space["desired_goal"]
        self.observation = np.empty((slots, limit + 1, dimensions(env, args)[0]), np.float32)
        self.achieved_goal = np.empty((slots, limit + 1, *achieved.shape), achieved.dtype)
        self.desired_goal = np.empty((slots, limit + 1, *desired.shape), desired.dtype)
        self.action = np.empty((slots, limit, gym.spaces.flatdim(env.action_space)), np.float32)
        self.reward = np.empty((slots, limit), np.float32)
        self.terminated = np.empty((slots, limit), np.bool_)
        self.length = np.zeros(slots, np.int64)  # steps of a finished episode; 0: empty or being recorded
        self.slot = np.full(args.num_envs, -1)  # where each environment's episode is being recorded
        self.step = np.zeros(args.num_envs, np.int64)  # steps recorded so far
        self.next_slot = 0
        self._count()
        self.compute_reward = env.unwrapped.compute_reward
        self.args, self.rng = args, rng

    def begin(self, starting: np.ndarray, observation: dict[str, np.ndarray]) -> None:
        """Starts an episode in each environment where the mask is set, (num_envs,)."""
        for i in np.flatnonzero(starting):
            while self.next_slot in self.slot:  # a long episode of another environment is still recorded there
                self.next_slot = (self.next_slot + 1) % len(self.length)
            self.slot[i], self.step[i] = self.next_slot, 0
            self.length[self.next_slot] = 0
            self.next_slot = (self.next_slot + 1) % len(self.length)
        self._count()
        self._record(observation, starting)

    def add(self, action: np.ndarray, reward: np.ndarray, terminated: np.ndarray, next_observation: dict) -> None:
        """Records a step of every environment; terminated is a real end of the task, not a time limit."""
        self.action[self.slot, self.step] = action
        self.reward[self.slot, self.step] = reward
        self.terminated[self.slot, self.step] = terminated
        self.step += 1
        self._record(next_observation, np.ones(len(self.slot), np.bool_))

    def _record(self, observation: dict[str, np.ndarray], mask: np.ndarray) -> None:
        slot, step = self.slot[mask], self.step[mask]
        self.observation[slot, step] = network_input(observation, self.args)[mask]
        self.achieved_goal[slot, step] = observation["achieved_goal"][mask]
        self.desired_goal[slot, step] = observation["desired_goal"][mask]

    def end(self, done: np.ndarray) -> None:
        """Releases the finished episodes for sampling."""
        self.length[self.slot[done]] = self.step[done]
        self._count()

    def _count(self) -> None:
        self.transitions_until = np.cumsum(self.length)  # in the finished episodes up to and with each slot

    def __len__(self) -> int:
        return int(self.transitions_until[-1])

    def sample(self, n: int) -> dict[str, np.ndarray]:
        """Draws n transitions uniformly from the finished episodes and relabels k/(k + 1) of them."""
        slot, step = self._draw(n)
        next_achieved_goal = self.achieved_goal[slot, step + 1]
        goal, reward = self.desired_goal[slot, step], self.reward[slot, step]
        relabelled = self.rng.random(n) < self.args.her_k / (self.args.her_k + 1)
        if relabelled.any():
            goal[relabelled] = self._hindsight_goals(slot[relabelled], step[relabelled])
            reward[relabelled] = self.compute_reward(next_achieved_goal[relabelled], goal[relabelled], {})
        return dict(
            observation=self.observation[slot, step],
            action=self.action[slot, step],
            reward=reward,
            next_observation=self.observation[slot, step + 1],
            terminated=self.terminated[slot, step].astype(np.float32),
            goal=goal.reshape(n, -1).astype(np.float32),
            next_achieved_goal=next_achieved_goal.reshape(n, -1).astype(np.float32),
        )

    def _draw(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        transition = self.rng.integers(len(self), size=n)
        slot = np.searchsorted(self.transitions_until, transition, side="right")
        return slot, transition - self.transitions_until[slot] + self.length[slot]

    def _hindsight_goals(self, slot: np.ndarray, step: np.ndarray) -> np.ndarray:
        length = self.length[slot]
        if self.args.her_strategy == "future":
            step = self.rng.integers(step + 1, length + 1)
        elif self.args.her_strategy == "final":
            step = length
        elif self.args.her_strategy == "episode":
            step = self.rng.integers(1, length + 1)
        else:  # random: of any episode
            slot, step = self._draw(len(slot))
            step = step + 1
        return self.achieved_goal[slot, step]

    ARRAYS = ("observation", "achieved_goal", "desired_goal", "action", "reward", "terminated", "length")

    def replay(self, vector_env: VectorEnv, seeds: list[int], to_environment: Callable) -> dict[str, np.ndarray]:
        """Brings fresh environments to where their recorded episodes are, by the seeds and the recorded actions."""
        longest = int(self.step.max())
        for t in range(longest + 1):
            position = self.step - longest + t  # in each environment's episode; those that have not begun wait at 0
            if (position <= 0).any():
                options = dict(reset_mask=position <= 0) if t else None
                observation, _ = vector_env.reset(seed=seeds, options=options)
            if t < longest:
                action = np.where(position[:, None] < 0, 0, self.action[self.slot, position])
                observation, *_ = vector_env.step(to_environment(action))
        return observation

    def state_dict(self) -> dict:
        """What a checkpoint keeps: the slots in use, the episodes being recorded included."""
        used = 1 + max(self.slot.max(), np.flatnonzero(self.length).max(initial=0))
        arrays = {name: torch.from_numpy(getattr(self, name)[:used]) for name in self.ARRAYS}
        return arrays | dict(slot=self.slot.tolist(), step=self.step.tolist(), next_slot=self.next_slot)

    def load_state_dict(self, state: dict) -> None:
        for name in self.ARRAYS:
            getattr(self, name)[: len(state[name])] = state[name].numpy()
        self.slot[:], self.step[:], self.next_slot = state["slot"], state["step"], state["next_slot"]
        self._count()


# ------------------------------------------------------------------------------------------------------------ losses


def critic_loss(
    critic: Critic, target_critic: Critic, target_actor: Actor, batch: Batch, args: Args
) -> tuple[Tensor, dict[str, Tensor]]:
    """The critic's loss (Eq. 9; Eq. 8 with args.dense), and its parts for the log. No gradient reaches the target."""
    goal = batch.goal.detach().requires_grad_(args.alpha > 0)
    with torch.set_grad_enabled(args.alpha > 0):
        next_q = target_critic(batch.next_observation, target_actor(batch.next_observation, goal), goal)
        target = batch.reward + args.gamma * (1 - batch.terminated) * next_q
        if args.dense:  # R(s', g) to first order in g: a term whose value is 0 and whose gradient is ∇_g R
            target = target + (batch.reward_gradient * (goal - goal.detach())).sum(-1)
        if args.clip_target:
            target = target.clamp(-1 / (1 - args.gamma), 0)
    q = critic(batch.observation, batch.action, goal)
    loss = F.mse_loss(q, target.detach())  # Eq. 4
    metrics = dict(value_loss=loss, q=q.mean())
    if args.alpha > 0:
        (target_gradient,) = torch.autograd.grad(target.sum(), goal)  # through the target actor as well
        (q_gradient,) = torch.autograd.grad(q.sum(), goal, create_graph=True)  # (batch, goal_dim)
        counted = args.dense or batch.reward == args.c_low  # where ∇_g R is known
        gradient_loss = ((q_gradient - target_gradient).square().sum(-1) * counted).mean()
        loss = loss + args.alpha * gradient_loss
        metrics["gradient_loss"] = gradient_loss
    return loss, metrics


def actor_loss(actor: Actor, critic: Critic, batch: Batch, args: Args) -> Tensor:
    """The actor's loss (Eq. 5), with the penalty on large actions of Plappert et al. (2018)."""
    action = actor(batch.observation, batch.goal)
    return -critic(batch.observation, action, batch.goal).mean() + args.action_l2 * action.square().mean()


# ---------------------------------------------------------------------------------------- environments and evaluation


def make_env(args: Args, **kwargs) -> gym.Env:
    """One environment, checked: multi-goal, Box actions, a time limit, a vectorised reward.

    Raises:
        InputError: the environment is unknown, cannot be made, or is not of that kind.
    """
    try:
        env_kwargs = json.loads(args.env_kwargs)
        if not isinstance(env_kwargs, dict):
            raise ValueError("not an object")
        if "render_mode" in env_kwargs:
            raise ValueError("render_mode is set by --capture-video")
    except ValueError as error:
        raise InputError(
            f"--env-kwargs is not a JSON object like '{{\"max_episode_steps\": 20}}': {args.env_kwargs} ({error})"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env = gym.make(args.env_id, **env_kwargs, **kwargs)
    except (gym.error.UnregisteredEnv, ModuleNotFoundError, gym.error.Error) as error:
        if args.env_id in gym.registry:
            raise InputError(f"{args.env_id} cannot be made: {error}") from None
        close = ", ".join(difflib.get_close_matches(args.env_id, gym.registry, cutoff=0.5)) or "none"
        raise InputError(f"unknown environment {args.env_id}; the closest known: {close}") from None
    except (TypeError, ValueError, AssertionError) as error:
        raise InputError(f"{args.env_id} cannot be made with --env-kwargs {args.env_kwargs}: {error}") from None
    space, action_space = env.observation_space, env.action_space
    parts = ("observation", "achieved_goal", "desired_goal")
    if not (isinstance(space, gym.spaces.Dict) and all(isinstance(space.get(p), gym.spaces.Box) for p in parts)):
        raise InputError(f"{args.env_id} is not multi-goal: observations must be a Dict of Boxes {', '.join(parts)}")
    if space["achieved_goal"].shape != space["desired_goal"].shape:
        raise InputError(f"{args.env_id} has desired goals of another shape than achieved ones")
    if isinstance(action_space, gym.spaces.Discrete):
        raise InputError(f"{args.env_id} has discrete actions: use dqn_her_reengage.py")
    if not (isinstance(action_space, gym.spaces.Box) and action_space.is_bounded()):
        raise InputError(f"{args.env_id} needs a bounded Box of actions, not {action_space}")
    if args.capture_video and "rgb_array" not in env.metadata.get("render_modes", ()):
        raise InputError(f"{args.env_id} cannot render rgb_array pictures for --capture-video")
    if env.spec.max_episode_steps is None:
        raise InputError(f"{args.env_id} has no time limit: pass --env-kwargs '{{\"max_episode_steps\": 100}}'")
    check_rewards(env, args)
    return env


def check_rewards(env: gym.Env, args: Args) -> None:
    """Asks compute_reward for several starts against each other's goals.

    Raises:
        InputError: it does not broadcast, or its values do not fit the settings.
    """
    starts = [env.reset(seed=seed)[0] for seed in range(8)]
    achieved_goal = np.stack([start["achieved_goal"] for start in starts for _ in starts])
    desired_goal = np.stack([start["desired_goal"] for _ in starts for start in starts])
    try:
        reward = np.asarray(env.unwrapped.compute_reward(achieved_goal, desired_goal, {}))
    except Exception as error:
        raise InputError(f"{args.env_id}: compute_reward fails on a batch: {type(error).__name__}: {error}") from None
    if reward.shape != (len(achieved_goal),):
        raise InputError(f"{args.env_id}: compute_reward gives shape {reward.shape} for {len(achieved_goal)} goals")
    if args.alpha > 0 and not args.dense and args.c_low not in reward:
        raise InputError(f"{args.env_id}: no reward equals --c-low {args.c_low:g}; the first one is {reward[0]:g}")
    distance = np.linalg.norm((achieved_goal.astype(np.float64) - desired_goal).reshape(len(reward), -1), axis=1)
    if args.dense and not np.allclose(reward, -distance, atol=1e-5):
        raise InputError(f"{args.env_id}: --dense needs rewards −‖achieved − goal‖₂, which these are not")


def make_vector_env(env: gym.Env, num_envs: int) -> VectorEnv:
    """num_envs copies of env that step together; a finished one waits for an explicit reset."""
    mode = dict(autoreset_mode=AutoresetMode.DISABLED)
    if env.spec.vector_entry_point is not None:
        return gym.make_vec(env.spec, num_envs, **mode)
    return gym.make_vec(env.spec, num_envs, vector_kwargs=mode)


def evaluation_envs(env: gym.Env, args: Args) -> int:
    """All episodes at once where the environment steps as a batch, else a few at a time."""
    return args.eval_episodes if env.spec.vector_entry_point is not None else min(args.eval_episodes, 8)


def episode_seeds(seed: int, stream: int, episodes: np.ndarray) -> list[int]:
    """Seeds of the given episodes of a run: an episode is determined by its number and its actions."""
    return [int(np.random.SeedSequence((seed, stream, episode)).generate_state(1)[0]) for episode in episodes]


class Policy:
    """The actor between raw observations and actions in [−1, 1], and these and the environment's actions."""

    def __init__(self, env: gym.Env, args: Args):
        self.device = torch.device("cuda" if args.cuda and torch.cuda.is_available() else "cpu")
        self.args, self.space, dims = args, env.action_space, dimensions(env, args)
        self.actor = Actor(*dims, args).to(self.device)
        self.observation_norm, self.goal_norm = (
            Normalizer(dim).to(self.device) if args.normalize else nn.Identity() for dim in dims[:2]
        )

    @torch.no_grad()
    def __call__(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """Deterministic actions, (num_envs, action_dim)."""
        state = torch.as_tensor(network_input(observation, self.args), device=self.device)
        goal = torch.as_tensor(flatten(observation["desired_goal"]), device=self.device)
        return self.actor(self.observation_norm(state), self.goal_norm(goal)).cpu().numpy()

    def to_environment(self, action: np.ndarray) -> np.ndarray:
        """Scales actions from [−1, 1] to the environment's range and shape."""
        low, high = self.space.low, self.space.high
        action = low + (action.reshape(-1, *self.space.shape) + 1) / 2 * (high - low)
        return np.clip(action, low, high).astype(self.space.dtype)


def dimensions(env: gym.Env, args: Args) -> tuple[int, int, int]:
    """Numbers that the networks see of an observation, and in a goal and an action."""
    space = env.observation_space
    parts = (space["observation"], space["achieved_goal"], space["desired_goal"], env.action_space)
    observation, achieved_goal, goal, action = (gym.spaces.flatdim(part) for part in parts)
    return observation + achieved_goal if args.observe_achieved_goal else observation, goal, action


def network_input(observation: dict[str, np.ndarray], args: Args) -> np.ndarray:
    """What the networks see of observations, (num_envs, dim)."""
    x = flatten(observation["observation"])
    return np.concatenate([x, flatten(observation["achieved_goal"])], axis=1) if args.observe_achieved_goal else x


def flatten(x: np.ndarray) -> np.ndarray:
    """One float32 row per environment, (num_envs, dim)."""
    return x.reshape(len(x), -1).astype(np.float32)


def evaluate(policy: Policy, vector_env: VectorEnv, episodes: int, seed: int) -> tuple[float, float]:
    """Success rate (`is_success` at an episode's last step) and mean return of deterministic episodes."""
    success, episodic_return, unknown = np.zeros(episodes), np.zeros(episodes), np.full(vector_env.num_envs, np.nan)
    episode, total = np.arange(vector_env.num_envs), np.zeros(vector_env.num_envs)
    observation, _ = vector_env.reset(seed=episode_seeds(seed, EVALUATION, episode))
    while (episode < episodes).any():
        action = policy.to_environment(policy(observation))
        observation, reward, terminated, truncated, infos = vector_env.step(action)
        total += reward
        done = terminated | truncated
        if done.any():
            for i in np.flatnonzero(done & (episode < episodes)):
                success[episode[i]] = infos.get("is_success", infos.get("success", unknown))[i]
                episodic_return[episode[i]] = total[i]
            total[done] = 0
            episode[done] = episode.max() + 1 + np.arange(done.sum())
            seeds = episode_seeds(seed, EVALUATION, episode)
            observation, _ = vector_env.reset(seed=seeds, options=dict(reset_mask=done))
    return float(success.mean()), float(episodic_return.mean())


def capture_video(policy: Policy, args: Args, path: Path) -> None:
    """Writes a GIF of a few evaluation episodes."""
    import imageio

    env, frames = make_env(args, render_mode="rgb_array"), []
    for seed in episode_seeds(args.seed, EVALUATION, np.arange(VIDEO_EPISODES)):
        observation, done = env.reset(seed=seed)[0], False
        frames.append(env.render())
        while not done:
            action = policy.to_environment(policy({k: v[None] for k, v in observation.items()}))[0]
            observation, _, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
            frames.append(env.render())
    env.close()
    imageio.mimsave(path, frames, duration=1000 / env.metadata.get("render_fps", 25), loop=0)


# ------------------------------------------------------------------------------------------------------- checkpoints


def save_checkpoint(run_dir: Path, args: Args, parts: dict, progress: dict) -> None:
    """Replaces the checkpoint in one step, so that an interruption leaves the old one or the new one."""
    temporary = run_dir / "checkpoint.tmp"
    states = {name: part.state_dict() for name, part in parts.items()}
    saved_args = asdict(replace(args, resume="", evaluate=""))
    torch.save(dict(script=Path(__file__).stem, args=saved_args, progress=progress, parts=states), temporary)
    os.replace(temporary, run_dir / "checkpoint.pt")


def load_checkpoint(folder: str) -> dict:
    """Reads the checkpoint of a run. Nothing in it is executed.

    Raises:
        InputError: there is none, it is damaged, or another script wrote it.
    """
    path = Path(folder) / "checkpoint.pt"
    if not path.is_file():
        raise InputError(f"no checkpoint at {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        script = checkpoint["script"]
        if script == Path(__file__).stem:
            Args(**checkpoint["args"])
    except Exception as error:
        raise InputError(f"{path} is damaged or no checkpoint of this script ({type(error).__name__})") from None
    if script != Path(__file__).stem:
        raise InputError(f"{path} was written by {script}.py: continue it with that script")
    return checkpoint


def restore(checkpoint: dict, parts: dict, args: Args) -> None:
    """Loads the states of parts, and PyTorch's random numbers.

    Raises:
        InputError: they do not fit the environment.
    """
    try:
        for name, part in parts.items():
            part.load_state_dict(checkpoint["parts"][name])
    except (RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"the checkpoint does not fit {args.env_id}: {str(error).splitlines()[0]}") from None
    torch.set_rng_state(checkpoint["progress"]["torch_rng"])


def write_evaluations(run_dir: Path, evaluations: list[dict[str, float]]) -> None:
    """Writes evaluations.csv, one row per evaluation."""
    with open(run_dir / "evaluations.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(evaluations)


@contextlib.contextmanager
def signals_caught() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying from them."""
    caught: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, lambda number, frame: caught.append(number)) for number in numbers]
    try:
        yield caught
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


# ---------------------------------------------------------------------------------------------------------- training


def explore(action: np.ndarray, noise: float, random_probability: float, rng: np.random.Generator) -> np.ndarray:
    """Adds Gaussian noise to the actions and replaces some by uniformly random ones, (num_envs, action_dim)."""
    noisy = np.clip(action + noise * rng.standard_normal(action.shape), -1, 1)
    random = rng.random((len(action), 1)) < random_probability
    return np.where(random, rng.uniform(-1, 1, action.shape), noisy).astype(np.float32)


def make_batches(sample: dict[str, np.ndarray], policy: Policy, args: Args) -> list[Batch]:
    """Moves sampled transitions to the device, normalises them and cuts them into batches."""
    x = {name: torch.as_tensor(column, device=policy.device) for name, column in sample.items()}
    everything = Batch(
        observation=policy.observation_norm(x["observation"]),
        action=x["action"],
        reward=x["reward"],
        next_observation=policy.observation_norm(x["next_observation"]),
        terminated=x["terminated"],
        goal=policy.goal_norm(x["goal"]),
    )
    if args.dense:  # ∇_g −‖achieved − g‖₂, times dg/d(normalised g)
        gradient = F.normalize(x["next_achieved_goal"] - x["goal"], dim=-1)
        everything = everything._replace(reward_gradient=gradient * getattr(policy.goal_norm, "std", 1.0))
    columns = [column.split(args.batch_size) for column in everything if column is not None]
    return [Batch(*batch) for batch in zip(*columns, strict=True)]


def set_learning_rate(learning_rate: float, *optimizers: torch.optim.Optimizer) -> None:
    """Changes the learning rate of all optimizers."""
    for group in itertools.chain(*(optimizer.param_groups for optimizer in optimizers)):
        group["lr"] = learning_rate


def optimize(optimizer: torch.optim.Optimizer, loss: Tensor, network: nn.Module) -> None:
    """One step on the parameters of network; no gradient is computed for any other."""
    optimizer.zero_grad()
    loss.backward(inputs=list(network.parameters()))
    optimizer.step()


@torch.no_grad()
def update_target(target: nn.Module, network: nn.Module, tau: float) -> None:
    """Moves the target's parameters by the fraction τ towards the network's."""
    for target_parameter, parameter in zip(target.parameters(), network.parameters(), strict=True):
        target_parameter.lerp_(parameter, tau)


def check_finite(global_step: int, *values: Tensor | np.ndarray) -> None:
    """Raises FloatingPointError where an observation, a loss or a parameter is not finite."""
    if not all(torch.isfinite(torch.as_tensor(value)).all() for value in values):
        raise FloatingPointError(f"stopped: an observation, a loss or a weight is not finite at step {global_step}")


def train(args: Args) -> list[dict[str, float]]:
    """Trains and returns the evaluations: global_step, success_rate, episodic_return, wall_seconds.

    Raises:
        InputError: the settings or the environment do not fit; nothing has been written then.
        FloatingPointError: a loss is not finite; the last good checkpoint is kept.
        SystemExit: SIGINT or SIGTERM came; the run has been saved.
    """
    check_numbers(args)
    env = make_env(args)
    if args.buffer_size < 2 * args.num_envs * env.spec.max_episode_steps:
        raise InputError(f"--buffer-size must hold 2 episodes of {env.spec.max_episode_steps} steps per environment")
    checkpoint = load_checkpoint(args.resume) if args.resume else None
    if checkpoint and checkpoint["progress"]["global_step"] >= args.total_timesteps:
        step = checkpoint["progress"]["global_step"]
        raise InputError(f"{args.resume} is at step {step} already: give a larger --total-timesteps")
    run_name = args.run_name or f"{args.env_id.split(':')[-1]}__{Path(__file__).stem}__{args.seed}__{int(time.time())}"
    run_dir = Path(args.resume or f"runs/{run_name}")
    if run_dir.exists() and not args.resume:
        raise InputError(f"{run_dir} exists already: choose another --run-name, or continue it with --resume {run_dir}")
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)

    policy = Policy(env, args)
    actor = policy.actor
    critic = Critic(*dimensions(env, args), args).to(policy.device)
    target_actor, target_critic = (copy.deepcopy(network).requires_grad_(False) for network in (actor, critic))
    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=args.learning_rate, fused=True)
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=args.learning_rate, fused=True)
    try:
        buffer = HerReplayBuffer(env, args, rng)
    except MemoryError:
        raise InputError(f"--buffer-size {args.buffer_size} does not fit into memory") from None
    parts = dict(
        actor=actor, critic=critic, target_actor=target_actor, target_critic=target_critic,
        actor_optimizer=actor_optimizer, critic_optimizer=critic_optimizer,
        observation_norm=policy.observation_norm, goal_norm=policy.goal_norm, buffer=buffer,
    )  # fmt: skip
    vector_env = make_vector_env(env, args.num_envs)
    eval_env = make_vector_env(env, evaluation_envs(env, args))

    global_step, updates, evaluations, logged_step, start = 0, 0, [], -LOG_FREQUENCY, time.time()
    episode, next_episode = np.arange(args.num_envs), args.num_envs  # the number of each environment's episode
    if checkpoint:
        restore(checkpoint, parts, args)
        progress = checkpoint["progress"]
        rng.bit_generator.state = progress["rng"]
        global_step, updates, evaluations = (progress[name] for name in ("global_step", "updates", "evaluations"))
        episode, next_episode = np.array(progress["episode"]), progress["next_episode"]
        start -= progress["wall_seconds"]
        observation = buffer.replay(vector_env, episode_seeds(args.seed, TRAINING, episode), policy.to_environment)
    else:
        observation, _ = vector_env.reset(seed=episode_seeds(args.seed, TRAINING, episode))
        buffer.begin(np.ones(args.num_envs, np.bool_), observation)

    run_dir.mkdir(parents=True, exist_ok=True)
    writer = SummaryWriter(run_dir, purge_step=global_step + 1 if args.resume else None)
    rows = "\n".join(f"|{name}|{value}|" for name, value in asdict(args).items())
    writer.add_text("hyperparameters", f"|name|value|\n|-|-|\n{rows}")

    def due(frequency: int) -> int:
        """How many multiples of frequency the last step has reached; step 0 reaches one."""
        return global_step // frequency - (global_step - args.num_envs) // frequency

    with signals_caught() as signals, tqdm(
        total=args.total_timesteps, initial=global_step, unit="step", disable=None, dynamic_ncols=True
    ) as bar:  # fmt: skip
        while True:
            finished = global_step >= args.total_timesteps
            evaluated = bool(evaluations) and evaluations[-1]["global_step"] == global_step
            if (finished or due(args.eval_frequency)) and not evaluated:
                success_rate, episodic_return = evaluate(policy, eval_env, args.eval_episodes, args.seed)
                seconds = round(time.time() - start, 2)
                evaluations.append(
                    dict(zip(COLUMNS, (global_step, success_rate, episodic_return, seconds), strict=True))
                )
                write_evaluations(run_dir, evaluations)
                writer.add_scalar("charts/success_rate", success_rate, global_step)
                writer.add_scalar("charts/episodic_return", episodic_return, global_step)
                bar.set_postfix(success=f"{success_rate:.2f}")
                tqdm.write(f"step {global_step:>8}  success rate {success_rate:.2f}  return {episodic_return:.2f}")
            if finished or signals or due(args.checkpoint_frequency):
                check_finite(global_step, *actor.parameters(), *critic.parameters())
                progress = dict(
                    global_step=global_step, updates=updates, evaluations=evaluations,
                    episode=episode.tolist(), next_episode=next_episode, wall_seconds=time.time() - start,
                    rng=rng.bit_generator.state, torch_rng=torch.get_rng_state(),
                )  # fmt: skip
                save_checkpoint(run_dir, args, parts, progress)
            if finished or signals:
                break

            random_probability = args.random_action_probability if global_step >= args.learning_starts else 1.0
            action = explore(policy(observation), args.exploration_noise, random_probability, rng)
            observation, reward, terminated, truncated, _ = vector_env.step(policy.to_environment(action))
            check_finite(global_step + args.num_envs, reward, *observation.values())
            buffer.add(action, reward, terminated, observation)
            if args.normalize:
                goals = np.concatenate([observation["achieved_goal"], observation["desired_goal"]])
                policy.observation_norm.update(network_input(observation, args))
                policy.goal_norm.update(flatten(goals))
            global_step += args.num_envs
            bar.update(args.num_envs)
            done = terminated | truncated
            if done.any():
                buffer.end(done)
                episode[done] = next_episode + np.arange(done.sum())
                next_episode += int(done.sum())
                seeds = episode_seeds(args.seed, TRAINING, episode)
                observation, _ = vector_env.reset(seed=seeds, options=dict(reset_mask=done))
                buffer.begin(done, observation)

            updates_due = due(args.train_frequency) * args.gradient_steps
            if updates_due and global_step >= args.learning_starts and len(buffer) > 0:
                learning_rate = args.learning_rate / (3 if global_step > args.learning_rate_drop else 1)
                set_learning_rate(learning_rate, actor_optimizer, critic_optimizer)
                for batch in make_batches(buffer.sample(updates_due * args.batch_size), policy, args):
                    loss_q, metrics = critic_loss(critic, target_critic, target_actor, batch, args)
                    optimize(critic_optimizer, loss_q, critic)
                    loss_pi = actor_loss(actor, critic, batch, args)
                    optimize(actor_optimizer, loss_pi, actor)
                    updates += 1
                    if updates % args.target_network_frequency == 0:
                        update_target(target_critic, critic, args.tau)
                        update_target(target_actor, actor, args.tau)
                check_finite(global_step, loss_q, loss_pi)
                if global_step - logged_step >= LOG_FREQUENCY:
                    logged_step = global_step
                    for name, value in (metrics | dict(actor_loss=loss_pi)).items():
                        writer.add_scalar(f"losses/{name}", value.item(), global_step)
                    writer.add_scalar("charts/SPS", global_step / (time.time() - start), global_step)
    writer.close()
    for each in (env, vector_env, eval_env):
        each.close()
    if signals and not finished:
        print(f"interrupted at step {global_step}; continue with: python {Path(__file__).name} --resume {run_dir}")
        raise SystemExit(128 + signals[0])
    if args.capture_video:
        capture_video(policy, args, run_dir / "episodes.gif")
    print(
        f"{args.env_id}: success rate {success_rate:.2f}, return {episodic_return:.2f} after {global_step} steps in "
        f"{(time.time() - start) / 60:.1f} min; curves and checkpoint are in {run_dir}"
    )
    return evaluations


# ------------------------------------------------------------------------------------------------------ command line


def check_numbers(args: Args) -> None:
    """Raises InputError for the first number that is out of its range."""
    at_least_one = [
        "total_timesteps", "num_envs", "hidden_layers", "hidden_size", "batch_size", "buffer_size", "train_frequency",
        "gradient_steps", "target_network_frequency", "eval_frequency", "eval_episodes", "checkpoint_frequency",
    ]  # fmt: skip
    not_negative = ["seed", "learning_starts", "exploration_noise", "her_k", "action_l2", "torch_threads"]
    ranges = dict.fromkeys(at_least_one, (1, 1e12)) | dict.fromkeys(not_negative, (0, 1e12))
    ranges["learning_rate_drop"] = (1, math.inf)
    ranges |= dict(learning_rate=(1e-12, 1), tau=(1e-12, 1), gamma=(0, 0.999999), random_action_probability=(0, 1))
    ranges["alpha"] = (0, 1e12)
    for name, (low, high) in ranges.items():
        value = getattr(args, name)
        if not low <= value <= high:
            raise InputError(f"--{name.replace('_', '-')} must be from {low:g} to {high:g}, not {value}")


def evaluate_run(args: Args) -> tuple[float, float]:
    """Evaluates the policy of a checkpoint, and prints its success rate and return."""
    check_numbers(args)
    env = make_env(args)
    policy, checkpoint = Policy(env, args), load_checkpoint(args.evaluate)
    parts = dict(actor=policy.actor, observation_norm=policy.observation_norm, goal_norm=policy.goal_norm)
    restore(checkpoint, parts, args)
    eval_env = make_vector_env(env, evaluation_envs(env, args))
    success_rate, episodic_return = evaluate(policy, eval_env, args.eval_episodes, args.seed)
    print(
        f"{args.env_id}: success rate {success_rate:.2f}, return {episodic_return:.2f} over {args.eval_episodes} "
        f"episodes, after {checkpoint['progress']['global_step']} steps of training"
    )
    if args.capture_video:
        path = Path(args.evaluate) / "episodes.gif"
        capture_video(policy, args, path)
        print(f"video: {path}")
    return success_rate, episodic_return


def parse_args(argv: list[str] | None = None) -> Args:
    """Reads the command line: an explicit flag wins over the paper's setting, and that over the general default.

    Raises:
        InputError: --resume or --evaluate name no usable run, or come with a setting that the run has otherwise.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("env-id", "resume", "evaluate"):
        early.add_argument(f"--{name}", f"--{name.replace('-', '_')}", default="", nargs="?")
    known, _ = early.parse_known_args(argv)
    if known.resume or known.evaluate:
        saved = Args(**load_checkpoint(known.resume or known.evaluate)["args"])
        args = tyro.cli(Args, args=argv, default=saved)
        fixed = {field.name for field in fields(Args)} - CHANGEABLE_LATER
        changed = [
            f"--{name.replace('_', '-')}" for name in sorted(fixed) if getattr(args, name) != getattr(saved, name)
        ]
        if changed:
            raise InputError(f"a run keeps its settings: {', '.join(changed)} cannot be changed")
        return args
    env_id = known.env_id or Args.env_id
    settings = {"env_id": env_id} | PAPER_SETTINGS.get(env_id, {})
    args = tyro.cli(Args, args=argv, default=Args(**settings | REENGAGE_SETTINGS.get(env_id, {})))
    if args.alpha > 0:
        return args
    return tyro.cli(Args, args=argv, default=Args(**settings))


def main() -> None:
    """Trains or evaluates. Exit status 2: wrong input; 1: diverged; 130 and 143: interrupted by SIGINT and SIGTERM."""
    try:
        args = parse_args()
        if args.torch_threads > 0:
            torch.set_num_threads(args.torch_threads)
        if args.evaluate:
            evaluate_run(args)
        else:
            train(args)
    except (InputError, FloatingPointError) as error:
        print(f"{Path(__file__).name}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except KeyboardInterrupt:  # while nothing is being trained
        sys.exit(130)


if __name__ == "__main__":
    main()
