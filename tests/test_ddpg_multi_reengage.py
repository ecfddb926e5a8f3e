"""Multi-ReenGAGE: gate gradients against finite differences; sets, pictures and the buffer."""

import copy
import re

import gymnasium as gym
import multi_speed
import numpy as np
import pytest
import torch
from conftest import SEEK, SMALL, assert_same_runs, contents, evaluations, learned
from ddpg import ACTION, BATCH, assert_gradient, differences, forward
from gymnasium.spaces import Box

import ddpg_multi_reengage as multi

ALPHA, OBSERVATION, N_MAX = 0.7, 4, 6
GOALS = Box(np.tile(np.float32([0, -3, -3]), (N_MAX, 1)), np.tile(np.float32([1, 3, 3]), (N_MAX, 1)))
KINDS = [
    dict(),
    dict(separate_encoders=True),
    dict(architecture="cnn"),
    dict(architecture="cnn", separate_encoders=True),
]


def make_args(**kwargs):
    small = dict(hidden_size=6, embedding_size=3, gamma=0.9, normalize=False)
    return multi.Args(**small | kwargs)


def make_networks(args):
    """Critic, target critic, actor and target actor, all different, with biases that are not zero."""
    torch.manual_seed(7)
    networks = []
    for kind in (multi.Critic, multi.Critic, multi.Actor, multi.Actor):
        network = kind(OBSERVATION, GOALS, ACTION, args).double()
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1 if parameter.dim() == 4 else 0.6)
        networks.append(network)
    return networks


def make_batch(seed=0):
    """Random transitions; 1 to all goals of a set are real, in the first rows; some transitions are terminated."""
    rng = np.random.default_rng(seed)
    gate = (np.arange(N_MAX) < rng.integers(1, N_MAX, (BATCH, 1), endpoint=True)).astype(float)
    goal = rng.integers(-3, 3, (BATCH, N_MAX, 2), endpoint=True) * gate[..., None]
    item_reward = (rng.random((BATCH, N_MAX)) < 0.3) * gate
    columns = dict(
        observation=rng.uniform(-3, 3, (BATCH, OBSERVATION)),
        action=np.tanh(rng.normal(size=(BATCH, ACTION))),
        reward=item_reward.max(axis=1),
        next_observation=rng.uniform(-3, 3, (BATCH, OBSERVATION)),
        terminated=(np.arange(BATCH) % 5 == 0).astype(float),
        goal=goal,
        gate=gate,
        item_reward=item_reward,
    )
    return multi.Batch(**{name: torch.from_numpy(column) for name, column in columns.items()})


def embed(encoder, observation, goal, gate):
    """Eq. 16 as it is written, with real gates b_i², in numpy; padding is encoded, too."""
    state = np.repeat(observation[:, None], N_MAX, axis=1).reshape(-1, OBSERVATION)
    encoded = forward(encoder, state, goal.reshape(-1, 2))[0].reshape(BATCH, N_MAX, -1)
    return (gate[..., None] ** 2 * encoded).sum(axis=1) / N_MAX


def value(critic, batch):
    """b → Q(s, a, b), in numpy."""
    observation, action, goal = batch.observation.numpy(), batch.action.numpy(), batch.goal.numpy()
    return lambda gate: forward(critic, observation, action, embed(critic.encoder, observation, goal, gate))[0][:, 0]


def target_value(target_critic, target_actor, batch, args):
    """b → y(b), in numpy: the rewards are Σ_i b_i² R_item(s', g_i) (Eq. 17), whose gradient is meant."""
    observation, goal, item_reward = (x.numpy() for x in (batch.next_observation, batch.goal, batch.item_reward))

    def target(gate):
        embedding = embed(target_critic.encoder, observation, goal, gate)
        own = embedding if target_actor.encoder is None else embed(target_actor.encoder, observation, goal, gate)
        action = np.tanh(forward(target_actor, observation, own)[0])
        next_q = forward(target_critic, observation, action, embedding)[0][:, 0]
        reward = (gate**2 * item_reward).sum(axis=1)
        return reward + args.gamma * (1 - batch.terminated.numpy()) * next_q

    return target


def loss_parts(networks, batch, args):
    critic, target_critic, _, target_actor = networks
    loss, metrics = multi.critic_loss(critic, target_critic, target_actor, batch, args)
    return loss.item(), metrics


# --------------------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("kind", KINDS[:2], ids=str)
def test_loss_equals_finite_differences(kind):
    """Through the target actor as well; the value term has the observed reward."""
    args = make_args(alpha=ALPHA, **kind)
    critic, target_critic, _, target_actor = networks = make_networks(args)
    batch = make_batch()
    gate = batch.gate.numpy()
    q, target = value(critic, batch), target_value(target_critic, target_actor, batch, args)
    difference = differences(q, gate) - differences(target, gate)
    assert (np.abs(difference) > 1e-3).mean() > 0.3
    observed = target(gate) - batch.item_reward.numpy().sum(axis=1) + batch.reward.numpy()
    assert (batch.item_reward.sum(1) > 1).any()  # where the sum is not the reward
    value_loss = np.square(q(gate) - observed).mean()
    gradient_loss = np.square(difference).sum(axis=1).mean()
    loss, metrics = loss_parts(networks, batch, args)
    assert metrics["value_loss"].item() == pytest.approx(value_loss, rel=1e-9)
    assert metrics["gradient_loss"].item() == pytest.approx(gradient_loss, rel=1e-6)
    assert loss == pytest.approx(value_loss + ALPHA * gradient_loss, rel=1e-6)
    assert metrics["q"].item() == pytest.approx(q(gate).mean(), rel=1e-9)


@pytest.mark.parametrize("alpha", [0.0, ALPHA])
@pytest.mark.parametrize("kind", KINDS[:2], ids=str)
def test_critic_loss_has_the_right_gradient(kind, alpha):
    args = make_args(alpha=alpha, **kind)
    critic, target_critic, _, target_actor = make_networks(args)
    batch = make_batch()
    assert_gradient(lambda: multi.critic_loss(critic, target_critic, target_actor, batch, args)[0], critic)


@pytest.mark.parametrize("kind", KINDS[:2], ids=str)
def test_actor_loss_and_its_gradient(kind):
    args = make_args(**kind)
    critic, _, actor, _ = make_networks(args)
    batch = make_batch()
    observation, goal, gate = batch.observation.numpy(), batch.goal.numpy(), batch.gate.numpy()
    embedding = embed(critic.encoder, observation, goal, gate)
    own = embedding if actor.encoder is None else embed(actor.encoder, observation, goal, gate)
    action = np.tanh(forward(actor, observation, own)[0])
    expected = -forward(critic, observation, action, embedding)[0].mean()
    assert multi.actor_loss(actor, critic, batch).item() == pytest.approx(expected, rel=1e-9)
    assert_gradient(lambda: multi.actor_loss(actor, critic, batch), actor)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_losses_train_only_what_they_should(kind):
    """The critic's loss alone trains the shared encoder; an actor's own encoder is trained by the actor's loss."""
    args = make_args(alpha=ALPHA, **kind)
    critic, target_critic, actor, target_actor = networks = make_networks(args)
    batch = make_batch()

    def trained(loss):
        for network in networks:
            network.zero_grad()
        loss.backward()
        return {
            f"{which} {part}"
            for which, network in zip(("critic", "target", "actor", "target"), networks, strict=True)
            for part in ("encoder", "net")
            if getattr(network, part) is not None
            for parameter in getattr(network, part).parameters()
            if parameter.grad is not None and parameter.grad.abs().max() > 0
        }

    loss = multi.critic_loss(critic, target_critic, target_actor, batch, args)[0]
    assert trained(loss) == {"critic encoder", "critic net"}
    own = {"actor encoder"} if args.separate_encoders else set()
    assert trained(multi.actor_loss(actor, critic, batch)) == {"critic net", "actor net"} | own


@pytest.mark.parametrize("kind", KINDS[2:], ids=str)
def test_pictures_have_the_right_gate_gradient(kind):
    """The loss of ddpg_multi_reengage.py's own networks, in finite differences of their gates."""
    args = make_args(alpha=ALPHA, **kind)
    critic, target_critic, _, target_actor = networks = make_networks(args)
    batch = make_batch()

    @torch.no_grad()
    def q(gate):
        embedding = critic.encoder(batch.observation, batch.goal, torch.from_numpy(gate))
        return critic(batch.observation, batch.action, embedding).numpy()

    @torch.no_grad()
    def target(gate):
        gate = torch.from_numpy(gate)
        embedding = target_critic.encoder(batch.next_observation, batch.goal, gate)
        action = target_actor(batch.next_observation, batch.goal, gate, embedding)
        next_q = target_critic(batch.next_observation, action, embedding)
        reward = (gate.square() * batch.item_reward).sum(1)
        return (reward + args.gamma * (1 - batch.terminated) * next_q).numpy()

    gate = batch.gate.numpy()
    difference = differences(q, gate) - differences(target, gate)
    assert (np.abs(difference) > 1e-3).mean() > 0.1
    _, metrics = loss_parts(networks, batch, args)
    assert metrics["gradient_loss"].item() == pytest.approx(np.square(difference).sum(axis=1).mean(), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_padding_has_no_gradient_and_the_order_does_not_matter(kind):
    args = make_args(alpha=ALPHA, **kind)
    networks, batch = make_networks(args), make_batch()
    for network in (networks[0], networks[1]):
        gate = batch.gate.clone().requires_grad_()
        embedding = network.encoder(batch.observation, batch.goal, gate)
        (gradient,) = torch.autograd.grad(network(batch.observation, batch.action, embedding).sum(), gate)
        assert not gradient[batch.gate == 0].any()
        assert gradient[batch.gate == 1].any()
    expected = loss_parts(networks, batch, args)[0]
    order = torch.randperm(N_MAX, generator=torch.Generator().manual_seed(0))
    columns = ("goal", "gate", "item_reward")
    permuted = batch._replace(**{name: getattr(batch, name)[:, order] for name in columns})
    assert loss_parts(networks, permuted, args)[0] == pytest.approx(expected, rel=1e-12)
    padded = batch._replace(**{name: torch.cat([x := getattr(batch, name), 0 * x[:, :2]], dim=1) for name in columns})
    assert loss_parts(networks, padded, args)[0] == pytest.approx(expected, rel=1e-12)
    elsewhere = batch._replace(goal=torch.where(batch.gate[..., None] == 0, 2.0, batch.goal))  # where padding is
    assert loss_parts(networks, elsewhere, args)[0] == pytest.approx(expected, rel=1e-12)
    moved = batch._replace(goal=torch.where(batch.gate[..., None] == 1, (batch.goal + 4) % 6 - 3, batch.goal))
    assert loss_parts(networks, moved, args)[0] != pytest.approx(expected, rel=1e-6)


def test_alpha_0_costs_nothing(monkeypatch):
    """No gradient by the gates, and no rewards of single goals."""
    args = make_args(alpha=0.0)
    networks, batch = make_networks(args), make_batch()

    def refuse(*args, **kwargs):
        raise AssertionError("computed in vain")

    expected = loss_parts(networks, batch, multi.replace(args, alpha=ALPHA))[1]["value_loss"].item()
    monkeypatch.setattr(torch.autograd, "grad", refuse)
    assert loss_parts(networks, batch._replace(item_reward=None), args)[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("separate_encoders", [False, True])
@pytest.mark.parametrize("form", ["dense", "dense, gradient by the gates"])
@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_equals_the_straightforward_form_on_driveseek(monkeypatch, alpha, form, separate_encoders):
    """What benchmarks/multi_speed.py compares with: all 200 rows, separate passes, everything differentiated."""
    size = dict(hidden_size=8, batch_size=9, separate_encoders=separate_encoders)
    monkeypatch.setitem(multi_speed.SIZES, "tiny", size)
    assert multi_speed.Setting("tiny").disagreement(alpha, form) < 1e-5


# ------------------------------------------------------------------------------------------------------------- pictures


def test_a_picture_shows_goals_positions_and_the_next_position():
    goals = gym.make("DriveSeek-v0").observation_space["desired_goal"]
    encoder = multi.PictureEncoder(4, goals, make_args(architecture="cnn"))
    encoder.net = torch.nn.Sequential(torch.nn.Flatten(0))  # shows what the network would see
    observation = torch.tensor([[-10.0, 10.0, 0.0, 1.0], [2.3, -4.0, -1.0, 0.0]])  # the first one wraps around
    goal = torch.zeros(2, 200, 2)
    goal[0, 0], goal[0, 1], goal[1, 0] = torch.tensor([-10.0, 3]), torch.tensor([10.0, 10]), torch.tensor([0.0, 0])
    gate = torch.zeros(2, 200)
    gate[0, :2] = gate[1, 0] = torch.tensor([1.0])
    gate[0, 1] = 3.0
    seen = encoder(observation, goal, gate).reshape(2, 3, 168, 168)
    marks = torch.zeros(2, 168, 168)
    marks[0, 2:6, 13 * 8 + 2 : 13 * 8 + 6] = 1  # the inner half of a cell of 8 pixels
    marks[0, 162:166, 162:166] = 9  # b²
    marks[1, 82:86, 82:86] = 1
    assert torch.equal(seen[:, 0], marks)
    points = [torch.nonzero(seen[i, channel]).tolist() for i in (0, 1) for channel in (1, 2)]
    # x + 10.5 cells of 8 pixels; 10 + 1 is −10 again
    assert points == [[[4, 164]], [[4, 4]], [[102, 52]], [[94, 52]]]
    assert set(seen[:, 1:].unique().tolist()) == {0.0, 1.0}


def test_pictures_need_a_grid(run, tmp_path):
    small = "--hidden-size 8 --batch-size 8 --total-timesteps 30 --learning-starts 20 --buffer-size 999"
    for flags in ("--env-id NoisySeek-v0", "--env-id DriveSeek-v0 --normalize"):
        finished = run("ddpg_multi_reengage", flags, "--architecture cnn", small)
        assert (finished.status, finished.err.count("\n")) == (2, 1)
        assert "--architecture cnn needs" in finished.err
        assert not (tmp_path / "runs").exists()
    space = multi.make_env(multi.Args(env_id="DriveSeek-v0")).observation_space
    args = multi.Args(normalize=False)
    assert multi.drawable(space, args)
    for bound, value in (("low", 1), ("high", 10.5)):  # padding, which is (0, 0), would lie outside; half a cell
        other = copy.deepcopy(space)
        getattr(other["desired_goal"], bound)[:, 1:] = value
        assert not multi.drawable(other, args)
    finished = run("ddpg_multi_reengage", "--architecture cnn --eval-episodes 2 --run-name r", small)
    assert finished.status == 0, finished.err
    assert len(evaluations(tmp_path / "runs" / "r")) == 2


# --------------------------------------------------------------------------------------------- the buffer, environments


def test_the_full_buffer_is_small_and_returns_what_was_put_in():
    args = multi.Args(env_id="DriveSeek-v0", **multi.PAPER_SETTINGS["DriveSeek-v0"])
    env = multi.make_env(args)
    rng, policy = np.random.default_rng(0), multi.Policy(env, args)
    buffer = multi.ReplayBuffer(env, args, rng)
    arrays = [array for array in vars(buffer).values() if isinstance(array, np.ndarray)]
    assert len(buffer.episodes) * 40 == args.buffer_size == 1_000_000
    assert sum(array.nbytes for array in arrays) < 0.2 * 2**30
    seen, episodes = [], multi.empty_episodes(3, env)
    for seed, episode in enumerate(episodes):
        observation, _ = env.reset(seed=seed)
        episode["desired_goal"], episode["length"] = observation["desired_goal"], 40
        for t in range(40):
            action = rng.uniform(-1, 1, 1).astype(np.float32)
            next_observation, reward, terminated, *_ = env.step(action)
            for name in ("observation", "achieved_goal"):
                episode[name][t], episode[name][t + 1] = observation[name], next_observation[name]
            episode["action"][t], episode["reward"][t], episode["terminated"][t] = action, reward, terminated
            seen.append((observation, action, reward, next_observation))
            observation = next_observation
    buffer.add(episodes[:1])
    buffer.add(episodes[1:])
    sample = multi.Batch(*(column.cpu().numpy() for column in buffer.sample(400, policy)))
    drawn = set()
    for i in range(400):
        same = [
            j
            for j, (observation, action, *_) in enumerate(seen)
            if action == sample.action[i] and np.array_equal(sample.observation[i, :4], observation["observation"])
        ]
        assert len(same) == 1
        observation, _, reward, next_observation = seen[same[0]]
        drawn.add(same[0])
        assert (sample.reward[i], sample.terminated[i]) == (reward, 0)
        assert np.array_equal(sample.gate[i], observation["desired_goal"][:, 0])
        assert np.array_equal(sample.goal[i], observation["desired_goal"][:, 1:])
        for state, part in ((sample.observation, observation), (sample.next_observation, next_observation)):
            assert np.array_equal(state[i], np.concatenate([part["observation"], part["achieved_goal"]]))
        item_reward = env.unwrapped.compute_item_reward(next_observation["achieved_goal"], observation["desired_goal"])
        assert np.array_equal(sample.item_reward[i], item_reward)
    assert len(drawn) > 100
    assert {episode // 40 for episode in drawn} == {0, 1, 2}
    assert sample.reward.any()
    assert all(column.dtype == np.float32 for column in sample)


def test_samples_are_what_happened_as_the_networks_see_it():
    """Of the newest episodes, which end early and terminate; with and without normalisation."""
    args = make_args(env_id="goal_envs:SetOfWalk-v0", buffer_size=14 * 20, alpha=0.1)
    env, rng = multi.make_env(args), np.random.default_rng(0)
    vector_env, buffer = multi.make_vector_env(env, 4), multi.ReplayBuffer(env, args, None)
    raw_policy, policy = (multi.Policy(env, multi.replace(args, normalize=normalize)) for normalize in (False, True))
    played = [multi.play(lambda _: rng.uniform(-1, 1, (4, 2)), env, vector_env, (0, i)) for i in range(8)]
    for episodes in played:
        buffer.add(episodes)
        policy.update_normalizers(episodes)
    newest = {int(episode["observation"][0, 0, 0]): episode for episode in np.concatenate(played)[-20:]}
    samples = []
    for each in (raw_policy, policy):
        buffer.rng = np.random.default_rng(1)
        samples.append(multi.Batch(*(column.cpu().numpy() for column in buffer.sample(400, each))))
    raw, normalised = samples
    tags, steps = raw.observation[:, :2].astype(int).T
    assert set(tags) == set(newest)
    for i, (tag, step) in enumerate(zip(tags, steps, strict=True)):
        assert step < newest[tag]["length"]
        for name in ("action", "reward", "terminated"):
            np.testing.assert_array_equal(getattr(raw, name)[i], newest[tag][name][step])
    assert 0 < raw.terminated.mean() < 1
    for name in raw._fields:
        expected = getattr(raw, name)
        if name in ("observation", "next_observation", "goal"):
            norm = policy.goal_norm if name == "goal" else policy.observation_norm
            expected = np.clip((expected - norm.mean.numpy()) / norm.std.numpy(), -5, 5)
        np.testing.assert_allclose(getattr(normalised, name), expected, rtol=1e-5, atol=1e-5, err_msg=name)


def test_exploration_adds_noise_and_replaces_some_actions():
    env, rng, n = gym.make("goal_envs:SetOfWalk-v0"), np.random.default_rng(0), 50_000
    policy = multi.Policy(env, make_args(exploration_noise=0.1))
    with torch.no_grad():
        for parameter in policy.actor.net.parameters():
            parameter.zero_()
        policy.actor.net[-1].bias.copy_(torch.tensor([0.5, -0.9]).atanh())
    spaces = env.observation_space.spaces.items()
    observation = {name: np.zeros((n, *space.shape), space.dtype) for name, space in spaces}
    action = policy(observation)
    np.testing.assert_allclose(action, np.tile([0.5, -0.9], (n, 1)), rtol=1e-6)
    noisy = policy.explore(observation, 0.0, rng)
    assert noisy[:, 0].mean() == pytest.approx(0.5, abs=0.005)
    assert noisy[:, 0].std() == pytest.approx(0.1, rel=0.03)
    assert abs(np.corrcoef(noisy[noisy[:, 1] > -1].T)[0, 1]) < 0.02  # each number has noise of its own
    assert noisy.min() == -1  # clipped
    policy.args.exploration_noise = 0.0
    mixed = policy.explore(observation, 0.3, rng)
    random = (mixed != action).any(axis=1)
    assert random.mean() == pytest.approx(0.3, abs=0.01)
    assert (mixed[random] != action[random]).all()  # all of an action is random or nothing of it
    assert mixed[random].std(axis=0) == pytest.approx([1 / np.sqrt(3)] * 2, rel=0.03)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ('{"per_goal": false}', "no compute_item_reward.*use --alpha 0"),
        ('{"reward": 7}', "not the largest of compute_item_reward's"),
        ('{"columns": 1}', r"compute_item_reward gives shape \(8, 1\), not \(8, 3\)"),
        ('{"columns": "x"}', "compute_item_reward fails on a batch"),
        ('{"gate": 0.5}', "a gate.*must be 0 or 1"),
    ],
)
def test_environments_that_do_not_fit(kwargs, message):
    args = make_args(env_id="goal_envs:Sets-v0", env_kwargs=kwargs, alpha=0.1)
    with pytest.raises(multi.InputError, match=message):
        multi.make_env(args)


@pytest.mark.parametrize("kwargs", ['{"per_goal": false}', '{"reward": 7}'])
def test_alpha_0_needs_no_rewards_of_single_goals(kwargs):
    multi.make_env(make_args(env_id="goal_envs:Sets-v0", env_kwargs=kwargs, alpha=0.0)).close()


@pytest.mark.parametrize("alpha", [0, 0.1])
def test_goals_that_change_within_an_episode_stop_the_run(run, tmp_path, alpha):
    flags = f'--env-id goal_envs:Sets-v0 --env-kwargs {{"changing":true}} --total-timesteps 40 --alpha {alpha}'
    finished = run("ddpg_multi_reengage", SMALL, flags)
    assert (finished.status, finished.err.count("\n")) == (1, 1)
    assert "the environment changes the goal within an episode" in finished.err
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"Sets-v0__ddpg_multi_reengage__1__\d{10}", folder.name)  # script, seed and time


@pytest.mark.parametrize("goals", [(0.1, -0.75), (40_000, 3), (-1.0, 2.0)])
def test_goals_are_stored_exactly(goals):
    """As the environment has them, in double precision; its rewards of single goals are computed of these."""
    env_kwargs = f'{{"goals": {list(goals)}}}'
    args = make_args(env_id="goal_envs:Sets-v0", env_kwargs=env_kwargs, buffer_size=80)
    env, asked = multi.make_env(args), []
    policy, buffer = multi.Policy(env, args), multi.ReplayBuffer(env, args, np.random.default_rng(0))
    goal = env.reset(seed=0)[0]["desired_goal"]
    assert goal.dtype == np.float64
    buffer.add(multi.play(policy, env, multi.make_vector_env(env, 1), (0,)))
    np.testing.assert_array_equal(buffer.episodes["desired_goal"][0], goal, strict=True)
    compute = buffer.compute_item_reward
    buffer.compute_item_reward = lambda *goals: asked.append(goals[1]) or compute(*goals)
    batch = buffer.sample(3, policy)
    np.testing.assert_array_equal(asked, [[goal] * 3], strict=True)
    np.testing.assert_array_equal(batch.goal, np.stack([np.float32(goal[:, 1:])] * 3), strict=True)
    np.testing.assert_array_equal(batch.gate, np.stack([np.float32(goal[:, 0])] * 3), strict=True)


def test_goals_are_normalised_without_their_padding(train):
    folder = train("ddpg_multi_reengage", "r", "--env-id goal_envs:Sets-v0 --alpha 0.1 --total-timesteps 160")
    numbers, seen, states = set(), [], []
    for episode in contents(folder)["episodes"]:
        gate, goal = episode["desired_goal"].numpy().T
        numbers.add(gate.sum())
        seen += len(episode["action"]) * list(goal[gate == 1])
        states += episode["observation"][:, 0].tolist()
    assert numbers == {1, 2, 3}
    assert len(states) == 160 + 20  # the last state of each episode as well
    norm = learned(folder)["policy"]
    for name, values in (("goal_norm", seen), ("observation_norm", states)):
        assert (norm[f"{name}.sums"][0] == len(values)).all()
        assert norm[f"{name}.mean"][0].item() == pytest.approx(np.mean(values), rel=1e-6)
        assert norm[f"{name}.std"][0].item() == pytest.approx(np.std(values), rel=1e-6)


# ------------------------------------------------------------------------------------------------------------- the runs


@pytest.mark.parametrize("flags", ["--separate-encoders --normalize", "--env-id DriveSeek-v0 --architecture cnn"])
def test_variants_continue_bit_for_bit(run, train, flags):
    flags = f"{SEEK['ddpg_multi_reengage']} {flags}"
    folder = train("ddpg_multi_reengage", "r", flags, "--total-timesteps 44")
    assert run("ddpg_multi_reengage", "--resume runs/r --total-timesteps 56").status == 0
    assert_same_runs(folder, train("ddpg_multi_reengage", "uninterrupted", flags, "--total-timesteps 56"))
