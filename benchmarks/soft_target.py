"""Why the soft target in the value term fails on many bits: exact values of BitFlip, without networks.

    python benchmarks/soft_target.py

By symmetry a state is the number n of wrong bits: n actions lead to n − 1, the others to n + 1, the reward is 0 where n
becomes 0, else −1. Value iteration with Σ_a softmax(Q/τ)_a Q_a as the value of the next state gives the difference
between the values of a right and of a wrong action, which is all that a greedy policy goes by. Writes
benchmarks/results/soft_target.csv.
"""

import numpy as np
import pandas as pd
from data import RESULTS

GAMMA, WRONG_BITS = 0.98, (1, 2, 3, 5, 10)


def gaps(d: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Q(right action) − Q(wrong action) and the state's value for n = 0, …, d wrong bits; nan where one is missing."""
    n, value = np.arange(d + 1), np.zeros(d + 1)
    for _ in range(2_000):  # γ^2000 is 3e-18
        right = -1.0 * (n > 1) + GAMMA * np.roll(value, 1)  # without a meaning at n = 0, where it has no weight
        wrong = -1.0 + GAMMA * np.roll(value, -1)  # the same at n = d
        q, actions = np.stack([right, wrong]), np.stack([n, d - n])
        best = np.where(actions > 0, q, -np.inf).max(0)
        weight = actions * (np.exp((q - best) / temperature) if temperature else q == best)
        value = (weight * q).sum(0) / weight.sum(0)
    return np.where((n > 0) & (n < d), right - wrong, np.nan), value


def main() -> None:
    rows = []
    for d in (20, 40):
        for temperature in (0, 0.5, 1):
            gap, value = gaps(d, temperature)
            row = {f"gap at {n}": f"{gap[n]:.2g}" for n in WRONG_BITS} | {"value at d/2": f"{value[d // 2]:.2f}"}
            rows.append(dict(d=d, temperature=temperature) | row)
    pd.DataFrame(rows).to_csv(RESULTS / "soft_target.csv", index=False)
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
