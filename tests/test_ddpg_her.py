"""The parts that all DDPG scripts share: losses, updates, episodes, hindsight replay, normalisation, evaluation."""

import itertools

import goal_envs  # noqa: F401 (registers Walk-v0)
import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import assert_same
from ddpg import assert_gradient, forward, make_args, make_batch, make_networks
from gymnasium.vector import SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(params=["ddpg_her", "ddpg_her_reengage"])
def script(request):
    """The two DDPG scripts; test_common.py shows that the others have the same replay buffer and evaluation."""
    return request.param


# --------------------------------------------------------------------------------------------------------------- losses


def value_target(batch, args, target_critic, target_actor):
    """Eq. 4's y, in numpy."""
    next_action = np.tanh(forward(target_actor, batch.next_observation, batch.goal)[0])
    next_q = forward(target_critic, batch.next_observation, next_action, batch.goal)[0][:, 0]
    return batch.reward.numpy() + args.gamma * (1 - batch.terminated.numpy()) * next_q


@pytest.mark.parametrize("clip_target", [False, True])
def test_value_loss_equals_equation_4(module, clip_target):
    args = make_args(module, alpha=0.0, clip_target=clip_target, gamma=0.8)
    critic, target_critic, _, target_actor = make_networks(module, args)
    batch = make_batch(module)
    target = value_target(batch, args, target_critic, target_actor)
    clipped = np.clip(target, -5, 0)  # 1/(1 - 0.8) = 5
    assert 0 < np.mean(clipped != target) < 1
    q = forward(critic, batch.observation, batch.action, batch.goal)[0][:, 0]
    expected = np.mean((q - (clipped if clip_target else target)) ** 2)
    loss, metrics = module.critic_loss(critic, target_critic, target_actor, batch, args)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert metrics["value_loss"].item() == pytest.approx(expected, rel=1e-12)
    assert metrics["q"].item() == pytest.approx(q.mean(), rel=1e-12)


def test_termination_stops_the_bootstrap(module):
    args = make_args(module, alpha=0.0)
    critic, target_critic, _, target_actor = make_networks(module, args)
    batch = make_batch(module)._replace(terminated=torch.ones(len(make_batch(module).reward), dtype=torch.float64))
    q = forward(critic, batch.observation, batch.action, batch.goal)[0][:, 0]
    loss, _ = module.critic_loss(critic, target_critic, target_actor, batch, args)
    assert loss.item() == pytest.approx(np.mean((q - batch.reward.numpy()) ** 2), rel=1e-12)


@pytest.mark.parametrize("action_l2", [0.0, 0.7])
def test_actor_loss_equals_equation_5(module, action_l2):
    args = make_args(module, action_l2=action_l2)
    critic, _, actor, _ = make_networks(module, args)
    batch = make_batch(module)
    action = np.tanh(forward(actor, batch.observation, batch.goal)[0])
    q = forward(critic, batch.observation, action, batch.goal)[0]
    expected = -q.mean() + action_l2 * np.mean(action**2)
    assert module.actor_loss(actor, critic, batch, args).item() == pytest.approx(expected, rel=1e-12)


def test_actor_gradient_goes_through_the_critic(module):
    args = make_args(module, action_l2=0.3)
    critic, _, actor, _ = make_networks(module, args)
    batch = make_batch(module)
    assert_gradient(lambda: module.actor_loss(actor, critic, batch, args), actor)


def test_critic_loss_has_the_right_gradient_for_the_critic(module):
    args = make_args(module, alpha=0.3)
    critic, target_critic, _, target_actor = make_networks(module, args)
    batch = make_batch(module)
    assert_gradient(lambda: module.critic_loss(critic, target_critic, target_actor, batch, args)[0], critic)


def test_the_critics_loss_has_no_gradient_for_the_targets(module):
    """Even if their parameters could have one."""
    args = make_args(module, alpha=0.3)
    critic, target_critic, _, target_actor = networks = make_networks(module, args)
    module.critic_loss(critic, target_critic, target_actor, make_batch(module), args)[0].backward()
    reached = [any(p.grad is not None and p.grad.any() for p in network.parameters()) for network in networks]
    assert reached == [True, False, False, False]


def test_networks_have_the_published_layers(module):
    args = make_args(module, hidden_layers=3, hidden_size=64)
    for network, outputs in ((module.Actor(10, 5, 4, args), 4), (module.Critic(10, 5, 4, args), 1)):
        layers = [layer for layer in network.net if isinstance(layer, torch.nn.Linear)]
        assert [layer.out_features for layer in layers] == [64, 64, 64, outputs]
        assert len(network.net) == 7  # a ReLU between two layers, none at the end
    observation, goal = torch.randn(7, 10), torch.randn(7, 5)
    action = module.Actor(10, 5, 4, args)(observation * 100, goal * 100)
    assert action.shape == (7, 4)
    assert action.abs().max() <= 1
    assert module.Critic(10, 5, 4, args)(observation, action, goal).shape == (7,)


def test_networks_see_the_achieved_goal(module):
    env = gym.make("goal_envs:Walk-v0")
    observation, _ = env.reset(seed=1)
    shown = {name: np.stack([value, 2 * value]) for name, value in observation.items()}
    policy = module.Policy(env, make_args(module))
    assert policy.dimensions == (6, 2, 2)
    seen = policy.state(shown["observation"], shown["achieved_goal"])
    assert seen.dtype == torch.float32
    parts = [shown["observation"].reshape(2, 4), shown["achieved_goal"].reshape(2, 2)]
    np.testing.assert_array_equal(seen, np.clip(np.concatenate(parts, axis=1), -5, 5))  # nothing has been counted
    assert policy(shown).shape == (2, 2)
    recorder = Recorder(module, rounds=5)
    batch = recorder.draw(40)
    assert batch.observation.shape == (40, 6)
    for seen in (batch.observation, batch.next_observation):
        np.testing.assert_array_equal(seen[:, 4:], seen[:, 2:4])  # a Walk-v0 shows the position last
    recorder.policy.update_normalizers(recorder.played[0])
    assert recorder.policy.observation_norm.mean.shape == (6,)


# ------------------------------------------------------------------------------------------------------------- episodes


class Episode:
    """An episode of Walk-v0 in a loop over one environment."""

    def __init__(self, env, seed, actions):
        observation, _ = env.reset(seed=seed)
        self.rows, self.achieved, self.transitions = [], [], []
        self._see(observation)
        self.tag, self.goal = self.rows[0][0, 0], observation["desired_goal"]
        low, high = env.action_space.low, env.action_space.high
        for action in actions:
            scaled = low + (action.reshape(2, 1) + 1) / 2 * (high - low)
            observation, reward, terminated, truncated, info = env.step(scaled)
            self._see(observation)
            self.transitions.append((action, reward, terminated))
            if terminated or truncated:
                break
        self.success = info["is_success"]

    def _see(self, observation):
        self.rows.append(observation["observation"])
        self.achieved.append(observation["achieved_goal"])


def play_both(module, env, vector_env, key):
    """The episodes of a round with random actions: as play keeps them, and as loops over one environment see them."""
    n = vector_env.num_envs
    actions = np.random.default_rng((99, *key)).uniform(-1, 1, (14, n, 2)).astype(np.float32)
    upcoming = iter(actions)
    played = module.play(lambda observation: next(upcoming), env, vector_env, key)
    seeds = np.random.SeedSequence(key).generate_state(n).tolist()
    return played, [Episode(env, seed, actions[:, i]) for i, seed in enumerate(seeds)]


def copies(env, n):
    return SyncVectorEnv([lambda: gym.make(env.spec)] * n)


@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.parametrize(
    ("env_id", "kwargs"), [("Walk-v0", {}), ("Walk-v0", dict(longest=40)), ("Wander-v0", dict(dtype="bool"))]
)
def test_play_keeps_what_happened_and_nothing_else(module, num_envs, env_id, kwargs):
    """Zeros follow where an episode ended, though its environment has begun another one meanwhile."""
    env = gym.make(f"goal_envs:{env_id}", **kwargs)
    vector_env = module.make_vector_env(env, num_envs)
    truth, lost = [], 0
    for i in range(12 // num_envs):
        played, episodes = play_both(module, env, vector_env, (3, module.TRAINING, i))
        expected = module.empty_episodes(num_envs, env)
        for row, episode in zip(expected, episodes, strict=True):
            length = len(episode.transitions)
            action, reward, terminated = zip(*episode.transitions, strict=True)
            row["observation"][: length + 1], row["achieved_goal"][: length + 1] = episode.rows, episode.achieved
            row["action"][:length], row["reward"][:length], row["terminated"][:length] = action, reward, terminated
            row["desired_goal"], row["length"], row["success"] = episode.goal, length, episode.success
            lost += max(reward) > episode.success
        assert played.shape == (num_envs,)
        for name in expected.dtype.names:
            np.testing.assert_array_equal(played[name], expected[name], err_msg=name)
        truth += episodes
    vector_env.close()
    assert len({len(episode.transitions) for episode in truth}) > 3
    assert (lost > 0) == (env_id == "Wander-v0")  # success is that of the last step, whatever came before


def test_goals_are_kept_in_the_type_of_the_environment(module):
    env = gym.make("goal_envs:Walk-v0", dtype="uint8")
    fields = module.empty_episodes(5, env).dtype
    assert [fields[name].base for name in ("achieved_goal", "desired_goal")] == [np.uint8, np.uint8]
    assert [fields[name].shape for name in ("achieved_goal", "desired_goal")] == [(15, 1, 2), (1, 2)]


def test_rounds_and_streams_have_episodes_of_their_own(module):
    env = gym.make("goal_envs:Walk-v0")
    vector_env, tags = copies(env, 3), []
    for seed, stream, i in itertools.product((7, 8), (module.TRAINING, module.EVALUATION), range(10)):
        played = module.play(lambda observation: np.zeros((3, 2)), env, vector_env, (seed, stream, i))
        tags += played["observation"][:, 0, 0, 0].tolist()
    assert len(set(tags)) == len(tags) == 120


def test_actions_are_scaled_to_the_range_of_the_environment(module):
    """Walk-v0 has actions from -2 to 4, refuses others, and walks to the nearest integer of the action less 1."""
    env = gym.make("goal_envs:Walk-v0")
    # A little beyond 1, where rounding leads, the bound remains.
    actions = np.array([[-1, 1], [0, 0], [1.0000001, -1.0000001], [0.4, -0.7], [-0.3, 0.1]])
    played = module.play(lambda observation: actions, env, copies(env, 5), (0, 0, 0))
    moved = played["achieved_goal"][:, 1] - played["achieved_goal"][:, 0]
    np.testing.assert_array_equal(moved[:, 0], [[-3, 3], [0, 0], [3, -3], [1, -2], [-1, 0]])


def test_a_goal_that_changes_within_an_episode_is_refused(module):
    def play(changing):
        env = gym.make("goal_envs:Sets-v0", changing=changing)
        return module.play(lambda observation: np.zeros((2, 1)), env, copies(env, 2), (0, 0, 0))

    np.testing.assert_array_equal(play(changing=False)["length"], 8)
    with pytest.raises(ValueError, match="changes the goal"):
        play(changing=True)


@pytest.mark.parametrize(("env_id", "gibibytes"), [("HandReach-v2", 0.5), ("ContinuousSeek20-v0", 0.3)])
def test_a_million_transitions_fit_into_memory(module, env_id, gibibytes):
    env = gym.make(env_id)
    room = module.empty_episodes(1_000_000 // env.spec.max_episode_steps, env)
    assert room["reward"].size == 1_000_000
    assert room.nbytes <= gibibytes * 2**30


# -------------------------------------------------------------------------------------------------------- normalisation


@settings(max_examples=15)
@given(seed=st.integers(0, 100), sizes=st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_normalizer_has_the_mean_and_deviation_of_all_that_it_saw(module, seed, sizes):
    rng = np.random.default_rng(seed)
    normalizer, parts = module.Normalizer(3, make_args(module, normalize=True)), []
    for size in sizes:
        parts.append((rng.normal(size=(size, 3)) * [1, 1e-4, 0] + [5, 2, 1]).astype(np.float32))
        normalizer.update(parts[-1])
    x = np.concatenate(parts).astype(np.float64)
    std = np.maximum(x.std(0), 0.01)
    query = rng.normal(size=(9, 3)) * 10
    expected = np.clip((query - x.mean(0)) / std, -5, 5)
    np.testing.assert_allclose(normalizer(torch.from_numpy(query)).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_normalizer_is_exact_in_a_long_run(module):
    """Where the mean is far from 0, single precision would lose the deviation."""
    normalizer = module.Normalizer(1, make_args(module, normalize=True))
    x = np.random.default_rng(0).normal(10, 0.1, (1000, 1)).astype(np.float32)
    for _ in range(300):
        normalizer.update(x)
    assert normalizer.mean.item() == pytest.approx(x.mean(), rel=1e-5)
    assert normalizer.std.item() == pytest.approx(x.std(), rel=1e-3)


@pytest.mark.parametrize(("normalize", "seen", "scale"), [(False, 4, 100), (True, 0, 1)], ids=["off", "saw nothing"])
def test_without_normalisation_nothing_is_changed(module, normalize, seen, scale):
    normalizer = module.Normalizer(3, make_args(module, normalize=normalize))
    normalizer.update(np.arange(3.0 * seen).reshape(seen, 3))
    x = torch.rand(9, 3) * scale
    assert_same(normalizer(x), x)
    assert_same(normalizer.std, torch.ones(3))  # --dense multiplies by it


def test_every_state_of_an_episode_and_its_goals_are_counted(module):
    """The desired goal as often as the episode has steps; nothing of what follows an early end."""
    recorder = Recorder(module, rounds=8, num_envs=3, normalize=True)
    for played in recorder.played:
        recorder.policy.update_normalizers(played)
    states, goals = [], []
    for episode in recorder.episodes:
        achieved = np.reshape(episode.achieved, (-1, 2))
        states.append(np.concatenate([np.reshape(episode.rows, (-1, 4)), achieved], axis=1))
        goals += [achieved, episode.goal.repeat(len(episode.transitions), axis=0)]
    for norm, seen in ((recorder.policy.observation_norm, states), (recorder.policy.goal_norm, goals)):
        x = np.concatenate(seen).astype(np.float64)
        np.testing.assert_allclose(norm.mean, x.mean(0), rtol=1e-6)
        np.testing.assert_allclose(norm.std, x.std(0), rtol=1e-5)


def test_batches_are_normalised(module):
    """Beside the same draw without normalisation; only one round was counted, so much lies beyond 5 deviations."""
    recorder, raw = (Recorder(module, 9, num_envs=2, normalize=normalize, dense=True) for normalize in (True, False))
    policy = recorder.policy
    policy.update_normalizers(recorder.played[0])
    batch, raw_batch = recorder.draw(18), raw.draw(18)
    assert {len(column) for column in batch} == {18}
    for name, column in raw_batch._asdict().items():
        seen, expected = getattr(batch, name).numpy(), column.numpy()
        if name in ("observation", "next_observation", "goal"):
            norm = policy.goal_norm if name == "goal" else policy.observation_norm
            expected = np.clip((expected - norm.mean.numpy()) / norm.std.numpy(), -5, 5)
            assert 0 < np.mean(np.abs(expected) == 5) < 1
        if name == "reward_gradient":
            expected = expected * policy.goal_norm.std.numpy()
        np.testing.assert_allclose(seen, expected, rtol=1e-5, atol=1e-5, err_msg=name)


# --------------------------------------------------------------------------------------------------------------- replay


class Recorder:
    """Rounds of Walk-v0 with random actions in a script's replay buffer, and what really happened in them."""

    def __init__(self, module, rounds, num_envs=1, seed=0, capacity=100_000, kwargs=None, **args):
        args = make_args(module, buffer_size=capacity, **dict(normalize=False) | args)
        env = gym.make("goal_envs:Walk-v0", **(kwargs or {}))
        self.env, self.policy = env.unwrapped, module.Policy(env, args)
        self.buffer = module.HerReplayBuffer(env, args, np.random.default_rng(seed + 1))
        self.played, self.episodes, vector_env = [], [], copies(env, num_envs)
        for i in range(rounds):
            played, episodes = play_both(module, env, vector_env, (seed, module.TRAINING, i))
            self.buffer.add(played)
            self.played.append(played)
            self.episodes += episodes
        self.by_tag = {episode.tag: episode for episode in self.episodes}

    def draw(self, n):
        return self.buffer.sample(n, self.policy)


def steps_of(batch):
    """Episode's tag and step of each transition of a batch that is not normalised."""
    return batch.observation[:, :2].numpy().astype(int)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    num_envs=st.integers(1, 4),
    rounds=st.integers(1, 25),
    slots=st.integers(8, 30),
    strategy=st.sampled_from(["future", "final", "episode", "random"]),
    her_k=st.sampled_from([0, 1, 4]),
)
def test_samples_are_what_happened(module, seed, num_envs, rounds, slots, strategy, her_k):
    """Of the newest episodes only, where the ring has been filled more than once."""
    buffer = dict(capacity=14 * slots + 13, her_strategy=strategy, her_k=her_k)
    recorder = Recorder(module, rounds, num_envs, seed, **buffer)
    newest = {episode.tag: episode for episode in recorder.episodes[-slots:]}
    batch = recorder.draw(300)
    columns = {name: column.numpy() for name, column in batch._asdict().items() if column.dim()}
    for i, (tag, t) in enumerate(steps_of(batch)):
        assert tag in newest, "an episode that should have been replaced was sampled"
        episode, sample = newest[tag], {name: column[i] for name, column in columns.items()}
        action, reward, terminated = episode.transitions[t]
        for name, step in (("observation", t), ("next_observation", t + 1)):
            state = np.concatenate([episode.rows[step].ravel(), episode.achieved[step].ravel()])
            np.testing.assert_array_equal(sample[name], state)
        np.testing.assert_array_equal(sample["action"], action)
        assert sample["terminated"] == terminated
        goal = sample["goal"].reshape(1, 2)
        assert sample["reward"] == recorder.env.compute_reward(episode.achieved[t + 1], goal, {})
        if her_k == 0:
            np.testing.assert_array_equal(goal, episode.goal)
            assert sample["reward"] == reward
        elif not np.array_equal(goal, episode.goal):
            everywhere = [achieved for other in newest.values() for achieved in other.achieved[1:]]
            allowed = dict(
                future=episode.achieved[t + 1 :],
                final=episode.achieved[-1:],
                episode=episode.achieved[1:],
                random=everywhere,
            )
            assert any(np.array_equal(goal, achieved) for achieved in allowed[strategy])


@pytest.mark.parametrize(("capacity", "kept"), [(100_000, 48), (14 * 20, 20)], ids=["", "wrapped"])
def test_all_transitions_are_drawn_equally_often(module, capacity, kept):
    recorder = Recorder(module, rounds=16, num_envs=3, capacity=capacity, her_k=0)
    lengths = {episode.tag: len(episode.transitions) for episode in recorder.episodes[-kept:]}
    assert len(lengths) == kept
    assert min(lengths.values()) < max(lengths.values()) / 3
    total, n = sum(lengths.values()), 200_000
    transitions, counts = np.unique(steps_of(recorder.draw(n)), axis=0, return_counts=True)
    assert {tuple(row) for row in transitions} == {(tag, t) for tag, length in lengths.items() for t in range(length)}
    deviation = np.sqrt(n / total)
    assert np.abs(counts - n / total).max() < 5 * deviation


@pytest.mark.parametrize(("her_k", "share"), [(0, 0.0), (1, 0.5), (4, 0.8)])
def test_k_of_k_plus_1_goals_are_hindsight(module, her_k, share):
    """With `final`, a relabelled goal is the episode's last position, which never is the goal in episodes that fail."""
    recorder = Recorder(module, rounds=40, her_k=her_k, her_strategy="final")
    batch = recorder.draw(40_000)
    episodes = [recorder.by_tag[tag] for tag, _ in steps_of(batch)]
    failed = [i for i, episode in enumerate(episodes) if not episode.transitions[-1][2]]
    assert len(failed) > 10_000
    goals = np.stack([episode.goal.ravel() for episode in episodes])
    relabelled = (batch.goal.numpy() != goals).any(axis=1)[failed]
    assert relabelled.mean() == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("strategy", ["future", "final", "episode", "random"])
def test_hindsight_goals_are_uniform_over_their_steps(module, strategy):
    """How often each step's position becomes the goal of the transitions of one episode, where all steps differ."""
    recorder = Recorder(module, rounds=60, her_k=10**9, her_strategy=strategy)
    episode = max(recorder.episodes, key=lambda e: len({a.tobytes() for a in e.achieved[1:]}))
    length = len(episode.transitions)
    step_of = {
        a.tobytes(): [t for t, b in enumerate(episode.achieved) if t and (a == b).all()] for a in episode.achieved
    }
    batch = recorder.draw(100_000)
    tags, t = steps_of(batch).T
    for start in (0, length // 2, length - 1):
        mine = (tags == episode.tag) & (t == start)
        goals = batch.goal.numpy()[mine].reshape(-1, 1, 2).astype(np.int16)
        assert len(goals) > 200
        first = {"future": start + 1, "final": length, "episode": 1}.get(strategy)
        if strategy == "random":
            transitions = [a for e in recorder.episodes for a in e.achieved[1:]]
            probabilities = {a.tobytes(): np.mean([(a == b).all() for b in transitions]) for a in transitions}
        else:
            possible = range(first, length + 1)
            probabilities = {
                key: len([s for s in steps if s in possible]) / len(possible) for key, steps in step_of.items()
            }
        for key, probability in probabilities.items():
            seen = np.mean([goal.tobytes() == key for goal in goals])
            assert abs(seen - probability) <= 5 * np.sqrt(probability * (1 - probability) / len(goals))


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint8", "int64", "float32", "float64"])
def test_goals_keep_their_type_and_shape_for_compute_reward(module, dtype):
    recorder = Recorder(module, rounds=10, kwargs=dict(dtype=dtype))
    seen = []

    def compute_reward(achieved_goal, desired_goal, info):
        seen.append((achieved_goal.dtype, achieved_goal.shape[1:], desired_goal.dtype, desired_goal.shape[1:], info))
        return recorder.env.compute_reward(achieved_goal, desired_goal, info)

    recorder.buffer.compute_reward = compute_reward
    batch = recorder.draw(50)
    assert seen == [(np.dtype(dtype), (1, 2), np.dtype(dtype), (1, 2), {})]
    assert {column.dtype for column in batch} == {torch.float32}
    assert batch.goal.shape == (50, 2)
    assert batch.observation.shape == (50, 6)


# ------------------------------------------------------------------------------------------- exploration and evaluation


def test_exploration_adds_noise_and_some_random_actions(module):
    """Of a policy that has the same action everywhere."""
    env, n = gym.make("goal_envs:Walk-v0"), 50_000
    policies = [module.Policy(env, make_args(module, exploration_noise=noise)) for noise in (0.0, 0.1)]
    for policy in policies:
        with torch.no_grad():
            for parameter in policy.actor.parameters():
                parameter.zero_()
            policy.actor.net[-1].bias.copy_(torch.atanh(torch.tensor([0.5, -0.9])))
            policy.target_actor.net[-1].bias.fill_(9)  # the actor explores, not its running average
    spaces, rng = env.observation_space.spaces.items(), np.random.default_rng(0)
    observation = {name: np.zeros((n, *space.shape), space.dtype) for name, space in spaces}
    action = policies[0](observation, policies[0].actor)
    np.testing.assert_allclose(action, np.tile([0.5, -0.9], (n, 1)), rtol=1e-6)
    noisy = policies[1].explore(observation, 0.0, rng)
    assert noisy[:, 0].mean() == pytest.approx(0.5, abs=0.005)
    assert noisy[:, 0].std() == pytest.approx(0.1, rel=0.03)
    assert abs(np.corrcoef(noisy[noisy[:, 1] > -1].T)[0, 1]) < 0.02  # each number has noise of its own
    assert noisy.min() == -1  # clipped
    mixed = policies[0].explore(observation, 0.3, rng)
    random = (mixed != action).any(axis=1)
    assert random.mean() == pytest.approx(0.3, abs=0.01)
    assert (mixed[random] != action[random]).all()  # all of an action is random or nothing of it
    assert mixed[random].std(axis=0) == pytest.approx([1 / np.sqrt(3)] * 2, rel=0.03)
    np.testing.assert_array_equal(policies[0].explore(observation, 0.0, rng), action)


@pytest.mark.parametrize("num_envs", [1, 3, 10])
@pytest.mark.parametrize("normalize", [False, True])
def test_evaluation_plays_every_episode_once_to_its_end(module, num_envs, normalize):
    """Against a loop over one environment: fixed seeds, sum of rewards, success at the last step."""
    args = make_args(module, normalize=normalize, hidden_layers=1, seed=7, eval_episodes=10)
    env = gym.make("goal_envs:Walk-v0", longest=3)
    policy = module.Policy(env, args)
    with torch.no_grad():  # walks to the goal: tanh(w (goal - achieved)) from two ReLUs for each coordinate
        first, last = policy.actor.net[0], policy.actor.net[2]
        for parameter in policy.actor.parameters():
            parameter.zero_()
        for i in range(2):
            for j, sign in enumerate((1, -1)):
                first.weight[2 * i + j, [4 + i, 6 + i]] = sign * torch.tensor([-1.0, 1.0])
                last.weight[i, 2 * i + j] = sign * (0.7 if normalize else 0.35)
        policy.target_actor.load_state_dict(policy.actor.state_dict())
        policy.actor.net[-1].bias.fill_(9)  # evaluated is the target actor
    if normalize:
        policy.goal_norm.update(np.random.default_rng(0).normal(50, 2, (50, 2)))
        policy.observation_norm.update(np.random.default_rng(0).normal(50, 2, (50, 6)))
    low, high = env.action_space.low, env.action_space.high
    keys = [(7, module.EVALUATION, i) for i in range(-(-10 // num_envs))]
    seeds = [seed for key in keys for seed in np.random.SeedSequence(key).generate_state(num_envs).tolist()]
    returns, successes, lengths = [], [], []
    for seed in seeds[:10]:
        observation, _ = env.reset(seed=seed)
        done, rewards = False, []
        while not done:
            seen = [observation[name].reshape(1, -1) for name in ("observation", "achieved_goal")]
            state = torch.tensor(np.concatenate(seen, axis=1), dtype=torch.float32)
            goal = torch.tensor(observation["desired_goal"].reshape(1, -1), dtype=torch.float32)
            with torch.no_grad():
                seen = policy.observation_norm(state), policy.goal_norm(goal)
                action = policy.target_actor(*seen).numpy().reshape(2, 1)
            observation, reward, terminated, truncated, info = env.step(low + (action + 1) / 2 * (high - low))
            rewards.append(reward)
            done = terminated or truncated
        returns.append(sum(rewards))
        successes.append(info["is_success"])
        lengths.append(len(rewards))
    assert len(set(lengths)) > 1
    vector_env = module.make_vector_env(env, num_envs)
    for _ in range(2):  # the same episodes each time
        result = module.evaluate(policy, env, vector_env, args)
        expected = dict(success_rate=np.mean(successes), episodic_return=np.mean(returns))
        assert result == pytest.approx(expected, abs=1e-6)
    assert 0 < result["success_rate"] < 1
    vector_env.close()
