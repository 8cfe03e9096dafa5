"""What a calibration leaves to the recording that follows."""

from __future__ import annotations

from dataclasses import dataclass

from gaze_capture.quality import Validation
from gaze_capture.recording import Calibration, Eyes, RecordingEvent


@dataclass(frozen=True)
class CalibrationSession:
    """What came of a calibration, for the recording that follows."""

    events: tuple[RecordingEvent, ...]
    """Every calibration and validation, in order."""
    validation: Validation | None
    """The last one."""
    eyes: Eyes
    points: int
    """Targets of the calibration in use; 0 where the tracker was not calibrated from here."""
    accepted: bool
    remark: str = ""
    """What went wrong beside it, for the operator: one sentence."""

    @property
    def calibration(self) -> Calibration | None:
        """What the recording's header keeps of it; None where nothing was measured."""
        return self.validation.summary(self.points) if self.validation is not None else None
