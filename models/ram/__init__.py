"""RAM (Recognize Anything, arXiv 2306.03514): the confidence of every tag of a list for an image."""

from models.ram.configuration import RamConfig
from models.ram.loss import asymmetric_loss
from models.ram.modeling import RamForImageTagging, RamOutput
from models.ram.processing import RamProcessor

__all__ = ["RamConfig", "RamForImageTagging", "RamOutput", "RamProcessor", "asymmetric_loss"]
