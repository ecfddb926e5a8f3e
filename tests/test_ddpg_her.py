"""The parts that all DDPG scripts share: losses, updates, hindsight replay, normalisation, evaluation."""

import itertools

import goal_envs  # noqa: F401 (registers Walk-v0)
import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import assert_same
from ddpg import assert_gradient, forward, make_args, make_batch, make_networks
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


def test_losses_train_only_what_they_should(module):
    args = make_args(module, alpha=0.3)
    critic, target_critic, actor, target_actor = networks = make_networks(module, args)
    batch = make_batch(module)

    def with_gradient():
        seen = [any(p.grad is not None and p.grad.any() for p in network.parameters()) for network in networks]
        for network in networks:
            network.zero_grad()
        return seen

    # Even if the targets' parameters could have a gradient, none reaches them from the critic's loss.
    module.critic_loss(critic, target_critic, target_actor, batch, args)[0].backward()
    assert with_gradient() == [True, False, False, False]

    weights = [p.clone() for p in critic.parameters()]
    optimizer = torch.optim.Adam(actor.parameters(), lr=0.01)
    before = [p.clone() for p in actor.parameters()]
    module.optimize(optimizer, module.actor_loss(actor, critic, batch, args), actor)
    assert all(p.grad is None for p in critic.parameters())
    assert_same([p.detach() for p in critic.parameters()], [p.detach() for p in weights])
    steps = [(p - q).abs().max().item() for p, q in zip(actor.parameters(), before, strict=True)]
    assert steps == pytest.approx([0.01] * len(steps), rel=1e-3)  # Adam's first step is the learning rate
    assert with_gradient() == [False, False, True, False]


def test_update_target_moves_by_tau(module):
    args = make_args(module)
    network, target, *_ = make_networks(module, args)
    expected = [0.75 * t.detach() + 0.25 * p.detach() for p, t in zip(network.parameters(), target.parameters())]  # noqa: B905
    before = [p.detach().clone() for p in network.parameters()]
    module.update_target(target, network, 0.25)
    for parameter, wanted in zip(target.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), wanted)
    assert_same([p.detach() for p in network.parameters()], before)


def test_networks_have_the_published_layers(module):
    args = make_args(module, hidden_layers=3, hidden_size=64)
    for network, outputs in ((module.Actor(10, 5, 4, args), 4), (module.Critic(10, 5, 4, args), 1)):
        layers = [layer for layer in network.net if isinstance(layer, torch.nn.Linear)]
        assert [layer.out_features for layer in layers] == [64, 64, 64, outputs]
    linear = torch.nn.Linear(10 + 5, 64)
    for xavier, limit in ((True, np.sqrt(6 / (15 + 64))), (False, linear.weight.abs().max().item())):
        first = module.Actor(10, 5, 4, make_args(module, hidden_size=64, xavier=xavier)).net[0]
        assert first.bias.any() != xavier
        assert first.weight.abs().max().item() == pytest.approx(limit, rel=0.03)
    observation, goal = torch.randn(7, 10), torch.randn(7, 5)
    action = module.Actor(10, 5, 4, args)(observation * 100, goal * 100)
    assert action.shape == (7, 4)
    assert action.abs().max() <= 1
    assert module.Critic(10, 5, 4, args)(observation, action, goal).shape == (7,)


def test_networks_may_see_the_achieved_goal(module):
    env = gym.make("goal_envs:Walk-v0")
    observation, _ = env.reset(seed=1)
    batch = {name: np.stack([value, 2 * value]) for name, value in observation.items()}
    for observe, dim in ((False, 4), (True, 6)):
        args = make_args(module, observe_achieved_goal=observe, cuda=False)
        assert module.dimensions(env, args) == (dim, 2, 2)
        seen = module.network_input(batch, args)
        assert seen.dtype == np.float32
        parts = [batch["observation"].reshape(2, 4), batch["achieved_goal"].reshape(2, 2)]
        np.testing.assert_array_equal(seen, np.concatenate(parts, axis=1)[:, :dim])
        assert module.Policy(env, args)(batch).shape == (2, 2)
    recorder = Recorder(module, episodes=5, observe_achieved_goal=True)
    sample = recorder.buffer.sample(40)
    assert sample["observation"].shape == (40, 6)
    for seen in (sample["observation"], sample["next_observation"]):
        np.testing.assert_array_equal(seen[:, 4:], seen[:, 2:4])  # an observation of Walk-v0 ends with the position


# -------------------------------------------------------------------------------------------------------- normalisation


@settings(max_examples=15)
@given(seed=st.integers(0, 100), sizes=st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_normalizer_has_the_mean_and_deviation_of_all_that_it_saw(module, seed, sizes):
    rng = np.random.default_rng(seed)
    normalizer, parts = module.Normalizer(3), []
    for size in sizes:
        parts.append((rng.normal(size=(size, 3)) * [1, 1e-4, 0] + [5, 2, 1]).astype(np.float32))
        normalizer.update(parts[-1])
    x = np.concatenate(parts).astype(np.float64)
    std = np.maximum(x.std(0), 0.01)
    query = rng.normal(size=(9, 3)) * 10
    expected = np.clip((query - x.mean(0)) / std, -5, 5)
    np.testing.assert_allclose(normalizer(torch.from_numpy(query)).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_batches_are_normalised_and_cut(module):
    args = make_args(module, env_id="ContinuousSeek5-v0", batch_size=6, normalize=True, cuda=False)
    policy = module.Policy(gym.make("ContinuousSeek5-v0"), args)
    rng = np.random.default_rng(0)
    policy.observation_norm.update(rng.normal(size=(50, 5)) + 3)
    policy.goal_norm.update(rng.normal(size=(50, 5)) * 2)
    names = ("observation", "next_observation", "goal", "next_achieved_goal", "action")
    sample = {name: rng.normal(size=(18, 5)).astype(np.float32) for name in names}
    sample |= {name: rng.random(18).astype(np.float32) for name in ("reward", "terminated")}
    batches = module.make_batches(sample, policy, args)
    assert [len(batch.reward) for batch in batches] == [6, 6, 6]

    def normalised(x, norm):
        return np.clip((x - norm.mean.numpy()) / norm.std.numpy(), -5, 5)

    for i, batch in enumerate(batches):
        rows = slice(6 * i, 6 * i + 6)
        for name in ("observation", "next_observation"):
            expected = normalised(sample[name][rows], policy.observation_norm)
            np.testing.assert_allclose(getattr(batch, name).numpy(), expected, rtol=1e-5)
        np.testing.assert_allclose(batch.goal.numpy(), normalised(sample["goal"][rows], policy.goal_norm), rtol=1e-5)
        for name in ("action", "reward", "terminated"):
            np.testing.assert_array_equal(getattr(batch, name).numpy(), sample[name][rows])


# --------------------------------------------------------------------------------------------------------------- replay


class Recorder:
    """Plays Walk-v0 with random actions into a script's replay buffer, as training does, and remembers everything."""

    def __init__(self, module, episodes, num_envs=1, seed=0, capacity=100_000, kwargs=None, **args):
        args = make_args(module, env_id="Walk-v0", num_envs=num_envs, buffer_size=capacity, **args)
        env = gym.make("goal_envs:Walk-v0", **(kwargs or {}))
        self.env, self.finished, rng = env.unwrapped, {}, np.random.default_rng(seed)
        vector_env, policy = module.make_vector_env(env, num_envs), module.Policy(env, args)
        self.buffer = buffer = module.HerReplayBuffer(env, args, np.random.default_rng(seed + 1))
        seeds = itertools.count(1000 * seed)
        observation, _ = vector_env.reset(seed=list(itertools.islice(seeds, num_envs)))
        buffer.begin(np.ones(num_envs, bool), observation)
        running = [Episode(observation, i) for i in range(num_envs)]
        self.begun = running.copy()
        while len(self.finished) < episodes:
            action = rng.uniform(-1, 1, (num_envs, 2)).astype(np.float32)
            observation, reward, terminated, truncated, _ = vector_env.step(policy.to_environment(action))
            buffer.add(action, reward, terminated, observation)
            for i in range(num_envs):
                running[i].add(observation, i, action[i], reward[i], terminated[i])
            done = terminated | truncated
            if done.any():
                buffer.end(done)
                for i in np.flatnonzero(done):
                    self.finished[running[i].tag] = running[i]
                options = dict(reset_mask=done)
                observation, _ = vector_env.reset(seed=list(itertools.islice(seeds, num_envs)), options=options)
                buffer.begin(done, observation)
                for i in np.flatnonzero(done):
                    running[i] = Episode(observation, i)
                    self.begun.append(running[i])


class Episode:
    def __init__(self, observation, i):
        self.rows, self.achieved, self.transitions = [], [], []
        self._see(observation, i)
        self.tag, self.goal = self.rows[0][0, 0], observation["desired_goal"][i].copy()

    def _see(self, observation, i):
        self.rows.append(observation["observation"][i].copy())
        self.achieved.append(observation["achieved_goal"][i].copy())

    def add(self, observation, i, *transition):
        self._see(observation, i)
        self.transitions.append(transition)


def steps_of(sample):
    """Episode's tag and step of each sampled transition."""
    return sample["observation"][:, :2].astype(int)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    num_envs=st.integers(1, 4),
    episodes=st.integers(1, 60),
    slots=st.integers(8, 30),
    strategy=st.sampled_from(["future", "final", "episode", "random"]),
    her_k=st.sampled_from([0, 1, 4]),
)
def test_samples_are_what_happened(module, seed, num_envs, episodes, slots, strategy, her_k):
    """Also where the ring has been filled more than once, and where episodes are running."""
    buffer = dict(capacity=14 * slots, her_strategy=strategy, her_k=her_k)
    recorder = Recorder(module, episodes, num_envs, seed, **buffer)
    sample = recorder.buffer.sample(300)
    for i, (tag, t) in enumerate(steps_of(sample)):
        assert tag in recorder.finished, "an episode that is not finished was sampled"
        episode = recorder.finished[tag]
        action, reward, terminated = episode.transitions[t]
        np.testing.assert_array_equal(sample["observation"][i], episode.rows[t].ravel())
        np.testing.assert_array_equal(sample["next_observation"][i], episode.rows[t + 1].ravel())
        np.testing.assert_array_equal(sample["action"][i], action)
        assert sample["terminated"][i] == terminated
        goal = sample["goal"][i].reshape(1, 2)
        assert sample["reward"][i] == recorder.env.compute_reward(episode.achieved[t + 1], goal, {})
        if her_k == 0:
            np.testing.assert_array_equal(goal, episode.goal)
            assert sample["reward"][i] == reward
        elif not np.array_equal(goal, episode.goal):
            everywhere = [achieved for other in recorder.finished.values() for achieved in other.achieved[1:]]
            allowed = dict(
                future=episode.achieved[t + 1 :],
                final=episode.achieved[-1:],
                episode=episode.achieved[1:],
                random=everywhere,
            )
            assert any(np.array_equal(goal, achieved) for achieved in allowed[strategy])
    newest = [episode for episode in recorder.begun[-(slots - num_envs) :] if episode.tag in recorder.finished]
    assert len(recorder.buffer) >= sum(len(episode.transitions) for episode in newest)
    assert len(recorder.buffer) <= 14 * slots


def test_all_transitions_are_drawn_equally_often(module):
    recorder = Recorder(module, episodes=20, num_envs=3, her_k=0)
    lengths = {tag: len(episode.transitions) for tag, episode in recorder.finished.items()}
    assert min(lengths.values()) < max(lengths.values()) / 3
    total, n = sum(lengths.values()), 200_000
    transitions, counts = np.unique(steps_of(recorder.buffer.sample(n)), axis=0, return_counts=True)
    assert {tuple(row) for row in transitions} == {(tag, t) for tag, length in lengths.items() for t in range(length)}
    assert len(recorder.buffer) == total
    deviation = np.sqrt(n / total)
    assert np.abs(counts - n / total).max() < 5 * deviation


@pytest.mark.parametrize(("her_k", "share"), [(0, 0.0), (1, 0.5), (4, 0.8)])
def test_k_of_k_plus_1_goals_are_hindsight(module, her_k, share):
    """With `final`, a relabelled goal is the episode's last position, which never is the goal in episodes that fail."""
    recorder = Recorder(module, episodes=40, her_k=her_k, her_strategy="final")
    sample = recorder.buffer.sample(40_000)
    failed = [i for i, (tag, _) in enumerate(steps_of(sample)) if not recorder.finished[tag].transitions[-1][2]]
    assert len(failed) > 10_000
    goals = np.stack([recorder.finished[tag].goal.ravel() for tag, _ in steps_of(sample)])
    relabelled = (sample["goal"] != goals).any(axis=1)[failed]
    assert relabelled.mean() == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("strategy", ["future", "final", "episode", "random"])
def test_hindsight_goals_are_uniform_over_their_steps(module, strategy):
    """How often each step's position becomes the goal of the transitions of one episode, where all steps differ."""
    recorder = Recorder(module, episodes=60, her_k=10**9, her_strategy=strategy)
    episode = max(recorder.finished.values(), key=lambda e: len({a.tobytes() for a in e.achieved[1:]}))
    length = len(episode.transitions)
    step_of = {
        a.tobytes(): [t for t, b in enumerate(episode.achieved) if t and (a == b).all()] for a in episode.achieved
    }
    sample = recorder.buffer.sample(100_000)
    tags, t = steps_of(sample).T
    for start in (0, length // 2, length - 1):
        mine = (tags == episode.tag) & (t == start)
        goals = sample["goal"][mine].reshape(-1, 1, 2).astype(np.int16)
        assert len(goals) > 200
        first = {"future": start + 1, "final": length, "episode": 1}.get(strategy)
        if strategy == "random":
            transitions = [a for e in recorder.finished.values() for a in e.achieved[1:]]
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
    recorder = Recorder(module, episodes=10, kwargs=dict(dtype=dtype))
    seen = []

    def compute_reward(achieved_goal, desired_goal, info):
        seen.append((achieved_goal.dtype, achieved_goal.shape[1:], desired_goal.dtype, desired_goal.shape[1:], info))
        return recorder.env.compute_reward(achieved_goal, desired_goal, info)

    recorder.buffer.compute_reward = compute_reward
    sample = recorder.buffer.sample(50)
    assert seen == [(np.dtype(dtype), (1, 2), np.dtype(dtype), (1, 2), {})]
    assert sample["goal"].dtype == np.float32
    assert sample["goal"].shape == (50, 2)
    assert sample["observation"].shape == (50, 4)


# ------------------------------------------------------------------------------------------- exploration and evaluation


def test_exploration_adds_noise_and_some_random_actions(module):
    rng = np.random.default_rng(0)
    action = np.tile(np.float32([0.5, -0.9]), (50_000, 1))
    noisy = module.explore(action, 0.1, 0.0, rng)
    assert noisy.dtype == np.float32
    assert noisy[:, 0].mean() == pytest.approx(0.5, abs=0.005)
    assert noisy[:, 0].std() == pytest.approx(0.1, rel=0.03)
    assert noisy.min() == -1  # clipped
    mixed = module.explore(action, 0.0, 0.3, rng)
    random = (mixed != action).any(axis=1)
    assert random.mean() == pytest.approx(0.3, abs=0.01)
    assert (mixed[random] != action[random]).all()  # all of an action is random or nothing of it
    assert mixed[random].std(axis=0) == pytest.approx([1 / np.sqrt(3)] * 2, rel=0.03)
    np.testing.assert_array_equal(module.explore(action, 0.0, 0.0, rng), action)


@pytest.mark.parametrize("num_envs", [1, 3, 10])
@pytest.mark.parametrize("normalize", [False, True])
def test_evaluation_plays_every_episode_once_to_its_end(module, num_envs, normalize):
    """Against a loop over one environment: fixed seeds, sum of rewards, success at the last step."""
    args = make_args(module, env_id="goal_envs:Walk-v0", normalize=normalize, cuda=False, hidden_layers=1)
    env = gym.make("goal_envs:Walk-v0", longest=3)
    policy = module.Policy(env, args)
    with torch.no_grad():  # walks to the goal: tanh(w (goal - position)) from two ReLUs for each coordinate
        first, last = policy.actor.net[0], policy.actor.net[2]
        for parameter in policy.actor.parameters():
            parameter.zero_()
        for i in range(2):
            for j, sign in enumerate((1, -1)):
                first.weight[2 * i + j, [2 + i, 4 + i]] = sign * torch.tensor([-1.0, 1.0])
                last.weight[i, 2 * i + j] = sign * (0.7 if normalize else 0.35)
    if normalize:
        policy.goal_norm.update(np.random.default_rng(0).normal(50, 2, (50, 2)))
        policy.observation_norm.update(np.random.default_rng(0).normal(50, 2, (50, 4)))
    low, high = env.action_space.low, env.action_space.high
    returns, successes, lengths = [], [], []
    for seed in module.episode_seeds(7, module.EVALUATION, np.arange(10)):
        observation, _ = env.reset(seed=seed)
        done, rewards = False, []
        while not done:
            state = torch.tensor(observation["observation"].reshape(1, -1), dtype=torch.float32)
            goal = torch.tensor(observation["desired_goal"].reshape(1, -1), dtype=torch.float32)
            with torch.no_grad():
                action = policy.actor(policy.observation_norm(state), policy.goal_norm(goal)).numpy().reshape(2, 1)
            observation, reward, terminated, truncated, info = env.step(low + (action + 1) / 2 * (high - low))
            rewards.append(reward)
            done = terminated or truncated
        returns.append(sum(rewards))
        successes.append(info["is_success"])
        lengths.append(len(rewards))
    assert len(set(lengths)) > 1
    result = module.evaluate(policy, module.make_vector_env(env, num_envs), 10, 7)
    assert result == pytest.approx((np.mean(successes), np.mean(returns)), abs=1e-9)
    assert 0 < result[0] < 1
    assert len(set(module.episode_seeds(7, module.EVALUATION, np.arange(1000)))) == 1000
    assert not set(module.episode_seeds(7, 0, np.arange(100))) & set(module.episode_seeds(7, 1, np.arange(100)))
