"""The choices of how answers are scored."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.scoring.metrics.answer_rules import VqaRule
from pipelines.scoring.metrics.pope import PopeRule
from pipelines.scoring.metrics.tokenizers import Tokenizer
from pipelines.sources.boxes import BoxFormat, BoxOrder, BoxScale

if TYPE_CHECKING:
    from pipelines.scoring.benchmarks import Benchmark


@dataclass(frozen=True)
class ScoringConfig:
    """The rules of scoring. Every result names the rules that it was computed by."""

    tokenizer: Tokenizer | None = None
    """Tokenizer of captions: `ptb-java` (the official one) or `ptb-python`. Empty: `ptb-java` where Java is installed,
    else `ptb-python`."""
    meteor: bool = False
    """Also compute METEOR. Needs Java, which takes about 15 s to start."""
    vqa: VqaRule = "official"
    """Rule of VQA's soft accuracy: `official` (the VQA code since 2021), `lavis` (the VQA code before 2021, used for
    LION's published numbers), `lmms_eval` or `vlmevalkit`. Change it to compare with numbers of that code."""
    pope: PopeRule = "official"
    """Rule of POPE: `official` (an answer without a negation counts as yes, also an empty one) or `strict` (an empty
    answer is wrong)."""
    compare: bool = False
    """Also compute the numbers by every other rule, named like `soft_accuracy[lavis]` or `f1[lmms_eval]`."""
    box_scale: BoxScale | None = None
    """Divisor of the numbers in predicted boxes: 1 (shares of the image), 999, 1000 or `pixels`. `auto` is 1 where the
    text shows it; other boxes are unreadable. Empty: the benchmark's. `pixels` needs `tagged` for the sizes of the
    images, or true boxes in pixels."""
    box_order: BoxOrder | None = None
    """Order of the numbers in predicted boxes. `xyxy`: left, top, right, bottom; `yxyx`: top first, as Gemini writes;
    `xywh`: left, top, width, height. Empty: the benchmark's."""

    def box_format(self, benchmark: "Benchmark") -> BoxFormat:
        """Return the format of boxes in the answers to a benchmark."""
        return BoxFormat(self.box_scale or benchmark.boxes.scale, self.box_order or benchmark.boxes.order)
