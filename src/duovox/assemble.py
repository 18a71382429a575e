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
from duovox.model import build_model
from duovox.networks.base import TappedClassifier
from duovox.provenance import git_revision
from duovox.runs import Part, classifier_folder, fill_classifier, read_weights, recipe_of_part, scale_of
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
    subnet_facts, subnet_tensors = _part_of(out / "subnet", "subnet", recipe)
    model = build_model(recipe, fill_classifier(folder, recipe, scale_of(facts), len(facts["labels"]), tensors, network))
    if fingerprint(model.classifier.network) != subnet_facts["classifier"]:
        raise BundleError(f"{out}/subnet was trained on another classifier than the one in {folder}; train the subnet again")
    model.score_network.load_state_dict(subnet_tensors, strict=True)
    runs = {"classifier": facts, "subnet": subnet_facts}
    if (out / "vocoder").is_dir():
        runs["vocoder"], vocoder_tensors = _part_of(out / "vocoder", "vocoder", recipe)
        vocoder = ISTFTNet(recipe.vocoder, recipe.mel)
        vocoder.load_state_dict(vocoder_tensors, strict=True)
    student = None
    if (out / "student").is_dir():
        runs["student"], student = _student_of(out / "student", recipe, model.classifier.network)
    origin = {part: {key: run[key] for key in ORIGIN if key in run} for part, run in runs.items()}
    languages = subnet_facts.get("languages", {}) | facts.get("languages", {})
    languages = {label: languages[label] for label in facts["labels"] if label in languages}
    config = BundleConfig(
        FORMAT,
        tuple(facts["labels"]),
        recipe,
        scale_of(facts),
        git_revision(),
        origin,
        scores or {},
        languages=languages,
        schooling=student.schooling if student else None,
    )
    card = card or (external_card(recipe.external) if recipe.external else "")
    return Bundle(config, model, vocoder, with_speaker_notes(card, config), student)


def completed(base: Bundle, out: Path, recipe: Recipe, scores: dict[str, Any] | None = None, card: str = "") -> Bundle:
    """A bundle with the student and the vocoder that were trained for it in `out`, those of `recipe`, in the place of its own.

    Raises `BundleError` where `out` holds neither or holds another model, or for a student of another classifier.
    """
    held = [part for part in ("classifier", "subnet", "student", "vocoder") if (out / part).is_dir()]
    if not held or held[0] in ("classifier", "subnet"):
        what = f"holds a {held[0]} of its own; leave --base out" if held else "holds no student and no vocoder; train one there first"
        raise BundleError(f"{out} {what}")
    recipe = replace(base.config.recipe, **{name: getattr(recipe, name) for part in held for name in (part, f"train_{part}")})
    origin, student, vocoder = dict(base.config.origin), base.student, base.vocoder
    if "student" in held:
        run, student = _student_of(out / "student", recipe, base.model.classifier.network)
        origin["student"] = {key: run[key] for key in ORIGIN if key in run}
    if "vocoder" in held:
        run, tensors = _part_of(out / "vocoder", "vocoder", recipe)
        origin["vocoder"] = {key: run[key] for key in ORIGIN if key in run}
        vocoder = ISTFTNet(recipe.vocoder, recipe.mel)
        vocoder.load_state_dict(tensors, strict=True)
    schooling = student.schooling if student else None
    config = replace(base.config, recipe=recipe, origin=origin, schooling=schooling, scores=base.config.scores | (scores or {}))
    return Bundle(config, base.model, vocoder, card or base.card, student)


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
