"""Whether all that a study holds in words is whole: explanations, own words, presets, permissions, embeddings."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from gaze_capture.errors import UserError
from segmentation.explanation import read_explanation
from segmentation.explanation_presets import load_preset, own_folder, read_preset
from segmentation.explanation_settings import SETTINGS_NAME, load_settings
from segmentation.own_words_store import read_own_words_file
from segmentation.problem import Problem
from segmentation.safetensors_files import check_imported, read_header
from segmentation.sending import FOLDER_NAME, read_permission
from segmentation.study import Study

Belongs = Callable[[Path, str, str | None, str], Iterable[Problem]]
"""Says whether a file is of an image and a target that the study has: file, image, target, and what it is."""
Check = Callable[[], Iterable[Problem]]

EXPLAIN_AGAIN = "Delete it and explain the image again."
OUT_OF_IT = "Move it out of the study."
ALLOW_AGAIN = "Delete it; where it allowed something, that is asked for again."


class TextVerifier:
    """Checks of a study's words; `checked` counts what was looked at.

    Parameters
    ----------
    study : whose files are read, and left alone
    belongs : see `Belongs`
    checked : counts of each kind, added to
    """

    def __init__(self, study: Study, belongs: Belongs, checked: Counter[str]) -> None:
        self.study = study
        self.folder = study.folder
        self.belongs = belongs
        self.checked = checked

    def checks(self) -> Iterator[tuple[str, Check]]:
        """Yield what is to be looked at, by its name, and how."""
        explanations = self.folder / "explanations"
        for path in _ending(explanations, ".json"):
            self.checked["explanations"] += 1
            key = _key(path.stem)
            yield self._name(path), functools.partial(self._explanation, path, key, earlier=False)
        for folder in _folders(explanations / "history"):
            for path in _ending(folder, ".json"):
                self.checked["earlier explanations"] += 1
                key = _key(folder.name)
                yield self._name(path), functools.partial(self._explanation, path, key, earlier=True)
        for folder in _folders(explanations / "words"):
            for path in _ending(folder, ".json"):
                self.checked["own words"] += 1
                yield self._name(path), functools.partial(self._words, path, _key(folder.name))
        for path in sorted({*_ending(own_folder(self.folder), ".json"), *_prompts(own_folder(self.folder))}):
            self.checked["presets"] += 1
            yield self._name(path), functools.partial(self._preset, path)
        settings = self.folder / SETTINGS_NAME
        if settings.exists():
            yield SETTINGS_NAME, self._settings
        for path in _ending(self.folder / FOLDER_NAME, ".json"):
            self.checked["permissions"] += 1
            yield self._name(path), functools.partial(self._permission, path)
        for folder in _folders(self.folder / "embeddings"):
            for path in _ending(folder, ".safetensors"):
                self.checked["text embeddings"] += 1
                yield self._name(path), functools.partial(self._embeddings, path)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _explanation(self, path: Path, key: tuple[str, str], earlier: bool) -> Iterator[Problem]:
        stray = list(self.belongs(path, *key, "an earlier explanation" if earlier else "the explanation"))
        yield from stray
        try:
            made = read_explanation(path)
        except UserError:
            yield Problem(self._name(path), "is damaged.", EXPLAIN_AGAIN)
            return
        if not stray:
            yield from self._in_place(path, key, (made.image_id, made.target_id))
        if earlier or (own_folder(self.folder) / f"{made.preset}.json").exists():
            return
        try:
            load_preset(made.preset, self.folder)
        except UserError as error:
            yield Problem(self._name(path), f"was made by a preset that is not there: {error}", EXPLAIN_AGAIN)

    def _words(self, path: Path, key: tuple[str, str]) -> Iterator[Problem]:
        stray = list(self.belongs(path, *key, "what somebody said"))
        yield from stray
        try:
            own = read_own_words_file(path)
        except UserError:
            yield Problem(self._name(path), "is damaged.", "Delete it and say it again.")
            return
        if not stray:
            yield from self._in_place(path, key, (own.image_id, own.target_id))

    def _in_place(self, path: Path, key: tuple[str, str], says: tuple[str, str]) -> Iterator[Problem]:
        if says != key:
            yield Problem(self._name(path), f"is about {'.'.join(says)}, in the place of another.", OUT_OF_IT)

    def _preset(self, path: Path) -> Iterator[Problem]:
        try:
            read_preset(path)
        except UserError as error:
            yield Problem(
                self._name(path), f"is no preset: {error}", "Correct it, or move it out of the study."
            )

    def _settings(self) -> Iterator[Problem]:
        try:
            settings = load_settings(self.study)
        except UserError:
            yield Problem(SETTINGS_NAME, "is damaged.", "Delete it to start from the usual settings.")
            return
        try:
            load_preset(settings.preset, self.folder)
        except UserError as error:
            if not (own_folder(self.folder) / f"{settings.preset}.json").exists():
                yield Problem(
                    SETTINGS_NAME,
                    f"names a preset that is not there: {error}",
                    "Choose another with --preset: gaze-insight explanation-settings STUDY",
                )

    def _permission(self, path: Path) -> Iterator[Problem]:
        try:
            read_permission(path)
        except UserError:
            yield Problem(
                self._name(path), "is damaged, and nothing is sent anywhere until it is gone.", ALLOW_AGAIN
            )

    def _embeddings(self, path: Path) -> Iterator[Problem]:
        if not path.parent.name.startswith("imported-"):
            try:
                read_header(path)
            except UserError:
                yield Problem(
                    self._name(path),
                    "is damaged.",
                    "Delete its folder; it is made again from the explanations.",
                )
            return
        try:
            image_ids = check_imported(path)
        except UserError:
            yield Problem(
                self._name(path),
                "is damaged or not what was imported.",
                "Delete its folder and import the embeddings again.",
            )
            return
        for image_id in image_ids:
            yield from self.belongs(path, image_id, path.stem, "the embedding")


def _key(name: str) -> tuple[str, str]:
    image_id, _, target_id = name.partition(".")
    return image_id, target_id


def _ending(folder: Path, ending: str) -> list[Path]:
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if path.name.endswith(ending) and path.name[0] != "." and not path.is_dir()
        )
    except (FileNotFoundError, NotADirectoryError):
        return []


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _prompts(folder: Path) -> list[Path]:
    """Return the presets of prompts, so that half of one is found, too."""
    return [path.with_suffix(".json") for path in _ending(folder, ".md")]
