from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from gaze_capture.errors import UserError
from segmentation.readers.deidentify import Pseudonyms, kept_header, key_for

KEY, OTHER = Pseudonyms(bytes(range(32))), Pseudonyms(bytes(32))
STUDY = "study-0f1e"


def planted() -> Dataset:
    dataset = Dataset()
    for keyword, value in {
        "PatientName": "Grabowski^Zenobia",
        "PatientID": "PID-774411",
        "PatientBirthDate": "19310203",
        "PatientAge": "093Y",
        "PatientSex": "F",
        "PatientComments": "Zenobia is nervous",
        "InstitutionName": "Grabowski Memorial",
        "InstitutionAddress": "Main Street 1",
        "StationName": "CT-GRABOWSKI",
        "DeviceSerialNumber": "SN998877",
        "ReferringPhysicianName": "Dr^Grabowski",
        "StudyDescription": "Grabowski follow-up",
        "SeriesDescription": "Zenobia abdomen",
        "ProtocolName": "Zenobia",
        "AccessionNumber": "ACC4711",
        "StudyID": "ZENOBIA",
        "BodyPartExamined": "ZENOBIA",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "ZENOBIA"],
        "Manufacturer": "SIEMENS Healthineers of Zenobia",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "SOPInstanceUID": "1.2.3.4774411.1",
        "SeriesInstanceUID": "1.2.3.4774411.2",
        "StudyInstanceUID": "1.2.3.4774411.3",
        "FrameOfReferenceUID": "1.2.3.4774411.4",
        "StudyDate": "20200131",
        "Rows": 4,
        "Columns": 5,
        "ImagePositionPatient": [1.5, 2, 3],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.5, 0.25],
        "SliceThickness": 3,
    }.items():
        setattr(dataset, keyword, value)
    private = dataset.private_block(0x0099, "GRABOWSKI", create=True)
    private.add_new(0x01, "LO", "Zenobia Grabowski")
    return dataset


@pytest.mark.parametrize("identity", [KEY, Pseudonyms.off()], ids=["on", "off"])
def test_no_free_text_survives_the_whitelist(identity: Pseudonyms) -> None:
    text = json.dumps(kept_header(planted(), identity)).casefold()
    for word in (
        "zenobia",
        "grabowski",
        "774411-",
        "sn998877",
        "acc4711",
        "main street",
        "healthineers",
        "1931",
    ):
        assert word not in text


def test_what_an_export_needs_is_kept() -> None:
    kept = kept_header(planted(), KEY)
    assert kept["SOPClassUID"] == "1.2.840.10008.5.1.4.1.1.2"
    assert kept["PixelSpacing"] == [0.5, 0.25] and kept["Rows"] == 4 and kept["SliceThickness"] == 3
    assert kept["ImagePositionPatient"] == [1.5, 2, 3]
    assert kept["Manufacturer"] == "Siemens" and kept["ImageType"] == ["ORIGINAL", "PRIMARY", "AXIAL"]
    assert kept["PatientAge"] == "090Y+" and kept["PatientSex"] == "F"
    assert "BodyPartExamined" not in kept
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert kept[keyword].startswith("2.25.") and kept[keyword] == KEY.uid(str(planted()[keyword].value))
        assert len(kept[keyword]) <= 64
    assert "774411" not in json.dumps(kept)
    assert kept["StudyDate"] < "2020-01-31"


def test_defined_body_parts_and_malformed_numbers() -> None:
    dataset = planted()
    dataset.BodyPartExamined = "CHEST"
    dataset.PixelSpacing = [0.5, float("nan")]
    dataset.PatientAge = "042Y"
    kept = kept_header(dataset, KEY)
    assert kept["BodyPartExamined"] == "CHEST" and kept["PatientAge"] == "042Y"
    assert "PixelSpacing" not in kept
    json.dumps(kept, allow_nan=False)


def test_pseudonyms_are_stable_for_a_key_and_differ_between_keys() -> None:
    again = Pseudonyms(bytes(range(32)))
    assert KEY.patient("7", "A^B", "19500101") == again.patient("7", "A^B", "19500101")
    assert KEY.patient("7") != OTHER.patient("7")
    assert KEY.uid("1.2.3") == again.uid("1.2.3") != OTHER.uid("1.2.3")
    assert KEY.series("1.2.3") == again.series("1.2.3") != OTHER.series("1.2.3")
    assert KEY.fingerprint == again.fingerprint != OTHER.fingerprint
    assert KEY.patient("", "", "") == "" and KEY.uid("") == "" and KEY.series("") == ""


def test_one_patient_has_one_pseudonym_however_the_name_is_spelt() -> None:
    assert KEY.patient("7", "Doe^Jane", "19500101") == KEY.patient(" 7 ", "DOE^JANE^^", "")
    assert KEY.patient("", "Doe^Jane", "19500101") == KEY.patient("", "doe jane", "19500101")
    assert KEY.patient("", "Doe^Jane", "19500101") != KEY.patient("", "Doe^Jane", "19500102")


def test_dates_shift_by_one_patients_days() -> None:
    import datetime

    patient = KEY.patient("7")
    first, second = KEY.shifted("20200101", patient), KEY.shifted("20200131", patient)
    days = [datetime.date.fromisoformat(day) for day in (first, second)]
    assert (days[1] - days[0]).days == 30
    assert 1 <= (datetime.date(2020, 1, 1) - days[0]).days <= 365
    assert KEY.shifted("20200131101530.123456+0100", patient) == f"{second}T10:15:30"
    assert KEY.shifted("20200131", "") == "" and KEY.shifted("tomorrow", patient) == ""
    assert KEY.shifted("20201341", patient) == "" and KEY.shifted("00010101", patient) == ""


def test_off_passes_identities_through() -> None:
    off = Pseudonyms.off()
    assert off.patient("7", "Doe^Jane") == "7" and off.uid("1.2.3") == "1.2.3" and off.series("1.2") == "1.2"
    assert off.shifted("20200131", "7") == "2020-01-31" and off.fingerprint == "" and not off.is_on
    assert "jane" not in off.patient("", "Doe^Jane").casefold()


def test_the_key_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    made = key_for(STUDY, None, folder)
    assert key_for(STUDY, made.fingerprint, folder).uid("1.2") == made.uid("1.2")
    assert key_for(STUDY, None, folder).fingerprint == made.fingerprint
    path = folder / f"{STUDY}.key"
    assert [file.name for file in folder.iterdir()] == [path.name]
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_computer_without_the_key_says_what_to_do(tmp_path: Path) -> None:
    made = key_for(STUDY, None, tmp_path / "first")
    with pytest.raises(UserError, match=r"copy that file from the computer .* --key FILE"):
        key_for(STUDY, made.fingerprint, tmp_path / "second")
    copy = tmp_path / "first" / f"{STUDY}.key"
    taken = key_for(STUDY, made.fingerprint, tmp_path / "second", key_file=copy)
    assert taken.fingerprint == made.fingerprint
    assert key_for(STUDY, made.fingerprint, tmp_path / "second").fingerprint == made.fingerprint


def test_a_wrong_or_damaged_key_is_refused(tmp_path: Path) -> None:
    other = key_for("another", None, tmp_path)
    with pytest.raises(UserError, match="another study"):
        key_for(STUDY, KEY.fingerprint, tmp_path, key_file=tmp_path / "another.key")
    with pytest.raises(UserError, match="not the one"):
        key_for("another", KEY.fingerprint, tmp_path)
    (tmp_path / "another.key").write_text("no key")
    with pytest.raises(UserError, match="damaged"):
        key_for("another", other.fingerprint, tmp_path)
    with pytest.raises(UserError, match="no id"):
        key_for("../evil", None, tmp_path)
