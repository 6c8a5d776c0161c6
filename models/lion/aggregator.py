"""The Vision Aggregator: ViT levels fused by cross-attention into spatial detail for the language model."""

from torch import Tensor, nn
from transformers import BertConfig, InstructBlipVisionModel
from transformers.models.bert.modeling_bert import BertLayer


class VisionAggregator(nn.Module):
    """V = B_n(… B_1(X_0; X_1) …; X_n), B(X; Y) = FFN(CrossAttn(SelfAttn(X), Y)) (arXiv 2311.11860, section 3.1).

    Args:
        config: Each block's `BertConfig`, with cross-attention.
        blocks: n, one less than the ViT levels.
    """

    def __init__(self, config: BertConfig, blocks: int) -> None:
        super().__init__()
        layers = [BertLayer(config) for _ in range(blocks)]
        for block in layers:
            # A BertLayer with cross-attention must be a decoder, and under sdpa a decoder would mask the patches that
            # come after each patch. Patches have no such order.
            block.attention.self.is_causal = False
        self.blocks = nn.ModuleList(layers)

    def output_denses(self) -> list[nn.Linear]:
        """Return the dense layers before each residual sum, which start at zero."""
        return [
            part.get_submodule("output.dense")  # type: ignore[misc]
            for block in self.blocks
            for part in (block.get_submodule("attention"), block.get_submodule("crossattention"), block)
        ]

    def forward(self, features: list[Tensor]) -> Tensor:
        """Fuse the levels.

        Args:
            features: n + 1 levels of the ViT, the starting one first, each (B, patches, vision width).

        Returns:
            (B, patches, vision width).
        """
        hidden = features[0]
        for block, level in zip(self.blocks, features[1:], strict=True):
            hidden = block(hidden, None, level)
        return hidden


class AggregatorProjection(nn.Sequential):
    """Vision width to four times it, GELU, to the language model's width. Named 0 and 2 as in the released weights."""

    def __init__(self, vision_width: int, text_width: int) -> None:
        super().__init__(nn.Linear(vision_width, 4 * vision_width), nn.GELU(), nn.Linear(4 * vision_width, text_width))


def intermediate_features(
    vision_model: InstructBlipVisionModel, pixel_values: Tensor, levels: list[int]
) -> dict[int, Tensor]:
    """Return the un-normalized outputs of the ViT blocks in ``levels``, each (B, 1 + patches, width).

    Only the blocks up to the deepest requested level run, and no other state is kept.
    """
    features: dict[int, Tensor] = {}
    hidden = vision_model.embeddings(pixel_values)
    for index, layer in enumerate(vision_model.encoder.layers[: max(levels) + 1]):
        hidden = layer(hidden)
        if index in levels:
            features[index] = hidden
    return features
