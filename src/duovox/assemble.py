"""From finished runs to a bundle: takes the run folders of `loop`, gives a `Bundle` to `bundle.write_bundle`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from duovox.bundle import FORMAT, Bundle, BundleConfig
from duovox.classifiers.frozen import fingerprint
from duovox.classifiers.loading import needs
from duovox.config import ExternalConfig, Recipe, Schooling, from_dict
from duovox.contracts import BundleError
from duovox.files import differences
from duovox.labels import shown
from duovox.model import ScoreModel, build_model
from duovox.networks.base import TappedClassifier
from duovox.provenance import git_revision
from duovox.runs import Part, classifier_folder, fill_classifier, on_base, read_weights, recipe_of_part, scale_of
from duovox.sound.vocoder.istft_net import ISTFTNet
from duovox.student import Student, build_student

ORIGIN = ("step", "seconds", "clips", "data", "schedule", "init", "start", "speakers", "teacher")
"""The facts of a run that a bundle keeps; `schedule`, `init` and `start` where a run had a schedule of its own or began with other weights,
`speakers` where some are unknown, `teacher` of a student."""


def assemble(
    out: Path,
    recipe: Recipe,
    scores: dict[str, Any] | None = None,
    card: str = "",
    network: nn.Module | None = None,
    vocoder: ISTFTNet | None = None,
    on: Path | None = None,
) -> Bundle:
    """Put the classifier (`<out>/classifier`, or `<out>/original` for someone else's unmodified one), `<out>/subnet` and, if there
    is one, `<out>/vocoder` together; `vocoder` takes its place where there is none, `on` that of the classifier's folder.

    Raises `TrainingError` for a missing run, and `BundleError` for a part of another recipe or a subnet that was trained on
    another classifier.
    """
    folder = on or classifier_folder(out, recipe)
    facts, tensors = _part_of(folder, "original" if folder.name == "original" else "classifier", recipe)
    classifier = fill_classifier(folder, recipe, scale_of(facts), len(facts["labels"]), tensors, network)
    subnet_facts, model = _speaking(out / "subnet", recipe, classifier)
    runs = {"classifier": facts, "subnet": subnet_facts}
    if (out / "vocoder").is_dir():
        runs["vocoder"], vocoder = _vocoder_of(out / "vocoder", recipe)
    student = None
    if (out / "student").is_dir():
        runs["student"], student = _student_of(out / "student", recipe, model.classifier.network)
    languages = subnet_facts.get("languages", {}) | facts.get("languages", {})
    languages = {label: languages[label] for label in facts["labels"] if label in languages}
    config = BundleConfig(
        FORMAT,
        tuple(facts["labels"]),
        recipe,
        scale_of(facts),
        git_revision(),
        _origin(runs),
        scores or {},
        languages=languages,
        schooling=student.schooling if student else None,
    )
    card = card or (external_card(recipe.external) if recipe.external else "")
    return Bundle(config, model, vocoder, with_speaker_notes(card, config), student)


def completed(base: Bundle, out: Path, recipe: Recipe, scores: dict[str, Any] | None = None, card: str = "") -> Bundle:
    """A bundle with the subnet, the student and the vocoder that were trained for it in `out`, those of `recipe`, in the place of its own.

    With another subnet its student, scores and card are left out: they were the old one's. Raises `BundleError` where `out` holds none of
    these, or a classifier of its own, and for what was trained on another classifier.
    """
    held = [part for part in ("classifier", "subnet", "student", "vocoder") if (out / part).is_dir()]
    if not held:
        raise BundleError(f"{out} holds no subnet, student or vocoder; train one there first")
    if "classifier" in held:
        raise BundleError(f"{out} holds a classifier of its own; leave --base out")
    ours = {name: getattr(recipe, name) for part in held if part != "subnet" for name in (part, f"train_{part}")}
    named, recipe = recipe, replace(on_base(base.config.recipe, recipe) if "subnet" in held else base.config.recipe, **ours)
    runs: dict[str, dict[str, Any]] = {}
    model, student, vocoder, old_scores = base.model, base.student, base.vocoder, base.config.scores
    if "subnet" in held:
        runs["subnet"], model = _speaking(out / "subnet", recipe, base.model.classifier.network)
        student, old_scores, card = None, {}, card or f"# {', '.join(base.config.labels)}: another voice on a classifier that was there\n"
    if "student" in held:
        runs["student"], student = _student_of(out / "student", recipe, base.model.classifier.network)
    if "vocoder" in held:
        runs["vocoder"], vocoder = _vocoder_of(out / "vocoder", named)  # trained without a base: its recipe has a name of its own
    origin = {part: run for part, run in base.config.origin.items() if part != "student" or student is not None} | _origin(runs)
    schooling = student.schooling if student else None
    config = replace(base.config, recipe=recipe, origin=origin, schooling=schooling, scores=old_scores | (scores or {}))
    return Bundle(config, model, vocoder, with_speaker_notes(card, config) if card else base.card, student)


def _origin(runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What a bundle says of its runs. A bundle travels: of the weights they began with it tells the name, not where they lay."""
    told = {part: {key: run[key] for key in ORIGIN if key in run} for part, run in runs.items()}
    for run in told.values():
        if source := (run.get("init") or {}).get("source"):
            run["init"] = {**run["init"], "source": "/".join(Path(source).parts[-2:]) if Path(source).is_absolute() else source}
    return told


def _speaking(folder: Path, recipe: Recipe, classifier: TappedClassifier) -> tuple[dict[str, Any], ScoreModel]:
    """Facts of a subnet's run, and the model of it and the classifier that it was trained on."""
    facts, tensors = _part_of(folder, "subnet", recipe)
    if fingerprint(classifier) != facts["classifier"]:
        raise BundleError(f"{folder} was trained on another classifier than this one; train the subnet again")
    model = build_model(recipe, classifier)
    model.score_network.load_state_dict(tensors, strict=True)
    return facts, model.eval().requires_grad_(False)


def _vocoder_of(folder: Path, recipe: Recipe) -> tuple[dict[str, Any], ISTFTNet]:
    facts, tensors = _part_of(folder, "vocoder", recipe)
    vocoder = ISTFTNet(recipe.vocoder, recipe.mel)
    vocoder.load_state_dict(tensors, strict=True)
    return facts, vocoder.eval().requires_grad_(False)


def _student_of(folder: Path, recipe: Recipe, classifier: TappedClassifier) -> tuple[dict[str, Any], Student]:
    """Facts of a student's run, and the student on the classifier that it was trained on."""
    facts, tensors = _part_of(folder, "student", recipe)
    if fingerprint(classifier) != facts["classifier"]:
        raise BundleError(f"{folder} was trained on another classifier; train the student again")
    student = build_student(recipe, classifier, len(facts["labels"]), from_dict(Schooling, facts["schooling"], "schooling"))
    student.network.load_state_dict(tensors, strict=True)
    return facts, student.eval().requires_grad_(False)


def with_speaker_notes(card: str, config: BundleConfig) -> str:
    """A card that says of which data the speakers are unknown; a short one where there is none yet, and something to say."""
    of: dict[str, list[str]] = {}
    for part, run in config.origin.items():
        if note := run.get("speakers"):
            of.setdefault(note, []).append(part)
    if not of and (card or not config.languages):
        return card
    words = ", ".join(shown(label, config.languages) for label in config.labels)
    said = [f"Of the data of {' and '.join(parts)}: {note}." for note, parts in of.items()]
    return "\n\n".join([card.rstrip() or f"# A classifier that speaks: {words}", *said]) + "\n"


def external_card(external: ExternalConfig) -> str:
    """A model card that says what the bundle of someone else's classifier is, and what it takes to open it."""
    state = "a copy fine-tuned on noise" if external.conditioned else "used unmodified; it never met noise"
    taps = ", ".join(tap.name for tap in external.taps) or "its input alone"
    return (
        f"# A classifier made elsewhere that speaks: {', '.join(external.labels)}\n\n"
        f"Made with duovox from {external.entry or f'a module ({external.source})'} ({state}). Tapped layers: {taps}.\n\n"
        f"To load it again, {needs(external)}. Generated speech is synthetic: say so where you use it.\n"
    )


def _part_of(folder: Path, part: Part | Literal["original"], recipe: Recipe) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts and weights of one run, which must have been trained with this recipe."""
    facts, tensors = read_weights(folder)
    for path, old, new in differences(facts["recipe"], recipe_of_part(recipe, part)):
        raise BundleError(
            f"{folder} was trained with {path} = {old!r}, recipe {recipe.name} has {new!r}; name the recipe it was trained with"
        )
    return facts, tensors
