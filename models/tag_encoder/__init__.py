"""The tag encoder of Dynamic LION: it encodes an image's tags with their confidences, or a caption, as one vector."""

from models.tag_encoder.configuration import TagEncoderConfig
from models.tag_encoder.modeling import TagEncoder, triplet_margin_loss
from models.tag_encoder.processing import TagEncoderProcessor, TagTokens, format_tags

__all__ = [
    "TagEncoder",
    "TagEncoderConfig",
    "TagEncoderProcessor",
    "TagTokens",
    "format_tags",
    "triplet_margin_loss",
]
