"""What may be kept of a DICOM header, and keyed pseudonyms for the rest (docs/adr/0007).

Nothing is removed from a list of dangerous attributes; instead a short list of harmless ones is kept, each checked
against the form it must have. Free text is never among them.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import hmac
import re
import secrets
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, write_bytes_atomic
from segmentation.readers.decoding import numbers, text

KEY_BYTES = 32
OLDEST_AGE = 89
"""Years; older people are so few that their age points at them."""


class Pseudonyms:
    """Replaces identities by pseudonyms that only the holder of the key can make again."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        self._key: bytes | None = key

    @classmethod
    def off(cls) -> Pseudonyms:
        """Return a pass-through for who has chosen to keep identities: ids, UIDs and dates stay as they are."""
        identities = cls(bytes(KEY_BYTES))
        identities._key = None
        return identities

    @property
    def is_on(self) -> bool:
        """Whether identities are replaced."""
        return self._key is not None

    @property
    def fingerprint(self) -> str:
        """By which a study knows its key again without holding it; ``""`` where identities are kept."""
        return self._digest("fingerprint")[:8].hex() if self._key is not None else ""

    def _digest(self, kind: str, *parts: str) -> bytes:
        assert self._key is not None
        # A separator no part can contain: ("a", "bc") and ("ab", "c") must not meet.
        message = "\0".join((kind, *(part.replace("\0", "") for part in parts)))
        return hmac.new(self._key, message.encode("utf-8", errors="replace"), hashlib.sha256).digest()

    def patient(self, patient_id: str, name: str = "", birth_date: str = "") -> str:
        """Return who a patient is called in the study, e.g. ``patient-ab12cd34``; ``""`` if nothing is known.

        The id alone decides where there is one: names are spelt in several ways, and one person under two pseudonyms
        could end up in the training and the test set.
        """
        patient_id, birth_date = patient_id.strip(), birth_date.strip()
        name = " ".join(re.sub(r"[\^=]+", " ", name).split()).casefold()
        if not patient_id and not name:
            return ""
        if self._key is None:
            return patient_id or f"patient-{hashlib.sha256(f'{name}/{birth_date}'.encode()).hexdigest()[:8]}"
        parts = ("id", patient_id.casefold()) if patient_id else ("name", name, birth_date)
        return f"patient-{self._digest('patient', *parts)[:4].hex()}"

    def uid(self, uid: str) -> str:
        """Return the UID that stands for another, of the form ``2.25.<number>``; ``""`` stays."""
        uid = uid.strip()
        if self._key is None or not uid:
            return uid
        return f"2.25.{uuid.UUID(bytes=self._digest('uid', uid)[:16], version=4).int}"

    def series(self, uid: str) -> str:
        """Return what a series is called, fit for a file name, e.g. ``series-ab12cd34ef56``; ``""`` stays."""
        uid = uid.strip()
        if not uid:
            return ""
        if self._key is None:
            return re.sub(r"[^0-9A-Za-z._-]", "-", uid)
        return f"series-{self._digest('series', uid)[:6].hex()}"

    def shifted(self, date: str, patient: str) -> str:
        """Return a DICOM date or date and time as ISO 8601, moved back by the patient's 1 to 365 days.

        The time of day stays, so that the order of a patient's images does. An offset from UTC is dropped. A date
        that is malformed, or that belongs to no patient, becomes ``""``.

        Parameters
        ----------
        date
            ``YYYYMMDD`` or ``YYYYMMDDhhmmss.ffffff``, any of its parts from the hour on missing.
        patient
            What `patient` returned.
        """
        match = re.fullmatch(
            r"(\d{4})\.?(\d\d)\.?(\d\d)(\d\d)?(\d\d)?(\d\d)?(?:\.\d*)?(?:[+-]\d{4})?", date.strip()
        )
        if match is None or (self._key is not None and not patient):
            return ""
        days = 0
        if self._key is not None:
            days = 1 + int.from_bytes(self._digest("shift", patient)[:8], "big") % 365
        year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
        try:
            # A leap second is one that datetime does not know.
            moment = datetime.datetime(year, month, day, hour, minute, min(second, 59))
            moment -= datetime.timedelta(days=days)
        except (ValueError, OverflowError):
            return ""
        return moment.isoformat() if match.group(4) else moment.date().isoformat()


def _key_path(study_uid: str, folder: Path) -> Path:
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z.-]{0,99}", study_uid):
        raise UserError(f"{study_uid!r} is no id of a study, so that there is no key for it.")
    return folder / f"{study_uid}.key"


def _read_key(path: Path) -> Pseudonyms:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"The key file {path} cannot be read: {error.strerror or error}.") from error
    with contextlib.suppress(ValueError):
        return Pseudonyms(bytes.fromhex(content.decode("ascii", errors="replace").strip()))
    raise UserError(f"The key file {path} is damaged: fetch a copy of it from another computer or a backup.")


def _write_key(path: Path, key: bytes) -> None:
    with explained_os_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_bytes_atomic(path, key.hex().encode() + b"\n", mode=0o600)


def key_for(
    study_uid: str, fingerprint: str | None, folder: Path, *, key_file: Path | None = None
) -> Pseudonyms:
    """Return a study's pseudonyms, making its key if it has none yet.

    Parameters
    ----------
    study_uid
        The study's id.
    fingerprint
        What the study has stored of its key (see `Pseudonyms.fingerprint`), or None if it has no key so far; then
        the caller stores that of the result.
    folder
        Where keys lie: outside every study, e.g. the user's data folder.
    key_file
        A copy of the key from another computer; it is kept in `folder` if it is the right one.

    Raises
    ------
    UserError
        If this computer lacks the key, it is another study's, or it cannot be read or written.
    """
    path = _key_path(study_uid, folder)
    if key_file is not None:
        pseudonyms = _read_key(key_file)
        if fingerprint is not None and pseudonyms.fingerprint != fingerprint:
            raise UserError(f"{key_file} is the key of another study: give the one of study {study_uid}.")
        assert pseudonyms._key is not None
        if path.exists() and _read_key(path).fingerprint not in (pseudonyms.fingerprint, fingerprint):
            # A key nobody can name any more must not be lost by a slip.
            path.rename(path.with_suffix(f".{secrets.token_hex(3)}.old-key"))
        _write_key(path, pseudonyms._key)
        return pseudonyms
    if path.exists():
        pseudonyms = _read_key(path)
        if fingerprint is not None and pseudonyms.fingerprint != fingerprint:
            raise UserError(
                f"The key {path} is not the one this study was imported with: replace it by the key file of the "
                "computer where its first DICOM file was imported, or give that with --key FILE."
            )
        return pseudonyms
    if fingerprint is not None:
        raise UserError(
            f"This computer lacks the study's key {path}: copy that file from the computer where the study's first "
            "DICOM file was imported, or give it with --key FILE."
        )
    _write_key(path, secrets.token_bytes(KEY_BYTES))
    # Read back: if two imports began at once, both go on with the key that lies there now.
    return _read_key(path)


MODALITIES = frozenset(
    "AR AS BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT IVUS KER LEN "
    "LS M3D MG MR NM OAM OCT OP OPM OPR OPT OPTBSV OPTENF OPV OSS OT PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE "
    "RTPLAN RTRECORD RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA XA XAPROTOCOL XC".split()
)

BODY_PARTS = frozenset(
    "ABDOMEN ABDOMENPELVIS ADRENAL ANKLE ANUS AORTA APPENDIX ARM AXILLA BACK BILEDUCT BLADDER BRAIN BREAST BRONCHUS "
    "BUTTOCK CALCANEUS CALF CAROTID CEREBELLUM CERVIX CHEEK CHEST CHESTABDOMEN CHESTABDPELVIS CLAVICLE COCCYX COLON "
    "CORNEA CSPINE CTSPINE DUODENUM EAR ELBOW ENDOMETRIUM ESOPHAGUS EXTREMITY EYE EYELID FACE FEMUR FINGER FOOT "
    "FOREARM GALLBLADDER HAND HEAD HEADNECK HEART HIP HUMERUS ILEUM ILIUM INTERNALJUGULAR JAW JEJUNUM JOINT KIDNEY "
    "KNEE LARYNX LEG LIVER LOWERLIMB LSPINE LSSPINE LUNG MANDIBLE MAXILLA MEDIASTINUM MOUTH NECK NECKCHEST NOSE ORBIT "
    "OVARY PANCREAS PARATHYROID PAROTID PATELLA PELVIS PENIS PHARYNX PROSTATE RADIUS RECTUM RIB SCALP SCAPULA SCROTUM "
    "SHOULDER SINUS SKULL SPINE SPLEEN SSPINE STERNUM STOMACH SUBMANDIBULAR TESTIS THIGH THUMB THYMUS THYROID TIBIA "
    "TLSPINE TMJ TOE TONGUE TRACHEA TSPINE ULNA UPPERLIMB URETER URETHRA UTERUS VAGINA VULVA WHOLEBODY WRIST ZYGOMA "
    "FIBULA".split()
)

IMAGE_TYPES = frozenset(
    "ORIGINAL DERIVED PRIMARY SECONDARY AXIAL LOCALIZER HELICAL VOLUME MPR MIP MINIP AVERAGE PROJECTION REFORMATTED "
    "RESAMPLED M P R I FFE SE IR M_FFE M_SE M_IR P_FFE ADC FA TRACEW DIFFUSION PERFUSION NORM DIS2D DIS3D ND MOSAIC "
    "STATIC DYNAMIC GATED TOMO RECON WHOLEBODY EMISSION TRANSMISSION NONE MIXED MAGNITUDE PHASE REAL IMAGINARY WATER "
    "FAT IN_PHASE OUT_PHASE SINGLE BIPLANE".split()
)

_TERMS: dict[str, frozenset[str]] = {
    "Modality": MODALITIES,
    "BodyPartExamined": BODY_PARTS,
    "PhotometricInterpretation": frozenset(
        {
            "MONOCHROME1",
            "MONOCHROME2",
            "PALETTE COLOR",
            "RGB",
            "YBR_FULL",
            "YBR_FULL_422",
            "YBR_ICT",
            "YBR_RCT",
        }
    ),
    "PatientSex": frozenset("MFO"),
    "PatientPosition": frozenset(
        "HFP HFS HFDR HFDL FFDR FFDL FFP FFS LFP LFS RFP RFS AFDR AFDL PFDR PFDL".split()
    ),
    "Laterality": frozenset("LR"),
    "ImageLaterality": frozenset("LRUB"),
    "ViewPosition": frozenset("AP PA LL RL RLD LLD RLO LLO CC MLO ML LM XCCL XCCM LAT".split()),
    "RescaleType": frozenset({"HU", "OD", "US", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT"}),
    "VOILUTFunction": frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"}),
    "Units": frozenset(
        "CNTS NONE CM2 PCNT CPS BQML MGMINML UMOLMINML MLMING MLG 1CM UMOLML PROPCNTS".split()
    ),
    "LossyImageCompression": frozenset({"00", "01"}),
    "MRAcquisitionType": frozenset({"1D", "2D", "3D"}),
    "BurnedInAnnotation": frozenset({"YES", "NO"}),
}

_NUMBERS: dict[str, int] = {
    "Rows": 1,
    "Columns": 1,
    "NumberOfFrames": 1,
    "SamplesPerPixel": 1,
    "BitsAllocated": 1,
    "BitsStored": 1,
    "PixelRepresentation": 1,
    "InstanceNumber": 1,
    "SeriesNumber": 1,
    "AcquisitionNumber": 1,
    "ImagePositionPatient": 3,
    "ImageOrientationPatient": 6,
    "PixelSpacing": 2,
    "ImagerPixelSpacing": 2,
    "NominalScannedPixelSpacing": 2,
    "SliceThickness": 1,
    "SpacingBetweenSlices": 1,
    "SliceLocation": 1,
    "RescaleSlope": 1,
    "RescaleIntercept": 1,
    "KVP": 1,
    "ExposureTime": 1,
    "GantryDetectorTilt": 1,
    "MagneticFieldStrength": 1,
    "RepetitionTime": 1,
    "EchoTime": 1,
    "InversionTime": 1,
    "EchoTrainLength": 1,
    "FlipAngle": 1,
    "DiffusionBValue": 1,
    "FrameTime": 1,
    "CineRate": 1,
}

_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
_DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")

_MAKERS = {
    "agfa": "Agfa",
    "canon": "Canon",
    "carestream": "Carestream",
    "esaote": "Esaote",
    "fuji": "Fujifilm",
    "ge healthcare": "GE",
    "ge medical": "GE",
    "hitachi": "Hitachi",
    "hologic": "Hologic",
    "konica": "Konica Minolta",
    "mindray": "Mindray",
    "olympus": "Olympus",
    "pentax": "Pentax",
    "philips": "Philips",
    "samsung": "Samsung",
    "shimadzu": "Shimadzu",
    "siemens": "Siemens",
    "toshiba": "Toshiba",
    "united imaging": "United Imaging",
}

KEPT_KEYWORDS = (
    *_NUMBERS,
    *_TERMS,
    *_UIDS,
    *_DATES,
    "SOPClassUID",
    "ImageType",
    "PatientAge",
    "Manufacturer",
)
"""Every attribute that `kept_header` looks at."""
IDENTITY_KEYWORDS = ("PatientID", "PatientName", "PatientBirthDate")
"""What a patient's pseudonym is made of; never kept."""


def patient_of(dataset: Any, pseudonyms: Pseudonyms) -> str:
    """Return the pseudonym of a dataset's patient, or ``""``."""
    return pseudonyms.patient(*(text(dataset, keyword) for keyword in IDENTITY_KEYWORDS))


def _known(values: Iterable[str], terms: frozenset[str]) -> list[str]:
    return [value for value in (item.strip().upper() for item in values) if value in terms]


def _age(value: str) -> str:
    match = re.fullmatch(r"(\d{3})([DWMY])", value)
    if match is None:
        return ""
    years = int(match.group(1)) / {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}[match.group(2)]
    return value if years < OLDEST_AGE + 1 else "090Y+"


def kept_header(dataset: Any, pseudonyms: Pseudonyms) -> dict[str, Any]:
    """Return the facts of a DICOM dataset that may be stored, by keyword and ready for JSON.

    Kept are numbers of geometry and acquisition, terms that the standard defines (others are left out), the SOP class,
    replaced UIDs, shifted dates, sex, an age up to 89 years (``"090Y+"`` above) and a known maker's name. Turning
    pseudonyms off keeps UIDs and dates as they are; free text is kept by nobody.
    """
    kept: dict[str, Any] = {}
    for keyword, count in _NUMBERS.items():
        values = [int(value) if value.is_integer() else value for value in numbers(dataset, keyword)]
        if len(values) == count:
            kept[keyword] = values if count > 1 else values[0]
    for keyword, terms in _TERMS.items():
        if known := _known([text(dataset, keyword)], terms):
            kept[keyword] = known[0]
    if known := _known(text(dataset, "ImageType").split("\\"), IMAGE_TYPES):
        kept["ImageType"] = known
    for keyword in _UIDS:
        if re.fullmatch(r"[0-9.]{1,64}", uid := text(dataset, keyword)):
            kept[keyword] = pseudonyms.uid(uid)
    if re.fullmatch(r"1\.2\.840\.10008\.[0-9.]{1,48}", uid := text(dataset, "SOPClassUID")):
        kept["SOPClassUID"] = uid
    patient = patient_of(dataset, pseudonyms)
    for keyword in _DATES:
        if date := pseudonyms.shifted(text(dataset, keyword)[:8], patient):
            kept[keyword] = date
    if age := _age(text(dataset, "PatientAge")):
        kept["PatientAge"] = age
    maker = text(dataset, "Manufacturer").casefold()
    for part, name in _MAKERS.items():
        if maker.startswith(part):
            kept["Manufacturer"] = name
    return kept
