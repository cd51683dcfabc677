"""Tags of a DICOM file: its texts and numbers, its units, and whether it is a picture at all."""

from __future__ import annotations

import re
import sys
from collections.abc import MutableSequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scanlearn.readers.scan import Undecodable

if TYPE_CHECKING:
    from pydicom import Dataset

NO_PICTURE = "not a picture of a patient"
# Source: DICOM PS3.4 B.5. Waveforms, presentation states, spectra, raw data with registrations,
# fiducials, segmentations and surfaces, value mappings, eye measurements, reports, documents and
# models, what is planned and delivered in radiotherapy (but for its images), implants, protocols.
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NO_PICTURES = (
    *(f"{_STORAGE}{number}." for number in (9, 11, 66, 68, 78, 79, 80, 88, 90, 104, 200, 201)),
    *("1.2.840.10008.1.3.10.", "1.2.840.10008.5.1.4.34.", "1.2.840.10008.5.1.4.38."),
    *("1.2.840.10008.5.1.4.39.", "1.2.840.10008.5.1.4.43.", "1.2.840.10008.5.1.4.44."),
    *(f"{_STORAGE}{number}." for number in ("4.2", "67", "77.1.5.3", "131")),
    *(f"{_STORAGE}481.{number}." for number in (*range(2, 23), 25)),
)
# Of a secondary capture, which often is a scanned film, only what itself says so is set aside.
NO_PICTURE_MODALITIES = (
    *("AU", "DOC", "FID", "KO", "PLAN", "PR", "REG", "RTDOSE", "RTPLAN", "RTRECORD", "RTSTRUCT"),
    *("RWV", "SEG", "SR"),
)
_DOSE_REPORT = re.compile(r"DOSE.?(INFO|REPORT|SHEET)|CT_SOM\d PROT")
# A number in a text, with the decimal comma of some writers.
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)
# Nobody can tell whether "2,048" is two or two thousand.
_AMBIGUOUS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_MAX_TEXT, _MAX_VALUES = 256, 64
# Source: DICOM PS3.16 Annex L, the defined terms of BodyPartExamined.
_ANNEX_L = (
    "ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM AXILLA BACK BLADDER BRAIN BREAST BRONCHUS "
    "BUTTOCK CALCANEUS CALF CAROTID CEREBELLUM CERVIX CHEEK CHEST CHESTABDOMEN CHESTABDPELVIS "
    "CIRCLEOFWILLIS CLAVICLE COCCYX COLON CORNEA CORONARYARTERY CSPINE CTSPINE DUODENUM EAR ELBOW "
    "ESOPHAGUS EXTREMITY EYE EYELID FACE FEMUR FINGER FOOT GALLBLADDER HAND HEAD HEADNECK HEART "
    "HIP HUMERUS IAC ILEUM ILIUM JAW JEJUNUM KIDNEY KNEE LARYNX LEG LIVER LSPINE LSSPINE LUNG "
    "MAXILLA MEDIASTINUM MOUTH NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE ORBIT OVARY "
    "PANCREAS PAROTID PATELLA PELVIS PENIS PHARYNX PROSTATE RADIUS RADIUSULNA RECTUM RETINA RIB "
    "SCALP SCAPULA SCLERA SCROTUM SHOULDER SKIN SKULL SPINE SPLEEN SSPINE STERNUM STOMACH "
    "SUBMANDIBULAR TESTIS THIGH THUMB THYMUS THYROID TIBIA TIBIAFIBULA TLSPINE TMJ TOE TONGUE "
    "TRACHEA TSPINE ULNA URETER URETHRA UTERUS VAGINA VULVA WHOLEBODY WRIST ZYGOMA"
)
_BODY_PARTS = frozenset(_ANNEX_L.split())
# Words that are common though they are not the standard's.
_ALSO_WRITTEN = {"THORAX": "CHEST", "MAMMA": "BREAST"}
OTHER_PART = "OTHER"
_CODE = re.compile("[A-Z]{2,16}")
# What a table of labels calls a file by, if not by its path, series or patient.
IDENTIFIERS = {
    "instance": "SOPInstanceUID",
    "study": "StudyInstanceUID",
    "accession": "AccessionNumber",
}


def check_picture(tags: Dataset) -> None:
    """Refuses masks, doses, reports and the like, which would be packed as scans."""
    from pydicom.uid import UID

    sop_class = UID(text_of(tags, "SOPClassUID") or "")
    if f"{sop_class}.".startswith(_NO_PICTURES):
        name = sop_class.name.removesuffix(" Storage") if sop_class.name != sop_class else "DICOM"
        raise Undecodable(f"is a {name} object, {NO_PICTURE}")
    modality = (text_of(tags, "Modality") or "").upper()
    if modality in NO_PICTURE_MODALITIES:
        raise Undecodable(f"has the modality {modality}, {NO_PICTURE}")
    if any(_DOSE_REPORT.search(value.upper()) for value in texts_of(tags, "ImageType")):
        raise Undecodable(f"is a dose report by its image type, {NO_PICTURE}")


def num_frames_of(tags: Dataset) -> int:
    """Returns how many frames a file has, 1 where it does not say; of text, too."""
    number = number_of(tags, "NumberOfFrames")
    if number is None:
        return 1
    if not number.is_integer():
        raise Undecodable("has a NumberOfFrames that is no whole number")
    return max(1, int(number))


def spacing_mm_of(tags: Dataset, index: int) -> tuple[float, float] | None:
    """Returns rows and columns of a frame apart; None where no two lengths above 0 are given."""
    measures = macro(tags, index, "PixelMeasuresSequence")
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        spacing = [mm for mm in numbers_of(measures, name) if mm is not None]
        if len(spacing) == 2 and np.isfinite(spacing).all() and min(spacing) > 0:
            return float(spacing[0]), float(spacing[1])
    return None


def laterality_of(tags: Dataset, index: int) -> str | None:
    """Returns "L" or "R", the side of the body that a frame shows; None where none is named.

    Source: DICOM PS3.3 C.7.6.16.2.8 (of a frame), C.8.11.3 (of the image), C.7.3.1 (of the series).
    """
    by_frame = macro(tags, index, "FrameAnatomySequence")
    for of, name in (
        (by_frame, "FrameLaterality"),
        (tags, "ImageLaterality"),
        (tags, "Laterality"),
    ):
        side = (text_of(of, name) or "").upper()
        if side in ("L", "R"):
            return side
    return None


def unit_name(tags: Dataset, rescale: Dataset) -> str:
    """Returns "HU" where a frame is rescaled to Hounsfield units, else the modality's values.

    Source: DICOM PS3.3 C.8.2.1 and C.11.1.1.2: CT is in HU unless its rescale type says otherwise.
    """
    modality = modality_name(tags)
    tables = tags.get("ModalityLUTSequence")
    of, name = (tables[0], "ModalityLUTType") if tables else (rescale, "RescaleType")
    kind = str(of.get(name) or "HU").strip().upper()
    is_rescaled = bool(tables) or number_of(rescale, "RescaleIntercept") is not None
    return "HU" if modality == "CT" and is_rescaled and kind == "HU" else f"{modality} values"


def modality_name(tags: Dataset) -> str:
    """Returns the modality in capitals, or UNKNOWN."""
    return str(tags.get("Modality") or "unknown").strip().upper()


def examined_of(tags: Dataset) -> str:
    """Returns modality and body part of a file; see `examined_as`."""
    modality, part = (text_of(tags, name) or "" for name in ("Modality", "BodyPartExamined"))
    return examined_as(modality, part)


def examined_as(modality: str, part: str) -> str:
    """Returns modality and body part, such as "CR CHEST", without what is not given.

    A body part in words that are not the standard's is `OTHER_PART`: people write anything there,
    and an archive names nobody.
    """
    modality, part = modality.upper(), part.upper()
    if not _CODE.fullmatch(modality):
        return ""
    part = _ALSO_WRITTEN.get(part, part)
    return f"{modality} {part if part in _BODY_PARTS else part and OTHER_PART}".strip()


def macro(tags: Dataset, index: int, name: str) -> Dataset:
    """Returns where a frame's attributes of one kind are: its own, those of all, or the file's."""
    by_frame = tags.get("PerFrameFunctionalGroupsSequence") or []
    shared = tags.get("SharedFunctionalGroupsSequence") or []
    for group in (*by_frame[index : index + 1], *shared[:1]):
        if macro := group.get(name):
            return macro[0]  # type: ignore[no-any-return]
    return tags


def number_of(tags: Dataset, name: str) -> float | None:
    """Returns the one number of a tag, None where it has none, NaN where it has anything else."""
    numbers = [number for number in numbers_of(tags, name) if number is not None]
    if not numbers:
        return None
    return float(numbers[0]) if len(numbers) == 1 else float("nan")


def numbers_of(tags: Dataset, name: str) -> tuple[float | None, ...]:
    """Returns all numbers of a tag, None for a blank and NaN for what is no number.

    Numbers of DICOM are text, and one that pydicom cannot read comes as that: its first character
    was once taken for the first number.
    """
    value = tags.get(name)
    values = value if isinstance(value, MutableSequence) else (value,)
    return tuple(_as_number(each) for each in values)


def _as_number(value: Any) -> float | None:
    if value is None or isinstance(value, int | float):
        return value
    text = str(value).strip(" \0")
    if not text:
        return None
    if not _NUMBER.fullmatch(text) or _AMBIGUOUS.fullmatch(text):
        return float("nan")
    return float(text.replace(",", "."))


def text_of(tags: Dataset, name: str) -> str | None:
    """Returns a tag as text; None where it is blank."""
    return str(tags.get(name) or "").strip() or None


def texts_of(tags: Dataset, name: str) -> tuple[str, ...]:
    """Returns all values of a tag; one that cannot be read is as good as none."""
    from pydicom.multival import MultiValue

    try:
        value = tags.get(name)
        values = value[:_MAX_VALUES] if isinstance(value, MultiValue) else [value]
        texts = ["" if each is None else str(each).strip()[:_MAX_TEXT] for each in values]
    except Exception:
        return ()
    return tuple(text for text in texts if text)


def load_pydicom() -> None:
    """Imports pydicom, whatever lies in the folder that one works in.

    Of pydicom's decoders gdcm looks for a module dl, which Python has no more: beside a folder of
    that name it took this for it, and no DICOM file could be read.
    """
    if "pydicom" in sys.modules:
        return
    modules: dict[str, Any] = sys.modules
    sought = ("dl", "DLFCN")
    before = {name: modules[name] for name in sought if name in modules}
    # None is what cannot be imported.
    modules.update(dict.fromkeys(sought))
    try:
        import pydicom  # noqa: F401
    finally:
        for name in sought:
            del modules[name]
        modules.update(before)


def keywords() -> tuple[str, ...]:
    """Returns the keywords of all tags of the standard."""
    load_pydicom()
    from pydicom.datadict import keyword_dict

    return tuple(keyword_dict)


def value_representation(keyword: str) -> str | None:
    """Returns the type of a tag's values, such as "PN"; None of what is no keyword.

    Source: DICOM PS3.5 6.2.
    """
    load_pydicom()
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(keyword)
    return None if tag is None else dictionary_VR(tag)
