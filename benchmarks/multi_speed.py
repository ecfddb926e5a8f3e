"""One update of ddpg_multi_reengage.py beside the straightforward dense form of the same loss.

The dense form is Eq. 19 written as ddpg_her_reengage.py writes Eq. 9: the goal set is the leaf whose gradient is taken
(its column of gates counts), all n_max rows are encoded, actor and critic encode them separately, and backward passes
go through everything. A second dense form takes the gradient by the gates alone, which spares it the second derivative
of the encoder. First the losses and the gradients of all parameters are compared, then all candidates take turns,
`--repeats` times, on one batch of DriveSeek transitions; the table and the csv give medians. An update is critic, actor
and targets.

    python benchmarks/multi_speed.py
"""

import argparse
import copy
import datetime
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from data import merge
from machine import software
from torch import Tensor

import ddpg_multi_reengage as multi
from ddpg_multi_reengage import Actor, Args, Batch, Critic, SetEncoder

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # times are those of a CPU
COLUMNS = ("size", "threads", "alpha", "form", "ms_median", "ms_min", "ms_max", "repeats", "date", "machine")
SIZES = {"full": dict(hidden_size=400, batch_size=256), "small": dict(hidden_size=64, batch_size=128)}


# ------------------------------------------------------------------------------------------------------ the dense form


def dense_embedding(encoder: SetEncoder, observation: Tensor, goal: Tensor, gate: Tensor) -> Tensor:
    """1/n_max · Σ_i b_i² · net(s, g_i) over all rows of goal, (batch, n_max, goal_dim)."""
    state = observation.unsqueeze(1).expand(-1, goal.shape[1], -1)
    encoded = encoder.net(torch.cat([state, goal], dim=-1))
    return (gate.square().unsqueeze(-1) * encoded).sum(1) / encoder.n_max


def dense_action(actor: Actor, observation: Tensor, embedding: Tensor) -> Tensor:
    return torch.tanh(actor.net(torch.cat([observation, embedding], dim=-1)))


def dense_q(critic: Critic, observation: Tensor, action: Tensor, goal: Tensor, gate: Tensor) -> Tensor:
    embedding = dense_embedding(critic.encoder, observation, goal, gate)
    return critic.net(torch.cat([observation, action, embedding], dim=-1)).squeeze(-1)


def dense_critic_loss(
    critic: Critic, target_critic: Critic, target_actor: Actor, batch: Batch, args: Args, by_gate: bool = False
) -> Tensor:
    """Eq. 19; the gradient is taken by the whole goal set, or by its gates alone."""
    leaf = (batch.gate if by_gate else torch.cat([batch.gate.unsqueeze(-1), batch.goal], dim=-1)).clone()
    leaf.requires_grad_(args.alpha > 0)
    gate, goal = (leaf, batch.goal) if by_gate else (leaf[..., 0], leaf[..., 1:])
    with torch.set_grad_enabled(args.alpha > 0):
        embedding = dense_embedding(target_actor.encoder or target_critic.encoder, batch.next_observation, goal, gate)
        next_action = dense_action(target_actor, batch.next_observation, embedding)
        next_q = dense_q(target_critic, batch.next_observation, next_action, goal, gate)
        target = batch.reward + args.gamma * (1 - batch.terminated) * next_q
    q = dense_q(critic, batch.observation, batch.action, goal, gate)
    loss = F.mse_loss(q, target.detach())
    if args.alpha > 0:
        (target_gradient,) = torch.autograd.grad(target.sum(), leaf)
        (q_gradient,) = torch.autograd.grad(q.sum(), leaf, create_graph=True)
        difference = q_gradient - target_gradient
        difference = (difference if by_gate else difference[..., 0]) - 2 * batch.item_reward
        loss = loss + args.alpha * difference.square().sum(-1).mean()
    return loss


def dense_actor_loss(actor: Actor, critic: Critic, batch: Batch) -> Tensor:
    """Eq. 5; a shared encoder is detached."""
    embedding = dense_embedding(actor.encoder or critic.encoder, batch.observation, batch.goal, batch.gate)
    embedding = embedding if actor.encoder else embedding.detach()
    action = dense_action(actor, batch.observation, embedding)
    q = dense_q(critic, batch.observation, action, batch.goal, batch.gate)
    return -q.mean()


# ----------------------------------------------------------------------------------------------------------- measuring


class Setting:
    """Networks, optimisers and one batch of transitions of random actions."""

    def __init__(self, size: str, seed: int = 0):
        torch.manual_seed(seed)
        settings = multi.PAPER_SETTINGS["DriveSeek-v0"] | SIZES[size] | dict(buffer_size=8_000)
        self.args = Args(env_id="DriveSeek-v0", **settings)
        self.env = multi.make_env(self.args)
        self.policy = multi.Policy(self.env, self.args)
        self.actor, self.critic = self.policy.actor, self.policy.critic
        networks = (self.actor, self.critic)
        self.target_actor, self.target_critic = (copy.deepcopy(each).requires_grad_(False) for each in networks)
        followers = (self.target_actor, self.target_critic)
        self.moving = [[p for each in which for p in each.parameters()] for which in (followers, networks)]
        self.optimizers = [torch.optim.Adam(each.parameters(), lr=1e-3, fused=True) for each in networks]
        self.batch = self.filled_buffer(np.random.default_rng(seed)).sample(self.args.batch_size, self.policy)

    def filled_buffer(self, rng: np.random.Generator, episodes: int = 200) -> multi.ReplayBuffer:
        buffer, vector_env = multi.ReplayBuffer(self.env, self.args, rng), multi.make_vector_env(self.env, episodes)
        buffer.add(multi.play(lambda _: rng.uniform(-1, 1, (episodes, 1)), self.env, vector_env, (0,)))
        return buffer

    def losses(self, alpha: float, form: str) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        """Functions that compute the critic's and the actor's loss in a form: ours, dense or dense by gates."""
        args = replace(self.args, alpha=alpha)
        critic = (self.critic, self.target_critic, self.target_actor, self.batch, args)
        actor = (self.actor, self.critic, self.batch)
        if form == "ours":
            return lambda: multi.critic_loss(*critic)[0], lambda: multi.actor_loss(*actor)
        by_gate = form == "dense, gradient by the gates"
        return lambda: dense_critic_loss(*critic, by_gate=by_gate), lambda: dense_actor_loss(*actor)

    def update(self, alpha: float, form: str) -> None:
        critic_loss, actor_loss = self.losses(alpha, form)
        actor_optimizer, critic_optimizer = self.optimizers
        for optimizer, loss in ((critic_optimizer, critic_loss), (actor_optimizer, actor_loss)):
            for each in self.optimizers:
                each.zero_grad()
            loss().backward(inputs=optimizer.param_groups[0]["params"] if form == "ours" else None)
            optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(*self.moving, self.args.tau)

    def disagreement(self, alpha: float, form: str) -> float:
        """The largest relative difference from ours, of the losses and of each parameter's gradient."""
        differences, networks = [], (self.critic, self.actor)
        for network, ours, other in zip(networks, self.losses(alpha, "ours"), self.losses(alpha, form), strict=True):
            (one, one_gradient), (two, two_gradient) = (gradients(loss(), network) for loss in (ours, other))
            pairs = [(one, two), *zip(one_gradient, two_gradient, strict=True)]
            differences += [((x - y).norm() / y.norm()).item() for x, y in pairs]
        return np.max(differences)  # nan if one is


def gradients(loss: Tensor, network: torch.nn.Module) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The loss, and its gradient by each of the network's parameters."""
    return loss.detach(), torch.autograd.grad(loss, list(network.parameters()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    forms = ("ours", "dense, gradient by the gates", "dense")
    rows = []
    for size in args.sizes:
        setting = Setting(size)
        for alpha in (0.0, 0.1):
            for form in forms[1:]:
                worst = setting.disagreement(alpha, form)
                print(f"{size}, alpha {alpha:g}: ours and {form} differ by {worst:.1e}", flush=True)
                assert worst < 1e-5
        for threads in args.threads:
            torch.set_num_threads(threads)
            measured = {(alpha, form): [] for alpha in (0.0, 0.1) for form in forms}
            for repeat in range(args.repeats + 1):
                for (alpha, form), values in measured.items():
                    start = time.perf_counter()
                    setting.update(alpha, form)
                    if repeat:  # the first one warms up
                        values.append(1e3 * (time.perf_counter() - start))
            for (alpha, form), values in measured.items():
                row = [round(f(values), 2) for f in (statistics.median, min, max)]
                print(f"{size:6}{threads} threads  alpha {alpha:<4g} {form:28} {row[0]:8.2f} ms ({row[1]} to {row[2]})")
                rows.append([size, threads, alpha, form, *row, len(values)])
    rows = pd.DataFrame([[*row, datetime.date.today(), software()] for row in rows], columns=COLUMNS)
    merge("multi_speed", rows, ["size", "threads", "alpha", "form", "machine"])


if __name__ == "__main__":
    main()
