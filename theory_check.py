"""How many transitions does it take to learn a rotation? O(d) with ReenGAGE, O(d²) with DDPG, measured.

Levine and Feizi (AAAI 2023) prove on two families of environments, whose only unknown is a rotation U of R^d, that
minimising ReenGAGE's loss learns U from O(d) unique transitions, while DDPG's needs O(d²) (Propositions 1 and 2):

    DDPG      mean (Q(s, a, g) − y)²,   y = R(s', g) + γ Q'(s', π'(s', g), g)           (Eq. 4)
    ReenGAGE  the same + α · mean ‖∇_g Q(s, a, g) − ∇_g y‖²                             (Eq. 8, dense rewards)
              the same, the new term only where R(s', g) = c_low, and with ∇_g R = 0    (Eq. 9, sparse rewards)

For each dimension, family and loss this script measures the number of transitions twice: where the loss pins U down
(the rank of its residuals' Jacobian), and where minimising the loss finds U. Then it fits the exponents. It also shows
what relabelling does for DDPG, and how large the bias of Eq. 9 is where transitions are random (Eq. 20-22). Both losses
search the rotations proper, of determinant 1; the paper's U is an "orthogonal (rotation) matrix".

    python theory_check.py     four to twelve minutes on two cores; exit status 0 if the theory holds, 1 if it does not
"""

import csv
import itertools
import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import autograd
from tqdm import tqdm

GAMMA = 0.9
C_LOW = 0.0  # the sparse family's reward where nothing is reached: R = gᵀs1' is exactly 0 where s1' = 0
QUICK_DIMS, QUICK_TRIALS = (8, 11, 16), 4

RECOVERED = 1e-3  # U counts as recovered below this relative error ‖Ũ − U‖ / ‖U‖
SUCCESS_RATE = 0.9  # the share of trials that has to recover U
STARTS = 3  # random rotations that the minimisation may start from, one after the other
RESOLUTION = 1 / 16  # bisection of the learning threshold stops at this relative width, or at one transition
STANDARD_ERRORS = 5  # how far the simulated bias may lie from its closed form


@dataclass
class Args:
    dims: tuple[int, ...] = (4, 6, 8, 11, 16, 22, 32)
    """dimensions d, at least two, each 3 to 64; identifiability also at twice the largest (up to 64)"""
    trials: int = 10
    """random rotations and transition sequences for each dimension, family and loss, at least 2"""
    seed: int = 1
    """random seed, 0 or larger; the same seed gives the same files"""
    quick: bool = False
    """small dimensions and 4 trials, in about a minute; --dims and --trials still win"""
    out: str = "runs/theory_check"
    """folder for the csv files and the figure"""


# ---------------------------------------------------------------------------------------------------------------------
# Environments
# ---------------------------------------------------------------------------------------------------------------------


class RotationEnv(gym.Env):
    """s, a, g in R^d; the action is turned by an unknown rotation U before it acts. Subclasses say how, and on what."""

    state_parts: int  # how many vectors of R^d the state consists of
    period: int  # the action acts in the first of this many steps, then again

    def __init__(self, rotation):
        self.rotation = np.asarray(rotation, dtype=np.float64)
        d = len(self.rotation)
        space = {"observation": self.state_parts * d, "achieved_goal": d, "desired_goal": d}
        self.observation_space = gym.spaces.Dict(
            {name: gym.spaces.Box(-np.inf, np.inf, (size,), np.float64) for name, size in space.items()}
        )
        self.action_space = gym.spaces.Box(-1.0, 1.0, (d,), np.float64)

    def reset(self, *, seed=None, options=None):
        """A normal state and a normal goal, or the ones in `options`."""
        super().reset(seed=seed)
        d = len(self.rotation)
        self.state = self.np_random.normal(size=self.state_parts * d)
        self.goal = self.np_random.normal(size=d)
        if options:
            self.state, self.goal = np.copy(options["state"]), np.copy(options["goal"])
        return self._observe(), {}

    def step(self, action):
        action = action / max(1.0, np.linalg.norm(action))  # ‖a‖ ≤ 1
        self.state = self._transition(self.rotation @ action)
        observation = self._observe()
        reward = float(self.compute_reward(observation["achieved_goal"], self.goal, {}))
        return observation, reward, False, False, {}  # episodes are ended by who collects them

    def compute_reward(self, achieved_goal, desired_goal, info):
        return (achieved_goal * desired_goal).sum(-1)

    def _observe(self):
        d = len(self.rotation)
        parts = {"observation": self.state, "achieved_goal": self.state[:d], "desired_goal": self.goal}
        return {name: part.copy() for name, part in parts.items()}

    def _transition(self, turned_action):
        raise NotImplementedError


class DenseRotation(RotationEnv):
    """Proposition 1: s' = s + Ua, R = gᵀs'."""

    state_parts = 1
    period = 1

    def _transition(self, turned_action):
        return self.state + turned_action


class SparseRotation(RotationEnv):
    """Proposition 2: s = (s1; s2), R = gᵀs1'. Where s1 ≠ 0, the action acts and the result is stored:
    s' = (0; s1 + Ua). Where s1 = 0, the store is loaded: s' = (s2; 0).

    Beyond the paper, for the bias: with probability `slip` an action acts backwards and its result is not stored but
    rewarded at once, s' = (s1 − Ua; 0).
    """

    state_parts = 2
    period = 2

    def __init__(self, rotation, slip=0.0):
        super().__init__(rotation)
        self.slip = slip

    def _transition(self, turned_action):
        s1, s2 = np.split(self.state, 2)
        zero = np.zeros_like(s1)
        if not s1.any():
            return np.concatenate([s2, zero])
        if self.slip and self.np_random.random() < self.slip:
            return np.concatenate([s1 - turned_action, zero])
        return np.concatenate([zero, s1 + turned_action])


class Transitions(NamedTuple):
    observation: torch.Tensor  # (batch, d or 2d)
    action: torch.Tensor  # (batch, d)
    reward: torch.Tensor  # (batch,)
    next_observation: torch.Tensor
    goal: torch.Tensor

    def first(self, count):
        return Transitions(*(field[:count] for field in self))


def random_rotation(dim, rng):
    """Uniform (Haar) on SO(d)."""
    q, r = np.linalg.qr(rng.normal(size=(dim, dim)))
    q = q * np.sign(np.diag(r))
    q[:, 0] *= np.sign(np.linalg.det(q))
    return torch.from_numpy(q)


def random_unit_vectors(shape, rng):
    vectors = rng.normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def collect(env, periods, rng):
    """Step with random actions.

    Each period is an episode: every transition that tells about U has a goal of its own, so that goals are in general
    position, as the propositions assume of states and actions.
    """
    steps = []
    env.reset(seed=int(rng.integers(2**31)))
    for _ in range(periods):
        before, _ = env.reset()
        for _ in range(env.period):
            action = random_unit_vectors(env.action_space.shape, rng)
            after, reward, *_ = env.step(action)
            steps.append((before["observation"], action, reward, after["observation"], before["desired_goal"]))
            before = after
    return Transitions(*(torch.from_numpy(np.array(column, dtype=np.float64)) for column in zip(*steps, strict=True)))


def relabel(transitions, goals_per_transition, env, rng):
    """Replace every transition by copies with random goals; the rewards follow from the known R."""
    copies = Transitions(*(field.repeat_interleave(goals_per_transition, 0) for field in transitions))
    goal = torch.from_numpy(rng.normal(size=copies.goal.shape))
    achieved_goal = copies.next_observation[:, : goal.shape[1]]
    return copies._replace(goal=goal, reward=env.compute_reward(achieved_goal, goal, {}))


# ---------------------------------------------------------------------------------------------------------------------
# The model class: the optimal Q-function and policy of the environment whose rotation is Ũ
# ---------------------------------------------------------------------------------------------------------------------


def rotate(rotation, vectors):
    """Ũv for each row v of vectors, (batch, d)."""
    return (rotation @ vectors.unsqueeze(-1)).squeeze(-1)


def actor(rotation, goal):
    """π_Ũ(s, g) = Ũᵀg / ‖g‖ in both families, (batch, d)."""
    return rotate(rotation.mT, goal) / goal.norm(dim=-1, keepdim=True)


def dense_critic(rotation, observation, action, goal):
    """Proposition 1: Q_Ũ(s, a, g) = gᵀ(s + Ũa) / (1 − γ) + γ‖g‖ / (1 − γ)², (batch,)."""
    after = observation + rotate(rotation, action)
    return (goal * after).sum(-1) / (1 - GAMMA) + GAMMA * goal.norm(dim=-1) / (1 - GAMMA) ** 2


def sparse_critic(rotation, observation, action, goal):
    """Proposition 2, (batch,): Q_Ũ(s, a, g) = γ gᵀ(s1 + Ũa) / (1 − γ²) + γ³‖g‖ / (1 − γ²)² where s1 ≠ 0,
    and gᵀs2 / (1 − γ²) + γ²‖g‖ / (1 − γ²)² where s1 = 0."""
    s1, s2 = observation.chunk(2, dim=-1)
    discount, norm = 1 - GAMMA**2, goal.norm(dim=-1)
    acts = GAMMA * (goal * (s1 + rotate(rotation, action))).sum(-1) / discount + GAMMA**3 * norm / discount**2
    loads = (goal * s2).sum(-1) / discount + GAMMA**2 * norm / discount**2
    return torch.where((s1 != 0).any(-1), acts, loads)


# ---------------------------------------------------------------------------------------------------------------------
# The losses
# ---------------------------------------------------------------------------------------------------------------------


def td_errors(rotation, target_rotation, batch, family, alpha):
    """Everything that the loss squares, one row per transition: the TD error and, with alpha > 0, √α times that of the
    goal gradient. No gradient flows into the target. `rotation` is one matrix or one per transition."""
    critic = FAMILIES[family].critic
    goal = batch.goal.clone().requires_grad_()
    if family == "dense":  # Eq. 8: R = gᵀs' is known, and so is its gradient
        reward = (goal * batch.next_observation).sum(-1)
        counted = torch.ones_like(batch.reward)
    else:  # Eq. 9: R is a number that was observed; the gradient counts where it is c_low
        reward = batch.reward
        counted = (batch.reward == C_LOW).to(reward.dtype)
    target = reward + GAMMA * critic(target_rotation, batch.next_observation, actor(target_rotation, goal), goal)
    q = critic(rotation, batch.observation, batch.action, goal)
    error = (q - target.detach()).unsqueeze(-1)
    if alpha == 0:
        return error
    (target_gradient,) = autograd.grad(target.sum(), goal)
    (q_gradient,) = autograd.grad(q.sum(), goal, create_graph=True)
    gradient_error = counted.unsqueeze(-1) * (q_gradient - target_gradient)  # (batch, d)
    return torch.cat([error, math.sqrt(alpha) * gradient_error], dim=-1)


def critic_loss(rotation, target_rotation, batch, family, alpha):
    """mean (Q − y)² + alpha · mean over the batch of ‖∇_g Q − ∇_g y‖²"""
    return td_errors(rotation, target_rotation, batch, family, alpha).square().sum(-1).mean()


class Family(NamedTuple):
    env: type[RotationEnv]
    critic: Callable


class Method(NamedTuple):
    name: str
    alpha: float
    relabelled: bool  # whether every transition is replayed with d random goals
    exponent: int  # what the theory says about the number of transitions

    def count(self, dim):
        """The number of transitions at which the rotation is identified."""
        return dim - 1 if self.exponent == 1 else dim * (dim - 1) // 2


FAMILIES = {"dense": Family(DenseRotation, dense_critic), "sparse": Family(SparseRotation, sparse_critic)}
METHODS = {
    method.name: method
    for method in (
        Method("ReenGAGE", alpha=1.0, relabelled=False, exponent=1),
        Method("DDPG", alpha=0.0, relabelled=False, exponent=2),
        Method("DDPG + relabelling", alpha=0.0, relabelled=True, exponent=1),
    )
}


# ---------------------------------------------------------------------------------------------------------------------
# Residuals and Jacobian on the rotation group, and the minimisation
# ---------------------------------------------------------------------------------------------------------------------


def skew(coordinates, dim):
    """The antisymmetric matrix with these entries above its diagonal: a tangent vector of the rotations."""
    matrix = coordinates.new_zeros(dim, dim)
    matrix[tuple(torch.triu_indices(dim, dim, 1))] = coordinates
    return matrix - matrix.T


def linearise(rotation, batch, family, alpha):
    """The residuals and their Jacobian at Ũ along exp(A) Ũ, A antisymmetric: d(d−1)/2 columns.

    The target is frozen, as in training. That loses nothing here: for an orthogonal Ũ the target does not depend on Ũ,
    because ŨŨᵀ = I turns gᵀŨπ_Ũ into ‖g‖. So this is also the Jacobian with both copies moving, which a test checks.
    Rows that are zero are left out, for speed: the sparse family's loading transitions, and gradients that are masked.
    """
    # The derivative of f(exp(A) Ũ) at A = 0 is ⟨G Ũᵀ, A⟩ with G = ∂f/∂Ũ, and A_ji = −A_ij: entry ij minus entry ji.
    copies = rotation.expand(len(batch.reward), *rotation.shape).detach().requires_grad_()  # one per transition
    errors = td_errors(copies, rotation, batch, family, alpha)  # (batch, 1 or 1 + d)
    each = torch.eye(errors.shape[1], dtype=errors.dtype)
    (gradient,) = autograd.grad(errors.sum(0), copies, each, is_grads_batched=True)  # (1 or 1 + d, batch, d, d)
    gradient = gradient.flatten(0, 1)
    says_something = gradient.flatten(1).any(1)
    gradient = gradient[says_something] @ rotation.T
    row, column = torch.triu_indices(*rotation.shape, 1)
    return errors.detach().T.flatten()[says_something], gradient[:, row, column] - gradient[:, column, row]


def minimise(rotation, batch, family, alpha):
    """Levenberg-Marquardt on the rotations, with the target network always equal to the current one.

    Returns the rotation and whether its loss is zero, that is 10⁻¹⁸ of the start's. The iteration ends there, where ten
    steps gain less than 5 %, or after 500.
    """

    def normal_equations(rotation):
        errors, jacobian = linearise(rotation, batch, family, alpha)
        return jacobian.T @ jacobian, jacobian.T @ errors

    loss = checkpoint = critic_loss(rotation, rotation, batch, family, alpha)
    zero, damping = 1e-18 * loss, 1e-2
    matrix, vector = normal_equations(rotation)
    for iteration in range(1, 501):
        damped = matrix + damping * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=matrix.dtype)
        step = -torch.cholesky_solve(vector.unsqueeze(1), torch.linalg.cholesky(damped)).squeeze(1)
        candidate = torch.matrix_exp(skew(step, len(rotation))) @ rotation
        candidate_loss = critic_loss(candidate, candidate, batch, family, alpha)
        if candidate_loss < zero:
            return candidate, True
        if candidate_loss < loss:
            rotation, loss, damping = candidate, candidate_loss, max(damping / 5, 1e-10)
            matrix, vector = normal_equations(rotation)
        else:
            damping *= 10
        if iteration % 10 == 0:
            if loss > 0.95 * checkpoint:
                break
            checkpoint = loss
    return rotation, False


# ---------------------------------------------------------------------------------------------------------------------
# The two measurements. Transitions are counted where the action acts: all of the dense family, every other one of the
# sparse family, whose loading transitions are in the batch as well and say nothing about U.
# ---------------------------------------------------------------------------------------------------------------------


class Task(NamedTuple):
    seed: int
    measurement: str  # "identifiability" or "learning"
    family: str
    method: Method
    dim: int
    trial: int


def smallest(succeeds, limit, resolution=0.0):
    """The smallest count that succeeds: doubling, then bisection to this relative width or 1. inf beyond the limit."""
    low, high = 0, 1
    while not succeeds(high):
        if high == limit:
            return math.inf
        low, high = high, min(2 * high, limit)
    while high - low > max(1, resolution * low):
        middle = (low + high) // 2
        low, high = (low, middle) if succeeds(middle) else (middle, high)
    return high


def measure(task):
    """One trial: a random rotation, one sequence of transitions, and how many of them it takes. A row of the csv."""
    torch.set_num_threads(1)  # one process per core
    dim, family, (name, alpha, relabelled, _) = task.dim, task.family, task.method
    # The methods share rotations, transitions and starts: their thresholds are compared on the same problems.
    place = [task.seed, task.measurement == "learning", list(FAMILIES).index(family), dim, task.trial]
    rng = np.random.default_rng(place)
    truth = random_rotation(dim, rng)
    env = FAMILIES[family].env(truth.numpy())
    starts = [random_rotation(dim, rng) for _ in range(STARTS)]
    goals = dim if relabelled else 1
    limit = 2 * dim if relabelled else dim * dim  # d² equations pin down any d × d matrix, rotation or not
    batch = collect(env, limit, rng)
    if relabelled:
        batch = relabel(batch, goals, env, rng)
    tuples_per_transition = env.period * goals
    theory, stuck, ambiguous = task.method.count(dim), 0, 0

    def identifies(count):
        unknowns = dim * (dim - 1) // 2
        if count * goals * (1 if alpha == 0 else 1 + dim) < unknowns:
            return False  # fewer equations than unknowns
        _, jacobian = linearise(truth, batch.first(count * tuples_per_transition), family, alpha)
        return torch.linalg.matrix_rank(jacobian) == unknowns

    def recovers(count):
        """From the first start whose loss becomes zero: a learner cannot know more than that."""
        nonlocal stuck, ambiguous
        first = batch.first(count * tuples_per_transition)
        for start in starts:
            found, is_zero = minimise(start, first, family, alpha)
            recovered = bool((found - truth).norm() / truth.norm() < RECOVERED)
            if count >= theory:  # with fewer, other rotations have zero loss as well
                stuck += not is_zero
                ambiguous += is_zero and not recovered
            if is_zero:
                return recovered
        return False

    if task.measurement == "learning":
        transitions = smallest(recovers, limit, RESOLUTION)
    elif identifies(theory) and not identifies(theory - 1):  # ranks only grow: two look-ups settle it
        transitions = theory
    else:
        transitions = smallest(identifies, limit)
    return {
        **(task._asdict() | {"method": name}),
        "theory": theory,
        "transitions": transitions,
        "all_transitions": transitions * env.period,
        "replay_tuples": transitions * tuples_per_transition,
        "stuck_starts": stuck,
        "ambiguous_counts": ambiguous,
    }


def tasks_of(args):
    """Every trial of the run, the longest ones first."""
    tasks = [
        Task(args.seed, "learning", family, method, dim, trial)
        for family in FAMILIES
        for method in METHODS.values()
        for dim in args.dims
        for trial in range(args.trials)
    ]
    # Ranks need no luck: two trials each are enough, and one where the matrices are large (without relabelling there).
    ranks = [task._replace(measurement="identifiability") for task in tasks if task.trial < 2]
    largest = [task for task in ranks if task.dim == max(args.dims) <= 32 and task.trial == 0]
    tasks += ranks + [task._replace(dim=2 * task.dim) for task in largest if not task.method.relabelled]
    return sorted(tasks, key=lambda task: -task.dim)


def measure_all(tasks):
    """The rows of the csv, in an order that does not depend on which process was faster."""
    # Workers start with Ctrl-C ignored and keep it so: only this process reports it, and stops them.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    pool = multiprocessing.get_context("spawn").Pool(min(os.cpu_count() or 1, len(tasks)))
    signal.signal(signal.SIGINT, handler)
    with pool:
        rows = list(tqdm(pool.imap_unordered(measure, tasks), total=len(tasks), unit="trial", desc="theory_check"))
    return sorted(rows, key=lambda row: [row[key] for key in ("measurement", "family", "method", "dim", "trial")])


# ---------------------------------------------------------------------------------------------------------------------
# Exponents
# ---------------------------------------------------------------------------------------------------------------------


def threshold(counts):
    """The smallest count that is enough in 90 % of the trials."""
    return np.quantile(counts, SUCCESS_RATE, axis=-1, method="inverted_cdf")


def slope(dims, counts):
    """Least squares on log-log axes; counts may have leading dimensions."""
    x, y = np.log(dims) - np.log(dims).mean(), np.log(counts)
    return (y * x).sum(-1) / (x * x).sum()


def counts_by_dim(rows, measurement, family, method):
    """{d: the trials' numbers of transitions}"""
    counts = {}
    for row in rows:
        if (row["measurement"], row["family"], row["method"]) == (measurement, family, method):
            counts.setdefault(row["dim"], []).append(row["transitions"])
    return {dim: np.array(counts[dim]) for dim in sorted(counts)}


def exponent(rows, measurement, family, name, seed):
    """The fitted exponent and its 95 % bootstrap interval over trials. A row of the exponents' csv."""
    method, rng = METHODS[name], np.random.default_rng(seed)
    trials = counts_by_dim(rows, measurement, family, name)
    dims = np.array(list(trials))
    theory = np.array([method.count(dim) for dim in dims])
    law = slope(dims, theory)  # of d − 1 or d(d − 1)/2 themselves, which small dimensions raise
    measured = np.array([threshold(counts) for counts in trials.values()])
    resampled = [threshold(rng.choice(counts, size=(2000, len(counts)))) for counts in trials.values()]
    with np.errstate(invalid="ignore"):  # inf: a trial that never learned; slope or interval is nan then, and no match
        fitted = slope(dims, measured)
        low, high = np.quantile(slope(dims, np.stack(resampled, axis=-1)), [0.025, 0.975])
    # Nearer to its own law than to the other one, whose exponent is 1 away and outside the interval.
    holds = abs(fitted - law) < 0.5 and law - 1 < low <= high < law + 1
    # A rank is no estimate, so every trial has to equal the theory; no trial learns from fewer.
    agrees = np.equal if measurement == "identifiability" else np.greater_equal
    holds = holds and all(agrees(counts, method.count(dim)).all() for dim, counts in trials.items())
    return {
        "seed": seed,
        "measurement": measurement,
        "family": family,
        "method": name,
        "expected": method.exponent,
        "exponent": round(float(fitted), 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
        "exponent_of_theory": round(float(law), 3),
        "smallest_ratio": round(float((measured / theory).min()), 3),
        "largest_ratio": round(float((measured / theory).max()), 3),
        "holds": bool(holds),
    }


# ---------------------------------------------------------------------------------------------------------------------
# The bias of Eq. 9 where transitions are random (Eq. 20-22)
# ---------------------------------------------------------------------------------------------------------------------


class SlipConstants(NamedTuple):
    """The optimal Q-function of SparseRotation(slip=p) is, by solving its Bellman equation (p = 0: sparse_critic)

    Q = scale · gᵀs2 + bonus · ‖g‖                                                 where s1 = 0
    Q = scale · gᵀ(share · s1 + effect · Ua) + share · bonus · ‖g‖                 where s1 ≠ 0
    """

    share: float  # κ = p + (1 − p)γ
    effect: float  # c = (1 − p)γ − p, of the action: below 0 it acts backwards so often that the opposite is better
    scale: float  # A = 1 / (1 − γκ)
    bonus: float  # B = γ|c|A²


def slip_constants(slip):
    stored, rewarded_at_once = (1 - slip) * GAMMA, slip
    share, effect = stored + rewarded_at_once, stored - rewarded_at_once
    scale = 1 / (1 - GAMMA * share)
    return SlipConstants(share, effect, scale, GAMMA * abs(effect) * scale**2)


def slip_actor(rotation, goal, slip):
    return math.copysign(1.0, slip_constants(slip).effect) * actor(rotation, goal)


def slip_critic(rotation, observation, action, goal, slip):
    c = slip_constants(slip)
    s1, s2 = observation.chunk(2, dim=-1)
    bonus = c.bonus * goal.norm(dim=-1)
    turned = rotate(rotation, action)
    acts = c.scale * (goal * (c.share * s1 + c.effect * turned)).sum(-1) + c.share * bonus
    return torch.where((s1 != 0).any(-1), acts, c.scale * (goal * s2).sum(-1) + bonus)


def exact_gradients(s1, turned_action, goal, slip):
    """∇_g Q of the optimal Q-function (Eq. 7), and what Eq. 9 puts in its place: the mean over R = c_low (Eq. 20)."""
    c = slip_constants(slip)
    bonus = c.bonus * goal / goal.norm()
    true = c.scale * (c.share * s1 + c.effect * turned_action) + c.share * bonus
    masked = GAMMA * (c.scale * (s1 + turned_action) + bonus)
    return true, masked


def simulated_gradients(env, state, action, goal, samples, rng):
    """The same two from stepping the environment: each sample's ∇_g R + γ ∇_g Q', and γ ∇_g Q' where R = c_low."""
    env.reset(seed=int(rng.integers(2**31)))
    rewards, observations = [], []
    for _ in range(samples):
        env.reset(options={"state": state.numpy(), "goal": goal.numpy()})
        observation, reward, *_ = env.step(action.numpy())
        rewards.append(reward)
        observations.append(observation["observation"])
    next_observation = torch.from_numpy(np.array(observations))
    rotation = torch.from_numpy(env.rotation)
    goals = goal.expand(samples, -1).clone().requires_grad_()
    next_action = slip_actor(rotation, goals, env.slip)
    next_value = GAMMA * slip_critic(rotation, next_observation, next_action, goals, env.slip)
    (value_gradient,) = autograd.grad(next_value.sum(), goals)
    reward_gradient = next_observation.chunk(2, dim=-1)[0]  # R = gᵀs1'
    return reward_gradient + value_gradient, value_gradient[torch.tensor(rewards) == C_LOW]


def measure_bias(seed, dim=4, samples=2000):
    """True and masked goal gradient along Ua, and the norm of their difference. Rows of the bias csv."""
    rng = np.random.default_rng([seed, dim, samples])
    rotation = random_rotation(dim, rng)
    action = torch.from_numpy(random_unit_vectors(dim, rng))
    turned = rotate(rotation, action)
    s1, s2, goal = torch.from_numpy(rng.normal(size=(3, dim)))
    # State and goal orthogonal to Ua: what the gradient has along Ua is then the effect of the action alone.
    s1, goal = s1 - (s1 @ turned) * turned, goal - (goal @ turned) * turned
    rows = []
    for slip in np.linspace(0.0, 0.9, 10).round(1).tolist():
        env = SparseRotation(rotation.numpy(), slip)
        samples_of_true, samples_of_masked = simulated_gradients(env, torch.cat([s1, s2]), action, goal, samples, rng)
        true, masked = exact_gradients(s1, turned, goal, slip)
        bias = masked - true
        simulated = samples_of_masked.mean(0) - samples_of_true.mean(0)
        error = (samples_of_true.var(0) / samples).sqrt()  # the masked ones, which did not slip, are all alike
        rows.append(
            {
                "seed": seed,
                "slip": slip,
                "true": round(float(true @ turned), 6),
                "masked": round(float(masked @ turned), 6),
                "simulated_true": round(float(samples_of_true.mean(0) @ turned), 6),
                "simulated_masked": round(float(samples_of_masked.mean(0) @ turned), 6),
                "standard_error": round(float((samples_of_true @ turned).std() / math.sqrt(samples)), 6),
                "bias": round(float(bias.norm()), 6),
                "simulated_bias": round(float(simulated.norm()), 6),
                "holds": bool(((simulated - bias).abs() <= STANDARD_ERRORS * error + 1e-9).all()),
            }
        )
    return rows


# ---------------------------------------------------------------------------------------------------------------------
# Report
# ---------------------------------------------------------------------------------------------------------------------


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def print_report(rows, exponents, bias):
    dims = sorted({row["dim"] for row in rows})
    print("\nTransitions in which the action acts, and the exponent of d with its 95 % interval\n")
    print(f"{'':46}" + "".join(f"{f'd={dim}':>6}" for dim in dims) + "   exponent            expected    holds")
    for row in exponents:
        kind = [row[key] for key in ("measurement", "family", "method")]
        counts = {dim: threshold(trials) for dim, trials in counts_by_dim(rows, *kind).items()}
        cells = "".join(f"{counts.get(dim, ''):>6}" for dim in dims)
        interval = f"{row['exponent']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        verdict = "yes" if row["holds"] else "NO"
        print(
            "{:17}{:8}{:21}".format(*kind)
            + f"{cells}   {interval:20}{row['expected']} ({row['exponent_of_theory']:.2f})    {verdict}"
        )
    print("\nIn brackets: the exponent of d − 1 or d(d − 1)/2 itself over these dimensions, which small ones raise.")
    print("Failures from that many on: starts that stopped above zero loss, and wrong rotations with zero loss.")
    for method in METHODS:
        failures = [[row["stuck_starts"], row["ambiguous_counts"]] for row in rows if row["method"] == method]
        print("{:21}{:6}{:6}".format(method, *np.sum(failures, axis=0)))
    print("\nSparse loss where an action slips with probability p: ‖masked − true goal gradient‖")
    for name, key in (("p", "slip"), ("closed form", "bias"), ("simulated", "simulated_bias")):
        print(f"{name:14}" + "".join(f"{row[key]:7.2f}" for row in bias))


BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#555555"  # distinguishable for colour-blind readers


def draw_counts(ax, rows, family, method, colour, label, scale=lambda dim: 1):
    """Dashed: the theory's count. Rings: identifiability. Dots: learning."""
    for measurement, marker in (("identifiability", {"mfc": "none", "ms": 8}), ("learning", {"ms": 4})):
        counts = counts_by_dim(rows, measurement, family, method)
        ax.plot(list(counts), [threshold(n) * scale(dim) for dim, n in counts.items()], "o", color=colour, **marker)
    dims = list(counts_by_dim(rows, "identifiability", family, method))
    theory = [METHODS[method].count(dim) * scale(dim) for dim in dims]
    ax.plot(dims, theory, "--", color=colour, lw=1)
    ax.annotate(label, (dims[-1], theory[-1]), (9, 0), textcoords="offset points", color=colour, va="center")


def draw_bias(ax, bias):
    slips = np.linspace(0, max(row["slip"] for row in bias), 100)
    scale, effect = np.array([(slip_constants(slip).scale, slip_constants(slip).effect) for slip in slips]).T
    ax.axhline(0, color=GREY, lw=0.6)
    ax.plot(slips, scale * effect, "--", color=GREY, lw=1)
    ax.plot(slips, scale * GAMMA, "--", color=ORANGE, lw=1)
    keys = ("slip", "simulated_true", "simulated_masked", "standard_error")
    x, true, masked, error = (np.array([row[key] for row in bias]) for key in keys)
    ax.errorbar(x, true, 1.96 * error, fmt="o", color=GREY, ms=4, capsize=2)
    ax.plot(x, masked, "o", color=ORANGE, ms=4)
    beside = {"textcoords": "offset points", "color": ORANGE, "ha": "right"}
    ax.annotate("where R = c_low:\nwhat Eq. 9 fits", (x[5], masked[5]), (0, 10), **beside)
    ax.annotate("true goal gradient", (x[6], true[6]), (12, 4), **{**beside, "color": GREY, "ha": "left"})


def plot(rows, exponents, bias, folder):
    """The figure: the two propositions, relabelling, and the bias."""
    import matplotlib  # only here: the measuring processes import this file, too

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    matplotlib.rcParams.update({"font.size": 9, "axes.titlesize": 10})
    matplotlib.rcParams.update({"axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(2, 2, figsize=(9.5, 7.4), layout="constrained")
    dims = sorted({row["dim"] for row in rows})
    learnt = {(row["family"], row["method"]): row["exponent"] for row in exponents if row["measurement"] == "learning"}

    def label(family, method, count):
        return f"{method}: {count}\nlearnt: $d^{{\\,{learnt[family, method]:.2f}}}$"

    for ax, family, title in zip(axes[0], FAMILIES, ("(a) dense rewards", "(b) sparse rewards"), strict=True):
        ax.set(title=title, ylabel="transitions needed to learn U")
        draw_counts(ax, rows, family, "DDPG", BLUE, label(family, "DDPG", "d(d − 1)/2"))
        draw_counts(ax, rows, family, "ReenGAGE", ORANGE, label(family, "ReenGAGE", "d − 1"))
    ax = axes[1, 0]
    ax.set(title="(c) DDPG, each transition with d random goals (dense)", ylabel="needed to learn U")
    draw_counts(ax, rows, "dense", "DDPG + relabelling", BLUE, "replay tuples\nd(d − 1)", scale=lambda dim: dim)
    draw_counts(ax, rows, "dense", "DDPG + relabelling", ORANGE, "transitions\nd − 1")
    for ax in (axes[0, 0], axes[0, 1], axes[1, 0]):
        ax.set(xscale="log", yscale="log", xlabel="dimension d", xlim=(min(dims) * 0.85, max(dims) * 4.5))
        ax.set(ylim=(min(dims) / 2, max(dims) ** 2))
        ax.set_xticks(dims, [str(dim) for dim in dims])
        ax.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    marks = {"learnt in 90 % of trials": {"marker": "o", "ms": 4, "ls": ""}}
    marks["identified (rank of the Jacobian)"] = {"marker": "o", "ms": 8, "mfc": "none", "ls": ""}
    marks["theory"] = {"ls": "--", "lw": 1}
    lines = [plt.Line2D([], [], color=GREY, label=text, **style) for text, style in marks.items()]
    axes[0, 0].legend(handles=lines, frameon=False, loc="upper left")

    axes[1, 1].set(title="(d) bias of the sparse loss where actions slip", xlabel="probability that an action slips")
    axes[1, 1].set(ylabel="effect of the action in the goal gradient")
    draw_bias(axes[1, 1], bias)
    figure.savefig(folder / "theory_check.png", dpi=200)
    plt.close(figure)


# ---------------------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------------------


def complaint(args):
    """What is wrong with the arguments, or missing, in one line, or None."""
    if len(set(args.dims)) < 2 or len(set(args.dims)) < len(args.dims):
        return f"--dims needs at least two different dimensions, got {' '.join(map(str, args.dims)) or 'none'}"
    if not all(3 <= dim <= 64 for dim in args.dims):
        return f"--dims must be between 3 and 64, got {' '.join(map(str, args.dims))}"
    if args.trials < 2:
        return f"--trials must be at least 2, got {args.trials}"
    if args.seed < 0:
        return f"--seed must be 0 or larger, got {args.seed}"
    if find_spec("matplotlib") is None:
        return "the figure needs matplotlib: pip install matplotlib"
    try:
        Path(args.out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"--out {args.out} cannot be a folder: {error.strerror}"
    return None


def check(args):
    """Measure, report, and return whether the theory holds."""
    rows, bias = measure_all(tasks_of(args)), measure_bias(args.seed)
    kinds = itertools.product(("identifiability", "learning"), FAMILIES, METHODS)
    exponents = [exponent(rows, *kind, args.seed) for kind in kinds]
    folder = Path(args.out)
    for name, table in (("", rows), ("_exponents", exponents), ("_bias", bias)):
        write_csv(folder / f"theory_check{name}.csv", table)
    print_report(rows, exponents, bias)
    plot(rows, exponents, bias, folder)
    holds = all(row["holds"] for row in exponents + bias)
    print(f"\nThe theory {'holds' if holds else 'DOES NOT HOLD'} here. Written: {folder}/theory_check*.csv and .png")
    return holds


def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else arguments
    # Before the flags are read, since --quick chooses what is shown and used where they say nothing.
    defaults = Args(dims=QUICK_DIMS, trials=QUICK_TRIALS) if "--quick" in arguments else Args()
    args = tyro.cli(Args, args=arguments, default=defaults)
    if problem := complaint(args):
        print(f"theory_check.py: error: {problem}", file=sys.stderr)
        return 2
    try:
        return 0 if check(args) else 1
    except KeyboardInterrupt:
        print("\ntheory_check.py: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
