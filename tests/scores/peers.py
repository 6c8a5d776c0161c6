"""Run the scorers of other projects out of their own source files, without their packages' heavy imports.

The definitions that a scorer needs are taken out of the file by name and executed as they stand. The folder holds what
`FILES` names: checkouts of the repositories, or the unpacked wheels of lmms-eval and LAVIS.
"""

import ast
import re
import statistics
import textwrap
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

VERSIONS = {
    "official": "GT-Vision-Lab/VQA a013f00, RUCAIBox/POPE 3df3ba1, allenai/aokvqa 83786de, pycocoevalcap 1.2",
    "lavis": "LAVIS 1.0.2",
    "lmms_eval": "lmms-eval 0.7.3",
    "vlmevalkit": "VLMEvalKit e8e78f0",
}
FILES = {
    "official_vqa": "VQA/PythonEvaluationTools/vqaEvaluation/vqaEval.py",
    "official_pope": "POPE/evaluate.py",
    "official_aokvqa": "aokvqa/evaluation/eval_predictions.py",
    "lavis_vqa": "LAVIS/lavis/common/vqa_tools/vqa_eval.py",
    "lmms_answers": "lmms-eval/lmms_eval/tasks/_task_utils/vqa_eval_metric.py",
    "lmms_vqav2": "lmms-eval/lmms_eval/tasks/vqav2/utils.py",
    "lmms_okvqa": "lmms-eval/lmms_eval/tasks/ok_vqa/utils.py",
    "lmms_pope": "lmms-eval/lmms_eval/tasks/pope/utils.py",
    "lmms_rec": "lmms-eval/lmms_eval/tasks/refcoco/utils_rec.py",
    "vlm_text": "VLMEvalKit/vlmeval/smp/misc.py",
    "vlm_vqa": "VLMEvalKit/vlmeval/dataset/utils/vqa_eval.py",
    "vlm_yesno": "VLMEvalKit/vlmeval/dataset/utils/yorn.py",
    "vlm_rec": "VLMEvalKit/vlmeval/dataset/refcoco.py",
}
Namespace = dict[str, Any]
SoftAccuracy = Callable[[str, Sequence[str]], float]


class Peers:
    """The scorers of the other projects.

    Args:
        folder: where the source files lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loaded: dict[str, Namespace] = {}

    def _take(self, file: str, names: Sequence[str] = (), **variables: Any) -> Namespace:
        """Execute the definitions of some names of a file (all its classes if `names` is empty) and return them."""
        if file not in self._loaded:
            source = (self.folder / FILES[file]).read_text(encoding="utf-8")
            # The official VQA code is Python 2; only its print statements are not valid Python 3.
            source = re.sub(r'^(\s*)print ("[^"]*")$', r"\1pass", source.expandtabs(8), flags=re.MULTILINE)
            kept = [
                node
                for node in ast.parse(source).body
                if (isinstance(node, ast.ClassDef) and not names) or getattr(node, "name", None) in names
            ]
            namespace: Namespace = {
                **vars(typing), "re": re, "np": np, "statistics": statistics, "print": lambda *_: None, **variables
            }  # fmt: skip
            exec(compile(ast.Module(kept, type_ignores=[]), FILES[file], "exec"), namespace)
            self._loaded[file] = namespace
        return self._loaded[file]

    def soft_accuracies(self) -> dict[str, SoftAccuracy]:
        """Return VQA's soft accuracy of one question by each scorer."""
        return {
            "official": lambda answer, others: self._vqa_eval("official_vqa", answer, others),
            "lavis": lambda answer, others: self._vqa_eval("lavis_vqa", answer, others),
            "lmms_eval": self._lmms_vqav2,
            "lmms_eval_okvqa": self._lmms_okvqa,
            "vlmevalkit": self._vlm_vqa,
        }

    def _vqa_eval(self, file: str, answer: str, others: Sequence[str]) -> float:
        class Questions:
            def __init__(self, qa: Mapping[int, Any]) -> None:
                self.qa = qa

            def getQuesIds(self) -> list[int]:
                return [1]

        truth = {1: {"answers": annotated(others), "question_type": "", "answer_type": ""}}
        scorer = self._take(file, sys=_Quiet)["VQAEval"](Questions(truth), Questions({1: {"answer": answer}}), n=10)
        scorer.updateProgress = lambda progress: None
        scorer.evaluate()
        return float(scorer.accuracy["overall"]) / 100

    def _lmms_vqav2(self, answer: str, others: Sequence[str]) -> float:
        processor = self._take("lmms_answers")["EvalAIAnswerProcessor"]
        score = self._take("lmms_vqav2", ["vqav2_process_results"], EvalAIAnswerProcessor=processor)
        document = {"answers": annotated(others), "question_id": 1}
        return float(score["vqav2_process_results"](document, [answer])["exact_match"])

    def _lmms_okvqa(self, answer: str, others: Sequence[str]) -> float:
        processor = self._take("lmms_answers")["EvalAIAnswerProcessor"]
        score = self._take("lmms_okvqa", ["ok_vqa_process_results"], EvalAIAnswerProcessor=processor)
        document = {"answers": list(others), "question_id": 1}
        return float(score["ok_vqa_process_results"](document, [answer])["exact_match"])

    def _vlm_vqa(self, answer: str, others: Sequence[str]) -> float:
        punctuation = self._take("vlm_text", ["process_punctuation"])["process_punctuation"]
        names = ["_process_digit_article", "process_answer", "process_line"]
        scorer = self._take("vlm_vqa", names, process_punctuation=punctuation, istype=lambda value, kind: True)
        return float(np.mean(scorer["process_line"]({"answer": repr(list(others)), "prediction": answer})["match"]))

    def aokvqa_direct(self, answer: str, others: Sequence[str]) -> float:
        """Return A-OKVQA's direct answer score of one question by its authors' code."""
        question = {"difficult_direct_answer": False, "choices": [], "direct_answers": list(others)}
        score = self._take("official_aokvqa", ["eval_aokvqa"])["eval_aokvqa"]
        return float(score({"1": question}, {"1": answer})) / 100

    def pope(self, answers: Sequence[str], labels: Sequence[str]) -> dict[str, dict[str, float]]:
        """Return accuracy, F1 and yes-rate by each scorer."""
        lmms = self._take("lmms_pope", [
            "pope_process_results", "pope_aggregate_accuracy", "pope_aggregate_precision", "pope_aggregate_recall",
            "pope_aggregate_f1_score", "pope_aggregate_yes_ratio",
        ])  # fmt: skip
        rows = [
            lmms["pope_process_results"]({"answer": label, "question_id": 1}, [answer])["pope_accuracy"]
            for answer, label in zip(answers, labels, strict=True)
        ]
        return {
            "official": self._official_pope(answers, labels),
            "lmms_eval": {
                "accuracy": lmms["pope_aggregate_accuracy"](rows),
                "f1": lmms["pope_aggregate_f1_score"](rows),
                "yes_rate": lmms["pope_aggregate_yes_ratio"](rows),
            },
            "vlmevalkit": self._vlm_pope(answers, labels),
        }

    def _official_pope(self, answers: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
        """Run the official script, which reads two files of JSON lines, unchanged after the reading."""
        source = (self.folder / FILES["official_pope"]).read_text(encoding="utf-8")
        body = source[source.index("for answer in answers") :]
        namespace: Namespace = {
            "answers": [{"answer": answer} for answer in answers],
            "label_list": list(labels),
            "print": lambda *_: None,
        }
        exec(compile(textwrap.dedent(body), FILES["official_pope"], "exec"), namespace)
        return {"accuracy": namespace["acc"], "f1": namespace["f1"], "yes_rate": namespace["yes_ratio"]}

    def _vlm_pope(self, answers: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
        punctuation = self._take("vlm_text", ["process_punctuation"])["process_punctuation"]
        import pandas as pd

        table = pd.DataFrame({"answer": [label.title() for label in labels], "category": "", "prediction": answers})
        taken = self._take(
            "vlm_yesno", ["YOrN_Extraction", "POPE_rating"], process_punctuation=punctuation, pd=pd, load=lambda x: x
        )
        table["extracted"] = [taken["YOrN_Extraction"](answer) for answer in answers]
        table["score"] = table["answer"] == table["extracted"]
        overall = taken["POPE_rating"](table).iloc[0]
        return {"accuracy": float(overall["acc"]) / 100, "f1": float(overall["Overall"]) / 100}

    def box(self, answer: str, truth: Sequence[float]) -> dict[str, float]:
        """Return the IoU of one answer by each scorer, on an image of 1000 x 1000 pixels."""
        lmms = self._take("lmms_rec", ["parse_float_sequence_within", "compute_iou"])
        import pandas as pd

        dataset = self._take("vlm_rec", ["RefCOCODataset"], ImageBaseDataset=object, pd=pd)["RefCOCODataset"]
        parsed = dataset._parse_prediction(answer)
        absolute = None if parsed is None else dataset._to_absolute(parsed, 1000.0, 1000.0)
        pixels = np.asarray(truth, dtype=float) * 1000
        return {
            "lmms_eval": float(lmms["compute_iou"](list(truth), lmms["parse_float_sequence_within"](answer))),
            "vlmevalkit": 0.0 if absolute is None else float(dataset._compute_iou(absolute, pixels)),
        }


class _Quiet:
    """A substitute for `sys` in code that draws a progress bar."""


def annotated(answers: Sequence[str]) -> list[dict[str, Any]]:
    """Return answers in the form of VQA's annotation files, with an id each, so that equal answers stay separate."""
    return [{"answer": answer, "answer_id": number} for number, answer in enumerate(answers, 1)]


def cider(candidates: Sequence[str], references: Sequence[Sequence[str]], tokenized: bool) -> float:
    """Return pycocoevalcap's CIDEr, with its Java tokenizer (official, lmms-eval) or without (VLMEvalKit)."""
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    truth: Any = {image: [{"caption": text} for text in texts] for image, texts in enumerate(references)}
    answers: Any = {image: [{"caption": text}] for image, text in enumerate(candidates)}
    if tokenized:
        tokenizer = PTBTokenizer()
        return float(Cider().compute_score(tokenizer.tokenize(truth), tokenizer.tokenize(answers))[0])
    plain = [{key: [row["caption"] for row in rows] for key, rows in table.items()} for table in (truth, answers)]
    return float(Cider().compute_score(*plain)[0])
