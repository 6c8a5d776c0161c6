"""The tag encoder of Dynamic LION: tags with their confidences, and captions, into one vector each."""

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
