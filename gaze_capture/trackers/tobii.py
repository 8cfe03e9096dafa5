"""Tobii's screen-based eye trackers, through whichever package brings Tobii's SDK to this Python."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.recording import Floats, Samples, ScreenGeometry
from gaze_capture.trackers.delivery import DeliveringTracker
from gaze_capture.trackers.tobii_calibrator import TobiiCalibrator
from gaze_capture.trackers.tobii_research_device import ResearchDevice, failure_of
from gaze_capture.trackers.tobii_sdk import Corners, Device, Listener, NoticeKind, asked
from gaze_capture.trackers.tobii_titta_device import TittaDevice
from gaze_capture.trackers.tracker import ClockOffset, EyePositions, Found, Millimetres

RELEASE_S = 5.0
"""A device that does not let go for so long is left alone."""

CLOCK_READINGS = 20
CLOCK_DRIFT = 2e-4
"""Clocks of good devices stay within a tenth of it."""
CLOCK_JUMP_NS = 2_000_000
"""What a device's clock may seem to move between two measurements without having jumped."""

DISPLAY_AREA_MM = (80.0, 2000.0)
"""Shortest and longest side of a display area that can be meant."""

_SEARCH_TIMEOUT_S = 20.0
_SEARCH = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
import TittaPy_v2
found = [(each["model"], each["serial_number"], each["address"]) for each in TittaPy_v2.find_all_eye_trackers()]
print(json.dumps(found))
"""


def _sdk() -> tuple[str, Any]:
    """Return the name of the package that brings the SDK, and its module.

    Raises
    ------
    UserError
        If neither can be imported.
    """
    for name in ("tobii_research", "TittaPy_v2"):
        with contextlib.suppress(ImportError):
            return name, importlib.import_module(name)
    raise UserError(
        "Tobii's software is not installed in this Python; install it with: pip install 'gaze-insight[tobii]'."
    )


def find_tobii() -> list[Found]:
    """Search for Tobii trackers at this computer and its network; takes about 2 s.

    Raises
    ------
    UserError
        If the SDK is not installed or the search fails.
    """
    name, module = _sdk()
    if name == "tobii_research":
        with asked(failure_of, "Tobii trackers", "be searched for"):
            found = [(each.model, each.serial_number, each.address) for each in module.find_all_eyetrackers()]
    else:
        found = _search_titta()
    return [Found("tobii", f"{model} {serial}".strip(), address) for model, serial, address in found]


def _search_titta() -> list[tuple[str, str, str]]:
    # TittaPy searches without letting other threads run, which would freeze the window: another process does it.
    command = [sys.executable, "-I", "-c", _SEARCH, json.dumps([path for path in sys.path if path])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SEARCH_TIMEOUT_S, check=True)
        return [(model, serial, address) for model, serial, address in json.loads(done.stdout)]
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        reason = str(error)
    raise UserError(f"Tobii trackers cannot be searched for: {reason.rstrip('.')}.")


class TobiiTracker(DeliveringTracker):
    """A screen-based Tobii.

    Until it is opened, the screen's millimetres are NaN: the device's display area tells them.

    Parameters
    ----------
    geometry_px
        Width and height in pixels of the screen that the display area is set up for.
    address
        As a search found it.
    rate_hz
        Gaze output frequency to set; None leaves it as it is (60 Hz is told until the tracker is opened).
    viewing_distance_mm
        Of the geometry; `eyes` tells the real one.
    """

    name = "tobii"

    def __init__(
        self,
        geometry_px: tuple[int, int],
        address: str,
        rate_hz: float | None = None,
        *,
        viewing_distance_mm: float = 650.0,
    ) -> None:
        geometry = ScreenGeometry(*geometry_px, math.nan, math.nan, viewing_distance_mm)
        super().__init__(geometry, 60.0 if rate_hz is None else rate_hz)
        self._address = address
        self._wanted_hz = rate_hz
        self._device: Device | None = None
        self._calibrator: TobiiCalibrator | None = None
        # Of the SDK's system clock: what to add for host time, and how well that is known.
        self._shift_ns = self._shift_uncertainty_ns = 0
        self._screen_axes: Floats = np.eye(3)
        self._screen_centre: Floats = np.zeros(3)
        self._last_ns = self._first_ns = 0
        self._rates: list[tuple[int, float]] = []
        self._inside = threading.local()

    @property
    def label(self) -> str:
        """Model and serial number; the address before it is opened."""
        return self._device.label if self._device is not None else f"Tobii at {self._address}"

    @property
    def calibrator(self) -> TobiiCalibrator | None:
        """The device's own calibration; None before it is opened, or where the model has none."""
        return self._calibrator

    def expected(self, seconds: float) -> int:
        """Return how many samples should come within some seconds from the first on, at the rates it had then."""
        end_ns = round(seconds * 1e9)
        total, since_ns, rate = 0.0, 0, self._rates[0][1] if self._rates else self.rate_hz
        for changed_ns, changed_hz in self._rates[1:]:
            at_ns = max(0, changed_ns - self._first_ns) if self._first_ns else 0
            if at_ns < end_ns:
                total += (at_ns - since_ns) * rate / 1e9
                since_ns, rate = at_ns, changed_hz
        return math.ceil(total + (end_ns - since_ns) * rate / 1e9 - 1e-6)

    # Opening and closing

    def _connect(self) -> None:
        name, module = _sdk()
        kind = ResearchDevice if name == "tobii_research" else TittaDevice
        device: Device = kind(module, self._address)
        try:
            self.geometry = self._placed(device.corners(), device.label)
            if self._wanted_hz is not None:
                self._set_rate(device, self._wanted_hz)
            self.rate_hz = device.rate_hz()
            self._rates = [(0, self.rate_hz)]
            self._shift_ns, self._shift_uncertainty_ns = _host_shift(device.system_us)
            device.listen(Listener(self._on_gaze, self._on_synchronised, self._on_notice))
        except BaseException:
            device.stop()
            raise
        self._device = device
        if device.calibratable:
            self._calibrator = TobiiCalibrator(device, self)

    @staticmethod
    def _set_rate(device: Device, wanted_hz: float) -> None:
        rates = device.rates_hz()
        rate = min(rates, key=lambda each: abs(each - wanted_hz), default=wanted_hz)
        # Devices tell 59.94 where people say 60.
        if abs(rate - wanted_hz) > 0.01 * wanted_hz:
            told = ", ".join(f"{each:g}" for each in sorted(rates))
            raise UserError(f"{device.label} cannot measure at {wanted_hz:g} Hz; choose one of {told} Hz.")
        if device.rate_hz() != rate:
            device.set_rate(rate)

    def _placed(self, corners: Corners, label: str) -> ScreenGeometry:
        """Take the screen's size and place from the display area.

        Raises
        ------
        UserError
            If the display area was never set up, or not for this screen.
        """
        top_left, top_right, bottom_left = (
            np.array(corner, dtype=np.float64)
            for corner in (corners.top_left, corners.top_right, corners.bottom_left)
        )
        across, up = top_right - top_left, top_left - bottom_left
        width, height = float(np.linalg.norm(across)), float(np.linalg.norm(up))
        mend = "set it up for this screen in Tobii's Eye Tracker Manager, then open the tracker again"
        if not width > 0 or not height > 0:
            raise UserError(f"{label} has no display area: {mend}.")
        shortest, longest = DISPLAY_AREA_MM
        skewed = abs(float(across @ up)) > 0.05 * width * height
        if not (shortest <= min(width, height) and max(width, height) <= longest) or skewed:
            raise UserError(
                f"{label} has a display area of {width:.0f} x {height:.0f} mm, which no screen is: {mend}."
            )
        columns, rows = self.geometry.width_px, self.geometry.height_px
        if not 0.9 < (width / columns) / (height / rows) < 1.1:
            raise UserError(
                f"{label} has a display area of {width:.0f} x {height:.0f} mm, which is not the shape of a screen "
                f"of {columns} x {rows} pixels: {mend}."
            )
        x, y = across / width, up / height
        self._screen_axes = np.stack([x, y, np.cross(x, y)])
        self._screen_centre = (top_right + bottom_left) / 2
        distance_mm = self.geometry.viewing_distance_mm
        return ScreenGeometry(columns, rows, round(width, 3), round(height, 3), distance_mm)

    def _begin(self) -> None:
        assert self._device is not None
        self._device.begin_gaze()

    def _disconnect(self) -> None:
        device = self._device
        if device is None:
            return

        def release() -> None:
            if self._calibrator is not None:
                self._calibrator.end()
            device.stop()

        # Of its own: the SDK waits for its callbacks to return, and a device that is gone may never answer.
        thread = threading.Thread(target=release, name="tobii release", daemon=True)
        thread.start()
        if not getattr(self._inside, "callback", False):
            thread.join(RELEASE_S)

    @contextlib.contextmanager
    def _callback(self) -> Iterator[None]:
        """Mark this thread as one of the SDK's while somebody's callbacks run on it."""
        outer, self._inside.callback = getattr(self._inside, "callback", False), True
        try:
            yield
        finally:
            self._inside.callback = outer

    # What the SDK's threads call

    def _on_gaze(self, samples: Samples, origins: Floats) -> None:
        samples["time_ns"] += self._shift_ns
        # Where the SDK corrects its estimate of the device's clock, a sample may fall behind the one before it.
        newest = np.maximum.accumulate(np.concatenate([[self._last_ns], samples["time_ns"]]))
        samples = samples[samples["time_ns"] > newest[:-1]]
        if not len(samples) or self.ended:
            return
        self._first_ns = self._first_ns or int(samples["time_ns"][0])
        self._last_ns = int(samples["time_ns"][-1])
        left, right = (self._on_screen(origin) for origin in origins)
        self.eyes = EyePositions(self._last_ns, left, right)
        with self._callback():
            self.deliver(samples)

    def _on_screen(self, origin: Floats) -> Millimetres | None:
        """Convert user coordinates to mm from the screen's centre; None where the eye was not seen."""
        if not math.isfinite(origin[0]):
            return None
        x, y, z = (self._screen_axes @ (origin - self._screen_centre)).tolist()
        return x, y, z

    def _on_synchronised(self, request_us: int, device_us: int, response_us: int) -> None:
        host_ns = (request_us + response_us) * 500 + self._shift_ns
        new = ClockOffset(
            host_ns - device_us * 1000,
            (response_us - request_us) * 500 + 1000 + self._shift_uncertainty_ns,
            host_ns,
        )
        old, self.clock = self.clock, new
        if old is None:
            return
        moved = new.offset_ns - old.offset_ns
        drift = CLOCK_DRIFT * abs(new.measured_ns - old.measured_ns)
        if abs(moved) > old.uncertainty_ns + new.uncertainty_ns + drift + CLOCK_JUMP_NS:
            self._tell(
                "clock",
                f"The clock of {self.label} jumped by {moved / 1e6:.1f} ms.",
                jump_ns=moved,
                offset_ns=new.offset_ns,
                uncertainty_ns=new.uncertainty_ns,
            )

    def _on_notice(self, kind: NoticeKind, value: Any) -> None:
        label = self.label
        if kind == "lost" and self.connected:
            self._tell("lost", f"The connection to {label} is lost: check its cable and power.")
        elif kind == "restored" and not self.connected:
            self._tell("restored", f"{label} is connected again.")
            # Asking the device here would wait for this very callback.
            threading.Thread(target=self._resume, name="tobii resume", daemon=True).start()
        elif kind == "rate":
            self._rate_changed(float(value))
        elif kind == "display_area":
            self._tell(
                "note",
                f"The display area of {label} was changed: gaze from now on is of another screen; open it again.",
                notice=kind,
            )
        elif kind in _NOTES:
            what = f": {value}" if value else ""
            self._tell("note", f"{label} reports {_NOTES[kind]}{what}.", notice=kind, value=value)

    def _rate_changed(self, rate_hz: float) -> None:
        if rate_hz != self.rate_hz:
            self.rate_hz = rate_hz
            self._rates.append((time.monotonic_ns(), rate_hz))
            self._tell("rate", f"{self.label} measures at {rate_hz:g} Hz from now on.", rate_hz=rate_hz)

    def _resume(self) -> None:
        """Put right what a device may have forgotten, or kept, while it was away."""
        assert self._device is not None
        # It may be gone again already, which is told by itself.
        with contextlib.suppress(UserError):
            if self._calibrator is not None:
                self._calibrator.settle()
            self._rate_changed(self._device.rate_hz())

    def _tell(self, kind: Any, text: str, **values: Any) -> None:
        if not self.ended:
            with self._callback():
                self.tell(kind, text, **values)


_NOTES: dict[NoticeKind, str] = {
    "faults": "a fault",
    "warnings": "a warning",
    "overflow": "that data were lost on the way",
    "error": "an error",
}


def _host_shift(system_us: Callable[[], int]) -> tuple[int, int]:
    """Return what to add to the SDK's system time for host time in ns, and within what that is known.

    Both are the same clock on Linux; elsewhere the host's may be another, and as coarse as 16 ms. Each reading of one
    between two of the other bounds the shift from both sides.
    """
    tick_ns = round(time.get_clock_info("monotonic").resolution * 1e9)
    lowest, highest = -math.inf, math.inf
    end = time.monotonic_ns() + 3 * tick_ns
    readings = 0
    while readings < CLOCK_READINGS or time.monotonic_ns() < end:
        before = time.monotonic_ns()
        system_ns = system_us() * 1000
        after = time.monotonic_ns()
        # The SDK cuts off below 1 us, the host below its tick.
        lowest = max(lowest, before - (system_ns + 1000))
        highest = min(highest, after + tick_ns - system_ns)
        readings += 1
    if lowest <= 0 <= highest:
        return 0, 0
    return round((lowest + highest) / 2), round(abs(highest - lowest) / 2)
