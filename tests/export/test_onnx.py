from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import training
from export.emulation import emulated, session
from export.float_precision import to_float_precision
from export.onnx import OPSET, TOLERANCE, Exported, export_branch, frontend_output
from ser_batch.bundle.manifest import Embedding
from ser_batch.bundle.reference import synthetic_clips
from ser_batch.clips import ClipRule
from ser_batch.errors import ExportError
from ser_batch.verification.metadata import read_metadata
from support.toy_encoders import ARCHITECTURES
from support.toy_exports import Exports
from support.toy_run import CLIP
from training.config import ContextConfig
from training.data.ravdess import LABELS
from training.models.context import ContextBranch
from training.runs import load_run


def make_whisper() -> nn.Module:
    torch.manual_seed(3)
    architecture = ARCHITECTURES["whisper"] | {"encoder_layers": 2}
    head = {"layer_weights": True, "pooling": "mean+std", "hidden": (8, 8)}
    config = ContextConfig(backbone="scratch", architecture=architecture, unfrozen_layers=1, **head)
    return ContextBranch(config, len(LABELS))


def export(branch: nn.Module, path: Path, name: str = "toy") -> Exported:
    return export_branch(branch, path, name=name, labels=LABELS, clip=CLIP)


Case = tuple[nn.Module, Exported]


@pytest.fixture(scope="module", params=["wav2vec2", "spectrogram", "whisper"])
def case(
    request: pytest.FixtureRequest, toy_run: Path, exports: Exports, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    """A branch in training mode and its export; those of the toy run are in `exported_bundle`, too."""
    name: str = request.param
    branch = make_whisper() if name == "whisper" else load_run(toy_run).branches[name]
    path = tmp_path_factory.mktemp("graph") / f"{name}.onnx"
    exported = exports(branch, path, name=name, labels=LABELS, clip=CLIP)
    return branch.train(), exported


def test_the_graph_equals_the_branch_in_torch(case: tuple[nn.Module, Exported]) -> None:
    branch, exported = case
    waveform = synthetic_clips(CLIP)
    with torch.no_grad():
        expected = branch.eval()(torch.from_numpy(waveform)).softmax(dim=1).numpy()
    branch.train()
    session = ort.InferenceSession(exported.path)
    for batch in (1, 3, 6):
        found, *embedding = session.run(None, {"waveform": waveform[:batch]})
        np.testing.assert_allclose(found, expected[:batch], atol=TOLERANCE / 10, rtol=0)
        for rows in embedding:
            assert exported.embedding is not None
            np.testing.assert_allclose(rows, exported.embedding[:batch], atol=1e-3)
    np.testing.assert_allclose(exported.probabilities, expected, atol=1e-6, rtol=0)
    assert exported.max_difference <= TOLERANCE


def test_neither_level_nor_offset_change_what_the_graph_says(case: tuple[nn.Module, Exported]) -> None:
    session, clips = ort.InferenceSession(case[1].path), synthetic_clips(CLIP)[[0, 3, 4]] / 4
    (expected,) = session.run(["probabilities"], {"waveform": clips})
    for changed in (clips * np.float32(0.01), clips * np.float32(4), clips + np.float32(0.05)):
        (found,) = session.run(["probabilities"], {"waveform": changed})
        np.testing.assert_allclose(found, expected, atol=1e-3, rtol=0)


def test_the_graph_is_one_valid_file_with_the_stated_tensors(case: tuple[nn.Module, Exported]) -> None:
    _, exported = case
    assert not list(exported.path.parent.glob("*.data"))
    onnx.checker.check_model(exported.path, full_check=True)
    model = onnx.load(exported.path)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    tensors = [*model.graph.input, *model.graph.output]
    shapes = {t.name: [d.dim_param or d.dim_value for d in t.type.tensor_type.shape.dim] for t in tensors}
    expected = {"waveform": ["batch", CLIP.samples], "probabilities": ["batch", len(LABELS)]}
    width = {"wav2vec2": 32, "whisper": 32}.get(exported.name)
    assert shapes == expected | ({} if width is None else {"embedding": ["batch", width]})
    assert exported.branch.embedding == (None if width is None else Embedding("embedding", width))
    assert len(model.graph.node) == exported.nodes


def test_the_embedding_is_what_the_classifier_sees(case: tuple[nn.Module, Exported]) -> None:
    branch, exported = case
    if not isinstance(branch, ContextBranch):
        assert exported.embedding is None
        return
    branch.eval()
    with torch.no_grad():
        rows = branch.classifier(torch.from_numpy(exported.embedding)).softmax(dim=1).numpy()
    branch.train()
    np.testing.assert_allclose(rows, exported.probabilities, atol=1e-6)


def test_the_graph_says_what_it_is_and_nothing_of_this_machine(case: tuple[nn.Module, Exported]) -> None:
    _, exported = case
    metadata = read_metadata(exported.path)
    assert json.loads(metadata.pop("labels")) == list(LABELS)
    tensors = {name for node in onnx.load(exported.path).graph.node for name in node.output}
    assert metadata.pop("frontend_output") in tensors
    assert metadata == {"branch": exported.name, "opset": str(OPSET)}
    assert onnx.load(exported.path).producer_name == "ser-batch"
    assert str(Path(training.__file__).parent).encode() not in exported.path.read_bytes()


def test_the_graph_is_clean(case: tuple[nn.Module, Exported]) -> None:
    _, exported = case
    # Two wav2vec 2.0 layers of 30 nodes and 60 around them, so base with twelve has about 420; two of Whisper, weighed.
    assert exported.nodes <= {"wav2vec2": 130, "spectrogram": 190, "whisper": 165}[exported.name]
    operators = {node.op_type for node in onnx.load(exported.path).graph.node}
    assert not operators & {"STFT", "DFT", "If", "Loop", "Dropout", "BatchNormalization", "Attention"}


@pytest.mark.parametrize("name", ["wav2vec2", "spectrogram"])
def test_the_branch_is_left_as_it_was(
    name: str, toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch, waveform = load_run(toy_run).branches[name], torch.from_numpy(synthetic_clips(CLIP))
    before = {key: value.clone() for key, value in branch.state_dict().items()}
    with torch.no_grad():
        expected = branch(waveform)
    # Up to where torch is given the copy that has been made ready for it.
    given: list[nn.Module] = []
    monkeypatch.setattr(torch.onnx, "export", lambda model, *_, **__: given.append(model))
    with pytest.raises(AttributeError):
        export(branch.train(), tmp_path / f"{name}.onnx", name)
    assert branch.training and not given[0].training
    after = branch.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(value, after[key]) for key, value in before.items())
    if name == "wav2vec2":
        assert given[0].branch.state_dict().keys() != before.keys()
    # A folded weight norm must not have been taken from this branch, which shares a class with the copy.
    with torch.no_grad():
        torch.testing.assert_close(branch.eval()(waveform), expected, atol=0, rtol=0)


def test_the_fused_attention_switch_is_put_back(tmp_path: Path) -> None:
    for setting in (True, False):
        torch.backends.mha.set_fastpath_enabled(setting)
        with pytest.raises(ExportError):
            export(Broken("classes"), tmp_path / "model.onnx")
        assert torch.backends.mha.get_fastpath_enabled() is setting
    torch.backends.mha.set_fastpath_enabled(True)


class Broken(nn.Module):
    """A branch with one fault."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.linear = nn.Linear(8, 7 if fault == "classes" else len(LABELS))

    def forward(self, waveform: Tensor) -> Tensor:
        levels = waveform.reshape(-1, 8, waveform.shape[1] // 8).square().mean(dim=2)
        if self.fault == "fixed batch":
            levels = levels.reshape(len(levels), 8)
        if self.fault == "log of silence":
            levels = levels.log()
        if self.fault == "batch statistics":
            levels = levels - levels.mean(dim=0)
        if self.fault == "control flow" and float(levels.sum()) > 1:
            levels = -levels
        logits = self.linear(levels)
        if self.fault == "another graph" and torch.compiler.is_exporting():
            logits = logits + torch.arange(len(LABELS)) * 0.01
        return logits


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("classes", "does not fit the labels"),
        ("log of silence", "not finite in torch; got reference clip 2"),
        ("control flow", "torch cannot export branch toy"),
        ("fixed batch", "has a fixed batch size; got 2"),
        ("another graph", "not equal to the branch"),
        ("batch statistics", "not equal to the branch"),
    ],
)
def test_a_faulty_branch_is_refused(tmp_path: Path, fault: str, message: str) -> None:
    torch.manual_seed(3)
    with pytest.raises(ExportError, match=message):
        export(Broken(fault), tmp_path / "model.onnx")


def test_the_branch_without_a_fault_is_not_refused_and_always_gives_the_same_file(tmp_path: Path) -> None:
    torch.manual_seed(3)
    branch = Broken("none")
    made = [export(branch, tmp_path / f"{number}.onnx") for number in range(2)]
    assert all(each.max_difference <= TOLERANCE for each in made)
    assert made[0].path.read_bytes() == made[1].path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "nodes"),
    # The sizes of wav2vec2-base are the defaults of its configuration; those are Whisper base's.
    [
        ({"layerdrop": 0.0}, 420),
        ({"model_type": "whisper", "d_model": 512, "encoder_layers": 6, "encoder_attention_heads": 8}
         | {"encoder_ffn_dim": 2048, "decoder_layers": 1}, 260),
    ],
    ids=["wav2vec2-base", "whisper-base"],
)  # fmt: skip
def test_full_size_is_as_clean_and_takes_every_precision(
    tmp_path: Path, architecture: dict[str, object], nodes: int
) -> None:
    config = ContextConfig(backbone="scratch", architecture=architecture, unfrozen_layers=2)
    exported = export_branch(
        ContextBranch(config, len(LABELS)), tmp_path / "branch.onnx", name="full", labels=LABELS, clip=ClipRule()
    )
    assert exported.nodes <= nodes, exported.nodes
    assert [path.name for path in tmp_path.iterdir()] == ["branch.onnx"]
    assert {"labels", "branch", "opset", "frontend_output"} <= set(read_metadata(exported.path))
    for precision in ("fp16", "bf16"):
        model = to_float_precision(onnx.load(exported.path), precision)
        rows, embedding = session(emulated(model, precision)).run(None, {"waveform": synthetic_clips(ClipRule())})
        assert np.abs(rows - exported.probabilities).max() < 5e-2
        assert exported.embedding is not None and embedding.shape == exported.embedding.shape
    print(exported.nodes, exported.seconds, exported.max_difference)


Node = tuple[str, list[str], str, str | None]
"""Operator, inputs, output, and the module that the exporter notes."""
CLEAN: list[Node] = [
    ("Identity", ["waveform"], "decimated", "branch.decimate"),
    ("Neg", ["decimated"], "half", None),  # the exporter leaves some nodes without notes
    ("Neg", ["half"], "features", "branch.frontend"),
    ("Relu", ["features"], "probabilities", "branch.encoder"),
]


def noted(nodes: list[Node]) -> onnx.ModelProto:
    made = []
    for kind, inputs, output, module in nodes:
        node = onnx.helper.make_node(kind, inputs, [output])
        if module is not None:
            entry = node.metadata_props.add()
            entry.key, entry.value = "pkg.torch.onnx.name_scopes", repr(["", "branch", module, kind])
        made.append(node)
    tensors = [
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 8])]
        for name in ("waveform", "probabilities")
    ]
    return onnx.helper.make_model(onnx.helper.make_graph(made, "branch", *tensors))


def test_a_front_end_ends_in_the_last_tensor_of_its_modules() -> None:
    assert frontend_output(noted(CLEAN)) == "features"


def test_standardising_belongs_to_the_front_end() -> None:
    last = ("Relu", ["standard"], "probabilities", "branch.cnn")
    nodes = [*CLEAN[:-1], ("Neg", ["features"], "standard", "branch.standardise"), last]
    assert frontend_output(noted(nodes)) == "standard"


def test_a_branch_without_front_end_has_none() -> None:
    assert frontend_output(noted([("Relu", ["waveform"], "probabilities", "branch.encoder")])) is None


def test_a_batch_size_read_off_the_waveform_is_no_way_past_the_front_end() -> None:
    shape = ("Shape", ["waveform"], "size", None)
    nodes = [*CLEAN[:-1], shape, ("Reshape", ["features", "size"], "probabilities", "branch.encoder")]
    assert frontend_output(noted(nodes)) == "features"


def test_sound_that_bypasses_the_front_end_is_refused() -> None:
    nodes = [*CLEAN[:-1], ("Add", ["features", "decimated"], "probabilities", "branch.encoder")]
    with pytest.raises(ExportError, match="does not end in one tensor; got a way from waveform to probabilities past"):
        frontend_output(noted(nodes))
