"""The training loop: the same weights whatever interrupts it, and it stops at the first number that is none."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from koda_audit.alignment import checkpoint
from koda_audit.alignment.batches import Batches
from koda_audit.alignment.training import Recipe, train
from koda_audit.errors import InputError, KodaAuditError, StoreError

RECIPE = Recipe(steps=13, batch=4, lr=0.1, weight_decay=0.01, warmup=3, save_every=4, log_every=2)


class Noisy(torch.nn.Module):
    """A loss that depends on the batch, the step and all three global generators."""

    def __init__(self, upset=None):
        super().__init__()
        self.linear = torch.nn.Linear(5, 3, bias=False)
        torch.nn.init.ones_(self.linear.weight)
        self.register_buffer("seen", torch.zeros(()))
        self.upset = upset

    def groups(self):
        return [{"params": list(self.parameters())}]

    def step(self, number, rows, inputs):
        if self.upset:
            self.upset(number)
        self.seen += rows.sum()
        noise = torch.rand(3) + np.random.random() + random.random()
        return ((self.linear(*inputs) - noise) ** 2).mean() + 0 * self.seen, {"seen": self.seen.clone()}


def feed(start):
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32))
    batches = Batches(20, RECIPE.batch, RECIPE.seed)
    for step in range(start, RECIPE.steps):
        yield batches(step), (values[batches(step)],)


def run(folder, upset=None, recipe=RECIPE, **more):
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    learner = Noisy(upset)
    return learner, train(learner, feed, recipe, folder, **more)


@pytest.fixture(scope="module")
def whole():
    """Of a run that nothing interrupts."""
    return run(None)


def same(first, second):
    (a, history), (b, other) = first, second
    return history == other and all(torch.equal(a.state_dict()[name], b.state_dict()[name]) for name in a.state_dict())


def steps(folder):
    return sorted(file.name for file in folder.iterdir())


# exact resume


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder for each moment, left by a process that was killed then."""
    folder = tmp_path_factory.mktemp("killed")
    subprocess.run([sys.executable, __file__, str(folder)], timeout=120, check=True)
    return folder


@pytest.mark.parametrize("moment", [*range(13), "between"])
def test_killed_and_resumed_it_ends_with_the_same_weights(whole, killed, moment):
    folder = killed / str(moment)
    last = 4 * (moment // 4) if moment != "between" else 4
    assert [name for name in steps(folder) if name.endswith(".json")] == ([f"step-{last}.json"] if last else [])
    assert same(run(folder), whole)
    assert steps(folder) == ["step-13.json", "step-13.safetensors"]


def kill_at_every_moment(folder):
    """One process a moment, forked, as starting Python anew and importing all that an optimiser does take seconds."""
    torch.optim.AdamW(Noisy().parameters())
    for moment in [*range(13), "between"]:
        (folder / str(moment)).mkdir()
        child = os.fork()
        if not child:
            killed_at(folder / str(moment), moment)
        status = os.waitpid(child, 0)[1]
        assert os.WTERMSIG(status) == signal.SIGKILL


def killed_at(folder, moment):
    def kill(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "between":  # the tensors of the second checkpoint and its record
        writes, write_json = [], checkpoint.write_json
        checkpoint.write_json = lambda *given: kill() if writes else writes.append(write_json(*given))
    run(folder, lambda number: number == moment and kill())


def test_a_finished_run_is_not_trained_again(whole, tmp_path):
    run(tmp_path)

    def never(number):
        raise AssertionError

    assert same(run(tmp_path, never), whole)


def test_checkpoints_change_nothing(whole, tmp_path):
    assert same(run(tmp_path), whole)


# what stops it


def interrupted(folder):
    def stop(number):
        if number == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, stop)
    assert "step-4.json" in steps(folder)


def test_loss_that_is_no_number_keeps_the_last_checkpoint(tmp_path, whole):
    class Failing(Noisy):
        def step(self, number, rows, inputs):
            loss, figures = super().step(number, rows, inputs)
            return (loss * float("nan") if number == 10 else loss), figures

    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    with pytest.raises(
        KodaAuditError, match=r"the loss is nan at step 10.*last checkpoint .* is kept; lower the learning"
    ):
        train(Failing(), feed, RECIPE, tmp_path)
    assert steps(tmp_path) == ["step-8.json", "step-8.safetensors"]
    assert same(run(tmp_path), whole)


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    class Failing(Noisy):
        def step(self, number, rows, inputs):
            loss, figures = super().step(number, rows, inputs)
            if number == 7:
                with torch.no_grad():
                    self.linear.weight[0, 0] = torch.inf
                loss = loss + 0 * self.linear.weight[1].sum()
            return loss, figures

    with pytest.raises(KodaAuditError, match="a weight is not finite at step 7"):
        train(Failing(), feed, RECIPE, tmp_path)
    assert steps(tmp_path) == ["step-4.json", "step-4.safetensors"]


def test_full_disk_keeps_the_older_checkpoint(tmp_path, whole, monkeypatch):
    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 2:  # two files of the first checkpoint
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="the disk is full"):
            run(tmp_path)
    assert steps(tmp_path) == ["step-4.json", "step-4.safetensors"]
    assert same(run(tmp_path), whole)


# what is refused


def test_checkpoint_of_another_run(tmp_path):
    interrupted(tmp_path)
    with pytest.raises(InputError, match=r"another run \(other student\)"):
        run(tmp_path, run={"student": "b"})
    with pytest.raises(InputError, match=r"another run \(other lr, seed\)"):
        run(tmp_path, recipe=Recipe(13, 4, 0.2, 0.01, warmup=3, seed=1, save_every=4, log_every=2))


@pytest.mark.parametrize("ending", ["json", "safetensors"])
@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: raw.replace(b"1", b"2")])
def test_damaged_checkpoint(tmp_path, ending, damage):
    interrupted(tmp_path)
    file = tmp_path / f"step-4.{ending}"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(StoreError, match=rf"step-4.{ending} is damaged"):
        run(tmp_path)


def test_checkpoint_without_its_tensors(tmp_path):
    interrupted(tmp_path)
    (tmp_path / "step-4.safetensors").unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        run(tmp_path)


@pytest.mark.parametrize("changed", [{"step": "x"}, {"step": 8}, {"history": []}, {"history": 5}])
def test_checkpoint_that_tells_of_no_step(tmp_path, changed):
    interrupted(tmp_path)
    file = tmp_path / "step-4.json"
    record = {**json.loads(file.read_text("utf-8")), **changed}
    record.pop("checksum")
    checkpoint.write_json(file, {**record, "checksum": checkpoint.digest(record)})
    with pytest.raises(StoreError, match=r"step-4.json is damaged|step-4.safetensors is damaged"):
        run(tmp_path)


def test_other_files_in_the_folder_stay(whole, tmp_path):
    for name in ("step-abc.json", "step-notes.txt", "step-1.txt"):
        (tmp_path / name).write_text("mine")
    assert same(run(tmp_path), whole)
    assert {"step-abc.json", "step-notes.txt", "step-1.txt"} <= {*steps(tmp_path)}


def test_the_callers_generators_go_on_as_if_nothing_had_been_trained(tmp_path):
    interrupted(tmp_path)
    drawn = []
    for resumed in (False, True):
        learner = Noisy()
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)
        if resumed:
            train(learner, feed, RECIPE, tmp_path)
        drawn.append((torch.rand(3).tolist(), np.random.random(3).tolist(), random.random()))
    assert drawn[0] == drawn[1]


def test_a_folder_that_cannot_be_written_is_found_before_any_step(tmp_path, monkeypatch):
    def never(number):
        raise AssertionError

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("koda_audit._files.tempfile.TemporaryFile", refused)
    with pytest.raises(InputError, match=r"the folder of the checkpoints .* cannot be written: permission denied"):
        run(tmp_path, never)


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        run(tmp_path / "file")


@pytest.mark.parametrize("given", [{"steps": 0}, {"batch": 1}, {"lr": float("nan")}, {"lr": -1.0}, {"warmup": 1.5}])
def test_recipes_out_of_range(given):
    with pytest.raises(InputError, match=f"{next(iter(given))} is "):
        Recipe(**{"steps": 5, "batch": 2, "lr": 0.1, **given})


def test_rate_is_the_published_schedule():
    recipe = Recipe(steps=100, batch=2, lr=1.0, warmup=10)
    expected = [(t + 1) / 10 if t < 10 else 0.5 * (1 + np.cos(np.pi * (t - 10) / 90)) for t in range(100)]
    assert np.allclose([recipe.rate(t) for t in range(100)], expected)


# batches


@pytest.mark.parametrize(("n", "size"), [(20, 4), (23, 5), (7, 7)])
def test_each_pass_takes_every_row_at_most_once(n, size):
    batches = Batches(n, size, seed=3)
    assert batches.per_epoch == n // size
    passes = []
    for epoch in range(2):
        rows = [row for step in range(n // size) for row in batches(epoch * (n // size) + step).tolist()]
        assert len(set(rows)) == len(rows) == n // size * size
        passes.append(rows)
    assert passes[0] != passes[1]
    assert torch.equal(batches(5), Batches(n, size, seed=3)(5))
    assert not torch.equal(batches(1), Batches(n, size, seed=4)(1)) or n == size


def test_a_share_of_every_batch_comes_from_the_focus():
    focus = [3, 4, 5, 6, 7, 8]
    batches = Batches(40, 8, seed=0, focus=focus, share=0.5)
    counts = np.zeros(40)
    for step in range(300):
        rows = batches(step).tolist()
        assert len(set(rows)) == 8
        assert len(set(rows) & set(focus)) == 4
        counts[rows] += 1
    others = np.delete(counts, focus)
    assert counts[focus].sum() == 1200
    assert np.ptp(counts[focus]) < 0.3 * counts[focus].mean()
    assert others.min() > 0


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"size": 1}, "batch=1 of 10"),
        ({"size": 11}, "batch=11 of 10"),
        ({"focus": []}, "focus must hold rows"),
        ({"focus": [10]}, "focus must hold rows"),
        ({"focus": [0.5]}, "focus must hold rows"),
        ({"focus": [0], "share": 1.5}, "share=1.5"),
        ({"focus": [0], "share": 1.0}, "4 samples of each batch of 4 cannot come from 1 in the focus"),
        ({"focus": range(9), "share": 0.25}, "3 samples of each batch of 4 cannot come from 1 outside the focus"),
    ],
)
def test_batches_that_cannot_be_drawn(given, match):
    with pytest.raises(InputError, match=match):
        Batches(**{"n": 10, "size": 4, "seed": 0, **given})


if __name__ == "__main__":
    kill_at_every_moment(Path(sys.argv[1]))
