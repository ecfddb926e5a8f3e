"""SAC with hindsight experience replay (HER) and the goal-gradient loss of ReenGAGE.

A goal-conditioned critic should match its target for all goals, so besides the value its gradient with respect to
the goal g is matched (Levine and Feizi, "Goal-Conditioned Q-learning as Knowledge Distillation", AAAI 2023). With the
soft target y(g) = R(s', g) + γ (min_i Q_θ'i(s', a', g) − η log π_φ(a'|s', g)), a' drawn from π_φ(s', g) as a
differentiable function of g and of noise, both critics minimise half the sum over i of the mean over the batch of

    (Q_θi(s, a, g) − y(g))²  +  α · 1[R(s', g) = c_low] · ‖∇_g Q_θi(s, a, g) − ∇_g y(g)‖²          (Eq. 9, for SAC)

the actor η log π_φ(a|s, g) − min_i Q_θi(s, a, g), and η is trained to minimise log η · (entropy + dim a) (Haarnoja et
al. 2018, arXiv 1812.05905). For dense rewards (--dense) the indicator is dropped and ∇_g y includes ∇_g R (Eq. 8).
`critic_loss` is the method; --alpha 0 is SAC with HER.

    python sac_her_reengage.py --env-id ContinuousSeek10-v0 --alpha 0.02
"""

import copy
import csv
import itertools
import json
import math
import multiprocessing
import os
import re
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

import envs  # noqa: F401  the paper's environments, and gymnasium-robotics; remove this line in a copy of this file


@dataclass
class Args:
    env_id: str = "ContinuousSeek10-v0"  # a multi-goal environment with Box actions; `module:Id-v0` imports the module
    env_kwargs: str = "{}"  # keywords of the environment as JSON, such as '{"max_episode_steps": 20}'
    alpha: float = 0.01  # weight α of the goal-gradient loss, summed over goal dimensions; 0 is plain SAC+HER
    c_low: float = -1.0  # reward of a goal that is not reached: only these transitions count in the goal-gradient loss
    dense: bool = False  # the reward is −‖achieved − goal‖₂: use its gradient, and count all transitions (Eq. 8)
    seed: int = 1  # seed of everything random
    num_envs: int = 1  # environments that play together: a round is an episode of each, followed by the updates
    hidden_layers: int = 3  # hidden layers of actor and critics
    hidden_size: int = 256  # units per hidden layer
    learning_rate: float = 1e-3  # Adam's learning rate, actor, critics and temperature
    temperature: float = 1.0  # entropy temperature η: where it starts, or stays where it is not learned
    autotune: bool = True  # learn the temperature so that the policy's entropy is −dim a
    batch_size: int = 256  # transitions per update
    buffer_size: int = 1_000_000  # transitions in the replay buffer, in episodes of full length
    gamma: float = 0.98  # discount factor γ
    tau: float = 0.005  # fraction τ by which the target critics follow at every update
    utd_ratio: float = 1.0  # updates per environment step
    learning_starts: int = 1_000  # environment steps with uniformly random actions before training
    random_action_probability: float = 0.0  # probability of a uniformly random action instead of one of the policy
    her_strategy: Literal["future", "final", "episode", "random"] = "future"  # steps whose achieved goals become goals
    her_k: int = 4  # hindsight goals per original goal: k/(k + 1) of a batch is relabelled; 0 is plain SAC
    normalize: bool = True  # normalise observations and goals by their running mean and standard deviation
    clip_target: bool = False  # clip the target to [−1/(1 − γ), 0]; soft values leave this range: not recommended
    eval_frequency: int = 5_000  # environment steps between evaluations
    run_name: str = ""  # name of the folder under runs/; default: environment, script, seed and time
    # What follows may change when a run is resumed or evaluated.
    total_timesteps: int = 200_000  # environment steps of the whole run, over all environments
    eval_episodes: int = 50  # episodes per evaluation
    checkpoint_frequency: int = 100_000  # environment steps between checkpoints
    resume: str = ""  # folder of a run (runs/<run_name>) to continue to --total-timesteps
    evaluate: str = ""  # folder of a run, or of a model, to evaluate instead of training
    capture_video: bool = False  # write a GIF of a few episodes after the last evaluation


# Batch 512 and learning rate 2.5e-3 are the point of the paper's grid that a CPU can afford.
SEEK = dict(hidden_layers=2, normalize=False, gamma=0.95, batch_size=512, learning_rate=2.5e-3, eval_frequency=2_000)
PAPER_SETTINGS = {  # α is 0.2/d
    "ContinuousSeek5-v0": SEEK | dict(alpha=0.04, total_timesteps=12_000),
    "ContinuousSeek10-v0": SEEK | dict(alpha=0.02, total_timesteps=50_000),
    "ContinuousSeek20-v0": SEEK | dict(alpha=0.01, total_timesteps=400_000),
}
PAPER_SETTINGS["ContinuousSeek-v0"] = PAPER_SETTINGS["ContinuousSeek20-v0"]


def mlp(inputs: int, outputs: int, args: Args) -> nn.Sequential:
    """A ReLU network with args.hidden_layers layers of args.hidden_size units."""
    sizes = [inputs, *[args.hidden_size] * args.hidden_layers, outputs]
    layers = [(nn.Linear(fan_in, fan_out), nn.ReLU(inplace=True)) for fan_in, fan_out in itertools.pairwise(sizes)]
    return nn.Sequential(*itertools.chain(*layers))[:-1]


class Actor(nn.Module):
    """Stochastic policy π(a|s, g): the tanh of a Gaussian, actions in [−1, 1]."""

    def __init__(self, observation_dim: int, goal_dim: int, action_dim: int, args: Args):
        super().__init__()
        self.net = mlp(observation_dim + goal_dim, 2 * action_dim, args)

    def forward(self, observation: Tensor, goal: Tensor) -> Tensor:
        """The deterministic action, (batch, action_dim)."""
        mean, _ = self.net(torch.cat([observation, goal], dim=-1)).chunk(2, dim=-1)
        return torch.tanh(mean)

    def sample(self, observation: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """Reparameterised actions, (batch, action_dim), and their log-probability, (batch,)."""
        mean, log_std = self.net(torch.cat([observation, goal], dim=-1)).chunk(2, dim=-1)
        log_std = log_std.clamp(-20, 2)
        noise = torch.randn_like(mean)  # drawn anew at every replay of a CUDA graph, too
        x = mean + log_std.exp() * noise
        log_prob = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        log_prob = log_prob - 2 * (math.log(2) - x - F.softplus(-2 * x))  # log(1 − tanh²x), finite where tanh x is ±1
        return torch.tanh(x), log_prob.sum(-1)


class Critic(nn.Module):
    """Two action values Q_i(s, a, g), (batch,) each."""

    def __init__(self, observation_dim: int, goal_dim: int, action_dim: int, args: Args):
        super().__init__()
        self.nets = nn.ModuleList(mlp(observation_dim + action_dim + goal_dim, 1, args) for _ in range(2))

    def forward(self, observation: Tensor, action: Tensor, goal: Tensor) -> list[Tensor]:
        x = torch.cat([observation, action, goal], dim=-1)
        return [net(x).squeeze(-1) for net in self.nets]


class Temperature(nn.Module):
    """The weight η > 0 of the entropy; its logarithm is what is trained."""

    def __init__(self, start: float):
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(start)))

    def forward(self) -> Tensor:
        return self.log.exp().detach()


class Batch(NamedTuple):
    """Relabelled transitions as the networks see them, (batch, ...): normalised, on the networks' device."""

    observation: Tensor
    action: Tensor
    reward: Tensor
    next_observation: Tensor
    terminated: Tensor  # 1 where the task really ended, which a time limit is not
    goal: Tensor
    reward_gradient: Tensor  # ∇_g R of dense rewards, else 0


def critic_loss(
    critic: Critic, target_critic: Critic, actor: Actor, temperature: Temperature, batch: Batch, args: Args
) -> tuple[Tensor, dict[str, Tensor]]:
    """Both critics' loss (Eq. 9; Eq. 8 with args.dense), and its parts for the log. No gradient reaches the target."""
    goal = batch.goal.detach().requires_grad_(args.alpha > 0)
    with torch.set_grad_enabled(args.alpha > 0):
        next_action, next_log_prob = actor.sample(batch.next_observation, goal)
        next_q = torch.minimum(*target_critic(batch.next_observation, next_action, goal))
        next_value = next_q - temperature() * next_log_prob
        target = batch.reward + args.gamma * (1 - batch.terminated) * next_value
        if args.clip_target:
            target = target.clamp(-1 / (1 - args.gamma), 0)
    qs = critic(batch.observation, batch.action, goal)
    loss = 0.5 * sum(F.mse_loss(q, target.detach()) for q in qs)  # ½ as in SAC; Eq. 4 with the soft target
    metrics = dict(value_loss=loss.detach(), q=torch.cat(qs).detach().mean())
    if args.alpha > 0:
        (target_gradient,) = torch.autograd.grad(target.sum(), goal)  # through a', log π and the minimum
        if args.dense:
            target_gradient = target_gradient + batch.reward_gradient
        q_gradients = [torch.autograd.grad(q.sum(), goal, create_graph=True)[0] for q in qs]  # (batch, goal_dim) each
        counted = args.dense or batch.reward == args.c_low  # where ∇_g R is known
        errors = [(q_gradient - target_gradient).square().sum(-1) for q_gradient in q_gradients]
        gradient_loss = 0.5 * sum((error * counted).mean() for error in errors)
        loss = loss + args.alpha * gradient_loss
        metrics["gradient_loss"] = gradient_loss.detach()
    return loss, metrics


def actor_loss(actor: Actor, critic: Critic, temperature: Temperature, batch: Batch) -> tuple[Tensor, Tensor]:
    """The actor's loss, and the batch's mean entropy, which temperature_loss needs."""
    action, log_prob = actor.sample(batch.observation, batch.goal)
    q = torch.minimum(*critic(batch.observation, action, batch.goal))
    loss = (temperature() * log_prob - q).mean()
    return loss, -log_prob.detach().mean()


def temperature_loss(temperature: Temperature, entropy: Tensor, target_entropy: float) -> Tensor:
    """Raises the temperature while the entropy is below its target, and lowers it above."""
    return temperature.log * (entropy - target_entropy)


def empty_episodes(n: int, env: gym.Env) -> np.ndarray:
    """Zeros for n episodes, (n,), with their parts as fields; the first `length` steps of an episode count."""
    limit, spaces = env.spec.max_episode_steps, env.observation_space
    parts = [
        ("observation", np.float32, (limit + 1, *spaces["observation"].shape)),
        ("achieved_goal", spaces["achieved_goal"].dtype, (limit + 1, *spaces["achieved_goal"].shape)),
        ("desired_goal", spaces["desired_goal"].dtype, spaces["desired_goal"].shape),
        ("action", np.float32, (limit, gym.spaces.flatdim(env.action_space))),  # in [−1, 1]
        ("reward", np.float32, limit),
        ("terminated", np.bool_, limit),  # by the task itself, not by a time limit
        ("length", np.int64),
        ("success", np.float32),  # at the last step
    ]
    return np.zeros(n, np.dtype(parts, align=True))


def play(act: Callable[[dict], np.ndarray], env: gym.Env, vector_env: VectorEnv, key: tuple) -> np.ndarray:
    """Plays an episode in each copy of env, (num_envs,), with the actions of act; key is (seed, stream, round)."""
    n, low, high = vector_env.num_envs, env.action_space.low, env.action_space.high
    episodes, running = empty_episodes(n, env), np.ones(n, np.bool_)  # what follows an early end is not kept
    observation, _ = vector_env.reset(seed=np.random.SeedSequence(key).generate_state(n).tolist())
    for name in ("observation", "achieved_goal"):
        episodes[name][:, 0] = observation[name]
    episodes["desired_goal"], episodes["success"] = observation["desired_goal"], np.nan  # where infos do not tell
    while running.any():
        action, t = act(observation), episodes["length"].max()  # steps so far
        scaled = np.clip(low + (action.reshape(n, *low.shape) + 1) / 2 * (high - low), low, high).astype(low.dtype)
        observation, reward, terminated, truncated, infos = vector_env.step(scaled)
        for name in ("observation", "achieved_goal"):
            episodes[name][running, t + 1] = observation[name][running]
        for name, part in (("action", action), ("reward", reward), ("terminated", terminated)):
            episodes[name][running, t] = part[running]
        if (observation["desired_goal"] != episodes["desired_goal"])[running].any():
            raise ValueError("the environment changes the goal within an episode, or has nan in it")
        episodes["length"] += running
        ended = running & (terminated | truncated)
        episodes["success"][ended] = infos.get("is_success", infos.get("success", episodes["success"]))[ended]
        running &= ~ended
    return episodes


class HerReplayBuffer:
    """The newest episodes, relabelled when they are sampled (Andrychowicz et al. 2017)."""

    def __init__(self, env: gym.Env, args: Args, rng: np.random.Generator):
        self.episodes = empty_episodes(args.buffer_size // env.spec.max_episode_steps, env)
        self.added = 0  # episodes, in the whole run
        self.compute_reward = env.unwrapped.compute_reward  # for many transitions at once, with an empty info
        self.args, self.rng = args, rng

    def add(self, episodes: np.ndarray) -> None:
        """Stores episodes in the place of the oldest."""
        self.episodes[(self.added + np.arange(len(episodes))) % len(self.episodes)] = episodes
        self.added += len(episodes)
        self.ends = np.cumsum(self.episodes["length"][: self.added])  # transitions up to and with each episode

    def sample(self, n: int, policy: "Policy") -> Batch:
        """n transitions, uniformly from all episodes, of which k/(k + 1) are relabelled."""
        stored, tensor = self.episodes, partial(torch.as_tensor, dtype=torch.float32, device=policy.device)
        episode, step = self._draw(n)
        next_achieved_goal = stored["achieved_goal"][episode, step + 1]
        goal, reward = stored["desired_goal"][episode], stored["reward"][episode, step]
        relabelled = self.rng.random(n) < self.args.her_k / (self.args.her_k + 1)
        if relabelled.any():
            goal[relabelled] = self._hindsight_goals(episode[relabelled], step[relabelled])
            reward[relabelled] = self.compute_reward(next_achieved_goal[relabelled], goal[relabelled], {})
        reward_gradient = torch.zeros((), device=policy.device)
        if self.args.dense:  # ∇_g −‖achieved − g‖₂, times dg/d(normalised g)
            reward_gradient = F.normalize(tensor(flat(next_achieved_goal) - flat(goal)), dim=-1) * policy.goal_norm.std
        return Batch(
            observation=policy.state(stored["observation"][episode, step], stored["achieved_goal"][episode, step]),
            action=tensor(stored["action"][episode, step]),
            reward=tensor(reward),
            next_observation=policy.state(stored["observation"][episode, step + 1], next_achieved_goal),
            terminated=tensor(stored["terminated"][episode, step]),  # as observed, also with another goal
            goal=policy.goal(goal),
            reward_gradient=reward_gradient,
        )

    def _draw(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Episode and step of n transitions."""
        transition = self.rng.integers(self.ends[-1], size=n)
        episode = np.searchsorted(self.ends, transition, side="right")
        return episode, transition - self.ends[episode] + self.episodes["length"][episode]

    def _hindsight_goals(self, episode: np.ndarray, step: np.ndarray) -> np.ndarray:
        if self.args.her_strategy == "random":
            episode, _ = self._draw(len(episode))
        length = self.episodes["length"][episode]
        first = dict(future=step + 1, final=length, episode=1, random=1)[self.args.her_strategy]
        return self.episodes["achieved_goal"][episode, self.rng.integers(first, length + 1)]

    def state_dict(self) -> dict:
        """What a checkpoint keeps: the filled part, as bytes."""
        return dict(added=self.added, episodes=torch.from_numpy(self.episodes[: self.added].view(np.uint8)))

    def load_state_dict(self, state: dict) -> None:
        self.add(state["episodes"].numpy().view(self.episodes.dtype))
        self.added = state["added"]


class Normalizer(nn.Module):
    """Subtracts the running mean, divides by the running standard deviation (at least 0.01) and clips to ±5."""

    def __init__(self, dim: int, args: Args):
        super().__init__()
        self.normalize = args.normalize
        self.register_buffer("sums", torch.zeros(3, dim, dtype=torch.float64))  # of 1, x and x²
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def update(self, x: np.ndarray) -> None:
        """Counts the rows of x, (n, dim)."""
        if self.normalize and len(x):
            x = torch.as_tensor(x, dtype=torch.float64, device=self.sums.device)
            self.sums += torch.stack([torch.ones_like(x), x, x.square()]).sum(1)
            mean, mean_square = self.sums[1:] / self.sums[0]
            self.mean.copy_(mean)
            self.std.copy_((mean_square - mean.square()).clamp(min=0.01**2).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) / self.std).clamp(-5, 5) if self.normalize else x


class Policy(nn.Module):
    """The actor and its normalisers: from what the environments show to actions in [−1, 1]."""

    def __init__(self, env: gym.Env, args: Args):
        super().__init__()
        parts = [env.observation_space[name] for name in ("observation", "achieved_goal", "desired_goal")]
        observation_dim, achieved_dim, goal_dim, action_dim = map(gym.spaces.flatdim, [*parts, env.action_space])
        self.dimensions = (observation_dim + achieved_dim, goal_dim, action_dim)
        self.actor = Actor(*self.dimensions, args)
        self.observation_norm, self.goal_norm = (Normalizer(dim, args) for dim in self.dimensions[:2])
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.to(self.device)

    def state(self, observation: np.ndarray, achieved_goal: np.ndarray) -> Tensor:
        """What the networks see of states, (n, dim)."""
        return self.observation_norm(torch.as_tensor(flat(observation, achieved_goal), device=self.device))

    def goal(self, goal: np.ndarray) -> Tensor:
        """What the networks see of goals, (n, dim)."""
        return self.goal_norm(torch.as_tensor(flat(goal), device=self.device))

    @torch.no_grad()
    def forward(self, observation: dict, sample: bool = False) -> np.ndarray:
        """Deterministic actions, or samples, (num_envs, action_dim)."""
        state = self.state(observation["observation"], observation["achieved_goal"])
        goal = self.goal(observation["desired_goal"])
        action = self.actor.sample(state, goal)[0] if sample else self.actor(state, goal)
        return action.cpu().numpy()

    def explore(self, observation: dict, random_probability: float, rng: np.random.Generator) -> np.ndarray:
        """Actions drawn from the policy, or with random_probability uniformly random ones, (num_envs, action_dim)."""
        action = self(observation, sample=True)
        return np.where(rng.random((len(action), 1)) < random_probability, rng.uniform(-1, 1, action.shape), action)

    def update_normalizers(self, episodes: np.ndarray) -> None:
        """Counts every state of the episodes, and their goals."""
        seen = np.arange(episodes["observation"].shape[1]) <= episodes["length"][:, None]
        achieved_goal = episodes["achieved_goal"][seen]
        desired_goal = episodes["desired_goal"].repeat(episodes["length"], axis=0)  # once for every step
        self.observation_norm.update(flat(episodes["observation"][seen], achieved_goal))
        self.goal_norm.update(flat(np.concatenate([achieved_goal, desired_goal])))


def train(args: Args) -> Path:
    """Alternates rounds of episodes and updates; returns the run's folder, or exits where a signal has come."""
    env = make_env(args)
    vector_env = make_vector_env(env, args.num_envs)
    rng = np.random.default_rng(args.seed)
    torch.manual_seed(args.seed)
    policy = Policy(env, args)
    actor, critic = policy.actor, Critic(*policy.dimensions, args).to(policy.device)
    temperature, target_entropy = Temperature(args.temperature).to(policy.device), -policy.dimensions[-1]
    target_critic = copy.deepcopy(critic).requires_grad_(False)
    parameters, target_parameters = list(critic.parameters()), list(target_critic.parameters())
    adam = partial(torch.optim.Adam, lr=args.learning_rate, fused=True, capturable=True)  # for CudaGraph
    actor_optimizer, critic_optimizer = adam(actor.parameters()), adam(critic.parameters())
    temperature_optimizer = adam(temperature.parameters())
    buffer = HerReplayBuffer(env, args, rng)
    parts = dict(policy=policy, critic=critic, target_critic=target_critic, buffer=buffer)
    parts |= dict(actor_optimizer=actor_optimizer, critic_optimizer=critic_optimizer)
    parts |= dict(temperature=temperature, temperature_optimizer=temperature_optimizer)

    def update(batch: Batch) -> dict[str, Tensor]:
        loss_q, metrics = critic_loss(critic, target_critic, actor, temperature, batch, args)
        critic_optimizer.zero_grad()
        loss_q.backward(inputs=list(critic.parameters()))  # no other gradient is needed
        critic_optimizer.step()
        loss_pi, entropy = actor_loss(actor, critic, temperature, batch)
        actor_optimizer.zero_grad()
        loss_pi.backward(inputs=list(actor.parameters()))
        actor_optimizer.step()
        if args.autotune:
            temperature_optimizer.zero_grad()
            temperature_loss(temperature, entropy, target_entropy).backward()
            temperature_optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(target_parameters, parameters, args.tau)
        return metrics | dict(actor_loss=loss_pi.detach(), entropy=entropy, temperature=temperature())

    update = CudaGraph(update) if policy.device.type == "cuda" else update
    run = Run(args, parts, rng)
    torch.cuda.manual_seed(args.seed + run.global_step)  # checkpoints have only the CPU's generator
    while True:
        if run.due(args.eval_frequency):
            run.record(evaluate(policy, env, vector_env, args))
        stop = run.finished or bool(SIGNALS)
        if stop or run.due(args.checkpoint_frequency):
            run.save()
        if stop:
            break
        random_probability = 1.0 if run.global_step < args.learning_starts else args.random_action_probability
        act = partial(policy.explore, random_probability=random_probability, rng=rng)
        episodes = play(act, env, vector_env, (args.seed, TRAINING, run.round))
        updates = run.advance(episodes)
        buffer.add(episodes)
        policy.update_normalizers(episodes)
        for _ in range(updates):
            run.losses = update(buffer.sample(args.batch_size, policy))
        numbers = (episodes[part] for part in ("observation", "achieved_goal", "reward"))
        run.check_finite(*numbers, *run.losses.values())
    vector_env.close()
    return run.finish()


# The algorithm ends here. What surrounds it is the same in all scripts, but for check_env. ----------------------------

SCRIPT = Path(__file__).stem
SIGNALS: list[int] = []  # SIGINT and SIGTERM, from when they come to the end of the round
TRAINING, EVALUATION = 0, 1  # the two streams of a run's episodes
RESULT = "{global_step:>8} steps: success rate {success_rate:.2f}, return {episodic_return:.2f}"
AT_LEAST = dict(seed=0, learning_starts=0, her_k=0, learning_rate=1e-12, tau=1e-12, temperature=1e-12)
AT_MOST = dict(learning_rate=1, tau=1, gamma=0.999999, random_action_probability=1)
# Numbers of all scripts; more would fill a usual machine's memory.
AT_MOST |= dict(hidden_layers=100, encoder_layers=100, hidden_size=8_192, embedding_size=8_192, batch_size=100_000)


class InputError(ValueError):
    """What the user asked for cannot be done; the message says what is wrong and what to do."""


def require(condition: bool, message: str) -> None:
    """Raises InputError where the condition does not hold."""
    if not condition:
        raise InputError(message)


def flat(*parts: np.ndarray) -> np.ndarray:
    """The parts side by side, one float32 row each, (n, dim)."""
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1, dtype=np.float32, casting="unsafe")


def make_env(args: Args, **kwargs) -> gym.Env:
    """One environment; raises InputError where it is unknown, cannot be made, or does not fit the settings."""
    for name, value in asdict(args).items():
        if type(value) in (int, float) and name != "c_low":
            low, high = AT_LEAST.get(name, 1 if isinstance(value, int) else 0), AT_MOST.get(name, 1e12)
            require(low <= value <= high, f"--{name.replace('_', '-')} must be from {low:g} to {high:g}, not {value}")
    try:
        env = gym.make(args.env_id, **json.loads(args.env_kwargs) | kwargs)
    except Exception as error:
        why = f"{type(error).__name__} {error}"
        raise InputError(f"{args.env_id} cannot be made with --env-kwargs {args.env_kwargs} (JSON): {why}") from error
    whole = args.env_id.split(":")[-1] == env.spec.id
    require(whole, f"{args.env_id} is {env.spec.id}: use the whole name, by which settings are found")
    check_env(env, args)
    return env


def check_env(env: gym.Env, args: Args) -> None:
    """Raises InputError where the environment is not multi-goal, has no Box actions, or does not fit args."""
    space, actions, limit = env.observation_space, env.action_space, env.spec.max_episode_steps
    parts = ("observation", "achieved_goal", "desired_goal")
    boxes = isinstance(space, gym.spaces.Dict) and all(isinstance(space.get(part), gym.spaces.Box) for part in parts)
    require(boxes, f"{args.env_id} is not multi-goal: observations must be a Dict of Boxes {', '.join(parts)}")
    achieved, desired = (space[part] for part in parts[1:])
    same = achieved.shape == desired.shape and np.can_cast(achieved.dtype, desired.dtype, "same_kind")
    require(same, f"{args.env_id} has desired goals of another shape or type than achieved ones")
    bounded = isinstance(actions, gym.spaces.Box) and actions.is_bounded() and actions.dtype.kind == "f"
    require(bounded, f"{args.env_id} needs a bounded float action Box (discrete: dqn_her_reengage.py), not {actions}")
    pictures = "rgb_array" in env.metadata.get("render_modes", ())
    require(pictures or not args.capture_video, f"{args.env_id} cannot render rgb_array pictures for --capture-video")
    require(not args.capture_video or find_spec("imageio"), "--capture-video needs imageio: pip install imageio")
    require(limit, f"{args.env_id} has no time limit: pass --env-kwargs '{{\"max_episode_steps\": 100}}'")
    room = args.buffer_size >= 2 * args.num_envs * limit
    require(room, f"--buffer-size must hold 2 episodes of {limit} steps per environment")

    actions.seed(0)
    steps = []
    for seed in range(8):
        env.reset(seed=seed)
        steps.append(env.step(actions.sample()))
    achieved_goal, desired_goal = (np.stack([observation[part] for observation, *_ in steps]) for part in parts[1:])
    try:
        compute_reward = partial(env.unwrapped.compute_reward, achieved_goal)
        reward, reached = (np.asarray(compute_reward(goal, {})) for goal in (desired_goal, achieved_goal))
    except Exception as error:
        raise InputError(f"{args.env_id}: compute_reward fails on a batch: {type(error).__name__} {error}") from error
    require(reward.shape == (8,), f"{args.env_id}: compute_reward gives shape {reward.shape} for 8 goals")
    same = np.allclose(reward, [step[1] for step in steps], atol=1e-5)
    require(same, f"{args.env_id}: the rewards of steps are not those of compute_reward, which hindsight goals have")
    more = (reached > reward).any()
    require(more, f"{args.env_id}: compute_reward gives no more where the achieved goal is the desired one")
    fits = not args.clip_target or all(-1 <= each <= 0 for each in (*reward, *reached))
    require(fits, f"{args.env_id}: --clip-target needs rewards from −1 to 0, not {reward[0]:g} and {reached[0]:g}")
    known = args.alpha == 0 or args.dense or args.c_low in reward
    require(known, f"{args.env_id}: no reward equals --c-low {args.c_low:g}; the first one is {reward[0]:g}")
    distance = np.linalg.norm(flat(achieved_goal) - flat(desired_goal), axis=1)
    dense = not args.dense or (not args.clip_target and np.allclose(reward, -distance, atol=1e-5))
    require(dense, f"{args.env_id}: --dense needs rewards −‖achieved − goal‖₂, and no --clip-target")


def make_vector_env(env: gym.Env, num_envs: int) -> VectorEnv:
    """Copies of env that step as a batch where its class can, else each in a process of its own."""
    mode = dict(autoreset_mode=AutoresetMode.NEXT_STEP)  # a finished one starts again at its next step
    if env.spec.vector_entry_point is not None:
        return gym.make_vec(env.spec, num_envs, vectorization_mode="vector_entry_point", **mode)
    copies = [partial(make_copy, env.spec, os.getpid())] * num_envs
    return AsyncVectorEnv(copies, **mode) if num_envs > 1 else SyncVectorEnv(copies, **mode)


def make_copy(spec: gym.envs.registration.EnvSpec, main_process: int) -> gym.Env:
    """A copy of an environment; in a process of its own it leaves signals to the main one, which makes one as well."""
    if os.getpid() != main_process:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    return gym.make(spec)


def evaluate(policy: Policy, env: gym.Env, vector_env: VectorEnv, args: Args) -> dict[str, float]:
    """Success rate and mean return of deterministic episodes, the same ones at every evaluation of a run."""
    rounds = range(-(-args.eval_episodes // vector_env.num_envs))
    episodes = np.concatenate([play(policy, env, vector_env, (args.seed, EVALUATION, i)) for i in rounds])
    success, reward = (episodes[part][: args.eval_episodes].astype(float) for part in ("success", "reward"))
    return dict(success_rate=float(success.mean()), episodic_return=float(reward.sum(1).mean()))


class CudaGraph:
    """A function of a batch as one CUDA graph: a GPU needs longer to launch its many small kernels than to run them."""

    def __init__(self, function: Callable[[Batch], dict[str, Tensor]]):
        self.function, self.calls, self.graph = function, 0, None
        warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        self.calls += 1
        if self.calls == 4:  # the calls before made what a capture cannot: Adam's state, workspaces
            graph, self.batch = torch.cuda.CUDAGraph(), batch
            try:
                with torch.cuda.graph(graph):  # records what the function launches, without running it
                    self.result = self.function(batch)
                self.graph = graph
            except RuntimeError as error:
                tqdm.write(f"updates run kernel by kernel, since no CUDA graph could be captured: {error}")
        if self.graph is None:
            return self.function(batch)
        for kept, new in zip(self.batch, batch, strict=True):
            kept.copy_(new)
        self.graph.replay()
        return self.result


class Run:
    """A run's counters and its folder: evaluations.csv, TensorBoard's file, policy.pt and checkpoint.pt."""

    def __init__(self, args: Args, parts: dict, rng: np.random.Generator):
        self.args, self.parts, self.rng, self.losses, self.start = args, parts, rng, {}, time.time()
        self.global_step, self.round, self.updates, self.evaluations = 0, 0, 0, []
        name = args.run_name or f"{args.env_id.split(':')[-1]}__{SCRIPT}__{args.seed}__{int(time.time())}"
        self.folder, self.finished = Path(args.resume or f"runs/{name}"), False
        self.previous_step = -1  # so that the first evaluation is due at step 0
        if args.resume:
            checkpoint = load(self.folder / "checkpoint.pt", parts)
            vars(self).update(checkpoint["counters"])  # with the seconds so far
            rng.bit_generator.state = checkpoint["rng"]
            torch.set_rng_state(checkpoint["torch_rng"])
            self.previous_step, self.start = self.global_step, self.start - self.seconds
            require(self.global_step < args.total_timesteps, f"--total-timesteps must be above {self.global_step}")
        else:
            plain = re.fullmatch(r"\w[\w.,=+-]*(/\w[\w.,=+-]*)*", name)
            require(plain, f"--run-name must be a plain folder name, or several with / between them, not {name}")
            require(not self.folder.exists(), f"{self.folder} exists already: another --run-name, or --resume it")
        self.folder.mkdir(parents=True, exist_ok=bool(args.resume))
        self.writer = SummaryWriter(self.folder, purge_step=self.global_step + 1 if args.resume else None)
        rows = "".join(f"|{name}|{value}|\n" for name, value in asdict(args).items())
        self.writer.add_text("hyperparameters", f"|name|value|\n|-|-|\n{rows}")
        self.bar = tqdm(total=args.total_timesteps, initial=self.global_step, unit="step", disable=None)

    def due(self, frequency: int) -> bool:
        """Whether the last round reached a multiple of frequency, or the end of the run."""
        return self.finished or self.global_step // frequency > self.previous_step // frequency

    def advance(self, episodes: np.ndarray) -> int:
        """Counts a round; returns how many updates follow it, so that --utd-ratio holds from --learning-starts on."""
        steps, done = int(episodes["length"].sum()), self.updates
        self.previous_step, self.global_step, self.round = self.global_step, self.global_step + steps, self.round + 1
        self.finished = self.global_step >= self.args.total_timesteps
        self.bar.update(steps)
        self.updates = round(self.args.utd_ratio * max(0, self.global_step - self.args.learning_starts))
        return self.updates - done

    def check_finite(self, *values: Tensor | np.ndarray) -> None:
        """Raises FloatingPointError where an observation, a loss or a weight is not finite."""
        if not all(torch.isfinite(torch.as_tensor(value)).all() for value in values):
            raise FloatingPointError(f"an observation, a loss or a weight is not finite at step {self.global_step}")

    def record(self, result: dict[str, float]) -> None:
        """Adds an evaluation to evaluations.csv, and it and the last losses to TensorBoard."""
        seconds = time.time() - self.start
        self.evaluations.append(dict(global_step=self.global_step) | result | dict(wall_seconds=round(seconds, 2)))
        with open(self.folder / "evaluations.csv", "w", newline="") as file:
            csv.writer(file).writerows([self.evaluations[0].keys(), *(row.values() for row in self.evaluations)])
        for group, values in dict(charts=result | dict(SPS=self.global_step / seconds), losses=self.losses).items():
            for name, value in values.items():
                self.writer.add_scalar(f"{group}/{name}", float(value), self.global_step)
        tqdm.write(RESULT.format(**self.evaluations[-1]))

    def save(self) -> None:
        """Replaces checkpoint.pt and policy.pt; what interrupts it leaves the old ones."""
        states = {name: part.state_dict() for name, part in self.parts.items()}
        self.check_finite(*states["policy"].values())  # a weight outside the policy shows in the losses
        counters = {name: getattr(self, name) for name in ("global_step", "round", "updates", "evaluations")}
        common = dict(script=SCRIPT, args=asdict(self.args), counters=counters | dict(seconds=time.time() - self.start))
        state = dict(parts=states, rng=self.rng.bit_generator.state, torch_rng=torch.get_rng_state())
        temporary = self.folder / "checkpoint.tmp"
        self.writer.flush()
        try:
            for name, content in (("checkpoint.pt", state), ("policy.pt", dict(parts=dict(policy=states["policy"])))):
                torch.save(common | content, temporary)
                os.replace(temporary, self.folder / name)
        except RuntimeError as error:  # PyTorch's word for a full disk
            raise OSError(f"{self.folder / name} cannot be written; is the disk full? The last one holds") from error
        finally:
            temporary.unlink(missing_ok=True)

    def finish(self) -> Path:
        """Closes the run's folder and returns it; raises SystemExit where the run was interrupted."""
        self.bar.close()
        self.writer.close()
        if not self.finished:
            print(f"interrupted at step {self.global_step}; continue with: python {SCRIPT}.py --resume {self.folder}")
            raise SystemExit(128 + SIGNALS[0])
        print(f"{self.folder}: {RESULT.format(**self.evaluations[-1]).strip()}")
        return self.folder


def load(path: Path, parts: dict) -> dict:
    """Reads a checkpoint and restores parts from it, executing nothing; raises InputError where that fails."""
    require(path.is_file(), f"no checkpoint at {path}")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=not parts)  # settings need no buffer
        require(saved["script"] == SCRIPT, f"{saved['script']}.py wrote it")
        Args(**saved["args"])
        for name, part in parts.items():
            part.load_state_dict(saved["parts"][name])
    except Exception as error:
        raise InputError(f"{path} is damaged, or does not fit: {type(error).__name__} {str(error)[:200]}") from error
    return saved


def evaluate_policy(args: Args) -> None:
    """Evaluates a policy.pt: prints the result, and makes a GIF of four episodes where one is wanted."""
    env, folder = make_env(args), Path(args.evaluate)
    policy = Policy(env, args)
    global_step = load(folder / "policy.pt", dict(policy=policy))["counters"]["global_step"]
    vector_env = make_vector_env(env, args.num_envs)
    print(RESULT.format(global_step=global_step, **evaluate(policy, env, vector_env, args)))
    vector_env.close()
    if args.capture_video:
        import imageio

        env = gym.wrappers.RenderCollection(make_env(args, render_mode="rgb_array"), reset_clean=False)
        vector_env, duration = SyncVectorEnv([lambda: env]), 1000 / env.metadata.get("render_fps", 25)
        for i in range(4):
            play(policy, env, vector_env, (args.seed, EVALUATION, i))
        imageio.mimsave(folder / "episodes.gif", env.render(), duration=duration, loop=0)
        print(f"video: {folder / 'episodes.gif'}")


def parse_args(argv: list[str]) -> Args:
    """Reads the command line: a flag wins over the paper's setting for the environment, and that over the default."""
    given = tyro.cli(Args, args=[word for word in argv if word not in ("-h", "--help")])
    if given.resume or given.evaluate:
        path = Path(given.evaluate, "policy.pt") if given.evaluate else Path(given.resume, "checkpoint.pt")
        saved = Args(**load(path, {})["args"])
        saved.capture_video &= not given.evaluate  # an evaluation asks for its own
        args, names = tyro.cli(Args, args=argv, default=saved), list(asdict(saved))
        fixed = names[: names.index("total_timesteps")]
        changed = [f"--{name.replace('_', '-')}" for name in fixed if getattr(args, name) != getattr(saved, name)]
        require(not changed, f"a run keeps its settings: {', '.join(changed)} cannot be changed")
        return args
    settings = PAPER_SETTINGS.get(given.env_id.split(":")[-1], {})  # without the module that is imported
    return tyro.cli(Args, args=argv, default=Args(env_id=given.env_id, **settings))


def on_signal(number: int, frame) -> None:
    """Lets training finish its round and save; a second signal stops it at once."""
    if SIGNALS:
        raise KeyboardInterrupt
    SIGNALS.append(number)


def main() -> None:
    """Exit status 2: wrong input; 1: the run broke; 130 and 143: interrupted by SIGINT and SIGTERM."""
    gym.logger.min_level = gym.logger.ERROR + 1  # what goes wrong is said in one line below
    sys.stdout.reconfigure(line_buffering=True)  # in a file, too, evaluations appear when they are made
    try:
        args = parse_args(sys.argv[1:])
        if args.evaluate:
            return evaluate_policy(args)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, on_signal)
        folder = train(args)
        if args.capture_video:
            evaluate_policy(replace(args, evaluate=str(folder)))
    except (KeyboardInterrupt, Exception) as error:
        interrupted, wrong_input = isinstance(error, KeyboardInterrupt), isinstance(error, (InputError, MemoryError))
        died = "an environment's process or stdout ended: " if isinstance(error, (EOFError, ConnectionError)) else ""
        line = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == __file__][-1]
        where = "" if isinstance(error, InputError) else f"stopped in line {line}: {died}{type(error).__name__} "
        print(f"{SCRIPT}.py: {' '.join(f'{where}{error}'.split())}", file=sys.stderr, flush=True)
        for process in multiprocessing.active_children():  # of environments, which may be broken
            process.kill()
        os._exit(130 if interrupted else 2 if wrong_input else 1)


if __name__ == "__main__":
    main()
