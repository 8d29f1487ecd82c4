import subprocess
import sys

import pytest
import torch
from browser import ROOT

from train.optimizer import AdamW

SETTINGS = {"betas": (0.9, 0.99), "weight_decay": 0.1}


def test_it_takes_the_steps_of_torchs_own_to_the_last_bit():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = ([torch.ones(3, 4, requires_grad=True), torch.ones(5, requires_grad=True)] for _ in range(2))
    optimizer, reference = AdamW(ours, **SETTINGS), torch.optim.AdamW(theirs, **SETTINGS, fused=True)
    for learning_rate in (0.01, 0.02, 0.005):
        for our, their in zip(ours, theirs, strict=True):
            our.grad = torch.randn(our.shape, generator=generator)
            their.grad = our.grad.clone()
        optimizer.step(learning_rate)
        reference.param_groups[0]["lr"] = learning_rate
        reference.step()
        assert all(parameter.grad is None for parameter in ours)
    for our, their, state in zip(ours, theirs, optimizer.state, strict=True):
        assert torch.equal(our, their)
        assert state.keys() == reference.state[their].keys()
        assert all(torch.equal(tensor, reference.state[their][name]) for name, tensor in state.items())


def test_a_parameter_without_a_gradient_is_a_mistake_of_ours():
    with pytest.raises(AssertionError, match="every parameter takes part in the loss"):
        AdamW([torch.ones(2)], **SETTINGS).step(0.1)


@pytest.mark.slow
def test_no_start_of_a_training_waits_for_torchs_compiler(tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat.\n" * 40)
    sizes = ["--epochs", "1", "--hidden-size", "8", "--embedding-size", "8", "--seq-length", "16"]
    arguments = [
        "train",
        "fit",
        "--cell",
        "gru",
        "--text",
        str(tmp_path / "text.txt"),
        "--out",
        str(tmp_path / "run"),
        *sizes,
    ]
    code = f"import atexit, sys; atexit.register(lambda: print(sorted(sys.modules))); sys.argv = {arguments}"
    loaded = subprocess.check_output(
        [sys.executable, "-c", f"{code}; from train.__main__ import main; main()"], text=True, cwd=ROOT
    )
    assert "'torch.optim.adamw'" in loaded
    assert "'torch._dynamo'" not in loaded
