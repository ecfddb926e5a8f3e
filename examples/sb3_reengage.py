"""The goal-gradient loss of ReenGAGE in code that is there already: Stable-Baselines3's DDPG, SAC and DQN.

Each class is Stable-Baselines3's own with another `train`; its HerReplayBuffer, networks, optimisers and loop stay.
`goal_gradient_loss` is all that the method adds, and fits any critic that sees the goal as an input.

    model = DDPGReenGAGE("MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer)
    model.alpha = 0.1 / goal_dim * goal_variance
    model.learn(50_000)

Rewards are {−1, 0}: where the reward is −1 its gradient by the goal is 0, and only these transitions count (Eq. 9). So
VecNormalize must leave rewards alone (norm_reward=False).
"""

import torch
import torch.nn.functional as F
from stable_baselines3 import DDPG, DQN, SAC
from stable_baselines3.common.logger import Logger
from torch import Tensor


def goal_gradient_loss(q: Tensor, target_gradient: Tensor, goal: Tensor, rewards: Tensor) -> Tensor:
    """The mean over the batch of 1[R = −1] · ‖∇_g Q − ∇_g y‖² (Eq. 9).

    q and rewards are (batch, 1), goal and ∇_g y (batch, goal_dim); q was computed from goal while it had a gradient.
    """
    (q_gradient,) = torch.autograd.grad(q.sum(), goal, create_graph=True)
    return ((q_gradient - target_gradient).square().sum(-1, keepdim=True) * (rewards == -1)).mean()


def follow(target_network: torch.nn.Module, network: torch.nn.Module, tau: float) -> None:
    """The target's parameters move by the fraction tau to the network's."""
    with torch.no_grad():
        for slow, parameter in zip(target_network.parameters(), network.parameters(), strict=True):
            slow.lerp_(parameter, tau)


def log_terms(logger: Logger, value_loss: Tensor, gradient_loss: Tensor) -> None:
    """For choosing α; the means since the last line of the log."""
    logger.record_mean("train/value_loss", value_loss.item())
    logger.record_mean("train/gradient_loss", gradient_loss.item())


class DDPGReenGAGE(DDPG):
    """Eq. 9 in DDPG."""

    alpha = 0.01  # weight of the goal-gradient loss, summed over goal dimensions

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        self.policy.set_training_mode(True)
        for _ in range(gradient_steps):
            data = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            goal = data.observations["desired_goal"].clone().requires_grad_()
            observation = data.observations | {"desired_goal": goal}
            next_observation = data.next_observations | {"desired_goal": goal}
            next_q = self.critic_target(next_observation, self.actor_target(next_observation))[0]
            target = data.rewards + (1 - data.dones) * self.gamma * next_q
            (target_gradient,) = torch.autograd.grad(target.sum(), goal)  # none reaches the target's parameters
            q = self.critic(observation, data.actions)[0]
            value_loss = F.mse_loss(q, target.detach())
            gradient_loss = goal_gradient_loss(q, target_gradient, goal, data.rewards)
            critic_loss = value_loss + self.alpha * gradient_loss
            self.critic.optimizer.zero_grad()
            critic_loss.backward()
            self.critic.optimizer.step()
            actor_loss = -self.critic.q1_forward(data.observations, self.actor(data.observations)).mean()
            self.actor.optimizer.zero_grad()
            actor_loss.backward()
            self.actor.optimizer.step()
            follow(self.critic_target, self.critic, self.tau)
            follow(self.actor_target, self.actor, self.tau)
            log_terms(self.logger, value_loss, gradient_loss)


class SACReenGAGE(SAC):
    """The same in SAC with a learned temperature (ent_coef="auto"): both critics match the soft target's gradient."""

    alpha = 0.01

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        self.policy.set_training_mode(True)
        for _ in range(gradient_steps):
            data = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            action, log_prob = self.actor.action_log_prob(data.observations)
            log_prob = log_prob.reshape(-1, 1)
            temperature = self.log_ent_coef.detach().exp()
            temperature_loss = -(self.log_ent_coef * (log_prob + self.target_entropy).detach()).mean()
            self.ent_coef_optimizer.zero_grad()
            temperature_loss.backward()
            self.ent_coef_optimizer.step()
            goal = data.observations["desired_goal"].clone().requires_grad_()
            observation = data.observations | {"desired_goal": goal}
            next_observation = data.next_observations | {"desired_goal": goal}
            next_action, next_log_prob = self.actor.action_log_prob(next_observation)
            next_q = torch.cat(self.critic_target(next_observation, next_action), dim=1).amin(dim=1, keepdim=True)
            next_value = next_q - temperature * next_log_prob.reshape(-1, 1)
            target = data.rewards + (1 - data.dones) * self.gamma * next_value
            (target_gradient,) = torch.autograd.grad(target.sum(), goal)
            value_loss = gradient_loss = 0
            for q in self.critic(observation, data.actions):
                value_loss += 0.5 * F.mse_loss(q, target.detach())
                gradient_loss += 0.5 * goal_gradient_loss(q, target_gradient, goal, data.rewards)
            critic_loss = value_loss + self.alpha * gradient_loss
            self.critic.optimizer.zero_grad()
            critic_loss.backward()
            self.critic.optimizer.step()
            q = torch.cat(self.critic(data.observations, action), dim=1).amin(dim=1, keepdim=True)
            actor_loss = (temperature * log_prob - q).mean()
            self.actor.optimizer.zero_grad()
            actor_loss.backward()
            self.actor.optimizer.step()
            follow(self.critic_target, self.critic, self.tau)
            log_terms(self.logger, value_loss, gradient_loss)


class DQNReenGAGE(DQN):
    """Eq. 29 and 33 in DQN: the hard target for values, the soft one for gradients."""

    alpha, temperature = 0.025, 0.5

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        self.policy.set_training_mode(True)
        for _ in range(gradient_steps):
            data = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            goal = data.observations["desired_goal"].clone().requires_grad_()
            next_q = self.q_net_target(data.next_observations | {"desired_goal": goal})
            soft_value = (F.softmax(next_q / self.temperature, dim=1) * next_q).sum(dim=1, keepdim=True)
            hard, soft = (
                data.rewards + (1 - data.dones) * self.gamma * value
                for value in (next_q.amax(dim=1, keepdim=True), soft_value)
            )
            (target_gradient,) = torch.autograd.grad(soft.sum(), goal)
            q = self.q_net(data.observations | {"desired_goal": goal}).gather(1, data.actions.long())
            value_loss = F.smooth_l1_loss(q, hard.detach())
            gradient_loss = goal_gradient_loss(q, target_gradient, goal, data.rewards)
            loss = value_loss + self.alpha * gradient_loss
            self.policy.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
            self.policy.optimizer.step()
            log_terms(self.logger, value_loss, gradient_loss)
