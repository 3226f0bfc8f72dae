"""The ONNX file: what torch computes, the same bytes every time, nothing of the machine in it."""

import getpass
import socket
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from byway.items import export
from byway.items.transformer import SequenceModel


@pytest.fixture
def model():
    """A model whose weights are all large enough to matter."""
    torch.manual_seed(0)
    model = SequenceModel(n=40, dim=12, layers=2, heads=3, distances=5, dropout=0.3).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("length", [1, 4, 5, 11])
def test_the_file_computes_what_torch_does(model, tmp_path, length):
    export.write(model, tmp_path / "policy.onnx")
    history = np.random.default_rng(0).integers(1, 41, (6, length))
    history[1, : length - 1] = 0
    history[2] = 0
    assert export.check(model, tmp_path / "policy.onnx", history) < 1e-5


def test_a_file_that_differs_is_refused(model, tmp_path):
    export.write(model, tmp_path / "policy.onnx")
    with torch.no_grad():
        model.norm.bias += 0.01
    with pytest.raises(RuntimeError, match=r"0\.01 off"):
        export.check(model, tmp_path / "policy.onnx", np.ones((1, 3), dtype=np.int64))


def test_the_seam_is_as_promised(model, tmp_path):
    export.write(model, tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx", providers=["CPUExecutionProvider"])
    (history,), (vector,) = session.get_inputs(), session.get_outputs()
    assert (history.name, history.type, history.shape) == ("history", "tensor(int64)", ["batch", "length"])
    assert (vector.name, vector.type, vector.shape) == ("vector", "tensor(float)", ["batch", 12])
    written = onnx.load(tmp_path / "policy.onnx")
    assert [(o.domain, o.version) for o in written.opset_import] == [("", 20)]


def test_the_bytes_depend_on_the_weights_alone(model, tmp_path):
    export.write(model, tmp_path / "one.onnx")
    export.write(model, tmp_path / "two.onnx")
    written = (tmp_path / "one.onnx").read_bytes()
    assert written == (tmp_path / "two.onnx").read_bytes()
    for trace in (str(Path.cwd()), str(tmp_path), socket.gethostname(), f"/{getpass.getuser()}/"):
        assert trace.encode() not in written


@pytest.mark.parametrize("length", [1, 4, 11])
def test_histories_read_together_are_those_read_alone(model, tmp_path, length):
    """So that it does not matter to an answer who else is answered."""
    export.write(model, tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx", providers=["CPUExecutionProvider"])
    history = np.random.default_rng(2).integers(0, 41, (64, length))
    (together,) = session.run(["vector"], {"history": history})
    alone = [session.run(["vector"], {"history": row[None]})[0][0] for row in history]
    np.testing.assert_allclose(together, alone, atol=1e-6)
