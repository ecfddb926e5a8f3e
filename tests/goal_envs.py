"""Small multi-goal environments that are awkward on purpose; their ids are used as `goal_envs:Walk-v0`."""

import os

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import TimeLimit


class GoalEnv(gym.Env):
    """Rewards 1 where the goal is achieved exactly."""

    def __init__(self, observation, achieved_goal, desired_goal, action):
        self.observation_space = Dict(observation=observation, achieved_goal=achieved_goal, desired_goal=desired_goal)
        self.action_space = action

    def compute_reward(self, achieved_goal, desired_goal, info):
        return np.all(np.equal(achieved_goal, desired_goal), axis=(-2, -1)).astype(np.float64)


class Walk(GoalEnv):
    """A walk on the integers: two-dimensional goals and actions, rewards {0, 1}, episodes of any length.

    The start and the goal (near 50), and the episode's own limit come from the seed. Reaching the goal terminates.
    An observation says which episode and step it belongs to: ((tag, step), (x, y)).
    """

    def __init__(self, dtype="int16", longest=12, cost=0.0, success="is_success", deaf=False):
        self.longest, self.success = longest, success
        self.deaf = deaf  # compute_reward has a goal of its own, which is never reached
        self.cost = cost  # of a step, which compute_reward does not know
        self.high = 1 if dtype == "bool" else 100
        goal = Box(0, self.high, (1, 2), np.dtype(dtype))
        super().__init__(Box(0, 2**24, (2, 2), np.int32), goal, goal, Box(-2.0, 4.0, (2, 1), np.float64))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.tag = self.np_random.integers(2**24)  # exact in float32
        self.limit = self.np_random.integers(1, self.longest, endpoint=True)
        self.position, self.goal = self.np_random.integers(47, 53, (2, 1, 2), endpoint=True) % (self.high + 1)
        self.steps = 0
        return self.observation(), {}

    def observation(self):
        dtype = self.observation_space["desired_goal"].dtype
        return dict(
            observation=np.array([[self.tag, self.steps], self.position[0]], np.int32),
            achieved_goal=self.position.astype(dtype),
            desired_goal=self.goal.astype(dtype),
        )

    def compute_reward(self, achieved_goal, desired_goal, info):
        return super().compute_reward(achieved_goal, self.goal - 101 if self.deaf else desired_goal, info)

    def step(self, action):
        assert self.action_space.contains(action), action
        self.position = np.clip(self.position + np.rint(action.T - 1).astype(int), 0, self.high)
        self.steps += 1
        observation = self.observation()
        reward = float(self.compute_reward(observation["achieved_goal"], observation["desired_goal"], {}))
        truncated = bool(self.steps >= self.limit)
        return observation, reward - self.cost, reward == 1, truncated, {self.success: reward == 1}


class Whole(Walk):
    """Actions are whole numbers, which a script would have to round."""

    def __init__(self):
        super().__init__()
        self.action_space = Box(-2, 4, (2, 1), np.int64)


class Mixed(Walk):
    """Desired goals are whole numbers, achieved ones are not."""

    def __init__(self):
        super().__init__("float32")
        self.observation_space["desired_goal"] = Box(0, 100, (1, 2), np.int16)


class OneGoal(Walk):
    """compute_reward takes one goal only."""

    def compute_reward(self, achieved_goal, desired_goal, info):
        return float(np.sum(achieved_goal != desired_goal) == 0)


class Mute(gym.Env):
    """Walk without compute_reward."""

    def __init__(self):
        env = Walk()
        self.reset, self.step = env.reset, env.step
        self.observation_space, self.action_space = env.observation_space, env.action_space


class Strict(Walk):
    """compute_reward raises on a batch, and says so in two lines."""

    def compute_reward(self, achieved_goal, desired_goal, info):
        if np.ndim(achieved_goal) != 2:
            raise ValueError("one goal\nat a time")
        return super().compute_reward(achieved_goal, desired_goal, info)


class Poison(GoalEnv):
    """Reward {-1, 0} and float goals; a part of a few episodes is `value` from their third state on."""

    def __init__(self, value=np.nan, rarity=40, part="observation"):
        self.value, self.rarity, self.part = value, rarity, part
        box = Box(-1e10, 1e10, (2,), np.float64)
        super().__init__(box, box, box, Box(-1, 1, (2,), np.float32))

    def compute_reward(self, achieved_goal, desired_goal, info):
        return (np.linalg.norm(achieved_goal - desired_goal, axis=-1) < 0.3) - 1.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.poisoned = self.np_random.integers(self.rarity) == 0
        self.goal, self.position, self.steps = self.np_random.uniform(-1, 1, 2), np.zeros(2), 0
        return self.observation(), {}

    def poison(self, part):
        return self.value if self.part == part and self.poisoned and self.steps >= 2 else 0.0

    def observation(self):
        seen, achieved = (self.position + self.poison(part) for part in ("observation", "achieved_goal"))
        return dict(observation=seen, achieved_goal=achieved, desired_goal=+self.goal)

    def step(self, action):
        self.position = self.position + np.clip(np.nan_to_num(action), -1, 1) / 3
        self.steps += 1
        reward = float(self.compute_reward(self.position, self.goal, {}))
        return self.observation(), reward + self.poison("reward"), False, False, {"is_success": reward == 0}


class Broken(Walk):
    """Breaks at its hundredth step: raises an error, ends its process, or changes the goal."""

    def __init__(self, how):
        super().__init__()
        self.how, self.total = how, 0

    def step(self, action):
        self.total += 1
        if self.total == 100:
            if self.how == "raise":
                raise KeyError("broken\non purpose")
            if self.how == "exit":
                os._exit(3)
            self.goal = self.goal + 1
        return super().step(action)


class Sets(gym.Env):
    """One to three goals on a line; reward 1 within 0.25 of any of them. What is odd about it is a keyword."""

    def __init__(self, goals=None, changing=False, per_goal=True, reward=None, columns=3, gate=1.0):
        box = Box(-50_000, 50_000, (1,), np.float64)
        sets = Box(np.tile([0.0, -50_000], (3, 1)), np.tile([1.0, 50_000], (3, 1)), dtype=np.float64)
        self.observation_space = Dict(observation=box, achieved_goal=box, desired_goal=sets)
        self.action_space = Box(-0.5, 0.5, (1,), np.float32)
        self.goals, self.changing, self.odd_reward, self.columns, self.gate = goals, changing, reward, columns, gate
        if per_goal:
            self.compute_item_reward = self.item_reward

    def item_reward(self, achieved_goal, desired_goal):
        near = np.abs(achieved_goal[..., None, 0] - desired_goal[..., 1]) <= 0.25
        return (near & (desired_goal[..., 0] != 0)).astype(float)[..., : self.columns]

    def observation(self):
        goal = self.goal + np.array([0, 0.5 * self.steps]) * self.changing
        return dict(observation=self.state.copy(), achieved_goal=self.state.copy(), desired_goal=goal)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.steps, self.goal = np.zeros(1), 0, np.zeros((3, 2))
        goals = self.np_random.uniform(-2, 2, self.np_random.integers(1, 4)) if self.goals is None else self.goals
        self.goal[: len(goals)] = np.column_stack([np.full(len(goals), self.gate), goals])
        return self.observation(), {}

    def step(self, action):
        self.state = self.state + np.asarray(action, np.float64)
        self.steps += 1
        observation = self.observation()
        gate, goal = observation["desired_goal"].T
        near = bool(((np.abs(self.state - goal) <= 0.25) & (gate != 0)).any())
        reward = float(near) if self.odd_reward is None else self.odd_reward
        return observation, reward, False, False, {"is_success": near}


class Directions(gym.Env):
    """Discrete actions −1, 0, 1, …: as far as possible up or down one coordinate of an environment's action."""

    def __init__(self, env):
        self.env, self.reset, self.compute_reward = env, env.reset, env.compute_reward
        self.observation_space = env.observation_space
        low, high = env.action_space.low, env.action_space.high
        middle, units = (low + high) / 2, np.eye(low.size).reshape(-1, *low.shape)
        self.directions = [middle + sign * unit * (high - low) / 2 for unit in units for sign in (1, -1)]
        self.action_space = Discrete(len(self.directions), start=-1)

    def step(self, action):
        assert self.action_space.contains(action), action
        return self.env.step(self.directions[action + 1].astype(self.env.action_space.dtype))


def in_turn(create):
    """A vector class: copies that step one after another, quicker than processes where a step is this small."""

    def vector_env(num_envs, autoreset_mode, max_episode_steps, **kwargs):
        copies = [lambda: TimeLimit(create(**kwargs), max_episode_steps)] * num_envs
        return SyncVectorEnv(copies, autoreset_mode=autoreset_mode)

    return vector_env


def register_discrete(env_id, limit, create, vector=False):
    """Registers the twin that has Discrete actions: DiscreteWalk-v0 of Walk-v0."""

    def entry_point(**kwargs):
        return Directions(create(**kwargs))

    vector_entry_point = in_turn(entry_point) if vector else None
    gym.register(f"Discrete{env_id}", entry_point, max_episode_steps=limit, vector_entry_point=vector_entry_point)


class SetOf(gym.Env):
    """The twin of an environment that has a set of goals: its goal, in one or two of three rows. Rewards {0, 1}."""

    def __init__(self, env, c_low):
        """c_low: the environment's reward of a goal that is not reached."""
        self.env, self.c_low = env, c_low
        self.action_space = env.action_space
        goal = env.observation_space["desired_goal"]
        low, high = (np.insert(bound.ravel(), 0, gate) for gate, bound in ((0, goal.low), (1, goal.high)))
        sets = Box(np.tile(low, (3, 1)), np.tile(high, (3, 1)), dtype=goal.dtype)
        self.observation_space = Dict(env.observation_space.spaces | dict(desired_goal=sets))

    def compute_item_reward(self, achieved_goal, desired_goal):
        gate, goal = desired_goal[..., 0], desired_goal[..., 1:]
        goal = goal.reshape(*gate.shape, *self.env.observation_space["desired_goal"].shape)
        achieved_goal = np.expand_dims(achieved_goal, gate.ndim - 1)
        reward = self.env.compute_reward(*np.broadcast_arrays(achieved_goal, goal), {})
        return (reward - self.c_low) * (gate != 0)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        observation, info = self.env.reset(seed=seed)
        goals = self.observation_space["desired_goal"]
        self.rows = np.zeros(goals.shape, goals.dtype)
        for row in self.np_random.permutation(3)[: self.np_random.integers(1, 3)]:
            self.rows[row] = np.insert(observation["desired_goal"].ravel(), 0, 1)
        return observation | dict(desired_goal=self.rows.copy()), info

    def step(self, action):
        observation, _, terminated, truncated, info = self.env.step(action)
        reward = float(self.compute_item_reward(observation["achieved_goal"], self.rows).max())
        return observation | dict(desired_goal=self.rows.copy()), reward, terminated, truncated, info


def register_set(name, limit, c_low, create, vector=False):
    """Registers the twin with sets of goals, SetOfWalk-v0 of Walk-v0."""

    def entry_point(**kwargs):
        return SetOf(create(**kwargs), c_low)

    vector_entry_point = in_turn(entry_point) if vector else None
    gym.register(f"SetOf{name}", entry_point, max_episode_steps=limit, vector_entry_point=vector_entry_point)


gym.register("Walk-v0", Walk, max_episode_steps=14, vector_entry_point=in_turn(Walk))
register_discrete("Walk-v0", 14, Walk, vector=True)
register_set("Walk-v0", 14, 0, Walk, vector=True)
for name, limit in (("OneGoal", 14), ("Strict", 14), ("Poison", 5), ("Broken", 14)):
    gym.register(f"{name}-v0", entry_point=f"goal_envs:{name}", max_episode_steps=limit)
    register_discrete(f"{name}-v0", limit, globals()[name])
gym.register("Sets-v0", entry_point="goal_envs:Sets", max_episode_steps=8)
gym.register("Endless-v0", entry_point="goal_envs:Walk")
gym.register("Whole-v0", entry_point="goal_envs:Whole", max_episode_steps=14)
gym.register("Mixed-v0", entry_point="goal_envs:Mixed", max_episode_steps=14)
gym.register("Mute-v0", entry_point="goal_envs:Mute", max_episode_steps=14)
register_discrete("Endless-v0", None, Walk)
for name in ("FetchReach-v4", "FetchReachDense-v4"):
    register_discrete(name, 50, lambda name=name, **kwargs: gym.make(f"gymnasium_robotics:{name}", **kwargs).unwrapped)
register_set("Endless-v0", None, 0, Walk)
register_set("Poison-v0", 5, -1, Poison)
register_set("Broken-v0", 14, 0, Broken)
register_set("FetchReach-v4", 50, -1, lambda **kwargs: gym.make("gymnasium_robotics:FetchReach-v4", **kwargs).unwrapped)


class Wander(Walk):
    """Reaching the goal does not end the episode, and the goal may be left again."""

    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, False, truncated, info


def wordless():
    """What cannot be made, and does not say why."""
    raise AssertionError


gym.register("Wordless-v0", entry_point=wordless)
gym.register("Wander-v0", entry_point="goal_envs:Wander", max_episode_steps=14)
