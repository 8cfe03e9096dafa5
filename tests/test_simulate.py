import dataclasses
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations, fixations_of
from gaze_capture.recording import Recording, ScreenGeometry
from gaze_capture.recording_codec import needs_recovery, read_recording
from gaze_capture.simulate import (
    DESK_SCREEN,
    ImageToLookAt,
    SyntheticClinician,
    look_at,
    saliency,
    simulate_sitting,
)
from gaze_capture.synthetic_eye import Script, TrackerQuality, measure

KVASIR = Path(__file__).parents[2] / "shared/data/kvasir_seg/train/masks"
PERFECT = TrackerQuality(rms_s2s_deg=1e-4, drift_deg=0, blinks_per_minute=0, dropouts=0)

Bools = npt.NDArray[np.bool_]


def disc(height: int, width: int, x: float, y: float, radius: float) -> Bools:
    rows, columns = np.mgrid[:height, :width]
    found: Bools = np.hypot(columns - x, rows - y) <= radius
    return found


def inside(fixations: Fixations, mask: Bools) -> Bools:
    xy = np.rint(fixations.xy_px).astype(int)
    on_image = ((xy >= 0) & (xy < [mask.shape[1], mask.shape[0]])).all(axis=1)
    found = np.zeros(len(xy), dtype=bool)
    found[on_image] = mask[xy[on_image, 1], xy[on_image, 0]]
    return found


def images(count: int, shape: tuple[int, int] = (300, 400)) -> list[ImageToLookAt]:
    rng = np.random.default_rng(1)
    return [
        ImageToLookAt(
            f"i{index}",
            shape,
            disc(*shape, rng.uniform(90, shape[1] - 90), rng.uniform(90, shape[0] - 90), 60),
        )
        for index in range(count)
    ]


@pytest.fixture(scope="module")
def sitting(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return simulate_sitting(tmp_path_factory.mktemp("sittings") / "s1", images(20))


def test_a_sitting_is_a_real_recording(sitting: Recording, tmp_path: Path) -> None:
    assert (sitting.id, sitting.tracker, sitting.simulated_from) == ("s1", "simulated", "masks")
    assert sitting.calibration is not None
    assert 0.02 < sitting.calibration.mean_error_deg < 1.0
    # The mean of two eyes, each of 0.15 deg, is more precise than either.
    assert 0.08 < sitting.calibration.rms_s2s_deg < 0.15
    interval = np.diff(sitting.time_ns)
    np.testing.assert_allclose(interval, 1e9 / 120, atol=2)
    device = np.diff(sitting.device_time_ns).sum() / interval.sum()
    assert device == pytest.approx(1.00002, abs=1e-9)
    assert len(sitting.placements) == 20
    for before, after in zip(sitting.placements, sitting.placements[1:], strict=False):
        assert before.start_ns < before.end_ns < after.start_ns
    assert sitting.placements[-1].end_ns <= sitting.time_ns[-1]
    assert {placement.presence for placement in sitting.placements} == {"present"}


def test_noise_blinks_and_dropouts_are_as_ordered(sitting: Recording) -> None:
    seconds = (sitting.time_ns[-1] - sitting.time_ns[0]) / 1e9
    lost = np.isnan(np.stack([sitting.left_xy[:, 0], sitting.right_xy[:, 0]]))
    np.testing.assert_array_equal(np.isnan(sitting.pupil_mm).T, lost)
    both = lost.all(axis=0)
    runs = np.flatnonzero(np.diff(both.astype(int), prepend=0, append=0)).reshape(-1, 2)
    blinks = (np.diff(runs, axis=1) > 10).sum()
    assert blinks / seconds * 60 == pytest.approx(12, abs=6)
    assert 0.02 < lost.mean() < 0.08
    assert (lost[0] != lost[1]).mean() > 0.01
    assert np.nanmean(sitting.pupil_mm) == pytest.approx(3.5, abs=0.3)


def test_the_measured_precision_is_the_ordered_one() -> None:
    time_ns = np.arange(12_000) * 8_333_333
    quality = dataclasses.replace(PERFECT, rms_s2s_deg=0.2)
    samples = measure(np.zeros((12_000, 2)), time_ns, time_ns, DESK_SCREEN, quality, np.random.default_rng(0))
    left = DESK_SCREEN.degrees_from_normalised(np.stack([samples["left_x"], samples["left_y"]], axis=1))
    assert np.sqrt((np.diff(left, axis=0) ** 2).sum(axis=1).mean()) == pytest.approx(0.2, rel=0.01)
    power = np.abs(np.fft.rfft(left[:, 0]))[1:] ** 2
    low, high = power[20:200].mean(), power[3000:].mean()
    assert low / high == pytest.approx((4500 / 90) ** 0.5, rel=0.5)


def test_an_eye_rests_and_jumps_as_written() -> None:
    script = Script(np.array([[0, 0], [10, 0], [10, 5.0]]), np.array([200.0, 300.0, 250.0]))
    np.testing.assert_allclose(script.saccade_ms, [43, 32])
    np.testing.assert_allclose(script.start_ms, [0, 243, 575])
    assert script.end_ms == 825
    track = script.track(np.array([0, 199, 200 + 21.5, 243, 400, 543 + 16, 575, 900.0]))
    expected = np.array([[0, 0], [0, 0], [5, 0], [10, 0], [10, 0], [10, 2.5], [10, 5], [10, 5]])
    np.testing.assert_allclose(track, expected, atol=1e-9)


def test_fixations_fall_where_the_target_is(sitting: Recording) -> None:
    found = fixations_of(sitting)
    shares = [
        inside(item, image.mask).mean()
        for item, image in zip(found, images(20), strict=True)
        if image.mask is not None
    ]
    assert 0.6 < np.mean(shares) < 0.95
    for item in found:
        assert item.image_id.startswith("i")
        assert item.simulated_from == "masks"
        assert item.degrees_per_px == pytest.approx(25 / 400, rel=0.05)
    # The eye already rests where the image appears.
    assert np.mean([item.start_ms[0] < 0 for item in found]) > 0.7


def test_without_noise_the_transform_leads_back_to_the_target(tmp_path: Path) -> None:
    clinician = SyntheticClinician(bias_deg=0, bias_drift_deg=0, quality=PERFECT)
    for shape in ((300, 400), (400, 300), (64, 64), (2000, 500)):
        height, width = shape
        target = disc(height, width, 0.3 * width, 0.7 * height, 0.12 * min(shape))
        folder = tmp_path / f"{height}-{width}"
        (found,) = fixations_of(simulate_sitting(folder, [ImageToLookAt("i", shape, target)], clinician))
        assert found.degrees_per_px is not None
        off_px = np.median(found.xy_px[3:], axis=0) - [0.3 * width, 0.7 * height]
        assert np.hypot(*off_px) * found.degrees_per_px < 0.8


def test_seed_and_sitting_fix_every_sample(tmp_path: Path) -> None:
    def made(name: str, seed: int, number: int) -> Recording:
        return simulate_sitting(tmp_path / name, images(2), SyntheticClinician(seed=seed), sitting=number)

    first = made("a", 1, 0)
    assert made("b", 1, 0).samples.tobytes() == first.samples.tobytes()
    assert made("c", 1, 1).calibration != first.calibration
    assert made("d", 2, 0).calibration != first.calibration


def test_the_bias_belongs_to_the_sitting_and_drifts_slowly(tmp_path: Path) -> None:
    clinician = SyntheticClinician(bias_deg=1.0, quality=PERFECT)
    shape, target = (400, 400), disc(400, 400, 200, 200, 30)
    offsets = []
    for number in range(4):
        recording = simulate_sitting(
            tmp_path / str(number),
            (ImageToLookAt(f"{i}", shape, target) for i in range(12)),
            clinician,
            sitting=number,
        )
        centres = np.array([np.median(item.xy_px[3:], axis=0) for item in fixations_of(recording)])
        assert centres.std(axis=0).max() < 8
        offset = (centres.mean(axis=0) - 200) * 25 / 400
        offsets.append(offset)
        assert recording.calibration is not None
        assert recording.calibration.mean_error_deg == pytest.approx(np.hypot(*offset), abs=0.35)
    assert np.std(offsets) > 0.3


def test_an_image_without_target_is_searched_briefly(tmp_path: Path) -> None:
    bright = disc(300, 400, 320, 80, 30).astype(np.float32)
    with_target = images(5)
    without = [ImageToLookAt(f"n{i}", (300, 400), np.zeros((300, 400), bool), bright) for i in range(5)]
    recording = simulate_sitting(tmp_path / "r", [*with_target, *without])
    found = fixations_of(recording)
    assert [item.presence for item in found] == ["present"] * 5 + ["absent"] * 5
    viewing = [item.viewing_ms for item in found]
    assert max(viewing[5:]) < min(viewing[:5])
    assert all(len(item.start_ms) >= 2 for item in found[5:])
    drawn = np.mean([inside(item, disc(300, 400, 320, 80, 45)).mean() for item in found[5:]])
    assert drawn > 0.1


def test_the_options_change_what_they_name(tmp_path: Path) -> None:
    def made(name: str, **options: float | bool) -> Recording:
        clinician = SyntheticClinician(**options)  # type: ignore[arg-type]
        return simulate_sitting(tmp_path / name, images(6), clinician)

    assert {p.presence for p in made("silent", gives_presence=False).placements} == {None}
    assert {p.presence for p in made("blind", missed_target=1.0).placements} == {"absent"}
    plain, attracted = made("plain"), made("attracted", false_attractors=1.0)
    share = [
        np.mean(
            [
                inside(f, i.mask).mean()
                for f, i in zip(fixations_of(r), images(6), strict=True)
                if i.mask is not None
            ]
        )
        for r in (plain, attracted)
    ]
    assert share[1] < share[0] - 0.1


def test_smaller_second_lesions_are_sometimes_missed(tmp_path: Path) -> None:
    large, small = disc(400, 400, 120, 200, 60), disc(400, 400, 320, 200, 30)
    looks = [ImageToLookAt(f"{i}", (400, 400), large | small) for i in range(50)]
    found = fixations_of(simulate_sitting(tmp_path / "r", looks, SyntheticClinician(bias_deg=0.1)))
    near = disc(400, 400, 320, 200, 40)
    missed = np.mean([inside(item, near).sum() < 3 for item in found])
    assert 0.02 < missed < 0.35
    assert all(inside(item, large).sum() >= 3 for item in found)


def test_a_target_smaller_than_the_grid_is_found(tmp_path: Path) -> None:
    target = np.zeros((2000, 2000), dtype=bool)
    target[1500:1503, 400:403] = True
    clinician = SyntheticClinician(bias_deg=0, bias_drift_deg=0, quality=PERFECT)
    (found,) = fixations_of(
        simulate_sitting(tmp_path / "r", [ImageToLookAt("i", (2000, 2000), target)], clinician)
    )
    assert found.presence == "present"
    assert np.hypot(*(np.median(found.xy_px[2:], axis=0) - [401, 1501])) < 40


def test_saliency_alone_draws_the_gaze(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    image = (0.4 + 0.02 * rng.normal(size=(300, 400, 3))).astype(np.float32)
    spot = disc(300, 400, 290, 110, 22)
    image[spot] += [0.3, -0.1, -0.1]
    map_ = saliency(image)
    assert map_.shape == (300, 400)
    assert map_.dtype == np.float32
    assert map_.max() == pytest.approx(1, abs=0.05)
    assert spot[np.unravel_index(np.argmax(map_), map_.shape)]
    recording = simulate_sitting(tmp_path / "r", [ImageToLookAt("i", (300, 400), None, map_)])
    (found,) = fixations_of(recording)
    assert (found.simulated_from, found.presence) == ("saliency", None)
    assert inside(found, ndimage.binary_dilation(spot, iterations=15)).mean() > 0.5


@pytest.mark.parametrize("shape", [(40, 50, 1), (7, 9, 3), (1, 5, 1), (500, 300, 3), (301, 1100, 1)])
def test_saliency_fits_every_image_and_nothing_stands_out_on_a_plain_one(shape: tuple[int, int, int]) -> None:
    plain = saliency(np.full(shape, 0.3, dtype=np.float32))
    assert plain.shape == shape[:2]
    assert plain.max() == 0
    noise = saliency(np.random.default_rng(0).random(shape, dtype=np.float32))
    assert noise.min() >= 0
    assert noise.max() <= 1


def test_a_plain_image_or_none_at_all_is_no_error(tmp_path: Path) -> None:
    plain = ImageToLookAt("i", (100, 100), None, np.zeros((100, 100), np.float32))
    assert len(fixations_of(simulate_sitting(tmp_path / "plain", [plain]))) == 1
    assert simulate_sitting(tmp_path / "none", []).placements == ()


def test_what_was_recorded_is_never_overwritten(tmp_path: Path) -> None:
    simulate_sitting(tmp_path / "r", images(1), recording_id="other")
    assert read_recording(tmp_path / "r").id == "other"
    assert not needs_recovery(tmp_path / "r")
    with pytest.raises(UserError, match="never overwritten"):
        simulate_sitting(tmp_path / "r", images(1))


def test_a_look_at_an_image_shown_anywhere(tmp_path: Path) -> None:
    # Three screen pixels an image pixel, the image's corner at (1000, 50).
    transform = np.array([[1 / 3, 0, -1000 / 3 - 0.5], [0, 1 / 3, -50 / 3 - 0.5], [0, 0, 1]])
    image = ImageToLookAt("i", (200, 250), disc(200, 250, 180, 60, 25))
    script, presence = look_at(image, transform, SyntheticClinician(), np.random.default_rng(0))
    assert presence == "present"
    screen = DESK_SCREEN.screen_px_from_normalised(DESK_SCREEN.normalised_from_degrees(script.xy_deg))
    np.testing.assert_allclose(np.median(screen, axis=0), [1000 + 180.5 * 3, 50 + 60.5 * 3], atol=35)


def test_another_screen_and_rate_are_respected(tmp_path: Path) -> None:
    small = ScreenGeometry(1280, 800, 300.0, 190.0, 500.0)
    recording = simulate_sitting(tmp_path / "r", images(1), SyntheticClinician(geometry=small, rate_hz=60))
    assert recording.geometry == small
    assert np.diff(recording.time_ns).mean() == pytest.approx(1e9 / 60, rel=1e-6)


@pytest.mark.skipif(not KVASIR.exists(), reason="shared/data/kvasir_seg is not beside this checkout")
def test_statistics_on_real_masks_are_close_to_the_published_ones(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    masks = {path.stem: cv2.imread(str(path), 0) > 127 for path in sorted(KVASIR.glob("*.png"))[:100]}
    names = list(masks)
    started = time.process_time()
    found = [
        item
        for number in range(2)
        for item in fixations_of(
            simulate_sitting(
                tmp_path / str(number),
                (
                    ImageToLookAt(name, masks[name].shape, masks[name])
                    for name in names[50 * number : 50 * number + 50]
                ),
                sitting=number,
            )
        )
    ]
    # 800 images are promised in under two minutes.
    assert time.process_time() - started < 15
    dice = []
    for item in found:
        mask = masks[item.image_id]
        on_image = np.rint(item.xy_px[inside(item, np.ones_like(mask))]).astype(int)
        dwell = np.zeros(mask.shape)
        np.add.at(dwell, (on_image[:, 1], on_image[:, 0]), item.duration_ms[inside(item, np.ones_like(mask))])
        heatmap = ndimage.gaussian_filter(dwell, 70 / 768 * len(mask), truncate=2.5)
        level = heatmap >= 0.5 * heatmap.max()
        dice.append(2 * (level & mask).sum() / (level.sum() + mask.sum()))
    assert np.mean([len(item.start_ms) for item in found]) == pytest.approx(32, abs=3)
    assert np.mean([item.duration_ms.sum() for item in found]) == pytest.approx(8800, abs=900)
    assert np.mean([inside(item, masks[item.image_id]).mean() for item in found]) == pytest.approx(
        0.87, abs=0.03
    )
    assert np.mean(dice) == pytest.approx(0.725, abs=0.04)
