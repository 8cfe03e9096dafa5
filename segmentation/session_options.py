"""How a study's recording sessions are held: order, breaks, time limits, and what the participant is shown."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json, write_json_atomic
from segmentation.records import SCHEMA
from segmentation.study import Study

OPTIONS_NAME = "session.json"

Order = Literal["as-is", "random", "counterbalanced", "by-doubt"]
ORDERS: tuple[Order, ...] = get_args(Order)


@dataclass(frozen=True)
class SessionOptions:
    """How sessions are held; None switches a rule off.

    Raises
    ------
    UserError
        If a value makes no sense; the sentence names it.
    """

    order: Order = "as-is"
    """`as-is`: as the images came in; see :mod:`segmentation.session_order` for the others."""
    seed: int = 0
    maximum_image_s: float | None = None
    """The next image comes by itself after so long."""
    break_every_n: int | None = 50
    """A break is offered after so many images."""
    break_every_min: float | None = 20.0
    """A break is offered after so many minutes; whichever comes first counts."""
    dwell_to_advance_s: float | None = None
    """The next image comes by itself once gaze has rested for so long on the mark that asks for it."""
    anchor_every_n: int | None = 10
    """In a sitting that was calibrated, an anchor that checks the drift is shown after every n-th image."""
    practice: bool = False
    """Begin with images whose gaze does not count."""
    practice_n: int = 2
    voice_notes: bool = False
    publish: bool = False
    """Publish gaze and what happens as streams of the Lab Streaming Layer, which others on the network can read."""
    sound: bool = False
    """A soft tone when the image changes and when there is enough gaze."""
    participant_screen: str = ""
    """The screen that shows the participant the images and nothing else; empty: the program's window shows them."""
    show_gaze: bool = False
    """Whether the participant sees where gaze falls. It drags the eye along."""
    skip_seen: bool = True
    """Images that the annotator has looked at already are left out, except those to be looked at again."""

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise UserError(f"There is no order {self.order!r}; choose one of {', '.join(ORDERS)}.")
        for name, low, high, what in _RANGES:
            value = getattr(self, name)
            if value is not None and not (
                isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
            ):
                raise UserError(f"{what} should be between {low:g} and {high:g}, not {value}.")
        for name in ("seed", "break_every_n", "anchor_every_n", "practice_n"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, int):
                raise UserError(f"The session option {name} should be a whole number, not {value!r}.")
        for name in ("practice", "voice_notes", "publish", "sound", "show_gaze", "skip_seen"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(
                    f"The session option {name} should be true or false, not {getattr(self, name)!r}."
                )
        if not isinstance(self.participant_screen, str):
            raise UserError(
                f"The session option participant_screen should be a name, not {self.participant_screen!r}."
            )
        if self.seed is None or self.practice_n is None:
            raise UserError("The session options seed and practice_n need a number.")
        limit, dwell = self.maximum_image_s, self.dwell_to_advance_s
        if limit is not None and dwell is not None and dwell >= limit:
            raise UserError(
                f"Resting gaze for {dwell:g} s to go on is not possible when an image is shown for {limit:g} s at most."
            )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any], source: str = "The session options") -> SessionOptions:
        """Build options from JSON; what is missing has its default.

        Raises
        ------
        UserError
            If a field is unknown or a value makes no sense; `source` is named.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise UserError(f"{source}: there is no session option {unknown[0]!r}.")
        try:
            return cls(**values)
        except UserError as error:
            raise UserError(f"{source}: {error}") from None


_RANGES: tuple[tuple[str, float, float, str], ...] = (
    ("maximum_image_s", 1, 600, "The longest time for an image, in seconds,"),
    ("break_every_n", 1, 10_000, "The number of images between breaks"),
    ("break_every_min", 1, 240, "The number of minutes between breaks"),
    ("dwell_to_advance_s", 0.3, 5, "The time of resting gaze that goes on, in seconds,"),
    ("anchor_every_n", 1, 1000, "The number of images between anchors"),
    ("practice_n", 1, 50, "The number of practice images"),
    ("seed", 0, 2**31 - 1, "The seed"),
)


def load_options(study: Study) -> SessionOptions:
    """Return a study's session options, or the defaults where none were stored.

    Raises
    ------
    UserError
        If they are damaged.
    """
    path = study.folder / OPTIONS_NAME
    if not path.exists():
        return SessionOptions()
    values = read_json(path)
    if not isinstance(values, dict):
        raise UserError(f"{path} is damaged: it holds no options. Delete it to have the defaults again.")
    return SessionOptions.from_json(
        {name: value for name, value in values.items() if name != "schema"}, str(path)
    )


def save_options(study: Study, options: SessionOptions) -> None:
    """Store a study's session options.

    Raises
    ------
    UserError
        If the study cannot be written.
    """
    study.check_there()
    write_json_atomic(
        study.folder / OPTIONS_NAME, {"schema": SCHEMA, **options.to_json()}, within=study.folder
    )
