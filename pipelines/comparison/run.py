"""The `compare` step: it runs all trainings and evaluations as separate steps, then the tests and the report."""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from typing import Any

from models.tags import threshold_in_words
from pipelines.comparison.champion import Decision, apply_decision, decide, group_of
from pipelines.comparison.config import FEWEST_SEEDS, CompareConfig, evidence
from pipelines.comparison.plan import ComparisonPlan, Run, evaluation, plan_comparison
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
from pipelines.evaluation.benchmark import require_scorable
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
    """Run the comparison and write `report.html` and `comparison.json`. Finished steps are not run again.

    Args:
        config: the comparison.
        prepare: returns the typed configuration of a verb, and the function that runs it.

    Raises:
        UserError: the configuration is wrong (raised before any training), or a step raised it.
    """
    plan = plan_comparison(config, prepare)
    prepare("evaluate", evaluation(config, "", 0.0).config)
    registry = Registry(config.registry, config.out)
    registry.check()
    _check_questions(config, plan)
    _announce_hint(config)
    with keep_ray(config.ray):
        _require_room(config, plan)
        trained = _by_name(_run(config, plan.trainings, prepare))
        models = {run: str(trained[name]["registered"]) for run, name in plan.last.items()}
        evaluations = {
            f"{run.arm}__seed{run.seed}__noise{strength:g}": ((run, strength), evaluation(config, model, strength))
            for run, model in models.items()
            for strength in config.strengths
        }
        steps = {name: spec for name, (_, spec) in evaluations.items()}
        evaluated = _by_name(_run(config, steps, prepare))
        folders = {key: str(evaluated[name]["path"]) for name, (key, _) in evaluations.items()}

        def work(folder: StepFolder) -> Mapping[str, Any]:
            return Comparison(config, prepare, plan, trained, models, registry).work(folder, folders)

        inputs = {name: str(evaluated[name]["path"]) for name in evaluations}
        return run_step("compare", _identity(config), config.out, work, inputs)


def _identity(config: CompareConfig) -> Document:
    """Return the settings that decide the result in addition to the evaluations, for the step's hash.

    Paths are left out, and the stages: the evaluations, which are inputs of the step, depend on both.
    """
    excluded = ("data", "tagged", "test_data", "test_tagged", "tag_encoder", "stages", "out")
    return {name: value for name, value in canonical(config).items() if name not in excluded}


def _run(config: CompareConfig, steps: Mapping[str, StepSpec], prepare: Prepare) -> list[dict[str, Any]]:
    """Run steps one after another in this process, or several at a time in separate processes."""
    out = storage.absolute(config.out)
    return run_steps(steps, prepare, out) if config.at_once == 1 else run_side_by_side(steps, out, config.at_once)


def _require_room(config: CompareConfig, plan: ComparisonPlan) -> None:
    """Refuse more trainings at the same time than the cluster has room for: some would wait until Ray's timeout."""
    launches = {settings.launch for settings in plan.settings.values() if settings.launch.launcher == "ray"}
    if config.at_once == 1 or not launches:
        return
    with ray_session(config.ray):
        nodes = live_nodes()
        for launch in launches:
            request = resolve_launch(launch, nodes)
            room = workers_that_fit(request, nodes, 0.0) // launch.workers
            if room < config.at_once:
                raise UserError(
                    f"at_once is {config.at_once}, but the cluster has room for {room} trainings of {launch.workers} "
                    f"workers with {request.cpus_per_worker} CPUs and {request.gpus_per_worker:g} GPUs each; "
                    "lower at_once, or add nodes."
                )


def _announce_hint(config: CompareConfig) -> None:
    """Warn before the long trainings begin that so few seeds will give no verdict."""
    if len(config.seeds) >= FEWEST_SEEDS:
        return
    alias_stays = config.champion.metric is not None and not config.champion.allow_one_seed
    log.warning(
        "%s: no verdicts and no p-values%s; use at least %d seeds to get them.", evidence(len(config.seeds)),
        f", and the alias @{config.champion.alias} does not move" if alias_stays else "", FEWEST_SEEDS,
    )  # fmt: skip


def _by_name(outcomes: list[dict[str, Any]]) -> Outcomes:
    return {str(outcome["name"]): outcome for outcome in outcomes}


def _check_questions(config: CompareConfig, plan: ComparisonPlan) -> None:
    """Refuse, before any training, questions that cannot be scored and a champion rule whose metric is not measured."""
    scores = require_scorable(select_rows(load_instructions(config.test_data), config.benchmark), config.benchmark)
    if config.champion.metric is None:
        return
    group_of(config.champion, {group: score.primary for group, score in scores.items()})
    names = {plan.settings[step].model_name for step in plan.last.values()}
    if len(names) > 1:
        raise UserError(
            f"The arms' models are registered under {sorted(names)}; a champion needs one name: set `name`."
        )


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The work after all evaluations: tests, champion rule, report and MLflow."""

    config: CompareConfig
    prepare: Prepare
    plan: ComparisonPlan
    trained: Outcomes
    models: Mapping[Run, str]
    registry: Registry

    def work(self, folder: StepFolder, folders: Mapping[tuple[Run, float], str]) -> Document:
        """Compute the numbers, apply the champion rule, write the report, and log to MLflow.

        Args:
            folder: the folder of the compare step.
            folders: the folder of each evaluation, by run and strength of tag noise.

        Returns:
            Entries of the step's manifest.
        """
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
        log.info("Report: %s", folder.child(REPORT))
        measured = {
            f"{arm}.{group}.{numbers['primary']}": estimate["value"]
            for group, numbers in document["groups"].items()
            for arm, estimate in numbers["arms"].items()
        } | {
            f"{group}.{numbers['primary']}.{arm}-{document['baseline']}": effect["value"]
            for group, numbers in document["groups"].items()
            for arm, effect in numbers["effects"].items()
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
        """Set the alias of the first seed's model of every arm to the arm's name."""
        for arm in self.config.arms:
            name, version = self.models[Run(arm, self.config.seeds[0])].removeprefix("models:/").split("/")
            self.registry.set_alias(name, arm, int(version))

    def _decision(self, folder: StepFolder, results: Results, document: Document) -> Decision | None:
        """Return the decision of the champion rule; None if the rule is off.

        The decision is made once and stored: a comparison that resumes after a crash would otherwise compare the
        candidate with itself, because the alias has already moved.
        """
        rule = self.config.champion
        if rule.metric is None:
            return None
        path = folder.child(_DECISION)
        if storage.exists(path):
            return Decision(**storage.read_json(path))
        evaluate = functools.partial(self._evaluate, results=results)
        decision = decide(rule, results, document, self.models, self.registry, evaluate, self.config.resamples)
        storage.write_json(path, decision.as_dict())
        return decision

    def _evaluate(self, model: str, results: Results) -> Evaluation:
        """Evaluate another model, the current champion, on the comparison's questions."""
        steps: dict[str, StepSpec] = {"champion": evaluation(self.config, model, 0.0)}
        (outcome,) = run_steps(steps, self.prepare, storage.absolute(self.config.out))
        champion = read_evaluation(str(outcome["path"]))
        if champion.metrics["decoding"] != results.first.metrics["decoding"]:
            log.warning(
                "The champion %s was decoded with %s, the comparison's models with other settings; the difference that "
                "the champion rule uses includes this. Set inference.beams and inference.decoding to decode all models "
                "alike.", model, in_words(champion.metrics["decoding"]),
            )  # fmt: skip
        return champion

    def _page(self, results: Results, document: Document, decision: Decision | None) -> str:
        """Return the report as HTML."""
        # Matplotlib and jinja2 are slow to import, and only a comparison that is not skipped needs them.
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
        encoders = dict.fromkeys(train.tag_encoder for train in settings if train.tag_encoder is not None)
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
