"""Small networks and random batches in double precision, and finite differences, for the tests of losses."""

import numpy as np
import pytest
import torch

OBSERVATION, GOAL, ACTION, BATCH = 4, 3, 2, 24


def make_args(module, **kwargs):
    """Args of a script, without those that it does not have."""
    kwargs = dict(hidden_layers=2, hidden_size=6, gamma=0.9) | kwargs
    return module.Args(**{name: value for name, value in kwargs.items() if hasattr(module.Args, name)})


def make_networks(module, args, seed=7):
    """Critic, target critic, actor and target actor, all different, with biases that are not zero."""
    networks = [
        kind(OBSERVATION, GOAL, ACTION, args).double()
        for kind in (module.Critic, module.Critic, module.Actor, module.Actor)
    ]
    torch.manual_seed(seed)
    for network in networks:
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.6)
    return networks


def optimize(network, optimizer, loss):
    """One step on the network's parameters."""
    optimizer.zero_grad()
    loss.backward(inputs=list(network.parameters()))
    optimizer.step()


def make_batch(module, seed=0, rewards=(-1.0, 0.0)):
    """Random transitions; some are terminated, rewards alternate."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return torch.from_numpy(rng.normal(size=(BATCH, *shape)))

    dense = dict(reward_gradient=torch.zeros(BATCH, GOAL, dtype=torch.float64))
    return module.Batch(
        **(dense if "reward_gradient" in module.Batch._fields else {}),
        observation=normal(OBSERVATION),
        action=normal(ACTION).tanh(),
        reward=torch.tensor(rewards, dtype=torch.float64).repeat(BATCH)[:BATCH],
        next_observation=normal(OBSERVATION),
        terminated=torch.from_numpy((np.arange(BATCH) % 5 == 0).astype(float)),
        goal=normal(GOAL),
    )


def forward(network, *inputs):
    """A ReLU network in numpy: its output, and the weights and masks on the way, (batch, ...)."""
    layers = [layer for layer in network.net if isinstance(layer, torch.nn.Linear)]
    weights = [layer.weight.detach().numpy() for layer in layers]
    biases = [layer.bias.detach().numpy() for layer in layers]
    x = np.concatenate([np.asarray(each) for each in inputs], axis=1)
    activations, masks = [x], []
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = x @ weight.T + bias
        if i < len(weights) - 1:
            masks.append((x > 0).astype(float))
            x = x * masks[-1]
            activations.append(x)
    return x, weights, masks, activations


def input_gradient(weights, masks, outward):
    """outward (batch, outputs) is carried back through a ReLU network, as forward() describes it, to its input."""
    for weight, mask in zip(weights[:0:-1], masks[::-1], strict=True):
        outward = (outward @ weight) * mask
    return outward @ weights[0]


def assert_term_gradient(gradients, weights, masks, outward, residual):
    """The parameter gradient of mean |residual|², written by hand.

    residual (batch, goal_dim) is ∇_g (output · outward), where the goal is the end of the input, less the target's.
    For every weight matrix it is 2/B Σ (what comes from the output)(what comes from the residual)ᵀ.
    """
    inward = np.pad(residual, ((0, 0), (weights[0].shape[1] - residual.shape[1], 0)))
    for layer, weight in enumerate(weights):
        out = outward
        for later in range(len(weights) - 1, layer, -1):
            out = (out @ weights[later]) * masks[later - 1]
        np.testing.assert_allclose(gradients[2 * layer], 2 / len(inward) * out.T @ inward, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(gradients[2 * layer + 1], 0, atol=1e-10)  # biases only matter through the masks
        if layer < len(masks):
            inward = (inward @ weight.T) * masks[layer]


def differences(function, goal, step=1e-6):
    """Central differences of function(goal), (batch,), by each goal dimension: (batch, goal_dim)."""
    columns = []
    for unit in np.eye(goal.shape[1]) * step:
        columns.append((function(goal + unit) - function(goal - unit)) / (2 * step))
    return np.stack(columns, axis=1)


def assert_gradient(loss, network, step=1e-6):
    """The gradient of loss() by every parameter equals central differences."""
    network.zero_grad()
    loss().backward(inputs=list(network.parameters()))
    seen = 0.0
    for parameter in network.parameters():
        flat, gradient = parameter.detach().view(-1), parameter.grad.view(-1)  # detach shares the memory
        for i in range(len(flat)):
            value, sides = flat[i].item(), []
            for change in (step, -step):
                flat[i] = value + change
                sides.append(loss().item())
            flat[i] = value
            assert gradient[i].item() == pytest.approx((sides[0] - sides[1]) / (2 * step), rel=1e-4, abs=1e-6)
            seen = max(seen, abs(gradient[i].item()))
    assert seen > 0.01
