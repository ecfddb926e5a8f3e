"""The goal-reaching environments of the ReenGAGE paper, registered with Gymnasium when this module is imported.

| id | task | section of the paper |
|---|---|---|
| ``ContinuousSeek-v0`` (``d=20``), ``ContinuousSeek5/10/20-v0`` | reach a point of [−5, 5]^d | Toy Example |
| ``DriveSeek-v0`` | steer a car over many goals on a torus | Multi-ReenGAGE, Experiments |
| ``NoisySeek-v0`` | walk in the noisy plane to clusters of goals | Multi-ReenGAGE, Experiments |
| ``BitFlip-v0`` (``d=40``), ``BitFlip20-v0`` | flip bits until they equal the goal | appendix |
| ``HandReach-v2`` | the Shadow hand's five fingertips (gymnasium-robotics) | Robotics Experiments |

Observations are dicts of ``observation``, ``achieved_goal`` and ``desired_goal``, and of the multi-goal API there is
``compute_reward(achieved_goal, desired_goal, info)``, which broadcasts over leading dimensions. Each exists twice, with
the same keywords (but Gymnasium's, and for pictures) and exactly the same results for the same seeds and actions:
``gym.make(id)`` is one environment, and ``gym.make_vec(id, num_envs=n)`` steps n of them as a batch.
"""

import importlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from ctypes.util import find_library

import gymnasium as gym
import numpy as np
from gymnasium.error import DependencyNotInstalled, ResetNeeded
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.utils import EzPickle, seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

try:
    from farama_notifications import notifications

    # Importing gymnasium_robotics prints a notice about Adroit environments, which nothing here uses.
    notifications.pop("gymnasium_robotics", None)
except ImportError:
    pass
try:
    import gymnasium_robotics  # noqa: F401 (registers Fetch, HandManipulate, mazes, ...)
    import mujoco
    from gymnasium_robotics.envs.shadow_dexterous_hand.reach import FINGERTIP_SITE_NAMES, MujocoHandReachEnv
except Exception as error:
    # Not only ImportError: where MUJOCO_GL is set and OpenGL missing, importing mujoco fails with anything else.
    _ROBOTICS_ERROR = error
    MujocoHandReachEnv = gym.Env
else:
    _ROBOTICS_ERROR = None

N_MAX = 200  # the largest number of goals in DriveSeek and NoisySeek, and the rows of their desired goal

# The colours of the paper's Figure 4: goals that were not reached, goals that were, and the path.
WANTED, REACHED, PATH = "#4cc9e8", "#10239e", "#e0479e"


# ----------------------------------------------------------------------------------------------------------------------
# What the environments share
# ----------------------------------------------------------------------------------------------------------------------


class _GoalEnv(gym.Env):
    """One environment, whose rules are functions of arrays with any leading dimensions.

    The state of an episode is a dict of arrays, with ``desired_goal`` among them. A subclass has

        _start(np_random) -> state
        _noise(np_random) -> array, what chance adds to a step, or None
        _transition(state, action, noise) -> the entries that change
        _observe(state) -> observation, achieved_goal
        _reached(achieved_goal, desired_goal) -> bool (...)
        _picture(figure), which draws `_path`

    `_GoalVectorEnv` applies the same rules to states that have a leading dimension, one row for each environment; only
    `_start` and `_noise`, which use one environment's random numbers, see a single episode.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012 (Gymnasium's form)
    _longest = np.inf  # steps after which an episode ends even where the time limit is longer

    def __init__(self, observation, achieved_goal, desired_goal, action_space, render_mode):
        """The first three are the Box spaces of the observation's entries."""
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.observation_space = Dict(observation=observation, achieved_goal=achieved_goal, desired_goal=desired_goal)
        self.action_space = action_space
        self.render_mode = render_mode

    def compute_reward(self, achieved_goal, desired_goal, info):
        """Reward of reaching ``achieved_goal`` where ``desired_goal`` is wanted; leading dimensions broadcast.

        ``info`` is not used: it is there because the multi-goal API has it.
        """
        raise NotImplementedError

    def reset(self, *, seed=None, options=None):
        """Start an episode; ``seed`` determines all of it, given the actions. ``options`` are not used."""
        super().reset(seed=seed)
        self._state = self._start(self.np_random) | {"success": np.False_}
        self._elapsed = 0
        self._path = [self._state]
        return self._observation(self._state), {}

    def step(self, action):
        """Move by one step; an action of another shape or type raises ValueError."""
        action = self._checked(action, self.action_space)
        self._state = self._next(self._state, action, self._noise(self.np_random))
        self._elapsed += 1
        if self.render_mode is not None:
            self._path.append(self._state)
        observation = self._observation(self._state)
        reward = self.compute_reward(observation["achieved_goal"], observation["desired_goal"], {})
        info = {"is_success": bool(self._state["success"])}
        return observation, float(reward), False, self._elapsed >= self._longest, info

    def render(self):
        """The episode so far as a picture, uint8 (480, 480, 3), or None where ``render_mode`` is None.

        Raises:
            DependencyNotInstalled: if matplotlib is missing.
        """
        if self.render_mode is None:
            return None
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise DependencyNotInstalled("rendering needs matplotlib: pip install matplotlib") from error
        canvas = FigureCanvasAgg(Figure(figsize=(4.8, 4.8), dpi=100, layout="constrained"))
        self._picture(canvas.figure)
        canvas.draw()
        return np.array(canvas.buffer_rgba())[..., :3]

    def _noise(self, np_random):
        return None

    def _checked(self, action, space):
        """``action`` as an array of the space's shape and dtype; ``space`` may be the space of a batch."""
        action = np.asarray(action)
        if action.shape != space.shape or not np.can_cast(action.dtype, space.dtype, "same_kind"):
            got = f"not {action.shape} and {action.dtype}"
            raise ValueError(f"an action must have the shape {space.shape} and the type {space.dtype}, {got}")
        return action.astype(space.dtype, copy=False)

    def _next(self, state, action, noise):
        state = state | self._transition(state, action, noise)
        _, achieved_goal = self._observe(state)
        reached = self._reached(achieved_goal, state["desired_goal"])
        return state | {"success": reached | state["success"]}

    def _observation(self, state):
        observation, achieved_goal = self._observe(state)
        # astype copies, so that callers may write into what they get.
        return {
            "observation": observation.astype(np.float32),
            "achieved_goal": achieved_goal.astype(np.float32),
            "desired_goal": state["desired_goal"].astype(np.float32),
        }


class _VectorEnv(VectorEnv):
    """What a batch of environments needs besides their rules: seeds, time limit, autoreset, infos.

    It resets and steps as Gymnasium's `SyncVectorEnv` does over the same single environments. As none of them
    terminates, all episodes end together, at the time limit. A subclass resets one environment (`_reset_env`), moves
    all (`_advance`) and tells their present situation (`_observations`, `_rewards_and_successes`).
    """

    def __init__(self, env, num_envs, max_episode_steps, autoreset_mode, render_mode):
        """``env`` is a single environment, which gives the spaces and the rules."""
        if num_envs < 1 or max_episode_steps < 1:
            raise ValueError(f"num_envs and max_episode_steps must be at least 1, got {num_envs}, {max_episode_steps}")
        if render_mode is not None:
            raise ValueError("vector environments draw no pictures: use gym.make for an environment that does")
        if AutoresetMode(autoreset_mode) != AutoresetMode.NEXT_STEP:
            raise ValueError(f"autoreset_mode must be NEXT_STEP, got {autoreset_mode}")
        self._env = env
        self._spec = None
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space = env.observation_space
        self.single_action_space = env.action_space
        self.observation_space = batch_space(env.observation_space, num_envs)
        self.action_space = batch_space(env.action_space, num_envs)
        self._np_randoms, self._np_random_seeds = [None] * num_envs, [None] * num_envs
        self._elapsed = None  # steps of the running episodes; None before the first reset

    @property
    def spec(self):
        """What `gym.make_vec` was called with, and the time limit that really holds here."""
        return self._spec

    @spec.setter
    def spec(self, spec):
        # make_vec leaves the registered time limit here even where it was told another one.
        spec.max_episode_steps = self.max_episode_steps
        self._spec = spec

    @property
    def np_random(self):
        """The environments' random number generators, as `SyncVectorEnv` has them; None before a reset."""
        return tuple(self._np_randoms)

    @property
    def np_random_seed(self):
        """The seeds of `np_random`."""
        return tuple(self._np_random_seeds)

    def compute_reward(self, achieved_goal, desired_goal, info):
        """As the single environment's."""
        return self._env.compute_reward(achieved_goal, desired_goal, info)

    def reset(self, *, seed=None, options=None):
        """Start new episodes in all environments.

        Args:
            seed: None, one int (environment i gets ``seed + i``) or a list of ``num_envs`` ints and Nones.
            options: are not used; Gymnasium's ``reset_mask``, which asks for some of the environments, is refused.

        Raises:
            ValueError: if ``seed`` has another length, or ``options`` a ``reset_mask``.
        """
        if "reset_mask" in (options or {}):
            raise ValueError("reset_mask is not supported: all environments are reset together")
        if seed is None or isinstance(seed, int):
            seed = [None if seed is None else seed + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"{self.num_envs} seeds are needed, one for each environment, got {len(seed)}")
        for i in range(self.num_envs):
            if seed[i] is not None or self._np_randoms[i] is None:
                self._np_randoms[i], self._np_random_seeds[i] = seeding.np_random(seed[i])
            self._reset_env(i)
        self._elapsed = 0
        return self._observations(), {}

    def step(self, actions):
        """Move all environments by one step, or where their episodes have ended, start new ones instead.

        Returns:
            Observations, rewards (num_envs,), terminated, truncated, and ``is_success`` (num_envs,) as info, which is
            not there at the steps that start episodes.

        Raises:
            ResetNeeded: if it was never reset.
            ValueError: if ``actions`` has another shape than the action space, or (but for HandReach) another type.
        """
        if self._elapsed is None:
            raise ResetNeeded("call reset before step")
        no = np.zeros(self.num_envs, dtype=bool)
        if self._elapsed == self.max_episode_steps:
            observations, infos = self.reset()
            return observations, np.zeros(self.num_envs), no, no.copy(), infos
        self._advance(actions)
        self._elapsed += 1
        observations = self._observations()
        rewards, success = self._rewards_and_successes(observations)
        infos = {"is_success": success, "_is_success": ~no}
        truncated = np.full(self.num_envs, self._elapsed == self.max_episode_steps)
        return observations, rewards.astype(np.float64), no, truncated, infos


class _GoalVectorEnv(_VectorEnv):
    """Many environments of one `_GoalEnv` class (``env_class``), stepped as one batch."""

    env_class = None

    def __init__(self, num_envs, max_episode_steps, autoreset_mode=AutoresetMode.NEXT_STEP, render_mode=None, **kwargs):
        env = self.env_class(**kwargs)
        super().__init__(env, num_envs, min(max_episode_steps, env._longest), autoreset_mode, render_mode)
        self._state = None  # the single environment's state with a leading dimension of num_envs

    def _reset_env(self, i):
        start = self._env._start(self._np_randoms[i]) | {"success": np.False_}
        if self._state is None:
            self._state = {key: np.repeat(value[None], self.num_envs, axis=0) for key, value in start.items()}
        for key, value in start.items():
            self._state[key][i] = value

    def _advance(self, actions):
        actions = self._env._checked(actions, self.action_space)
        noise = [self._env._noise(np_random) for np_random in self._np_randoms]
        noise = None if noise[0] is None else np.stack(noise)
        self._state = self._env._next(self._state, actions, noise)

    def _observations(self):
        return self._env._observation(self._state)

    def _rewards_and_successes(self, observations):
        reward = self.compute_reward(observations["achieved_goal"], observations["desired_goal"], {})
        return reward, self._state["success"].copy()


# ----------------------------------------------------------------------------------------------------------------------
# ContinuousSeek
# ----------------------------------------------------------------------------------------------------------------------


class ContinuousSeekEnv(_GoalEnv):
    """ContinuousSeek (paper, section "Toy Example Experiments"): go from 0 to a point of [−5, 5]^d.

    s, g ∈ [−5, 5]^d, a ∈ [−1, 1]^d, s' = clip(s + a, −5, 5), R = −1 + 1[‖s' − g‖_∞ ≤ 0.1], s_0 = 0, g uniform;
    10 steps. Observation and achieved goal are both s', float32 (d,). ``is_success``: the goal was reached at some step
    so far.

    Args:
        d: dimension of states, goals and actions.
        reward_type: "sparse" as above, or "dense": −‖s' − g‖_2.
        render_mode: None or "rgb_array".

    Raises:
        ValueError: if a keyword has another value.
    """

    radius = 5.0  # D
    tolerance = 0.1  # ε

    def __init__(self, d=20, reward_type="sparse", render_mode=None):
        if d < 1:
            raise ValueError(f"d must be at least 1, got {d}")
        if reward_type not in ("sparse", "dense"):
            raise ValueError(f"reward_type must be 'sparse' or 'dense', got {reward_type!r}")
        self.d, self.reward_type = d, reward_type
        where = Box(-self.radius, self.radius, (d,), np.float32)
        super().__init__(where, where, where, Box(-1, 1, (d,), np.float32), render_mode)

    def compute_reward(self, achieved_goal, desired_goal, info):
        """Reward (...), from achieved and desired goals (..., d) whose leading dimensions broadcast."""
        if self.reward_type == "dense":
            return -np.linalg.norm(achieved_goal - desired_goal, axis=-1)
        return self._reached(achieved_goal, desired_goal).astype(np.float32) - 1

    def _start(self, np_random):
        goal = np_random.uniform(-self.radius, self.radius, self.d)
        return {"position": np.zeros(self.d, np.float32), "desired_goal": goal.astype(np.float32)}

    def _transition(self, state, action, noise):
        return {"position": np.clip(state["position"] + np.clip(action, -1, 1), -self.radius, self.radius)}

    def _observe(self, state):
        return state["position"], state["position"]

    def _reached(self, achieved_goal, desired_goal):
        return np.abs(achieved_goal - desired_goal).max(axis=-1) <= self.tolerance

    def _picture(self, figure):
        goal, path = self._state["desired_goal"], np.stack([state["position"] for state in self._path])
        near = np.abs(path[-1] - goal) <= self.tolerance
        coordinates = np.arange(1, self.d + 1)
        axes = figure.add_subplot(xlabel="coordinate", ylim=(-1.1 * self.radius, 1.1 * self.radius))
        axes.locator_params(integer=True)
        axes.plot(np.tile(coordinates, (2, 1)), np.stack([path.min(axis=0), path.max(axis=0)]), color=PATH, alpha=0.4)
        axes.scatter(np.tile(coordinates, len(path)), path.ravel(), s=6, color=PATH)
        band = {"width": 0.8, "bottom": goal - self.tolerance, "color": np.where(near, REACHED, WANTED), "zorder": 3}
        axes.bar(coordinates, 2 * self.tolerance, **band)
        axes.scatter(coordinates, path[-1], s=14, color="black", zorder=4)
        reached = "goal reached" if self._state["success"] else "goal not reached"
        axes.set_title(f"step {self._elapsed} · {near.sum()} of {self.d} coordinates right · {reached}", fontsize=11)


class ContinuousSeekVectorEnv(_GoalVectorEnv):
    """A batch of `ContinuousSeekEnv`."""

    env_class = ContinuousSeekEnv


# ----------------------------------------------------------------------------------------------------------------------
# BitFlip
# ----------------------------------------------------------------------------------------------------------------------


class BitFlipEnv(_GoalEnv):
    """BitFlip (Andrychowicz et al. 2017, section 3.1; the paper's DQN experiment): make d bits equal to the goal.

    Start and goal are uniform in {0, 1}^d, action i flips bit i, R = −1 until the bits equal the goal, then 0; d steps,
    without termination. Observation and achieved goal are both the bits, float32 (d,). ``is_success``: they were equal
    to the goal at some step so far. As every action flips a bit, they do not stay equal to it.

    An episode lasts d steps, or ``max_episode_steps`` if that is less: more than 40 bits need ``max_episode_steps=d``.

    Args:
        d: number of bits.
        render_mode: None or "rgb_array".

    Raises:
        ValueError: if ``d`` or ``render_mode`` has another value, or (from ``step``) an action is not in 0..d−1.
    """

    def __init__(self, d=40, render_mode=None):
        if d < 1:
            raise ValueError(f"d must be at least 1, got {d}")
        self.d = self._longest = d
        bits = Box(0, 1, (d,), np.float32)
        super().__init__(bits, bits, bits, Discrete(d), render_mode)

    def compute_reward(self, achieved_goal, desired_goal, info):
        """Reward (...), from achieved and desired goals (..., d) whose leading dimensions broadcast."""
        return self._reached(achieved_goal, desired_goal).astype(np.float32) - 1

    def _start(self, np_random):
        start, goal = np_random.integers(2, size=(2, self.d), dtype=np.int8)
        return {"bits": start, "desired_goal": goal}

    def _transition(self, state, action, noise):
        if np.any((action < 0) | (action >= self.d)):
            raise ValueError(f"actions must be in 0..{self.d - 1}, got {action}")
        return {"bits": state["bits"] ^ (np.arange(self.d) == action[..., None])}

    def _observe(self, state):
        return state["bits"], state["bits"]

    def _reached(self, achieved_goal, desired_goal):
        return (np.asarray(achieved_goal) == desired_goal).all(axis=-1)

    def _picture(self, figure):
        from matplotlib.colors import to_rgb

        goal, path = self._state["desired_goal"], np.stack([state["bits"] for state in self._path])

        def cells(bits):  # the colour says whether a bit is right, its strength whether it is 1
            colour = np.where((bits == goal)[..., None], to_rgb(REACHED), to_rgb(PATH))
            return 1 - (1 - colour) * np.where(bits, 1, 0.25)[..., None]

        above, below = figure.subplots(2, height_ratios=[5, 1])
        above.imshow(cells(path), aspect="auto", interpolation="nearest")
        above.set(ylabel="step", xticks=[], ylim=(max(self.d, len(path)) + 0.5, -0.5))
        below.imshow(np.concatenate([cells(path[-1:]), cells(goal[None])]), aspect="auto", interpolation="nearest")
        below.axhline(0.5, color="white", linewidth=3)
        below.set(xlabel="bit", yticks=[0, 1], yticklabels=["now", "goal"])
        reached = "goal reached" if self._state["success"] else "goal not reached"
        right = (path[-1] == goal).sum()
        figure.suptitle(f"step {self._elapsed} · {right} of {self.d} bits right · {reached}", fontsize=11)


class BitFlipVectorEnv(_GoalVectorEnv):
    """A batch of `BitFlipEnv`."""

    env_class = BitFlipEnv


# ----------------------------------------------------------------------------------------------------------------------
# DriveSeek and NoisySeek: many goals at once
# ----------------------------------------------------------------------------------------------------------------------


class _ManyGoalsEnv(_GoalEnv):
    """A moving point in the plane and a set of up to 200 goals with integer coordinates (paper, Eq. 13 to 19).

    The desired goal is float32 (200, 3): a row (1, x, y) for each goal, sorted by x, then y, and rows of zeros after
    them. The first column is the gate b of Multi-ReenGAGE. The achieved goal is the rounded position, float32 (2,).
    Reward 1 where it is one of the goals, else 0 (Eq. 13). ``is_success``: a goal was reached at some step so far.
    """

    def compute_item_reward(self, achieved_goal, desired_goal):
        """R_item of Eq. 13 for each goal: 1 where it is achieved, 0 where not and for padding, float32 (..., 200).

        Args:
            achieved_goal: rounded positions (..., 2).
            desired_goal: goal sets (..., 200, 3), whose leading dimensions broadcast with those of ``achieved_goal``.
        """
        achieved_goal, desired_goal = np.asarray(achieved_goal), np.asarray(desired_goal)
        gate, x, y = desired_goal[..., 0], desired_goal[..., 1], desired_goal[..., 2]
        equal = (x == achieved_goal[..., None, 0]) & (y == achieved_goal[..., None, 1])
        return (equal & (gate != 0)).astype(np.float32)

    def compute_reward(self, achieved_goal, desired_goal, info):
        """Reward (...), from achieved goals (..., 2) and goal sets (..., 200, 3); leading dimensions broadcast."""
        return self.compute_item_reward(achieved_goal, desired_goal).max(axis=-1)

    def _reached(self, achieved_goal, desired_goal):
        return self.compute_reward(achieved_goal, desired_goal, {}) > 0

    @staticmethod
    def _goal_set(goals):
        """The desired goal (200, 3) of sorted goals (n, 2)."""
        rows = np.zeros((N_MAX, 3), np.float32)
        rows[: len(goals)] = np.column_stack([np.ones(len(goals)), goals])
        return rows

    def _picture(self, figure):
        path = np.stack([state["position"] for state in self._path])
        achieved = np.rint(path[1:])
        items = self.compute_item_reward(achieved, self._state["desired_goal"])  # (steps, 200)
        goals = self._state["desired_goal"]
        wanted, reached = goals[goals[:, 0] != 0, 1:], goals[items.any(axis=0), 1:]
        missed = achieved[~items.any(axis=1)]
        axes = figure.add_subplot(aspect="equal")
        axes.locator_params(integer=True)
        self._frame(axes, np.concatenate([wanted, path]))
        size = 0.8 * axes.figure.get_size_inches()[0] * 72 / np.ptp(axes.get_xlim())  # of one unit, in points
        layers = ((wanted, WANTED, "o", 1), (missed, PATH, "x", 2), (reached, REACHED, "o", 4))
        for points, colour, marker, zorder in layers:
            axes.scatter(*points.T, s=(0.7 * size) ** 2, color=colour, marker=marker, linewidths=1, zorder=zorder)
        # Where the path wraps around, no line is drawn across the picture.
        jumps = np.flatnonzero(np.abs(np.diff(path, axis=0)).max(axis=1) > 10.5) + 1
        axes.plot(*np.insert(path, jumps, np.nan, axis=0).T, "-", color=PATH, linewidth=1.2, zorder=3)
        self._agent(axes, path[-1])
        found = f"{len(reached)} of {len(wanted)} goals reached"
        axes.set_title(f"step {self._elapsed} · score {int(items.sum())} · {found}", fontsize=11)

    def _frame(self, axes, points):
        """Set the limits of the picture; points (n, 2) are the goals and the path."""
        low, high = points.min(axis=0), points.max(axis=0)
        centre, reach = (low + high) / 2, max(10, (high - low).max() / 2 + 1)
        axes.set(xlim=(centre[0] - reach, centre[0] + reach), ylim=(centre[1] - reach, centre[1] + reach))

    def _agent(self, axes, position):
        axes.scatter(*position, s=40, color="black", zorder=5)


class DriveSeekEnv(_ManyGoalsEnv):
    """DriveSeek (paper, section "Multi-ReenGAGE", Experiments): steer so that many of 40 steps end on a goal.

    The position in [−10.5, 10.5)² moves by 1 along the heading, after the heading has turned by 0.5 rad × action,
    action (1,) in [−1, 1]; the edges wrap around (the paper's [−10, 10]² with a cell around each integer: period 21).
    Start (0, 0), heading 0. n uniform in 1..200, n goals without replacement from the integers of [−10, 10]².
    Observation: x, y, cos and sin of the heading, float32 (4,). Achieved goal: the rounded position, float32 (2,).
    Desired goal: float32 (200, 3), a row (1, x, y) for each goal, sorted by x, then y, then rows of zeros. Reward 1
    where the achieved goal is one of them, else 0 (`compute_item_reward`: of each). ``is_success``: a goal was reached
    at some step so far.

    Args:
        render_mode: None or "rgb_array".

    Raises:
        ValueError: if ``render_mode`` is neither.
    """

    def __init__(self, render_mode=None):
        super().__init__(
            Box(np.float32([-10.5, -10.5, -1, -1]), np.float32([10.5, 10.5, 1, 1])),
            Box(-10, 10, (2,), np.float32),
            Box(np.tile(np.float32([0, -10, -10]), (N_MAX, 1)), np.tile(np.float32([1, 10, 10]), (N_MAX, 1))),
            Box(-1, 1, (1,), np.float32),
            render_mode,
        )

    def _start(self, np_random):
        n = np_random.integers(1, N_MAX, endpoint=True)
        cells = np.sort(np_random.choice(21 * 21, n, replace=False))
        goals = np.column_stack([cells // 21, cells % 21]) - 10
        return {"position": np.zeros(2), "heading": np.zeros(1), "desired_goal": self._goal_set(goals)}

    def _transition(self, state, action, noise):
        heading = state["heading"] + 0.5 * np.clip(action, -1, 1)  # (..., 1)
        step = np.concatenate([np.cos(heading), np.sin(heading)], axis=-1)
        return {"heading": heading, "position": (state["position"] + step + 10.5) % 21 - 10.5}

    def _observe(self, state):
        position, heading = state["position"], state["heading"]
        return np.concatenate([position, np.cos(heading), np.sin(heading)], axis=-1), np.rint(position)

    def _frame(self, axes, points):
        axes.set(xlim=(-10.5, 10.5), ylim=(-10.5, 10.5))

    def _agent(self, axes, position):
        heading = self._state["heading"][0]
        arrow = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.012, "pivot": "mid", "zorder": 5}
        axes.quiver(*position, 1.2 * np.cos(heading), 1.2 * np.sin(heading), color="black", **arrow)


class DriveSeekVectorEnv(_GoalVectorEnv):
    """A batch of `DriveSeekEnv`."""

    env_class = DriveSeekEnv


class NoisySeekEnv(_ManyGoalsEnv):
    """NoisySeek (paper, section "Multi-ReenGAGE", Experiments): be on goals in as many of 40 noisy steps as possible.

    s' ~ N(s + a, I) in R², where a is the action, scaled down to norm 1 if it is longer; s_0 = 0. Clustered goals:
    k ~ Geometric(0.15) clusters with centres N(0, 10² I) and weights Dirichlet(1); n' uniform in 1..200, each goal is
    the centre of a random cluster + N(0, 2² I), rounded; duplicates are removed. Observation: x, y, float32 (2,).
    Goals, reward and success: as DriveSeek's. The plane has no edge; the bounds of the spaces, ±1e6, are out of reach.

    Args:
        render_mode: None or "rgb_array".

    Raises:
        ValueError: if ``render_mode`` is neither.
    """

    def __init__(self, render_mode=None):
        plane = Box(-1e6, 1e6, (2,), np.float32)  # finite, because check_env warns of infinite bounds
        goals = Box(np.tile(np.float32([0, -1e6, -1e6]), (N_MAX, 1)), np.tile(np.float32([1, 1e6, 1e6]), (N_MAX, 1)))
        super().__init__(plane, plane, goals, Box(-1, 1, (2,), np.float32), render_mode)

    def _start(self, np_random):
        k = np_random.geometric(0.15)
        centres = np_random.normal(0, 10, (k, 2))
        weights = np_random.dirichlet(np.ones(k))
        n = np_random.integers(1, N_MAX, endpoint=True)
        goals = centres[np_random.choice(k, n, p=weights)] + np_random.normal(0, 2, (n, 2))
        goals = np.unique(np.rint(goals).astype(int), axis=0)  # sorts the rows, too
        return {"position": np.zeros(2), "desired_goal": self._goal_set(goals)}

    def _noise(self, np_random):
        return np_random.standard_normal(2)

    def _transition(self, state, action, noise):
        action = action / np.maximum(1, np.linalg.norm(action, axis=-1, keepdims=True))
        return {"position": state["position"] + action + noise}

    def _observe(self, state):
        return state["position"], np.rint(state["position"])


class NoisySeekVectorEnv(_GoalVectorEnv):
    """A batch of `NoisySeekEnv`."""

    env_class = NoisySeekEnv


def greedy_action(observation):
    """The action of NoisySeek's greedy agent (paper, Figure 4): walk to the nearest goal, and stay where it is.

    Args:
        observation: a NoisySeek observation, or a batch of them with any leading dimensions.

    Returns:
        Actions (..., 2), float32, of norm 1, or less where the nearest goal is nearer than that.
    """
    goals = observation["desired_goal"]
    offsets = goals[..., 1:] - observation["observation"][..., None, :]  # (..., 200, 2)
    distances = np.where(goals[..., 0] != 0, np.linalg.norm(offsets, axis=-1), np.inf)
    nearest = np.take_along_axis(offsets, distances.argmin(axis=-1)[..., None, None], axis=-2)[..., 0, :]
    return nearest / np.maximum(1, distances.min(axis=-1))[..., None]


# ----------------------------------------------------------------------------------------------------------------------
# HandReach
# ----------------------------------------------------------------------------------------------------------------------


class HandReachEnv(MujocoHandReachEnv):
    """HandReach (Plappert et al. 2018; paper, section "Robotics Experiments"): move five fingertips to given points.

    gymnasium-robotics' maintained class, with a `compute_reward` that broadcasts, finite bounds of the observation
    space, pictures on machines without a display, and clear errors. 20 actions in [−1, 1] (joint targets, 25 a
    second), observation (63,): 24 joint angles in rad, 24 joint velocities, 15 fingertip coordinates in m; goals (15,)
    in m, all float64. Reward −1, or 0 where ‖achieved − desired‖_2 ≤ 0.01 m, and ``is_success`` is 1.0 there, else 0.0;
    50 steps.

    Args:
        reward_type: "sparse" as above, or "dense": minus the distance.
        **kwargs: the maintained class's: distance_threshold, initial_qpos, render_mode (None or "rgb_array"), width,
            height, default_camera_config.

    Raises:
        DependencyNotInstalled: if gymnasium-robotics or a MuJoCo that it works with is missing.
        ValueError: if ``reward_type`` or ``render_mode`` is unknown, or ``relative_control`` is asked for.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012
    _no_opengl = (
        "MuJoCo finds no working OpenGL to draw with. Install EGL (apt-get install libegl1 libgl1) or OSMesa "
        "(apt-get install libosmesa6), and choose one with MUJOCO_GL=egl or MUJOCO_GL=osmesa"
    )

    def __init__(self, reward_type="sparse", **kwargs):
        if isinstance(_ROBOTICS_ERROR, ImportError):
            message = "HandReach needs gymnasium-robotics: pip install gymnasium-robotics==1.4.2 'mujoco>=3.4,<3.11'"
            raise DependencyNotInstalled(message) from _ROBOTICS_ERROR
        if _ROBOTICS_ERROR is not None:
            message = f"gymnasium-robotics cannot be imported ({_ROBOTICS_ERROR!r}). With MUJOCO_GL: {self._no_opengl}"
            raise DependencyNotInstalled(message) from _ROBOTICS_ERROR
        if tuple(map(int, mujoco.__version__.split(".")[:2])) >= (3, 11):
            raise DependencyNotInstalled(
                f"gymnasium-robotics does not work with MuJoCo {mujoco.__version__}: pip install 'mujoco>=3.4,<3.11'"
            )
        if reward_type not in ("sparse", "dense"):
            raise ValueError(f"reward_type must be 'sparse' or 'dense', got {reward_type!r}")
        if kwargs.get("render_mode") not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {kwargs['render_mode']!r}")
        if kwargs.get("relative_control"):
            raise ValueError("relative_control is broken in gymnasium-robotics 1.4.2 (it calls the old mujoco_py)")
        super().__init__(reward_type=reward_type, **kwargs)
        EzPickle.__init__(self, reward_type, **kwargs)  # what a copy of this environment is made from
        # Infinite bounds make Gymnasium's check_env warn. MuJoCo itself resets a simulation beyond mjMAXVAL = 1e10.
        self.observation_space = Dict(
            {key: Box(-1e10, 1e10, box.shape, np.float64) for key, box in self.observation_space.items()}
        )

    def compute_reward(self, achieved_goal, desired_goal, info):
        """Reward (...), from achieved and desired goals (..., 15) in m whose leading dimensions broadcast."""
        return super().compute_reward(*np.broadcast_arrays(achieved_goal, desired_goal), info)

    def render(self):
        """The hand as a picture, uint8 (height, width, 3), 480 by default, or None where ``render_mode`` is None.

        Small balls are the goals, large transparent ones the fingertips.

        MuJoCo draws through EGL or OSMesa, which the environment variable MUJOCO_GL chooses. Where it is unset and
        there is no display, the first of the two that is installed is used.

        Raises:
            DependencyNotInstalled: if OpenGL does not work here.
        """
        if self.render_mode is None:
            return None
        display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform != "linux"
        try:
            if not os.environ.get("MUJOCO_GL") and not display:
                libraries = {"egl": "EGL", "osmesa": "OSMesa"}
                os.environ["MUJOCO_GL"] = next(name for name in libraries if find_library(libraries[name]))
            if os.environ.get("MUJOCO_GL"):
                importlib.import_module("mujoco." + os.environ["MUJOCO_GL"])  # fails early where it is missing
            return super().render()
        except Exception as error:
            raise DependencyNotInstalled(f"{self._no_opengl} ({error!r})") from error


class HandReachVectorEnv(_VectorEnv):
    """A batch of `HandReachEnv`: one model, one ``MjData`` for each environment, moved by one thread for each core.

    ``mj_step`` releases Python's lock, so threads really run at once. Resets, goals and rewards are the maintained
    class's own, called with the data and the random numbers of one environment after the other; actions and
    observations are handled for the whole batch. The results are those of the single environments to the last bit.
    """

    _pool = None  # Gymnasium 1.2 closes a batch that could not be made

    def __init__(self, num_envs, max_episode_steps, autoreset_mode=AutoresetMode.NEXT_STEP, render_mode=None, **kwargs):
        env = HandReachEnv(**kwargs)
        super().__init__(env, num_envs, max_episode_steps, autoreset_mode, render_mode)
        model = env.model
        joints = [model.joint(name).id for name in env._model_names.joint_names if name.startswith("robot")]
        self._qpos_index, self._qvel_index = model.jnt_qposadr[joints], model.jnt_dofadr[joints]
        self._tip_index = [model.site(name).id for name in FINGERTIP_SITE_NAMES]
        self._data = [mujoco.MjData(model) for _ in range(num_envs)]
        self._goals = np.zeros((num_envs, len(env.initial_goal)))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self._threads = min(cores, num_envs)
        self._pool = ThreadPoolExecutor(self._threads)

    def close_extras(self, **kwargs):
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown()
            self._env.close()

    def _reset_env(self, i):
        self._env.data, self._env.np_random = self._data[i], self._np_randoms[i]
        self._env.reset()
        self._goals[i] = self._env.goal

    def _advance(self, actions):
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise ValueError(f"actions of shape {self.action_space.shape} are needed, got {actions.shape}")
        # MujocoHandEnv._set_action, for all environments at once
        low, high = self._env.model.actuator_ctrlrange.T
        actions = np.clip(actions, self.single_action_space.low, self.single_action_space.high)
        controls = np.clip((high + low) / 2.0 + actions * ((high - low) / 2.0), low, high)

        # All threads take from it, so that none is idle while another has many left.
        waiting = iter(range(self.num_envs))

        def simulate():
            for i in waiting:
                self._data[i].ctrl[:] = controls[i]
                mujoco.mj_step(self._env.model, self._data[i], nstep=self._env.n_substeps)

        for thread in [self._pool.submit(simulate) for _ in range(self._threads)]:
            thread.result()

    def _observations(self):
        qpos = np.stack([data.qpos for data in self._data])[:, self._qpos_index]
        qvel = np.stack([data.qvel for data in self._data])[:, self._qvel_index]
        tips = np.stack([data.site_xpos for data in self._data])[:, self._tip_index].reshape(self.num_envs, -1)
        return {
            "observation": np.concatenate([qpos, qvel, tips], axis=1),
            "achieved_goal": tips,
            "desired_goal": self._goals.copy(),
        }

    def _rewards_and_successes(self, observations):
        achieved_goal, desired_goal = observations["achieved_goal"], observations["desired_goal"]
        reward = self.compute_reward(achieved_goal, desired_goal, {})
        return reward, self._env._is_success(achieved_goal, desired_goal)


# ----------------------------------------------------------------------------------------------------------------------
# Registration
# ----------------------------------------------------------------------------------------------------------------------


def _register(id, name, max_episode_steps, **kwargs):
    gym.registry.pop(id, None)  # so that importing this module again, or under another name, warns of nothing
    gym.register(
        id,
        entry_point=f"{__name__}:{name}Env",
        vector_entry_point=f"{__name__}:{name}VectorEnv",
        max_episode_steps=max_episode_steps,
        kwargs=kwargs,
    )


_register("ContinuousSeek-v0", "ContinuousSeek", max_episode_steps=10)
for _d in (5, 10, 20):
    _register(f"ContinuousSeek{_d}-v0", "ContinuousSeek", max_episode_steps=10, d=_d)
_register("DriveSeek-v0", "DriveSeek", max_episode_steps=40)
_register("NoisySeek-v0", "NoisySeek", max_episode_steps=40)
_register("BitFlip-v0", "BitFlip", max_episode_steps=40)
_register("BitFlip20-v0", "BitFlip", max_episode_steps=20, d=20)
_register("HandReach-v2", "HandReach", max_episode_steps=50)
if "HandReach-v3" in gym.registry:
    # Gymnasium warns on every make of an id while a higher version of the same name is registered. Under another name
    # in its entry, HandReach-v3 still works and no longer makes HandReach-v2 "out of date".
    gym.registry["HandReach-v3"].name = "HandReach-v3"
