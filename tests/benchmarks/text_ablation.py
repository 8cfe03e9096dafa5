"""Does the teacher use its text? The same networks and seeds with true, shuffled, empty and area-only explanations.

Teacher and student are held against the true masks of a split that training never reads. Cells (a text and a seed) run
in parallel processes, one JSON line each in the results file; those already there are not run again.

    python -m tests.benchmarks.text_ablation STUDY --prepare
    python -m tests.benchmarks.text_ablation STUDY --split validation --seeds 3 --jobs 2 --out results.jsonl

`--prepare` encodes all phrases, so that the rest needs neither the text encoder nor anything beside numpy, scipy, cv2,
torch, transformers and safetensors; `--pack FILE.tar.gz` also writes what training reads of the study, with the
program's code, for a machine that has nothing else.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from segmentation.bootstrap import clustered_interval
from segmentation.job import Kind, RunSpec
from segmentation.machine import processors
from segmentation.presets import preset
from segmentation.study import Study

TEXTS = ("explanation", "shuffled", "empty", "area-only")
READINGS = ("explanation", "shuffled", "empty", "area-only")
"""What a teacher that learned from explanations is given to read, beside what it learned from."""
SAY_SECONDS = 20.0
ROOT = Path(__file__).parents[2]


def say(sentence: str) -> None:
    """Print a line at once."""
    sys.stdout.write(sentence + "\n")
    sys.stdout.flush()


# One cell, in a process of its own


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run: a text and a seed, and where it is measured."""

    study: str
    spec: RunSpec
    split: str
    threads: int

    @property
    def name(self) -> str:
        """Its name in the progress."""
        return f"{self.spec.text}/{self.spec.seed}"

    @property
    def settings(self) -> dict[str, Any]:
        """All that cells to be compared have in common, JSON-ready."""
        apart = ("text", "seed", "notes", "device", "preset")
        values = {key: value for key, value in self.spec.to_json().items() if key not in apart}
        return json.loads(json.dumps({**values, "measured_on": self.split}))  # type: ignore[no-any-return]


class Reporter:
    """Says now and then how far a cell is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._last = time.monotonic()

    def __call__(self, kind: Kind, step: int, total: int, **values: Any) -> None:
        """Take an event."""
        due = time.monotonic() - self._last > SAY_SECONDS
        if kind == "started":
            say(f"  {self.name}: {values['images']} images, {values['device']}, {values['precision']}")
        elif kind == "step" and (due or step == total):
            self._last = time.monotonic()
            losses = " ".join(f"{name} {loss:.3f}" for name, loss in values["losses"].items())
            say(f"  {self.name}: {step}/{total}, {values['images_per_s']:.0f} images/s, {losses}")


def run_cell(cell: Cell) -> dict[str, Any]:
    """Train and measure a cell; returns its line."""
    import torch

    from segmentation.runs import create_run
    from segmentation.training import train

    torch.set_num_threads(cell.threads)
    torch.backends.cudnn.benchmark = True
    study = Study.open(cell.study)
    begun = time.monotonic()
    run = create_run(study, cell.spec)
    train(study, run, Reporter(cell.name), threads=cell.threads)
    trained = time.monotonic()
    line = {
        "text": cell.spec.text,
        "seed": cell.spec.seed,
        "settings": cell.settings,
        "run": run.id,
        "seconds": round(trained - begun, 1),
        **measure(study, run.id, cell),
    }
    return {**line, "seconds_measuring": round(time.monotonic() - trained, 1)}


def spec_reading(spec: RunSpec, text: str) -> RunSpec:
    """Return the spec with another kind of text."""
    return dataclasses.replace(spec, text=text)  # type: ignore[arg-type]


def measure(study: Study, run_id: str, cell: Cell) -> dict[str, Any]:
    """Return Dice by network and image; the teacher reads its own kind of text, then all others."""
    from segmentation.metrics import dice
    from segmentation.predictor import Predictor
    from segmentation.runs import RunFolder
    from segmentation.text.embedding import text_of
    from segmentation.text.phrases import phrase_table

    run = RunFolder(study.runs_folder / run_id)
    spec = run.spec
    predictor = Predictor(run, device=cell.spec.device)
    images = [
        image
        for image in study.images_of(cell.split)
        if all(study.mask_path(image.id, target_id).exists() for target_id in spec.targets)
    ]
    pixels = [study.network_input(image, spec.normalisation) for image in images]
    truths = [[study.true_mask(image.id, target_id) for target_id in spec.targets] for image in images]
    said = text_of(study, spec, None, None)
    ids = [image.id for image in images]
    tables = {
        text: phrase_table(study, ids, spec_reading(spec, text), said)
        for text in dict.fromkeys((spec.text, *READINGS))
    }
    looks: dict[str, tuple[str, Any]] = {"student": ("student", None), "teacher": ("teacher", spec.text)}
    looks |= {f"teacher reads {reading}": ("teacher", reading) for reading in READINGS}
    found: dict[str, dict[str, float]] = {}
    for look, (network, text) in looks.items():
        scores: dict[str, float] = {}
        for start in range(0, len(images), 16):
            part = np.arange(start, min(start + 16, len(images)))
            told = tables[text].text(part) if text else None
            for number, stack in zip(
                part, predictor.predict([pixels[index] for index in part], network, told), strict=True
            ):
                for target_id, probability, truth in zip(spec.targets, stack, truths[number], strict=True):
                    assert truth is not None
                    scores[f"{ids[number]}.{target_id}"] = round(dice(probability >= 0.5, truth), 5)
        found[look] = scores
    groups = {
        f"{image.id}.{target_id}": image.group or image.id for image in images for target_id in spec.targets
    }
    strengths = [round(one, 4) for one in predictor.network("teacher").strengths()]  # type: ignore[operator]
    return {
        "strengths": strengths,
        "explained": tables["explanation"].explained,
        "dice": found,
        "groups": groups,
    }


# All cells


def cells_of(args: argparse.Namespace) -> list[Cell]:
    """Return the cells that were asked for, a seed's together."""
    changes: dict[str, Any] = {"max_minutes": None, "device": args.device, "split": args.train_split}
    # Not left to a trial: cells that are compared must not differ in it.
    changes |= {"precision": "fp32" if args.device == "cpu" else "bf16"}
    changes |= {"iterations": args.iterations} if args.iterations else {}
    changes |= {"image_size_px": args.image_size} if args.image_size else {}
    for item in args.set:
        name, _, value = item.partition("=")
        try:
            changes[name] = json.loads(value)
        except json.JSONDecodeError:
            changes[name] = value
    study = Study.open(args.study)
    targets = tuple(target.id for target in study.targets)
    spec = preset("gaze-to-insight", args.preset, targets=targets, **changes)
    if args.split == spec.split or spec.holdout:
        raise UserError("The split that is measured must not be the one that is trained on; see --split.")
    cores = processors()
    threads = max(1, cores // args.jobs)
    return [
        Cell(str(study.folder), dataclasses.replace(spec_reading(spec, text), seed=seed), args.split, threads)
        for seed in range(args.first_seed, args.first_seed + args.seeds)
        for text in args.texts
    ]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the cells of a results file; a torn last line is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def run_all(cells: list[Cell], args: argparse.Namespace) -> None:
    """Run the cells that the results file has not, several at once."""
    known = {
        (json.dumps(line["settings"], sort_keys=True), line["text"], line["seed"])
        for line in read_lines(args.out)
    }
    waiting = [
        cell
        for cell in cells
        if (json.dumps(cell.settings, sort_keys=True), cell.spec.text, cell.spec.seed) not in known
    ]
    say(f"{len(waiting)} of {len(cells)} cells to run, {args.jobs} at once, into {args.out}")
    if not waiting:
        return
    begun = time.monotonic()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    # Fork would carry a GPU's context into children, where it does not work.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(args.jobs, len(waiting)), mp_context=context) as pool:
        futures = {pool.submit(run_cell, cell): cell for cell in waiting}
        for number, future in enumerate(as_completed(futures), start=1):
            cell = futures[future]
            try:
                line = future.result()
            except Exception as error:  # one cell's failure must not take the others
                say(f"FAILED {cell.name}: {type(error).__name__}: {error}")
                continue
            with open(args.out, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
            means = " ".join(
                f"{look} {np.mean(list(scores.values())):.4f}" for look, scores in line["dice"].items()
            )
            say(f"{number}/{len(waiting)} {cell.name} after {time.monotonic() - begun:.0f} s: {means}")


# The table


class Results:
    """Dice (S, N) of all cells with the same settings, by text and by look."""

    def __init__(self, lines: list[dict[str, Any]]) -> None:
        by_text: dict[str, dict[int, dict[str, Any]]] = {}
        for line in lines:
            by_text.setdefault(line["text"], {})[line["seed"]] = line
        self.lines = by_text
        self.keys = sorted(lines[0]["groups"])
        self.groups = [lines[0]["groups"][key] for key in self.keys]

    def table(self, text: str, look: str, seeds: Iterable[int]) -> npt.NDArray[np.float64]:
        """Return Dice (S, N) of some seeds."""
        return np.array([[self.lines[text][seed]["dice"][look][key] for key in self.keys] for seed in seeds])

    def compared(self, one: tuple[str, str], other: tuple[str, str]) -> str:
        """Return the difference of two (text, look) over the seeds both have."""
        if one[0] not in self.lines or other[0] not in self.lines:
            return "not run"
        seeds = sorted(set(self.lines[one[0]]) & set(self.lines[other[0]]))
        if one == other or not seeds:
            return "-"
        return str(clustered_interval(self.table(*one, seeds) - self.table(*other, seeds), self.groups))


def print_table(lines: list[dict[str, Any]]) -> None:
    """Print what was found, one table for each kind of settings."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        kinds.setdefault(json.dumps(line["settings"], sort_keys=True), []).append(line)
    shown = ("image_size_px", "iterations", "batch_size", "teacher_widths", "student_widths", "measured_on")
    plain = {key: value for key, value in json.loads(next(iter(kinds), "{}")).items()}
    for kind, items in kinds.items():
        settings = json.loads(kind)
        results = Results(items)
        others = {
            key: value for key, value in settings.items() if key not in shown and value != plain.get(key)
        }
        say("")
        say(", ".join(f"{key} {settings[key]}" for key in shown) + (f"; {others}" if others else ""))
        say(
            f"{len(results.keys)} masks in {len(set(results.groups))} groups, {items[0]['explained']} explained; "
            f"{np.mean([item['seconds'] for item in items]):.0f} s a cell; "
            "differences with 95 % intervals over groups and seeds"
        )
        say(f"{'text':<12} {'network':<8} seeds   Dice  SD of seeds  minus explanation         minus empty")
        for text in [text for text in TEXTS if text in results.lines]:
            seeds = sorted(results.lines[text])
            for look in ("teacher", "student"):
                means = results.table(text, look, seeds).mean(axis=1)
                spread = f"{means.std(ddof=1):.4f}" if len(means) > 1 else "   -  "
                against = [
                    results.compared((text, look), (other, look)) for other in ("explanation", "empty")
                ]
                row = f"{text:<12} {look:<8} {len(seeds):>5} {means.mean():.4f}       {spread}"
                say(f"{row}  {against[0]:<25} {against[1]}")
        for text in [text for text in TEXTS if text in results.lines]:
            strengths = [line["strengths"] for line in results.lines[text].values()]
            say(f"lambda by scale, finest first, {text:<12} {np.mean(strengths, axis=0).round(3).tolist()}")
        say("a teacher given another text than it learned from")
        for text in [text for text in TEXTS if text in results.lines and text != "empty"]:
            seeds = sorted(results.lines[text])
            for reading in READINGS:
                look = f"teacher reads {reading}"
                mean = results.table(text, look, seeds).mean()
                difference = results.compared((text, look), (text, f"teacher reads {text}"))
                say(f"  learned {text:<12} reads {reading:<12} {mean:.4f}  {difference}")


# Preparing


def prepare(study: Study, pack: Path | None) -> None:
    """Encode all phrases; pack what training reads, with the code."""
    from segmentation.text.embedding import embed_study

    say(f"{embed_study(study)} phrases are encoded")
    if pack is None:
        return
    pack.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(pack, "w:gz", compresslevel=3) as archive:
        for name in ("gaze_capture", "segmentation", "resources", "tests/__init__.py", "tests/benchmarks"):
            archive.add(ROOT / name, name, filter=_no_caches)
        for part in ("study.json", "images", "masks", "fixations", "embeddings", "presets", "reviews"):
            if (study.folder / part).exists():
                archive.add(study.folder / part, f"study/{part}")
        for path in sorted((study.folder / "explanations").glob("*.json")):
            archive.add(path, f"study/explanations/{path.name}")
        if (study.folder / "explanations.json").exists():
            archive.add(study.folder / "explanations.json", "study/explanations.json")
        for image_id, target_id in sorted(study.pseudomask_keys()):
            pseudomask = study.pseudomask(image_id, target_id)
            assert pseudomask is not None
            # Training reads the levels alone, and a heatmap is nine tenths of the file.
            blank = dataclasses.replace(pseudomask, heatmap=np.zeros_like(pseudomask.heatmap))
            path = Path(scratch) / "one.npz"
            path.write_bytes(blank.to_bytes())
            archive.add(path, f"study/pseudomasks/{image_id}.{target_id}.npz")
    say(
        f"{pack}: {pack.stat().st_size / 2**20:.1f} MiB; unpacked, the study is in study/, the code beside it"
    )


def _no_caches(item: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in item.name else item


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path)
    parser.add_argument("--prepare", action="store_true", help="only encode the phrases")
    parser.add_argument(
        "--pack", type=Path, metavar="FILE.tar.gz", help="only encode them and pack the study"
    )
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument("--out", type=Path, default=Path("text_ablation.jsonl"))
    parser.add_argument("--texts", nargs="+", choices=TEXTS, default=list(TEXTS))
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--first-seed", type=int, default=0, metavar="N")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="cells at once")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--train-split", default="train")
    parser.add_argument("--split", default="validation", help="measured, never trained on")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a field of the RunSpec"
    )
    args = parser.parse_args()
    try:
        if args.prepare or args.pack:
            prepare(Study.open(args.study), args.pack)
            return
        if not args.table:
            run_all(cells_of(args), args)
    except UserError as error:
        sys.exit(str(error))
    lines = read_lines(args.out)
    if not lines:
        sys.exit(f"{args.out} holds no results.")
    print_table(lines)


if __name__ == "__main__":
    main()
