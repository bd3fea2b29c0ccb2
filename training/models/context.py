"""The context branch: 48 → 16 kHz → a speech encoder → pooling over time → classifier → emotions.

Source: paper, section III-C, whose encoder is wav2vec 2.0; here it may be any family of training.models.backbones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ser_batch.errors import TrainingError
from training.config import ContextConfig, to_dict
from training.models.dropout import Dropout
from training.models.frontends import Centre, Decimate
from training.models.pretrained import Encoder, load_encoder

HEAD = ("name", "hidden", "dropout", "input_dropout", "concatenate_layers", "standardise")
"""Settings that change nothing below the classifier."""
NAMED = ("backbone", "architecture", "normalise")
"""Settings that name a backbone or leave it to speak for itself."""
STATISTICS = {"mean": 1, "std": 1, "thirds": 3, "deltas": 2}
"""What pooling over time may consist of → rows of D it makes."""
FROM_INPUT, FROM_CONVOLUTIONS = -2, -1
"""Values of `ContextBranch.cut` below layer 0: training begins at the convolutions, or right above them."""


class ContextBranch(nn.Module):
    """A speech encoder with the paper's head, its front-end inside.

    `head` is what training changes and `features` all that lies below it, so features can be computed once. With
    `layer_weights` the classifier sees Σ softmax(w)ₗ · pool(norm(hₗ)) over what enters the first layer and what leaves
    each, the last one after the encoder's own final norm; `norm` is a layer norm without parameters, for a Whisper's
    layers differ in scale by orders of magnitude. Pooling before weighing lets frozen layers be cached as a few
    numbers; of means it is the same thing, of deviations it is how the weighting is defined here.

    Shape: waveform (B, 144000) float32 in [-1, 1], 48 kHz → logits (B, classes).

    Raises TrainingError for a backbone that cannot be loaded and for settings that do not fit it.
    """

    def __init__(self, config: ContextConfig, classes: int, encoder: Encoder | None = None) -> None:
        super().__init__()
        self.config = config
        relative = config.level == "clip"
        self.decimate = nn.Sequential(Centre(), Decimate(3)) if relative else Decimate(3)
        self.source = encoder if encoder is not None else load_encoder(config)
        self.family, self.encoder = self.source.family, self.source.model
        self.frontend = self.family.frontend(self.encoder, self.source.normalise, relative)
        self._shorten()
        self.depth = len(self.family.layers(self.encoder))
        self.statistics = sum(STATISTICS[name] for name in config.pooling.split("+"))
        self.width = int(self.encoder.config.hidden_size)
        inputs, entry = self.statistics * self.width, []
        if config.concatenate_layers:
            inputs *= self.depth + 1
        if config.standardise or config.concatenate_layers:  # the statistics' scales differ by layer and by unit
            entry.append(nn.BatchNorm1d(inputs, affine=False))
        if config.input_dropout:
            entry.append(Dropout(config.input_dropout))
        layers: list[nn.Module] = []
        for width in config.hidden:
            layers += [nn.Linear(inputs, width), nn.ReLU(), Dropout(config.dropout)]
            inputs = width
        self.classifier = nn.Sequential(*entry, *layers, nn.Linear(inputs, classes))
        if config.layer_weights and not config.concatenate_layers:
            self.layer_mix = nn.Parameter(torch.zeros(self.depth + 1))
        self._freeze()
        self.cut = self._lowest_trained()

    def _shorten(self) -> None:
        """Remove the layers above the ones kept."""
        layers, kept = self.family.layers(self.encoder), self.config.layers
        if not 0 <= kept <= len(layers):
            raise TrainingError("layers counts Transformer layers from below", got=kept, expected=f"0 … {len(layers)}")
        if kept:
            del layers[kept:]

    def _freeze(self) -> None:
        """Leave trainable what III-C.2 trains: the top layers, the feature projection and the classifier."""
        layers, unfrozen = self.family.layers(self.encoder), self.config.unfrozen_layers
        if not -1 <= unfrozen <= self.depth:
            raise TrainingError(
                "unfrozen_layers counts Transformer layers from the top", got=unfrozen, expected=f"-1 … {self.depth}"
            )
        projection = self.family.projection(self.encoder)
        if unfrozen >= 0:
            self.encoder.requires_grad_(False)
            for part in [*projection, *layers[self.depth - unfrozen :]]:
                part.requires_grad_(True)
        if self.config.freeze_projection:
            if unfrozen < 0 or not self.config.freeze_feature_encoder or self.config.spec_augment:
                raise TrainingError(
                    "freeze_projection fixes all below the top layers, which something else would train or mask",
                    expected="unfrozen_layers of 0 or more, freeze_feature_encoder true and spec_augment false",
                )
            for part in projection:
                part.requires_grad_(False)
        for part in self.family.convolutions(self.encoder):
            part.requires_grad_(not self.config.freeze_feature_encoder)

    def _lowest_trained(self) -> int:
        """The layer at whose input training begins, or FROM_CONVOLUTIONS or FROM_INPUT below the layers."""
        if not self.config.freeze_feature_encoder:
            return FROM_INPUT
        if self.family.projection(self.encoder) and not self.config.freeze_projection:
            return FROM_CONVOLUTIONS
        return 0 if self.config.unfrozen_layers < 0 else self.depth - self.config.unfrozen_layers

    def train(self, mode: bool = True) -> ContextBranch:
        """Training mode for what is trained; what is frozen stays in evaluation mode, without dropout."""
        super().train(mode)
        layers = self.family.layers(self.encoder)
        frozen = 0 if self.config.unfrozen_layers < 0 else self.depth - self.config.unfrozen_layers
        if self.cut >= 0:
            self.encoder.eval()
            layers[self.cut :].train(mode)
        elif self.cut == FROM_CONVOLUTIONS:
            for part in self.family.convolutions(self.encoder):
                part.eval()
        layers[:frozen].eval()
        return self

    def features_settings(self) -> dict[str, Any]:
        """The configuration below the classifier, with the cut that the features are taken at; of the backbone what
        it is and not how it is named."""
        below = {k: v for k, v in to_dict(self.config).items() if k not in (*HEAD, *NAMED)}
        return below | {"cut": self.cut, "encoder": self.source.describe()}

    def features_state(self) -> dict[str, Tensor]:
        """The encoder's tensors that are not trained: with the settings they decide `features`."""
        return {name: p for name, p in self.encoder.named_parameters() if not p.requires_grad}

    def rate(self, name: str, backbone_rate: float, layer_decay: float) -> float:
        """Factor of the learning rate of the parameter `name`: the head's 1, smaller the deeper a layer lies."""
        if not name.startswith("encoder."):
            return 1.0
        number = re.search(r"layers\.(\d+)\.", name)
        below_top = self.depth - 1 - int(number[1]) if number else self.depth
        return backbone_rate * layer_decay**below_top

    def features(self, waveform: Tensor) -> Tensor:
        """All that no gradient reaches, so that training computes it once.

        Shape: (B, 144000) → by the lowest part that is trained:
            the convolutions: the encoder's input, (B, 48000) waveform or (B, bands, frames) log-mel;
            the projection: the convolutions' output (B, C, n);
            the layers from number `cut`: what enters it, (B, n, D), after the pooled outputs of the layers below as
            rows of D where `layer_weights` needs them;
            no layer: the pooled outputs, (B, rows, D), or of the last layer alone (B, D or 2 D).
        """
        inputs = self.frontend(self.decimate(waveform))
        if self.cut == FROM_INPUT:
            return inputs
        frames = self.family.convolve(self.encoder, inputs)
        if self.cut == FROM_CONVOLUTIONS:
            return frames
        *below, hidden = self._outputs(self.family.embed(self.encoder, frames), 0, self.cut)
        if self.config.layer_weights:
            rows = [row for output in [*below, hidden] for row in self._normed_rows(output)]
            pooled = torch.stack(rows, dim=1)
            return pooled if self.cut == self.depth else torch.cat([pooled, hidden], dim=1)
        return self._pool(hidden) if self.cut == self.depth else hidden

    def head(self, features: Tensor) -> Tensor:
        """Logits (B, classes) of `features`."""
        return self.classifier(self.pooled(features))

    def pooled(self, features: Tensor) -> Tensor:
        """The classifier's input (B, D) of `features`: the branch's embedding."""
        if self.cut == self.depth:
            return self._weigh(features) if self.config.layer_weights else features
        hidden, known = features, 0
        if self.cut < 0:
            if self.cut == FROM_INPUT:
                hidden = self.family.convolve(self.encoder, hidden)
            hidden = self.family.embed(self.encoder, hidden)
        elif self.config.layer_weights:
            known = (self.cut + 1) * self.statistics
            hidden = features[:, known:]
        outputs = self._outputs(hidden, max(self.cut, 0), self.depth)
        if not self.config.layer_weights:
            *_, last = outputs
            return self._pool(last)
        if known:
            next(outputs)  # the pooled output of the layer below is among the features already
        rows = torch.stack([row for output in outputs for row in self._normed_rows(output)], dim=1)
        return self._weigh(torch.cat([features[:, :known], rows], dim=1) if known else rows)

    def logits_and_embedding(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, classes) of `waveform`, and what the classifier made them of (B, D)."""
        embedding = self.pooled(self.features(waveform))
        return self.classifier(embedding), embedding

    @property
    def takes_standardised_waveforms(self) -> bool:
        """Whether its encoder's input is what `training.models.backbones.EncoderInput` makes."""
        return self.config.level == "clip" and self.source.normalise and self.family.masks_frames

    def linear_head(self) -> tuple[nn.BatchNorm1d, nn.Linear]:
        """The classifier where it is nothing but a standardisation and a linear layer, and all that is trained.

        Raises TrainingError for any other branch.
        """
        self.config.check_linear()
        return self.classifier[0], self.classifier[-1]

    def forward(self, waveform: Tensor) -> Tensor:
        return self.head(self.features(waveform))

    def _outputs(self, hidden: Tensor, start: int, stop: int) -> Iterator[Tensor]:
        """`hidden` and the outputs (B, n, D) of layers `start` … `stop` − 1, the top one after the final norm."""
        yield hidden
        for number, output in enumerate(self.family.run(self.encoder, hidden, start, stop), start + 1):
            yield self.family.finish(self.encoder, output) if number == self.depth else output

    def _pool(self, hidden: Tensor) -> Tensor:
        """The statistics of `pooling` over time, side by side: (B, n, D) → (B, statistics · D)."""
        made = [_POOLED[name](hidden) for name in self.config.pooling.split("+")]
        return torch.cat([row for rows in made for row in rows], dim=1)

    def _normed_rows(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """The statistics (B, D) each of one layer's normalised output."""
        normed = nn.functional.layer_norm(hidden, (self.width,))
        return self._pool(normed).split(self.width, dim=1)

    def _weigh(self, rows: Tensor) -> Tensor:
        """All layers' statistics, (B, (depth + 1) · statistics, D), as their weighted sum or side by side.

        Shape of the result: (B, statistics · D), or (B, (depth + 1) · statistics · D).
        """
        if self.config.concatenate_layers:
            return rows.flatten(1)
        # -1 and not len(rows), which would fix the batch size of an exported graph.
        statistics = rows.reshape(-1, self.depth + 1, self.statistics * self.width)
        return (self.layer_mix.softmax(dim=0)[:, None] * statistics).sum(dim=1)


def _deviation(hidden: Tensor) -> Tensor:
    spread = (hidden - hidden.mean(dim=1)[:, None]).square().mean(dim=1)
    return torch.sqrt(spread + 1e-7)


def _thirds(hidden: Tensor) -> list[Tensor]:
    """Means (B, D) of the first, second and last third; which frames they are depends on the clip's length alone."""
    n = hidden.shape[1]
    return [hidden[:, k * n // 3 : (k + 1) * n // 3].mean(dim=1) for k in range(3)]


_POOLED: dict[str, Callable[[Tensor], list[Tensor]]] = {
    "mean": lambda hidden: [hidden.mean(dim=1)],
    "std": lambda hidden: [_deviation(hidden)],
    "thirds": _thirds,
    "deltas": lambda hidden: [_deviation(hidden[:, step:] - hidden[:, :-step]) for step in (1, 4)],
}
