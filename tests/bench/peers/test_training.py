from __future__ import annotations

import pytest

pytest.importorskip("torch")

from bench import results
from bench.cli import main


def test_every_branch_is_measured(tmp_path, capsys):
    arguments = ["training", "--size", "small", "--clips", "4", "--epochs", "1", "--json", str(tmp_path / "t.json")]
    assert main(arguments) == 0
    found = results.read(tmp_path / "t.json")["branches"]
    assert [branch["branch"] for branch in found] == ["wav2vec2", "spectrogram"]
    assert all(b["seconds"]["n"] == 1 and 0 < b["trained"] <= b["parameters"] for b in found)
    assert "epoch of 1,147 clips, s" in capsys.readouterr().out


RECIPE = """
[context]
backbone = "scratch"
unfrozen_layers = {unfrozen}
freeze_feature_encoder = {frozen}
hidden = [8]
[context.architecture]
conv_dim = [8, 8, 8, 8, 8, 8, 8]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 16
num_conv_pos_embeddings = 8
num_conv_pos_embedding_groups = 2
[spectrogram]
channels = [4, 4, 4, 4]
layers = 1
feed_forward = 16
[clip]
samples = 24000
[augment]
{augment}
"""


@pytest.mark.parametrize(
    ("augment", "frozen", "copies"),
    [
        ("snrs = [10.0]", True, 2),
        ('fresh = true\nsnrs = []\nchannels = ["lowpass"]\nband_mask = 3', True, 1),
        ('fresh = true\nversions = 1\nchannels = ["lowpass"]\nband_mask = 3', False, 1),
    ],
)
def test_a_recipe_trains_on_what_it_augments(augment, frozen, copies, tmp_path, capsys):
    values = {"augment": augment, "frozen": str(frozen).lower(), "unfrozen": 1 if frozen else -1}
    (tmp_path / "toy.toml").write_text(RECIPE.format(**values))
    arguments = ["training", "--recipe", str(tmp_path / "toy.toml"), "--clips", "4", "--epochs", "1"]
    assert main([*arguments, "--json", str(tmp_path / "t.json")]) == 0
    found = results.read(tmp_path / "t.json")["branches"]
    assert [(branch["branch"], branch["size"]) for branch in found] == [("wav2vec2", "toy"), ("spectrogram", "toy")]
    for branch in found:
        assert branch["clips"] == 4 * copies
        assert branch["epoch_seconds"] == pytest.approx(1147 / 4 * branch["seconds"]["median"])
    compared = ["compare", str(tmp_path / "t.json"), str(tmp_path / "t.json")]
    assert main(compared) == 0 and "toy" in capsys.readouterr().out
