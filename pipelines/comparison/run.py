"""`compare` as a step: all trainings and evaluations, each a step of its own, then the tests and the report."""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from typing import Any

from models.tags import threshold_in_words
from pipelines.comparison.champion import Decision, apply_decision, decide, group_of
from pipelines.comparison.config import FEWEST_SEEDS, CompareConfig, evidence
from pipelines.comparison.plan import Plan, Run, evaluation, make_plan
from pipelines.comparison.results import (
    Document,
    Evaluation,
    Results,
    analyze,
    decodings_differ,
    read_evaluation,
)
from pipelines.comparison.side_by_side import run_side_by_side
from pipelines.comparison.tracking import log_comparison
from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.resources import resolve_launch, workers_that_fit
from pipelines.core.runtime import keep_ray, live_nodes, ray_session
from pipelines.core.steps import StepFolder, StepResult, canonical, run_step
from pipelines.core.tag_rules import model_rules
from pipelines.core.workflow import Prepare, StepSpec, run_steps
from pipelines.evaluation.run import require_scorable
from pipelines.inference.decoding import in_words
from pipelines.registry import Registry
from pipelines.scoring.predictions import load_instructions
from pipelines.scoring.scorer import select_rows

log = logging.getLogger("lion.compare")
REPORT = "report.html"
NUMBERS = "comparison.json"
_DECISION = "champion.json"
Outcomes = Mapping[str, Mapping[str, Any]]


def compare(config: CompareConfig, prepare: Prepare) -> StepResult:
    """Run the comparison, or continues it, or finds it done. Leaves `report.html` and `comparison.json`.

    Args:
        config: what is compared.
        prepare: makes the configuration of a verb and finds what runs it.

    Raises:
        UserError: a wrong configuration, before anything is trained; or what a step says.
    """
    plan = make_plan(config, prepare)
    prepare("evaluate", evaluation(config, "", 0.0).config)
    registry = Registry(config.registry, config.out)
    registry.check()
    _check_questions(config, plan)
    _announce_hint(config)
    with keep_ray(config.ray):
        _require_room(config, plan)
        trained = _by_name(_run(config, plan.trainings, prepare))
        models = {run: str(trained[name]["registered"]) for run, name in plan.last.items()}
        asked = {
            f"{run.arm}__seed{run.seed}__noise{strength:g}": ((run, strength), evaluation(config, model, strength))
            for run, model in models.items()
            for strength in config.strengths
        }
        steps = {name: spec for name, (_, spec) in asked.items()}
        answered = _by_name(_run(config, steps, prepare))
        folders = {key: str(answered[name]["path"]) for name, (key, _) in asked.items()}

        def work(folder: StepFolder) -> Mapping[str, Any]:
            return Comparison(config, prepare, plan, trained, models, registry).work(folder, folders)

        inputs = {name: str(answered[name]["path"]) for name in asked}
        return run_step("compare", _identity(config), config.out, work, inputs)


def _identity(config: CompareConfig) -> Document:
    """What decides the result besides the evaluations' own content: places on this machine do not."""
    places = ("data", "tagged", "test_data", "test_tagged", "tag_encoder", "stages", "out")
    return {name: value for name, value in canonical(config).items() if name not in places}


def _run(config: CompareConfig, steps: Mapping[str, StepSpec], prepare: Prepare) -> list[dict[str, Any]]:
    out = storage.absolute(config.out)
    return run_steps(steps, prepare, out) if config.at_once == 1 else run_side_by_side(steps, out, config.at_once)


def _require_room(config: CompareConfig, plan: Plan) -> None:
    """Refuse more trainings at once than the cluster holds: some would wait for workers until Ray gives up on them."""
    launches = {settings.launch for settings in plan.settings.values() if settings.launch.launcher == "ray"}
    if config.at_once == 1 or not launches:
        return
    with ray_session(config.ray):
        nodes = live_nodes()
        for launch in launches:
            asked = resolve_launch(launch, nodes)
            room = workers_that_fit(asked, nodes, 0.0) // launch.workers
            if room < config.at_once:
                raise UserError(
                    f"at_once is {config.at_once}, and the cluster has room for {room} trainings of {launch.workers} "
                    f"workers with {asked.cpus_per_worker} CPUs and {asked.gpus_per_worker:g} GPUs each; "
                    "lower at_once, or add nodes."
                )


def _announce_hint(config: CompareConfig) -> None:
    """Say before anything is trained that so few seeds will give no verdict: the trainings are what takes long."""
    if len(config.seeds) >= FEWEST_SEEDS:
        return
    kept = config.champion.metric is not None and not config.champion.allow_one_seed
    log.warning(
        "%s: no verdicts and no p-values%s; %d seeds or more give them", evidence(len(config.seeds)),
        f", and @{config.champion.alias} stays where it is" if kept else "", FEWEST_SEEDS,
    )  # fmt: skip


def _by_name(outcomes: list[dict[str, Any]]) -> Outcomes:
    return {str(outcome["name"]): outcome for outcome in outcomes}


def _check_questions(config: CompareConfig, plan: Plan) -> None:
    """Refuse, before anything is trained, questions that cannot be scored and a rule about what is not measured."""
    scores = require_scorable(select_rows(load_instructions(config.test_data), config.benchmark), config.benchmark)
    if config.champion.metric is None:
        return
    group_of(config.champion, {group: found.primary for group, found in scores.items()})
    names = {plan.settings[step].model_name for step in plan.last.values()}
    if len(names) > 1:
        raise UserError(f"The arms' models are registered as {sorted(names)}; a champion needs one name: set `name`.")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is left to do when all models have answered."""

    config: CompareConfig
    prepare: Prepare
    plan: Plan
    trained: Outcomes
    models: Mapping[Run, str]
    registry: Registry

    def work(self, folder: StepFolder, folders: Mapping[tuple[Run, float], str]) -> Document:
        """Test, champion, report and MLflow; returns the manifest's entries."""
        config = self.config
        evaluations = {key: read_evaluation(path) for key, path in folders.items()}
        results = Results(evaluations, list(config.arms), config.seeds)
        document = analyze(config, results)
        if decodings_differ(document):
            log.warning("The models were decoded with different settings; the report lists them.")
        decision = self._decision(folder, results, document)
        if decision is not None:
            apply_decision(decision, self.registry)
        self._name_after_arms()
        storage.write_json(folder.child(NUMBERS), document | {"champion": decision and decision.as_dict()})
        storage.write_atomic(folder.child(REPORT), self._page(results, document, decision).encode())
        run_id = log_comparison(self.registry, folder, config, document, self.models, [NUMBERS, REPORT])
        log.info("The report: %s", folder.child(REPORT))
        measured = {
            f"{arm}.{group}.{found['primary']}": number["value"]
            for group, found in document["groups"].items()
            for arm, number in found["arms"].items()
        } | {
            f"{group}.{found['primary']}.{arm}-{document['baseline']}": effect["value"]
            for group, found in document["groups"].items()
            for arm, effect in found["effects"].items()
        }
        files = [{"path": name, "sha256": storage.sha256(folder.child(name))} for name in (NUMBERS, REPORT)]
        summary: Document = {
            "report": folder.child(REPORT),
            "trainings": len(self.trained),
            "evidence": document["evidence"],
            **measured,
        }
        if decision is not None:
            summary |= {"champion": decision.candidate if decision.moved else decision.champion}
        return {
            "rows": sum(group["questions"] for group in document["groups"].values()),
            "files": files,
            "run_id": run_id,
            "summary": summary,
        }

    def _name_after_arms(self) -> None:
        """Give the first seed's model of every arm the arm's name as its alias."""
        for arm in self.config.arms:
            name, version = self.models[Run(arm, self.config.seeds[0])].removeprefix("models:/").split("/")
            self.registry.set_alias(name, arm, int(version))

    def _decision(self, folder: StepFolder, results: Results, document: Document) -> Decision | None:
        """The rule's decision, taken once: a comparison that goes on after a crash does not meet its own champion."""
        rule = self.config.champion
        if rule.metric is None:
            return None
        path = folder.child(_DECISION)
        if storage.exists(path):
            return Decision(**storage.read_json(path))
        ask = functools.partial(self._ask, results=results)
        made = decide(rule, results, document, self.models, self.registry, ask, self.config.resamples)
        storage.write_json(path, made.as_dict())
        return made

    def _ask(self, model: str, results: Results) -> Evaluation:
        """Return the answers of another model to the comparison's questions."""
        steps: dict[str, StepSpec] = {"champion": evaluation(self.config, model, 0.0)}
        (outcome,) = run_steps(steps, self.prepare, storage.absolute(self.config.out))
        answered = read_evaluation(str(outcome["path"]))
        if answered.metrics["decoding"] != results.first.metrics["decoding"]:
            log.warning(
                "%s was decoded with %s, and the comparison's models otherwise; the champion rule compares them as "
                "they are. Set inference.beams and inference.decoding to decode all models alike.",
                model, in_words(answered.metrics["decoding"]),
            )  # fmt: skip
        return answered

    def _page(self, results: Results, document: Document, decision: Decision | None) -> str:
        from pipelines.comparison import examples, provenance
        from pipelines.comparison.report import render

        config, baseline = self.config, self.config.base_arm
        chosen = {
            group: examples.choose(results, group, baseline, config.challengers, config.examples)
            for group in document["groups"]
        }
        folders = {run: str(self.trained[name]["path"]) for run, name in self.plan.last.items()}
        settings = [self.plan.settings[name] for name in self.plan.last.values()]
        models = [model_rules(storage.join(folder, "model")) for folder in folders.values()]
        rules = [rule for model in models for rule in (model.text, model.vector) if rule is not None]
        encoders = dict.fromkeys(one.tag_encoder for one in settings if one.tag_encoder is not None)
        return render(
            document,
            examples.gallery(results, chosen, config.test_data, config.test_tagged, rules),
            provenance.histories(folders, results.arms, results.seeds),
            provenance.tag_encoders(list(encoders), self.registry),
            {
                "config": provenance.as_yaml(config),
                "trainings": provenance.trainings(self.plan, self.trained),
                "code": provenance.code(),
                "hardware": provenance.hardware(),
                "reading": " or ".join(dict.fromkeys(threshold_in_words(rule) for rule in rules)),
                "resamples": config.resamples,
                "errors": dataclasses.asdict(config.noise),
                "decision": decision,
            },
        )
