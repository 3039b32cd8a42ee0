"""Two processes under torch.distributed are one on the whole batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from koda_audit.alignment.trained import curriculum, kuea


def rows(seed):
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=(96, 8)))
    return torch.nn.functional.normalize(values + 1, dim=1)


def test_two_ranks_are_one_process(tmp_path):
    code = [sys.executable, __file__, str(tmp_path)]
    both = [subprocess.Popen([*code, str(rank)]) for rank in range(2)]
    try:
        codes = [process.wait(timeout=120) for process in both]
    finally:
        for process in both:
            process.kill()
    assert codes == [0, 0]
    alone = trained_here()
    for rank in range(2):
        found = np.load(tmp_path / f"{rank}.npz")
        assert set(found) == set(alone)
        for name in alone:
            assert np.abs(found[name] - alone[name]).max() < 1e-6, name


def trained_here():
    kernel = kuea(rows(0), 4 * rows(1), learn_rho=True, rho=2.0, epochs=4, batch=32)
    both = curriculum(rows(2), rows(3), epochs=4, batch=32, scale=10.0)
    return {
        "kuea": kernel.first[0].matrix.numpy(),
        "rho": np.array(kernel.figures["rho"]),
        "image": both.first[0].matrix.numpy(),
        "text": both.second[0].matrix.numpy(),
        "alpha": np.array(both.figures["alpha"]),
    }


def as_rank(folder, rank):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    np.savez(folder / f"{rank}.npz", **trained_here())
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    as_rank(Path(sys.argv[1]), int(sys.argv[2]))
