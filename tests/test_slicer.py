"""The server for 3D Slicer over a real socket: what is handed out, what comes back, and who is not served."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import nrrd
import numpy as np
import numpy.typing as npt
import pytest

from gaze_capture.errors import UserError
from gaze_capture.storage import write_json_atomic
from segmentation import steps
from segmentation.images import read_stored
from segmentation.importing import import_images
from segmentation.job import RunSpec
from segmentation.review_queue import review_queue
from segmentation.slicer import server as server_module
from segmentation.slicer.server import SlicerServer
from segmentation.slicer.service import SlicerService
from segmentation.study import Study
from tests.mask_export_support import OFF, SLICES, TARGETS, oblique, random_mask, review, write_sources
from tests.monai_label_double import Client, File, Refused
from tests.training_helpers import tiny

RUN = "run-20260101-000000-aaaaaa"
VOLUME = "case_7"
SHAPE = (24, 18, SLICES)
"""Of the source of the volume, as stored."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three pictures, a volume and a series that a student has predicted."""
    folder = tmp_path_factory.mktemp("slicer")
    write_sources(folder / "raw")
    study = Study.create(folder / "study", targets=TARGETS)
    for name in ("pictures", "volume", "dicom"):
        import_images(study, [folder / "raw" / name], options=OFF)
    spec = RunSpec(targets=tuple(target.id for target in TARGETS))
    write_json_atomic(study.runs_folder / RUN / "spec.json", spec.to_json())
    for number, image in enumerate(study.images.values()):
        for target in TARGETS:
            mask = random_mask(number, image.shape[:2]) & (image.slice_index != 1)
            study.save_prediction(
                RUN, image.id, target.id, "student", np.where(mask, 0.9, 0.2).astype(np.float32)
            )
    return folder


@pytest.fixture
def study(folder: Path, tmp_path: Path) -> Study:
    return Study.open(shutil.copytree(folder / "study", tmp_path / "study"))


@contextlib.contextmanager
def serving(study: Study, **options: Any) -> Iterator[Client]:
    service = SlicerService(Study.open(study.folder), "annotator-7", **options)
    with SlicerServer(service, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Client(server.url)
        finally:
            server.shutdown()
            thread.join()
            service.close()


@pytest.fixture
def client(study: Study) -> Iterator[Client]:
    with serving(study) as client:
        yield client


def read(data: bytes) -> Any:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(data))


def label(voxels: npt.NDArray[Any], like: bytes) -> File:
    """Write a label map on the grid of a file that was handed out; its name on the client's disk goes along."""
    image = nibabel.Nifti1Image(voxels.astype(np.int16), read(like).affine)
    return "/tmp/Slicer-user/slicer-monai-label/tmpq3k.nii.gz", gzip.compress(image.to_bytes())


def segments(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "idx": number} for number, name in enumerate(names, 1)]


def predicted(study: Study, image_id: str, target_id: str) -> npt.NDArray[np.bool_]:
    probability = study.prediction(RUN, image_id, target_id)
    assert probability is not None
    return probability >= 0.5


def latest(study: Study, image_id: str, target_id: str) -> Any:
    study.refresh()
    return study.reviewed().get((image_id, target_id))


# What is handed out


def test_the_extension_finds_what_it_builds_its_window_of(study: Study, client: Client) -> None:
    assert not client.auth_enabled() and not client.train_status()
    info = client.info()
    assert info["labels"] == ["Polyp", "Prostate gland", "Peripheral zone"]
    assert {name: model["labels"] for name, model in info["models"].items()} == {
        "polyp": ["Polyp"], "gland": ["Prostate gland"], "zone": ["Peripheral zone"],
    }  # fmt: skip
    assert all(model["type"] == "segmentation" for model in info["models"].values())
    # It takes a server with a "config" for one of long ago, and offers to train with trainers.
    assert "config" not in info and info["trainers"] == {} and list(info["strategies"]) == ["doubt"]
    assert info["datastore"] == {"total": 5, "completed": 0}
    review(study, "a", "polyp", random_mask(1, study.image("a").shape[:2]))
    assert client.info()["datastore"]["completed"] == 1
    objects = client.datastore()["objects"]
    assert set(objects) == {"a", "b", "c", VOLUME, *study.volumes}
    assert objects["a"]["labels"] and not objects["b"]["labels"]


def test_a_mask_lies_where_the_source_lies(study: Study, client: Client) -> None:
    data, params = client.infer("gland", VOLUME)
    found = read(data)
    assert params["label_names"] == {"Prostate gland": 1} and params["run"] == RUN
    volume = study.volume(VOLUME)
    np.testing.assert_allclose(found.affine, np.array(volume.affine), atol=1e-4)
    np.testing.assert_allclose(read(client.download_image(VOLUME)).affine, found.affine, atol=0)
    # Every voxel is one of the source's, at the same place in the patient.
    change = np.linalg.inv(oblique()) @ found.affine
    places = np.stack(np.meshgrid(*map(np.arange, found.shape), indexing="ij"), -1).reshape(-1, 3)
    there = places @ change[:3, :3].T + change[:3, 3]
    assert np.abs(there - np.rint(there)).max() < 1e-3
    source = np.rint(there).astype(int)
    assert sorted(map(tuple, source)) == sorted(np.ndindex(SHAPE))
    voxels = np.asarray(found.dataobj)
    for number, image_id in enumerate(volume.image_ids):
        np.testing.assert_array_equal(voxels[:, :, number].T > 0, predicted(study, image_id, "gland"))
    values = np.asarray(read(client.download_image(VOLUME)).dataobj)
    original = np.random.default_rng(3).integers(0, 900, SHAPE)
    np.testing.assert_array_equal(values[tuple(places.T)], original[tuple(source.T)])


def test_a_picture_goes_out_in_grey_on_its_own_grid(study: Study, client: Client) -> None:
    image, (data, _) = read(client.download_image("a")), client.infer("polyp", "a")
    height, width, _ = study.image("a").shape
    assert image.shape == read(data).shape == (width, height, 1)
    shown = read_stored(study.image_path(study.image("a"))) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(np.asarray(image.dataobj)[:, :, 0].T - shown).max() <= 0.51
    np.testing.assert_array_equal(
        np.asarray(read(data).dataobj)[:, :, 0].T > 0, predicted(study, "a", "polyp")
    )


def test_the_next_sample_is_the_first_in_the_queue_of_doubt(study: Study, client: Client) -> None:
    seen: list[tuple[str, str]] = []
    while sample := client.next_sample("doubt"):
        study.refresh()
        units = {image.id: image.volume or image.id for image in study.images.values()}
        waiting = [(units[item.image_id], item.target_id) for item in review_queue(study, run_id=RUN)]
        assert (sample["id"], sample["target"]) == next(one for one in waiting if one not in seen)
        image = client.download_image(sample["id"])
        # Slicer keeps files by name; with the sum it takes no old one.
        assert sample["checksum"] == f"SHA256:{hashlib.sha256(image).hexdigest()}"
        assert sample["name"].endswith(".nii.gz") and "path" not in sample
        given = client.infer(sample["target"], sample["id"])[0]
        name = {target.id: target.name for target in TARGETS}[sample["target"]]
        client.save_label(sample["id"], label(np.asarray(read(given).dataobj), given), segments(name))
        seen.append((sample["id"], sample["target"]))
    assert len(seen) == 5 * len(TARGETS)
    with pytest.raises(Refused, match="no strategy") as refused:
        client.next_sample("random")
    assert refused.value.status == 404


def test_what_was_reviewed_is_handed_out_as_the_reviewer_left_it(study: Study, client: Client) -> None:
    mask = random_mask(77, study.image("b").shape[:2])
    review(study, "b", "polyp", mask, annotator="B")
    given = client.infer("polyp", "b")[0]
    np.testing.assert_array_equal(np.asarray(read(given).dataobj)[:, :, 0].T > 0, mask)
    counts = client.save_label("b", label(np.asarray(read(given).dataobj), given), segments("Polyp"))
    # What was left as it was is no new word.
    assert counts["unchanged"] == 1 and latest(study, "b", "polyp").annotator == "B"
    assert len(study.reviews("b", "polyp")) == 1


def test_a_review_that_came_meanwhile_is_not_undone_by_an_untouched_mask(
    study: Study, client: Client
) -> None:
    given = client.infer("polyp", "b")[0]
    review(study, "b", "polyp", random_mask(78, study.image("b").shape[:2]), annotator="B")
    counts = client.save_label("b", label(np.asarray(read(given).dataobj), given), segments("Polyp"))
    assert counts["unchanged"] == 1 and latest(study, "b", "polyp").annotator == "B"


# What comes back


def test_a_corrected_volume_becomes_reviews_slice_by_slice(study: Study, client: Client) -> None:
    ids = study.volumes[VOLUME]
    paths = [study.prediction_path(RUN, one, "gland") for one in ids]
    before = [path.read_bytes() for path in paths]
    given = client.infer("gland", VOLUME)[0]
    voxels = np.asarray(read(given).dataobj).copy()
    voxels[2:5, 3:9, 0] ^= 1  # corrected
    voxels[:, :, 3] = 0  # taken away
    counts = client.save_label(VOLUME, label(voxels, given), segments("Prostate gland"))
    assert {name: counts[name] for name in ("accepted", "edited", "unchanged", "left_empty")} == {
        "accepted": 3, "edited": 2, "unchanged": 0, "left_empty": 1,
    }  # fmt: skip
    for number, image_id in enumerate(ids):
        found = latest(study, image_id, "gland")
        if number == 1:
            # It was empty and is empty: nobody may have looked.
            assert found is None
            continue
        edited = number in (0, 3)
        assert (found.annotator, found.subject, found.purpose) == ("annotator-7", RUN, "review")
        assert (found.verdict, found.started_from, found.edits) == (
            ("edited", "student", ("imported",)) if edited else ("accepted", "", ())
        )
        assert found.presence == ("absent" if number == 3 else "present")
        assert 0 <= found.seconds_spent < 60
        np.testing.assert_array_equal(study.reviewed_mask(image_id, "gland"), voxels[:, :, number].T > 0)
    # The predictions stay as they are, and no other target was judged.
    assert [path.read_bytes() for path in paths] == before
    assert {target for _, target in study.reviewed()} == {"gland"}
    # Sent again unchanged, it says nothing new; changed, it began as the review.
    again = client.save_label(VOLUME, label(voxels, given), segments("Prostate gland"))
    assert (again["edited"], again["accepted"], again["unchanged"]) == (0, 0, 5)
    voxels[:, :, 0] = 0
    assert client.save_label(VOLUME, label(voxels, given), segments("Prostate gland"))["edited"] == 1
    found = latest(study, ids[0], "gland")
    assert (found.presence, found.started_from) == ("absent", "reviewed")


def test_segments_are_told_by_their_order(study: Study, client: Client) -> None:
    given = client.infer("polyp", "a")[0]
    voxels = np.asarray(read(given).dataobj).copy()
    voxels[:] = 0
    voxels[3:9, 3:9], voxels[20:30, 5:12], voxels[12:15, 12:15] = 2, 1, 3
    # The extension counts segments that it leaves out itself, so that its numbers can be off.
    named = [{"name": "Prostate gland", "idx": 2}, {"name": "Polyp", "idx": 3}, {"name": "Notes", "idx": 4}]
    answer = client.save_label("a", label(voxels, given), named)
    assert answer["edited"] == 2 and answer["left_out"] == ["Notes"]
    study.refresh()
    np.testing.assert_array_equal(study.reviewed_mask("a", "polyp"), voxels[:, :, 0].T == 2)
    np.testing.assert_array_equal(study.reviewed_mask("a", "gland"), voxels[:, :, 0].T == 1)
    assert latest(study, "a", "polyp").started_from == "student"
    # It was never handed out: what it was drawn from, nobody knows.
    assert latest(study, "a", "gland").started_from == ""


def test_an_empty_segment_is_a_word_only_where_a_mask_was_handed_out(study: Study, client: Client) -> None:
    review(study, "a", "zone", random_mask(5, study.image("a").shape[:2]), annotator="B")
    given = client.infer("polyp", "a")[0]
    empty = np.zeros(read(given).shape)
    names = segments("Polyp", "Prostate gland", "Peripheral zone")
    answer = client.save_label("a", label(empty, given), names)
    assert (answer["edited"], answer["left_empty"]) == (1, 2)
    assert latest(study, "a", "polyp").presence == "absent"
    assert latest(study, "a", "gland") is None and latest(study, "a", "zone").annotator == "B"
    # Loaded anew, the scene has no masks until they are asked for.
    client.download_image("a")
    study.withdraw_review("a", "polyp", next(iter(study.named_reviews("a", "polyp"))))
    assert client.save_label("a", label(empty, given), names)["left_empty"] == 3


def test_with_empty_every_slice_is_a_word(study: Study) -> None:
    with serving(study, empty=True) as client:
        given = client.infer("gland", VOLUME)[0]
        voxels = np.asarray(read(given).dataobj)
        answer = client.save_label(VOLUME, label(voxels, given), segments("Prostate gland"))
        assert (answer["accepted"], answer["left_empty"]) == (SLICES, 0)
    assert latest(study, study.volumes[VOLUME][1], "gland").presence == "absent"


def test_overlapping_segments_come_as_slicer_saves_them(study: Study, client: Client) -> None:
    given = client.infer("gland", VOLUME)[0]
    client.infer("zone", VOLUME)
    affine = read(given).affine
    # No larger than what is marked, in layers, in left-posterior-superior space.
    corner, size = np.array([4, 5, 2]), (3, 4, 2)
    layers = np.zeros((2, *size), np.uint8)
    layers[0], layers[1, :, 1:3] = 1, 1
    lps = np.diag([-1.0, -1.0, 1.0])
    header = {
        "space": "left-posterior-superior",
        "kinds": ["list", "domain", "domain", "domain"],
        "space directions": np.vstack([np.full(3, np.nan), (lps @ affine[:3, :3]).T]),
        "space origin": lps @ (affine[:3, :3] @ corner + affine[:3, 3]),
        **{
            f"Segment{number}_{field}": str(value)
            for number, name in enumerate(("Prostate gland", "Peripheral zone"))
            for field, value in (("Name", name), ("LabelValue", 1), ("Layer", number))
        },
    }
    file = io.BytesIO()
    nrrd.write(file, layers, header)
    answer = client.save_label(
        VOLUME, ("tmp1.seg.nrrd", file.getvalue()), segments("Polyp", "Prostate gland", "Peripheral zone")
    )
    assert answer["left_out"] == []
    study.refresh()
    ids = study.volumes[VOLUME]
    whole, inner = np.zeros((2, *study.image(ids[2]).shape[:2]), bool)
    whole[5:9, 4:7] = True
    inner[6:8, 4:7] = True
    for number in (2, 3):
        np.testing.assert_array_equal(study.reviewed_mask(ids[number], "gland"), whole)
        np.testing.assert_array_equal(study.reviewed_mask(ids[number], "zone"), inner)
    assert latest(study, ids[5], "gland").presence == "absent" and latest(study, ids[5], "polyp") is None


def test_a_zone_leaves_no_hole_in_its_gland(study: Study, client: Client) -> None:
    # A label map holds one label a voxel: where the zone is, the gland cannot be.
    gland = client.infer("gland", "b")[0]
    zone = np.asarray(read(client.infer("zone", "b")[0]).dataobj).copy()
    zone[4:9, 4:9] = 1
    whole = np.asarray(read(gland).dataobj)
    answer = client.save_label(
        "b",
        label(np.where(zone > 0, 3, 2 * whole), gland),
        segments("Polyp", "Prostate gland", "Peripheral zone"),
    )
    assert answer["left_empty"] == 1
    study.refresh()
    np.testing.assert_array_equal(study.reviewed_mask("b", "zone"), zone[:, :, 0].T > 0)
    np.testing.assert_array_equal(study.reviewed_mask("b", "gland"), (zone | whole)[:, :, 0].T > 0)
    # A zone alone says nothing of the gland.
    given = client.infer("zone", "c")[0]
    voxels = 3 * np.asarray(read(given).dataobj)
    client.save_label("c", label(voxels, given), segments("Polyp", "Prostate gland", "Peripheral zone"))
    assert latest(study, "c", "zone") is not None and latest(study, "c", "gland") is None


def test_masks_that_a_label_map_cannot_hold_are_refused_whole(study: Study, client: Client) -> None:
    given = client.infer("polyp", "a")[0]
    client.infer("gland", "a")
    voxels = np.asarray(read(given).dataobj)
    with pytest.raises(Refused, match=r"overlap, which .* cannot hold; .*seg.nrrd"):
        client.save_label("a", label(voxels, given), segments("Polyp", "Prostate gland"))
    study.refresh()
    assert not study.all_reviews()


def test_labels_sent_at_once_are_all_stored(study: Study, client: Client) -> None:
    given = {name: client.infer("polyp", name)[0] for name in "abc"}
    answers = []

    def send(name: str) -> None:
        voxels = 1 - np.asarray(read(given[name]).dataobj)
        answers.append(client.save_label(name, label(voxels, given[name]), segments("Polyp")))

    threads = [threading.Thread(target=send, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer["edited"] for answer in answers] == [1, 1, 1]
    for name in "abc":
        assert latest(study, name, "polyp").verdict == "edited"


# What is refused


@pytest.mark.parametrize(
    "spoil, sentence",
    [
        (lambda voxels, affine: (voxels[:-3], affine @ np.diag([1.3, 1, 1, 1])), "another grid"),
        (lambda voxels, affine: (voxels, affine + np.outer([1, 1, 1, 0], [0, 0, 0, 900])), "elsewhere"),
        (lambda voxels, affine: (voxels + 0.5, affine), "between whole numbers"),
    ],
)
def test_a_label_that_does_not_fit_is_refused_whole(
    study: Study, client: Client, spoil: Any, sentence: str
) -> None:
    given = read(client.infer("gland", VOLUME)[0])
    voxels, affine = spoil(np.asarray(given.dataobj).astype(np.float32), given.affine)
    data = gzip.compress(nibabel.Nifti1Image(voxels, affine).to_bytes())
    with pytest.raises(Refused, match=sentence) as refused:
        client.save_label(VOLUME, ("x.nii.gz", data), segments("Prostate gland"))
    assert refused.value.status == 400 and "/" not in refused.value.detail
    study.refresh()
    assert not study.all_reviews()


@pytest.mark.parametrize("name", ["x.nii.gz", "x.nrrd", "x.nii"])
@pytest.mark.parametrize("data", [b"", b"no label map", gzip.compress(b"\0" * 400, mtime=0)], ids=len)
def test_rubbish_is_answered_with_a_sentence(client: Client, name: str, data: bytes) -> None:
    for send in (client.save_label, client.upload_image):
        with pytest.raises(Refused) as refused:
            send("a", (name, data))
        assert refused.value.status == 400 and refused.value.detail.endswith(".")


def test_names_are_looked_up_and_lead_nowhere(study: Study, client: Client) -> None:
    def everything() -> set[Path]:
        return {path for path in study.folder.parent.rglob("*") if path.name != "audit.jsonl"}

    before = everything()
    given = client.infer("polyp", "a")[0]
    good = label(np.asarray(read(given).dataobj), given)
    for name in ("../study.json", "/etc/passwd", "images/a.png", "..", "nobody", "a\0", "%2e%2e/study.json"):
        with pytest.raises(Refused, match="no image") as image:
            client.download_image(name)
        with pytest.raises(Refused, match="no image") as mask:
            client.infer("polyp", name)
        with pytest.raises(Refused, match="no image") as drawn:
            client.save_label(name, good, segments("Polyp"))
        with pytest.raises(Refused, match="no session") as session:
            client.infer("polyp", "a", name)
        assert {one.value.status for one in (image, mask, drawn, session)} == {404}
    for filename in ("../../x.json", "x", "x.py", ".nii.gz/../../evil.sh"):
        for send in (client.save_label, client.upload_image):
            with pytest.raises(Refused, match="NIfTI or NRRD"):
                send("a", (filename, good[1]))
    with pytest.raises(Refused, match="no segment of a target"):
        client.save_label("a", good, segments("Liver"))
    with pytest.raises(Refused, match="no model"):
        client.infer("teacher", "a")
    assert everything() == before


def test_what_a_web_page_sends_is_refused(client: Client) -> None:
    port = client.url.rpartition(":")[2]
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "[::1"):
        with pytest.raises(Refused, match="not called") as refused:
            client.request("GET", "/info/", headers={"Host": host})
        assert refused.value.status == 403
    for origin in ("http://evil.example", "null", f"http://localhost:{port}"):
        with pytest.raises(Refused, match="Web pages") as refused:
            client.request("GET", "/info/", headers={"Origin": origin})
        assert refused.value.status == 403
    for host in (f"localhost:{port}", f"127.0.0.1:{port}"):
        data, headers = client.request("GET", "/info/", headers={"Host": host})
        assert json.loads(data)["name"] == "Gaze Insight"
        assert "Access-Control-Allow-Origin" not in headers and headers["X-Content-Type-Options"] == "nosniff"


def test_requests_that_are_none_are_answered(
    study: Study, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def status(method: str, path: str, **more: Any) -> int:
        with pytest.raises(Refused) as refused:
            client.request(method, path, **more)
        assert refused.value.detail
        return refused.value.status

    assert status("GET", "/") == status("GET", "/logs/") == status("PUT", "/info/", body=b"x") == 404
    assert status("POST", "/train/polyp", body=b"{}") == status("DELETE", "/train/") == 404
    assert status("PUT", "/datastore/label?image=a", body=b"x") == 415
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert status("PUT", "/datastore/label?image=a", body=b"--x--", headers=form) == 422
    assert status("PUT", "/datastore/label", body=b"--x--", headers=form) == 422
    assert status("PUT", "/session/", body=b"nothing", headers=form) == 422
    assert status("POST", "/infer/polyp") == 422 and status("GET", "/datastore/image") == 422
    monkeypatch.setattr(server_module, "MOST_BYTES", 1000)
    assert status("PUT", "/datastore/label?image=a", body=b"x" * 7000) == 413
    for header in ("Transfer-Encoding: chunked", "Content-Length: -1", "Content-Length: 1e3"):
        with socket.create_connection(("127.0.0.1", int(client.url.rpartition(":")[2]))) as raw:
            raw.sendall(f"POST /infer/polyp?image=a HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n".encode())
            assert b" 411 " in raw.makefile("rb").readline()
    # A client that goes away in mid-request leaves the others served.
    with socket.create_connection(("127.0.0.1", int(client.url.rpartition(":")[2]))) as raw:
        raw.sendall(b"PUT /session/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\nabc")
    assert client.info()["name"] == "Gaze Insight"
    study.refresh()
    assert not study.all_reviews()


def test_it_needs_a_run_that_segments_something(tmp_path: Path, study: Study) -> None:
    with pytest.raises(UserError, match="no finished run"):
        SlicerService(Study.create(tmp_path / "new"), "A")
    with pytest.raises(UserError, match="no run 'x'"):
        SlicerService(study, "A", run_id="x")
    write_json_atomic(study.runs_folder / "other" / "spec.json", RunSpec(targets=("liver",)).to_json())
    with pytest.raises(UserError, match="none of the study's targets"):
        SlicerService(study, "A", run_id="other")


# What is sent


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a run that can predict."""
    study = Study.open(shutil.copytree(folder / "study", tmp_path_factory.mktemp("trained") / "study"))
    shutil.rmtree(study.runs_folder / RUN)
    for image in study.images.values():
        for target in TARGETS:
            study.save_true_mask(image.id, target.id, random_mask(3, image.shape[:2]))
    steps.train(study, tiny("supervised", targets=tuple(target.id for target in TARGETS), iterations=2))
    return study.folder


def other_volume() -> File:
    values = np.random.default_rng(9).integers(0, 900, SHAPE).astype(np.int16)
    image = nibabel.Nifti1Image(values, oblique() @ np.diag([1, 1, 1.5, 1]))
    return "/tmp/Slicer/tmpx.nii.gz", gzip.compress(image.to_bytes())


def test_a_volume_is_segmented_and_becomes_part_of_the_study_when_it_is_sent(
    trained: Path, tmp_path: Path
) -> None:
    study = Study.open(shutil.copytree(trained, tmp_path / "study"))
    known = set(study.images)
    file = other_volume()
    with serving(study, split="val") as client:
        # As the extension does for a volume of its own: a session, a mask, then volume and label.
        session = client.create_session(file)["session_id"]
        assert client.asked("GET", f"/session/{session}")
        given, _ = client.infer("gland", "4: T2 axial", session)
        assert read(given).shape == (*sorted(SHAPE[:2], key=read(given).shape.index), SLICES)
        study.refresh()
        assert set(study.images) == known and not study.prediction_keys(
            client.info()["models"] and study.run_ids()[0]
        )
        with pytest.raises(Refused, match="send it first"):
            client.save_label(
                "4: T2 axial", label(np.asarray(read(given).dataobj), given), segments("Prostate gland")
            )
        sent = client.upload_image("4: T2 axial", file)
        voxels = np.asarray(read(given).dataobj).copy()
        voxels[1:5, 1:5, 2] ^= 1
        answer = client.save_label("4: T2 axial", label(voxels, given), segments("Prostate gland"))
        assert answer["image"] == sent["image"] and answer["edited"] == 1
        study.refresh()
        ids = study.volumes[sent["image"]]
        assert {study.image(one).split for one in ids} == {"val"} and len(ids) == SLICES
        found = latest(study, ids[2], "gland")
        assert (found.verdict, found.started_from, found.annotator) == ("edited", "student", "annotator-7")
        np.testing.assert_array_equal(study.reviewed_mask(ids[2], "gland"), voxels[:, :, 2].T > 0)
        # What the study predicts of it is what the session was given; sent again, it stays one volume.
        client.download_image(sent["image"])
        np.testing.assert_array_equal(read(client.infer("polyp", sent["image"])[0]).shape, read(given).shape)
        assert client.upload_image("4: T2 axial", file) == {"image": sent["image"], "new": False}
        # In a session, too, what the study has is shown as it stands there.
        session = client.create_session(file)["session_id"]
        np.testing.assert_array_equal(
            np.asarray(read(client.infer("gland", "x", session)[0]).dataobj), voxels
        )
        assert client.asked("DELETE", f"/session/{session}")
        with pytest.raises(Refused, match="no session") as refused:
            client.infer("gland", "x", session)
        assert refused.value.status == 404


def test_the_student_predicts_what_it_has_not_seen(trained: Path, tmp_path: Path) -> None:
    study = Study.open(shutil.copytree(trained, tmp_path / "study"))
    run = study.run_ids()[0]
    with serving(study) as client:
        # Nothing waits for review; what has no mask yet comes in the order of import.
        sample = client.next_sample("doubt")
        assert sample["id"] == next(iter(study.images))
        given = read(client.infer("polyp", VOLUME)[0])
    for number, image_id in enumerate(study.volumes[VOLUME]):
        probability = study.prediction(run, image_id, "polyp")
        assert probability is not None
        np.testing.assert_array_equal(np.asarray(given.dataobj)[:, :, number].T > 0, probability >= 0.5)
    assert len({image_id for image_id, _ in study.prediction_keys(run)}) == SLICES


# The command


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
def test_the_command_serves_until_ctrl_c(study: Study) -> None:
    command = [
        sys.executable,
        "-m",
        "app",
        "serve-slicer",
        str(study.folder),
        "--annotator",
        "annotator-7",
        "--json",
    ]
    with subprocess.Popen(
        [*command, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that started the tests in the background has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        client = Client(first.partition(" at ")[2].partition(";")[0])
        assert RUN in first and client.url.startswith("http://127.0.0.1:")
        given = client.infer("polyp", "a")[0]
        voxels = 1 - np.asarray(read(given).dataobj)
        client.save_label("a", label(voxels, given), segments("Polyp"))
        # A second one on the same port says so.
        taken = subprocess.run(
            [*command, "--port", client.url.rpartition(":")[2]], capture_output=True, text=True, timeout=60
        )
        assert taken.returncode == 1 and "choose one with --port" in taken.stderr
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in errors and "a: 1 edited" in errors
    assert json.loads(output) == {"url": client.url, "run": RUN, "reviews": 1, "volumes": 0}
    assert latest(study, "a", "polyp").annotator == "annotator-7"


def test_the_vendors_own_client_is_served(study: Study, client: Client, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        # It imports the standard library's cgi, which is gone from Python 3.13.
        warnings.simplefilter("ignore")
        vendor = pytest.importorskip("monailabel.client.client", exc_type=ImportError)
        real = vendor.MONAILabelClient(client.url, str(tmp_path), "user-xyz")
        assert not real.auth_enabled() and not real.train_status(True)
        assert real.info()["labels"][0] == "Polyp"
        sample = real.next_sample("doubt", {})
        assert sample["id"] in real.datastore()["objects"]
        file, params = real.infer("gland", VOLUME, {"result_extension": ".nrrd"})
        np.testing.assert_allclose(
            nibabel.load(file).affine, np.array(study.volume(VOLUME).affine), atol=1e-4
        )
        assert params["label_names"] == {"Prostate gland": 1}
        answer = real.save_label(VOLUME, file, params={"label_info": segments("Prostate gland")})
        assert answer["accepted"] == SLICES - 1
        with pytest.raises(vendor.MONAILabelClientException) as refused:
            real.infer("nothing", VOLUME, {})
        assert "There is no model 'nothing'" in refused.value.msg
