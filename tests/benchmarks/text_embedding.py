"""Cost of turning a study's explanations into vectors, and of training's first look at them.

Made: a study of N explanations (random words of the preset ``generic``, no images), embedded by the default encoder or
by one from a folder; then a folder of N ``.npy`` files, imported. Told are ms a phrase (after loading), the seconds of
each part, and the size on disk.

Run: ``python -m tests.benchmarks.text_embedding [--explanations 2000] [--folder DIR]``
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from segmentation.explanation import Explanation, all_phrases, choose_explanation
from segmentation.explanation_presets import load_preset
from segmentation.job import RunSpec
from segmentation.records import StudyImage
from segmentation.study import Study
from segmentation.text.embedding import embed_study
from segmentation.text.encoder import FLIP_STATES, Encoder, MiniLM, PhraseCache, phrase_when_flipped
from segmentation.text.folder_encoder import FolderEncoder
from segmentation.text.imported import ImportedEmbeddings, import_embeddings
from segmentation.text.phrases import phrase_table


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--explanations", type=int, default=2000)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    preset, rng = load_preset(), np.random.default_rng(0)
    encoder: Encoder = FolderEncoder.examine(args.folder) if args.folder else MiniLM()
    begun = time.perf_counter()
    encoder.encode(["round shape"])
    say(f"{encoder.name}: loaded in {time.perf_counter() - begun:.2f} s, {encoder.width} wide")
    phrases = sorted(
        {phrase_when_flipped(phrase, state) for phrase in all_phrases(preset) for state in range(FLIP_STATES)}
    )
    begun = time.perf_counter()
    encoder.encode(phrases)
    seconds = time.perf_counter() - begun
    say(
        f"all {len(phrases)} phrases of {preset.id}: {seconds:.2f} s, {1000 * seconds / len(phrases):.2f} ms a phrase"
    )

    with tempfile.TemporaryDirectory() as temporary:
        study = Study.create(Path(temporary) / "study")
        ids = [f"image_{number:05d}" for number in range(args.explanations)]
        study.add_images(_image(image_id) for image_id in ids)
        for image_id in ids:
            words = {
                one.name: str(rng.choice(one.words)) if one.words else float(rng.uniform(1, 60))
                for one in preset.attributes
                if one.words or one.kind == "percent"
            }
            explanation = Explanation(image_id, study.targets[0].id, "measured", "", "", words, "", "")
            choose_explanation(study, explanation)
        for label in ("embedding", "embedding again"):
            begun = time.perf_counter()
            count = embed_study(study, encoder)
            say(f"{label} {len(ids)} explanations ({count} phrases): {time.perf_counter() - begun:.2f} s")
        spec = RunSpec(targets=(study.targets[0].id,))
        begun = time.perf_counter()
        table = phrase_table(study, ids, spec, PhraseCache(study.folder, encoder))
        say(f"the table that training reads, {table.rows.shape}: {time.perf_counter() - begun:.2f} s")
        size = sum(path.stat().st_size for path in (study.folder / "embeddings").rglob("*.safetensors"))
        say(f"on disk: {size / 1e6:.2f} MB")

        folder = Path(temporary) / "npy"
        folder.mkdir()
        for image_id in ids:
            np.save(folder / f"{image_id}.npy", rng.normal(size=(1, 6, 768)).astype(np.float32))
        begun = time.perf_counter()
        report = import_embeddings(study, folder)
        say(f"importing {report.images} files of (1, 6, 768): {time.perf_counter() - begun:.2f} s")
        begun = time.perf_counter()
        spec = dataclasses.replace(spec, text_embeddings="text")
        table = phrase_table(study, ids, spec, ImportedEmbeddings(study, "text", spec.targets))
        say(f"their table, {table.vectors.shape}: {time.perf_counter() - begun:.2f} s")


def _image(image_id: str) -> StudyImage:
    return StudyImage(image_id, f"{image_id}.png", f"{image_id}.png", "0" * 64, (48, 64, 3))


if __name__ == "__main__":
    main()
