"""A round of a run and its updates, done again by hand with the same random numbers, for every script."""

import copy

import numpy as np
import pytest
import torch
from conftest import SEEK, SMALL, learned
from ddpg import optimize


class ByHand:
    """A script's networks and buffer, as a run makes them from its seed; a subclass updates them."""

    followed = ("actor", "critic")  # networks that have a target
    buffer_class = "HerReplayBuffer"

    def __init__(self, module, args):
        self.module, self.args, env = module, args, module.make_env(args)
        rng = np.random.default_rng(args.seed)
        torch.manual_seed(args.seed)
        self.policy = module.Policy(env, args)
        self.make_networks()
        self.targets = {name: copy.deepcopy(getattr(self, name)) for name in self.followed}
        self.buffer = getattr(module, self.buffer_class)(env, args, rng)

        def act(observation):
            return self.policy.explore(observation, args.random_action_probability, rng)

        episodes = module.play(act, env, module.make_vector_env(env, 1), (args.seed, module.TRAINING, 0))
        self.buffer.add(episodes)
        self.policy.update_normalizers(episodes)

    def make_networks(self):
        self.actor = self.policy.actor
        self.critic = self.module.Critic(*self.policy.dimensions, self.args)
        self.optimizers = [self.adam(self.critic), self.adam(self.actor)]

    def adam(self, network):
        return torch.optim.Adam(network.parameters(), self.args.learning_rate, fused=True)

    def losses(self, batch):
        """A network and its loss, one after the other."""
        targets = self.targets["critic"], self.targets["actor"]
        yield self.critic, self.module.critic_loss(self.critic, *targets, batch, self.args)[0]
        yield self.actor, self.module.actor_loss(self.actor, self.critic, batch, self.args)

    def update(self):
        losses = self.losses(self.buffer.sample(self.args.batch_size, self.policy))
        for optimizer, (network, loss) in zip(self.optimizers, losses, strict=True):
            optimize(network, optimizer, loss)
        for name, target in self.targets.items():
            for slow, weight in zip(target.parameters(), getattr(self, name).parameters(), strict=True):
                slow.data = (1 - self.args.tau) * slow.data + self.args.tau * weight.data

    def state(self):
        """What the checkpoint calls them."""
        targets = {f"target_{name}": target for name, target in self.targets.items()}
        return dict(policy=self.policy, critic=self.critic) | targets


class ByHandDDPG(ByHand):
    def state(self):
        self.policy.target_actor = self.targets["actor"]
        return dict(policy=self.policy, critic=self.critic, target_critic=self.targets["critic"])


class ByHandSAC(ByHand):
    followed = ("critic",)

    def make_networks(self):
        super().make_networks()
        self.temperature = self.module.Temperature(self.args.temperature)
        self.optimizers.append(self.adam(self.temperature))

    def losses(self, batch):
        module, actor, critic, temperature = self.module, self.actor, self.critic, self.temperature
        yield critic, module.critic_loss(critic, self.targets["critic"], actor, temperature, batch, self.args)[0]
        loss, entropy = module.actor_loss(actor, critic, temperature, batch)
        yield actor, loss
        yield temperature, module.temperature_loss(temperature, entropy, -2)  # actions have two dimensions

    def state(self):
        return super().state() | dict(temperature=self.temperature)


class ByHandDQN(ByHand):
    followed = ("q_network",)

    def make_networks(self):
        self.q_network = self.policy.q_network
        self.optimizers = [self.adam(self.q_network)]

    def losses(self, batch):
        yield self.q_network, self.module.critic_loss(self.q_network, self.targets["q_network"], batch, self.args)[0]

    def state(self):
        return dict(policy=self.policy, target_q_network=self.targets["q_network"])


class ByHandMulti(ByHand):
    buffer_class = "ReplayBuffer"

    def make_networks(self):
        self.actor, self.critic = self.policy.actor, self.policy.critic
        self.optimizers = [self.adam(self.critic), self.adam(self.actor)]

    def losses(self, batch):
        targets = self.targets["critic"], self.targets["actor"]
        yield self.critic, self.module.critic_loss(self.critic, *targets, batch, self.args)[0]
        yield self.actor, self.module.actor_loss(self.actor, self.critic, batch)

    def state(self):
        return {name: part for name, part in super().state().items() if name != "critic"}


BY_HAND = {
    "ddpg_her": ByHandDDPG,
    "ddpg_her_reengage": ByHandDDPG,
    "sac_her_reengage": ByHandSAC,
    "dqn_her_reengage": ByHandDQN,
    "ddpg_multi_reengage": ByHandMulti,
}


@pytest.mark.parametrize("normalize", ["--normalize", "--no-normalize"])
def test_a_run_does_what_is_done_by_hand(module, script, tmp_path, monkeypatch, normalize):
    monkeypatch.chdir(tmp_path)
    flags = (
        f"{SEEK[script]} {SMALL} {normalize} --learning-starts 0 --utd-ratio 0.3 --tau 0.25 --seed 3 --run-name r "
        "--learning-rate 3e-3 --random-action-probability 0.5 --total-timesteps 10"
    )
    args = module.parse_args(flags.split())
    module.train(args)
    again = BY_HAND[script](module, args)
    for _ in range(3):
        again.update()
    state = again.state()
    saved = learned(tmp_path / "runs" / "r")
    assert saved.keys() == state.keys()
    for name, values in saved.items():
        expected = state[name].state_dict()
        assert values.keys() == expected.keys()
        for key, value in values.items():
            torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-6, msg=f"{name}/{key}")
