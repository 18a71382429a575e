"""The command line: one typed function per command; every error of ours is one line and a non-zero exit.

Nothing heavy is imported at the top, so that `--help` answers at once.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import tyro
from tyro.conf import Positional, arg

from duovox import __version__
from duovox.config import read_input, read_recipe, to_dict
from duovox.contracts import ConfigError, DuovoxError, OutputError

if TYPE_CHECKING:
    from duovox.duovox import Clip, Duovox

AudioFormat = Literal["wav", "flac", "ogg"]
SOUND_SUFFIXES = tuple(f".{name}" for name in get_args(AudioFormat))
app = tyro.extras.SubcommandApp()
data_app = tyro.extras.SubcommandApp()
app.command(data_app, name="data")


@app.command
def generate(
    label: Positional[str],
    /,
    out: Path = Path("."),
    n: int = 1,
    seed: int = 0,
    gamma: float | None = None,
    steps: int | None = None,
    sampler: Literal["heun", "dpmpp_2m", "euler_maruyama"] | None = None,
    interval: tuple[float, float] | None = None,
    schedule: Literal["constant", "early", "late"] | None = None,
    guide_at: Literal["noised", "estimate"] | None = None,
    vocoder: Literal["neural", "griffin_lim"] | None = None,
    bundle: str = "sc06",
    trust_code: bool = False,
    format: AudioFormat = "wav",
    spectrogram: bool = False,
    batch: int = 8,
    device: Literal["auto", "cpu", "cuda"] = "cpu",
    force: bool = False,
) -> None:
    """Speak a word.

    Writes each clip with a JSON file beside it that says how it was made (seed, settings, bundle, what the classifier
    hears in it). Settings left out are the bundle's own.

    Args:
        label: The word to speak, one of the bundle's labels, or `any` for whatever comes.
        out: A file name for one clip (its suffix chooses the format), or a folder for clips named <label>_<seed>.
        n: How many clips; their seeds are seed, seed + 1, ...
        seed: Seed of the first clip. The same seed and settings give the same clip.
        gamma: Strength of the guidance towards the label; 0 switches it off.
        steps: Steps of the sampler.
        sampler: Which sampler.
        interval: Guide only at noise levels between these two sigmas.
        schedule: How the strength of guidance runs: constant, early (fading as the noise goes) or late (growing).
        guide_at: Where the classifier is asked for the label, at the noised mel or at the estimate of the clean one.
        vocoder: How the mel becomes sound.
        bundle: Name of a bundle in the package, a bundle folder, or a hub id.
        trust_code: Run the code that a bundle of someone else's classifier names or holds.
        format: Format of the clips in a folder.
        spectrogram: Also write each clip's log-mel as a PNG picture.
        batch: Clips computed at once; changes speed and memory, not the clips.
        device: Where to compute.
        force: Overwrite files that exist.
    """
    places = _clip_paths(out, label, seed, n, format)
    _refuse_existing([p.with_suffix(s) for p in places for s in _suffixes(p, spectrogram)], force)
    from duovox.duovox import Duovox
    from duovox.training.start import choose_device

    voice = Duovox.from_pretrained(bundle, trust_code=trust_code).to(choose_device(device))
    wanted = None if label == "any" and label not in voice.labels else label
    for start in range(0, max(n, 1), max(batch, 1)):
        count = min(n - start, batch)
        clips = voice.generate(
            wanted,
            count,
            gamma=gamma,
            steps=steps,
            sampler=sampler,
            interval=interval,
            schedule=schedule,
            guide_at=guide_at,
            seed=seed + start,
            vocoder=vocoder,
            batch=batch,
        )
        for path, clip in zip(places[start:], clips, strict=False):
            _write_clip(path, clip, voice.config.digest, spectrogram, force)
            heard = max(clip.probabilities, key=clip.probabilities.__getitem__)
            print(f"{path}: {clip.label or 'unconditional'}, seed {clip.seed}, heard as {heard} ({clip.probabilities[heard]:.3f})")


def _clip_paths(out: Path, label: str, seed: int, n: int, format: AudioFormat) -> list[Path]:
    """Where the clips go: `out` itself if it names a sound file, else files in the folder `out`."""
    if out.suffix and not out.is_dir():
        if out.suffix.lower() not in SOUND_SUFFIXES:
            raise OutputError(f"{out}: cannot write {out.suffix}; choose one of {', '.join(SOUND_SUFFIXES)}, or a folder without a dot")
        if n != 1:
            raise OutputError(f"{out} is one file, but {n} clips were asked for; give a folder")
        return [out]
    return [out / f"{label}_{number}.{format}" for number in range(seed, seed + n)]


def _suffixes(path: Path, spectrogram: bool) -> list[str]:
    return [path.suffix, ".json"] + [".png"] * spectrogram


def _refuse_existing(paths: list[Path], force: bool) -> None:
    """Fail before any work is done rather than after it."""
    for path in paths:
        if path.is_dir() or (path.exists() and not force):
            raise OutputError(f"{path} exists{' and is a folder' if path.is_dir() else '; add --force to overwrite it'}")
        parent = next(p for p in path.absolute().parents if p.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise OutputError(f"cannot write {path}: {'no permission to write in' if parent.is_dir() else 'not a folder:'} {parent}")


def _write_clip(path: Path, clip: Clip, digest: str, spectrogram: bool, force: bool) -> None:
    from duovox.audio import write_audio, write_whole
    from duovox.picture import sheet

    story = {
        "label": clip.label,
        "seed": clip.seed,
        "settings": to_dict(clip.settings),
        "vocoder": clip.vocoder,
        "bundle": digest,
        "duovox": __version__,
        "probabilities": {name: round(p, 6) for name, p in clip.probabilities.items()},
    }
    write_audio(path, clip.wave, clip.rate, force=force, parents=True)
    write_whole(path.with_suffix(".json"), (json.dumps(story, indent=2) + "\n").encode(), force=force)
    if spectrogram:
        write_whole(path.with_suffix(".png"), sheet([[clip.log_mel]]), force=force)


@app.command
def classify(
    sounds: Positional[tuple[Path, ...]],
    /,
    bundle: str = "sc06",
    trust_code: bool = False,
    as_json: Annotated[bool, arg(name="json")] = False,
    device: Literal["auto", "cpu", "cuda"] = "cpu",
) -> None:
    """Recognise the word in sound files, or in all sound files below a folder.

    Args:
        sounds: Files (wav, flac, ogg, opus, mp3) or folders. Of a longer sound the loudest second counts.
        bundle: Name of a bundle in the package, a bundle folder, or a hub id.
        trust_code: Run the code that a bundle of someone else's classifier names or holds.
        as_json: Print one JSON object with every label's probability per file.
        device: Where to compute.
    """
    from duovox.audio import READABLE
    from duovox.duovox import Duovox
    from duovox.training.start import choose_device

    files = [f for s in sounds for f in (_sounds_below(s, READABLE) if s.is_dir() else [s])]
    if not files:
        raise DuovoxError(f"no sound files ({', '.join(READABLE)}) in {', '.join(map(str, sounds)) or 'nothing'}")
    voice = Duovox.from_pretrained(bundle, trust_code=trust_code).to(choose_device(device))
    results: dict[str, dict[str, float]] = {}
    failed: list[str] = []
    for file in files:
        try:
            results[str(file)] = voice.classify(file)
        except DuovoxError as error:
            failed.append(str(error))
    if as_json:
        print(json.dumps(results, indent=2))
    else:
        for name, probabilities in results.items():
            best = sorted(probabilities.items(), key=lambda item: -item[1])[:3]
            print(f"{name}\t" + "\t".join(f"{label} {p:.3f}" for label, p in best))
    if failed:
        raise DuovoxError("\nduovox: ".join(failed))


def _sounds_below(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes and p.is_file())


@data_app.command
def fetch(name: Positional[Literal["sc09", "speech_commands_v0.01", "speech_commands_v0.02"]], /, out: Path = Path("data")) -> None:
    """Download an official data set, check its digest and unpack it; an interrupted download goes on where it stopped.

    Args:
        name: Which data set; sc09 is the ten digits of Speech Commands v0.01.
        out: Folder to unpack into.
    """
    from duovox.data.fetch import fetch as fetch_data

    print(fetch_data(name, out))


@data_app.command
def prepare(
    root: Positional[Path],
    /,
    out: Path,
    labels: str | None = None,
    recipe: str = "compact",
    workers: int = 2,
    force: bool = False,
) -> None:
    """Decode a folder of words (<root>/<label>/*.wav ...) or Speech Commands once into a feature folder.

    Args:
        root: The data set.
        out: The feature folder to write; left as it is where it is up to date.
        labels: Which words: `sc09`, or names separated by commas. All sub-folders if left out.
        recipe: Name or file of the recipe whose mel settings to use.
        workers: Decoding processes.
        force: Build again even if up to date.
    """
    from duovox.data import prepare as prepare_data

    manifest = prepare_data(root, out, read_recipe(recipe).mel, labels, force, workers=workers)
    print(f"{'label':12}" + "".join(f"{split:>12}" for split in ("train", "validation", "test")))
    for label, counts in manifest.counts.items():
        print(f"{label:12}" + "".join(f"{counts.get(split, 0):>12}" for split in ("train", "validation", "test")))
    for name, reason in list(manifest.skipped.items())[:10]:
        print(f"skipped {name}: {reason}")
    if len(manifest.skipped) > 10:
        print(f"... and {len(manifest.skipped) - 10} more, all in {out / 'manifest.json'}")


@app.command
def train(
    part: Positional[Literal["classifier", "subnet", "vocoder", "judge"]],
    /,
    data: Path,
    out: Path,
    recipe: str = "compact",
    resume: bool = False,
    time_budget: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    tensorboard: bool = False,
    on: Path | None = None,
) -> None:
    """Train one part into <out>/<part>/. The subnet needs the classifier in the same <out>.

    Stops cleanly, with a checkpoint, on Ctrl-C, SIGTERM and at the end of the time budget; --resume goes on.

    Args:
        part: What to train.
        data: Feature folder made by `duovox data prepare`.
        out: Folder for the runs of all parts.
        recipe: Name of a shipped recipe, or a TOML file.
        resume: Go on with the run in <out>/<part>/.
        time_budget: Stop after this long, as 90s, 20m or 1.5h.
        device: Where to compute; auto takes CUDA where there is one.
        precision: Arithmetic; auto takes bf16 where the hardware is fast at it.
        tensorboard: Also log for TensorBoard (extra `tensorboard`).
        on: Run folder of the classifier that the subnet is trained on; <out>/classifier if left out.
    """
    budget = parse_seconds(time_budget) if time_budget else math.inf
    settings = read_recipe(recipe)
    from duovox.training.start import start_training

    outcome = start_training(
        part, settings, data, out, resume=resume, time_budget=budget, device=device, precision=precision, tensorboard=tensorboard, on=on
    )
    state = "finished" if outcome.complete else "stopped (go on with --resume)"
    updates = getattr(settings, f"train_{part}").updates
    print(f"{part}: {state} at step {outcome.step} of {updates}; weights in {out / part / 'weights.safetensors'}")


def parse_seconds(text: str) -> float:
    """Seconds of a duration such as 90, 90s, 20m or 1.5h. Raises `ConfigError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match:
        raise ConfigError(f"time budget {text!r} is no duration; write it as 90s, 20m or 1.5h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


@app.command
def evaluate(
    what: Positional[str],
    /,
    data: Path,
    judge: Path | None = None,
    n: int | None = None,
    gamma: float | None = None,
    steps: int | None = None,
    sampler: Literal["heun", "dpmpp_2m", "euler_maruyama"] | None = None,
    unconditional: bool = False,
    clips: Path | None = None,
    recipe: str | None = None,
    trust_code: bool = False,
    quality: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    fid: bool = True,
    resamples: int = 200,
    batch: int = 8,
    device: Literal["auto", "cpu", "cuda"] = "cpu",
    out: Path | None = None,
    force: bool = False,
) -> None:
    """Score a folder of clips, anyone's, or a model, beside as many real train and test clips, by an independent judge.

    A clip's label is the key "label" of a JSON file beside it, or the name of its sub-folder. A model's clips are made first.

    Args:
        what: A folder of clips, at any depth; or a bundle (name, folder, hub id); or a folder of runs, the --out of trainings.
        data: Feature folder of the real recordings, made by `duovox data prepare`.
        judge: Weights of a judge trained on the same labels; the one in the package (zero..five) if left out.
        n: How many clips of each label a model makes, seeds 0, 1, ...; 50 if left out.
        gamma: Strength of the guidance, the model's own if left out.
        steps: Steps of the sampler, the model's own if left out.
        sampler: Which sampler, the model's own if left out.
        unconditional: Make as many clips in all, without labels.
        clips: Keep a model's clips in this folder, and go on with those there.
        recipe: The recipe of a folder of runs; `compact` if left out.
        trust_code: Run the code that a bundle of someone else's classifier names or holds.
        quality: Also measure quality without a reference: dnsmos, or an ONNX file such as SCOREQ's (extra `quality`).
        limit: Score this many clips, taken at random.
        seed: Seed of every random choice in scoring.
        fid: Compute FID, which needs more clips than the judge has features.
        resamples: Resamples of each bootstrap interval; 0 leaves them out.
        batch: Clips made at once; changes speed and memory, not the clips.
        device: Where to compute.
        out: Also write the report as <out>.json and <out>.md.
        force: Overwrite reports that exist.
    """
    places = [out.with_name(out.name + suffix) for suffix in (".json", ".md")] if out else []
    _refuse_existing(places, force)
    from duovox.audio import write_whole
    from duovox.evaluation.quality import load_quality
    from duovox.evaluation.report import Scoring, evaluate_folder
    from duovox.evaluation.systems import Generation, evaluate_model, open_system
    from duovox.training.start import choose_device

    packaged = Path(__file__).parent / "judges" / "sc06.safetensors"
    wanted = Generation(50 if n is None else n, gamma, steps, sampler, unconditional, batch)
    options = {"n": n, "gamma": gamma, "steps": steps, "sampler": sampler, "unconditional": unconditional or None, "clips": clips}
    given = [f"--{name}" for name, value in options.items() if value is not None]
    system, measure, chosen = open_system(what, recipe, trust_code), load_quality(quality) if quality else None, str(choose_device(device))
    if isinstance(system, Path) and given:
        raise ConfigError(f"{what} is a folder of clips; {', '.join(given)} would be for a model that makes them")
    scoring = Scoring(limit, seed, fid, measure, resamples, command="duovox " + shlex.join(sys.argv[1:]))
    if isinstance(system, Path):
        report = evaluate_folder(system, judge or packaged, data, scoring, chosen)
    else:
        report = evaluate_model(system, judge or packaged, data, wanted, clips, scoring, Path(what).resolve().name, chosen)
    for place, text in zip(places, (report.to_json(), report.to_markdown()), strict=False):
        write_whole(place, text.encode(), force=force, parents=True)
    print(report.to_markdown())


@app.command
def experiment(
    which: Positional[Literal["table1", "regimes", "gamma", "shift"]],
    /,
    data: Path,
    out: Path,
    results: Path | None = None,
    recipe: str = "compact",
    judge: Path | None = None,
    classifier: Path | None = None,
    vocoder: str | None = None,
    n: int = 50,
    seeds: int | None = None,
    updates: int | None = None,
    sampler: Literal["heun", "dpmpp_2m", "euler_maruyama"] | None = None,
    steps: int | None = None,
    words: Path | None = None,
    noise: Path | None = None,
    only: str | None = None,
    time_budget: str | None = None,
    quality: str | None = None,
    quality_clips: int = 40,
    fid: bool = True,
    batch: int = 8,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "fp32", "bf16"] = "auto",
) -> None:
    """Train the score models of an experiment with equal budget, sample and score them, and write a page.

    table1 compares the U-Net, the Score Subnet and its gradient taps; regimes trains on little data, or on some labels alone; gamma
    varies the guidance of the recipe's own system; shift trains on noisy recordings and on words the classifier does not know.
    Does what is missing: call it again after an interruption, or to go on.

    Args:
        which: The experiment.
        data: Feature folder made by `duovox data prepare`.
        out: Folder for trainings and clips; experiments may share it.
        results: Folder for the page, its plots, pictures and sounds; <out>/results if left out.
        recipe: Name of a shipped recipe, or a TOML file.
        judge: Weights of a judge trained on the same labels; the one in the package (zero..five) if left out.
        classifier: Run folder of a classifier trained with the same recipe and data; one is trained if left out.
        vocoder: A bundle (name, folder, hub id) whose vocoder makes the sound; Griffin-Lim if left out.
        n: How many clips of each label in a trial.
        seeds: How many sets of sampling seeds; 3 (gamma: 1) if left out.
        updates: Updates of every score model, instead of the recipe's.
        sampler: Which sampler, instead of the recipe's.
        steps: Its steps, instead of the recipe's.
        words: For shift: feature folder of words that the classifier does not know.
        noise: For shift: folder of noise recordings.
        only: The name of one system: do nothing for the others.
        time_budget: Stop after this long, as 90s, 20m or 1.5h.
        quality: Also measure quality without a reference: dnsmos, or an ONNX file such as SCOREQ's (extra `quality`).
        quality_clips: On how many clips of each set quality is measured, at most.
        fid: Compute FID, where there are more clips than the judge has features.
        batch: Clips made at once; changes speed and memory, not the clips.
        device: Where to compute; auto takes CUDA where there is one.
        precision: Arithmetic of trainings and sampling; auto takes bf16 where the hardware is fast at it.
    """
    budget, settings = parse_seconds(time_budget) if time_budget else math.inf, read_recipe(recipe)
    from duovox.experiments.suite import Options, run_experiment

    options = Options(
        settings,
        data,
        out,
        judge,
        classifier,
        vocoder,
        n,
        seeds,
        updates,
        only,
        budget,
        quality,
        fid,
        device,
        precision,
        batch,
        sampler,
        steps,
        words,
        noise,
        quality_clips,
        results,
    )
    finished = run_experiment(which, options)
    print(f"{finished.page}: " + (f"left to do: {'; '.join(finished.left)}; the same command goes on" if finished.left else "complete"))


@app.command
def inspect(
    what: Positional[str] = "sc06",
    /,
    data: Path | None = None,
    trust_code: bool = False,
    as_json: Annotated[bool, arg(name="json")] = False,
) -> None:
    """Say what a bundle or a recipe is: parameters, multiply-accumulates a step, settings, origin, scores.

    Args:
        what: A bundle (name, folder, hub id), or a recipe (name or TOML file).
        data: Feature folder; adds the classifier's accuracy at each noise level on its test split (bundles only).
        trust_code: Run the code that a bundle of someone else's classifier names or holds.
        as_json: Print JSON.
    """
    from duovox.inspection import describe, describe_text

    facts = describe(what, data, trust_code)
    print(json.dumps(facts, indent=2) if as_json else describe_text(facts))


@app.command
def bundle(
    runs: Positional[Path],
    /,
    out: Path,
    recipe: str = "compact",
    card: Path | None = None,
    scores: Path | None = None,
    vocoder: str | None = None,
    force: bool = False,
) -> None:
    """Make a bundle of the runs in a folder: classifier, subnet and, if there is one, vocoder.

    Args:
        runs: The --out of the trainings.
        out: The bundle folder to write.
        recipe: The recipe the parts were trained with; its default sampling settings become the bundle's.
        card: A Markdown file that becomes the model card.
        scores: A JSON file of scores to keep in the bundle.
        vocoder: A bundle (name, folder, hub id) whose vocoder to use where the runs hold none.
        force: Replace a bundle that is there.
    """
    from duovox.bundle import write_bundle
    from duovox.duovox import Duovox
    from duovox.training.assemble import assemble

    borrowed = Duovox.from_pretrained(vocoder).bundle.vocoder if vocoder else None
    figures, text = _read_json(scores) if scores else {}, _read_text(card) if card else ""
    made = assemble(runs, read_recipe(recipe), figures, text, vocoder=borrowed)
    config = write_bundle(made, out, force)
    print(f"{out}: {', '.join(config.labels)}; digest {config.digest[:12]}")


@app.command
def taps(
    source: Positional[str],
    /,
    weights: Path | None = None,
    arguments: str = "{}",
    takes: str | None = None,
    output: str = "",
    recipe: str = "compact",
    all_layers: Annotated[bool, arg(name="all")] = False,
) -> None:
    """List the layers of someone else's classifier that can be tapped, in order of running; * marks those taken if none are named.

    Cost is what reading a layer with its gradient adds to a denoising step, in millions of multiply-accumulates.

    Args:
        source: The classifier: package.module:function, a Hugging Face folder, or a file of torch.export (.pt2) or TorchScript.
        weights: A safetensors file that fills the function's network.
        arguments: The function's keyword arguments, as a JSON object.
        takes: What it takes: `mel` (ours), `wave` or `wave:B1S:8000` (layout, one second), or a TOML file with [mel_input] or [wave_input].
        output: Which entry of its output holds the logits, if it returns several things.
        recipe: The recipe whose decoder the layers are to feed.
        all_layers: List the layers that cannot be tapped as well, and why.
    """
    from duovox.classifiers.loading import load_network
    from duovox.repurposing import guess_labels, repurpose

    loaded = load_network(source, weights, _json_object(arguments))
    features = read_input(takes) if takes else None
    labels = loaded.labels or guess_labels(loaded, features, output, recipe)
    made = repurpose(loaded, labels, features, output=output, recipe=recipe)
    print(made.layers_table(all_layers))


@app.command(name="repurpose")
def repurpose_classifier(
    source: Positional[str],
    /,
    data: Path,
    out: Path,
    weights: Path | None = None,
    arguments: str = "{}",
    takes: str | None = None,
    labels: str | None = None,
    taps: tuple[str, ...] = (),
    output: str = "",
    conditioned: bool = False,
    recipe: str = "compact",
) -> None:
    """Make someone else's classifier ready to be trained to speak: writes it and its recipe to <out>.

    Then `duovox train subnet --recipe <out>/recipe.toml` and so on; the commands to go on with are printed.

    Args:
        source: The classifier: package.module:function, a Hugging Face folder, or a file of torch.export (.pt2) or TorchScript.
        data: Feature folder made by `duovox data prepare`, of words that it knows.
        out: Folder for the classifier and the trainings.
        weights: A safetensors file that fills the function's network.
        arguments: The function's keyword arguments, as a JSON object.
        takes: What it takes: `mel` (ours), `wave` or `wave:B1S:8000` (layout, one second), or a TOML file with [mel_input] or [wave_input].
        labels: Its labels in the order of its outputs, separated by commas.
        taps: The layers to tap; a sensible set if left out (see `duovox taps`).
        output: Which entry of its output holds the logits, if it returns several things.
        conditioned: Have a copy of it fine-tuned on noise first (`duovox train classifier`).
        recipe: The recipe that gives mel, noise, decoder and training.
    """
    from duovox.classifiers.loading import load_network
    from duovox.repurposing import repurpose

    loaded = load_network(source, weights, _json_object(arguments))
    names = [name.strip() for name in labels.split(",")] if labels else None
    features = read_input(takes) if takes else None
    made = repurpose(loaded, names, features, taps or None, output=output, conditioned=conditioned, recipe=recipe)
    place = made.write(data, out)
    print(f"taps: {', '.join(made.taps) or 'its input alone'}\nnext:")
    for part in ("classifier", "subnet") if conditioned else ("subnet",):
        print(f"  duovox train {part} --data {data} --out {out} --recipe {place}")
    print(f"  duovox bundle {out} --out {out / 'bundle'} --recipe {place}" + (" --vocoder sc06" if made.vocoder else ""))
    print(f"  duovox calibrate {out / 'bundle'} --data {data}" + " --trust-code" * (loaded.source != "huggingface"))


@app.command
def calibrate(
    bundle: Positional[Path], /, data: Path, out: Path | None = None, limit: int = 256, trust_code: bool = False, force: bool = False
) -> None:
    """Fit one temperature a noise level to a bundle's classifier, on the validation split; print what that changes on the test split.

    Args:
        bundle: A bundle folder; it is changed in place unless --out is given.
        data: Feature folder made by `duovox data prepare`.
        out: Write the calibrated bundle here instead.
        limit: About how many clips of each split to use.
        trust_code: Run the code that a bundle of someone else's classifier names or holds.
        force: Replace a bundle that is at --out.
    """
    from duovox.duovox import Duovox
    from duovox.training.calibration import levels_table

    voice = Duovox.from_pretrained(bundle, trust_code=trust_code)
    print(levels_table(voice.calibrate(data, limit)))
    voice.save_pretrained(out or bundle, force=force or out is None)


@app.command
def serve(
    bundle: str = "sc06",
    host: str = "127.0.0.1",
    port: int = 8000,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    trust_code: bool = False,
    max_batch: int = 16,
    wait_ms: float = 5,
    queue: int = 64,
    timeout: float = 60,
    token_file: Path | None = None,
    cors: tuple[str, ...] = (),
    max_upload_mb: float = 5,
    max_upload_seconds: float = 30,
) -> None:
    """Serve a page to speak and listen with, and the HTTP API behind it (see /docs there). Ctrl-C or SIGTERM ends it.

    Args:
        bundle: Name of a bundle in the package, a bundle folder, or a hub id.
        host: Address to listen on; 0.0.0.0 is every address of this machine.
        port: Port to listen on; 0 takes a free one.
        device: Where to compute; auto takes CUDA where there is one.
        trust_code: Run the code that a bundle of someone else's classifier names or holds.
        max_batch: Clips computed at once.
        wait_ms: How long the first clip of a batch waits for others.
        queue: With so many clips waiting, further requests are turned away (429).
        timeout: Seconds until a request is given up (504).
        token_file: A file with a token that requests to /v1 and /metrics must then bring (Authorization: Bearer ...).
        cors: Origins of other pages that may use the API, as https://example.org.
        max_upload_mb: Largest sound file that may be sent.
        max_upload_seconds: Longest sound that may be sent.
    """
    _require_extra("serve", ("fastapi", "uvicorn", "python_multipart", "prometheus_client"))
    from duovox.serve.run import serve as run_server
    from duovox.serve.settings import ServeConfig, read_token

    config = ServeConfig(
        bundle=bundle,
        host=host,
        port=port,
        max_batch=max_batch,
        wait_seconds=wait_ms / 1000,
        queue=queue,
        timeout=timeout,
        token=read_token(token_file) if token_file else None,
        cors=cors,
        upload_bytes=int(max_upload_mb * 2**20),
        upload_seconds=max_upload_seconds,
    )

    def load() -> Duovox:
        from duovox.duovox import Duovox
        from duovox.training.start import choose_device

        return Duovox.from_pretrained(bundle, trust_code=trust_code).to(choose_device(device))

    run_server(load, config)


def _require_extra(extra: str, parts: tuple[str, ...]) -> None:
    missing = [part for part in parts if find_spec(part) is None]
    if missing:
        raise DuovoxError(f"{', '.join(missing)} not installed: pip install 'duovox[{extra}]'")


@app.command
def judge(weights: Positional[Path], /, labels: str, out: Path, force: bool = False) -> None:
    """Make a judge of public ResNeXt-29 8x64 weights, for `--judge` of the other commands.

    Every tensor's name and shape must be right. To train one instead: `duovox train judge`, with judge = "resnext29" in the recipe
    (`paper` has it).

    Args:
        weights: A safetensors file of the weights alone; pickled files are refused.
        labels: The words it was trained on, in the order of its outputs, separated by commas.
        out: The judge file to write.
        force: Overwrite a file that exists.
    """
    from duovox.evaluation.judge import Judge

    made = Judge.import_resnext(weights, [name.strip() for name in labels.split(",")])
    made.save(out, force=force)
    print(f"{out}: {made.kind}, {len(made.labels)} labels, digest {made.digest}")


def _json_object(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--arguments {text!r} is no JSON object: {error}") from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DuovoxError(f"cannot read {path}: {error}") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(_read_text(path)))
    except (TypeError, ValueError) as error:
        raise DuovoxError(f"{path} is not a JSON object: {error}") from None


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 an error of ours, 2 wrong usage, 130 interrupted."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold what the terminal cannot show
    try:
        try:
            app.cli(prog="duovox", description="One speech classifier, two jobs: it recognises words and speaks them.", args=arguments)
        finally:
            sys.stdout.flush()
    except DuovoxError as error:
        print(f"duovox: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("duovox: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # what the file system says to a path of the user's, where no part of ours says it better
        print(f"duovox: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""), file=sys.stderr)
        return 1
    return 0
