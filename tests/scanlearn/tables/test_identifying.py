from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from scanlearn.archive.reader import Archive
from scanlearn.errors import ScanlearnError
from scanlearn.packing.pack import pack
from scanlearn.packing.settings import PackSettings
from scanlearn.tables.identifying import identifying_values, is_identifying
from scanlearn.tables.manifest import read_manifest

IDENTIFYING = """
Patient's Name;PatientName;Patient ID;PatientID;Patient's Birth Date;Patient's Birth Time
Pat. ID;Pat-Nr;pt_no;pat_name
patient_number
Other Patient IDs;Issuer of Patient ID;Accession Number;AccessionNumber;accession;Study Instance UID
SeriesInstanceUID;SOP Instance UID;Referring Physician's Name;Operators' Name;Institution Name
Institution Address;Station Name;Study Date;StudyDate;Acquisition DateTime;Patient's Address
Patient's Telephone Numbers;Patient Comments;Additional Patient History;Requesting Physician
name;Name;first name;FIRST_NAME;last-name;surname;family name;given name;Full Name;MRN;mrn
medical record number;ssn;Social Security Number;dob;DOB;date_of_birth;birth date;birthday;address
street;phone;telephone;e-mail;Email;zip code;postal code;national id;comments;Report;report_text
Radiology Report;Nachname;Vorname;Patientenname;Name des Patienten;Geburtsdatum;Geb.-Datum;Anschrift
Straße;Telefon;Bemerkungen;nom;Prénom;prenom;nom du patient;date de naissance;Date_de_Naissance
téléphone;adresse;compte rendu;numéro de sécurité sociale;apellidos;Apellido;nombre del paciente
fecha de nacimiento;teléfono;dirección;DNI;cognome;data di nascita;codice fiscale;sobrenome
data de nascimento;endereço;achternaam;geboortedatum;nazwisko;data urodzenia;PESEL;efternamn
personnummer;fødselsdato;soyadı;Фамилия;дата рождения;姓名;出生日期;氏名;study_id
image name;reader name
"""
LABELS = """
name_of_finding;finding_name;class_name;disease_name;age;Age;sex;Gender;view;View Position
finding_labels
Finding Labels;Follow-up #;Patient Age;Patient Gender;Patient's Sex;PatientAge;Patient Weight
label;target
OriginalImage[Width;Height];OriginalImagePixelSpacing[x;y];glaucoma;quality_score;orig_split;subtype
pneumonia;No Finding;Enlarged Cardiomediastinum;Support Devices;Frontal/Lateral;AP/PA;split;fold
birth weight;birth_weight_g;radiologist_1;report_label;Modality;BodyPartExamined;Manufacturer;KVP
SliceThickness;Photometric Interpretation;image_laterality;anatom_site_general;adjudicated_dr_grade
Left-Diagnostic Keywords;dicom_window;diagnosis;grade;Befund;Diagnose;Alter;Geschlecht
sexe;âge;edad;sexo
hospital;camera;device;exam_eye;comorbidities;diabetes_time_y;x;y;width;height;num_frames;series;site
Rows;Columns;no_finding;numeric_grade;renal_id_stage;physician_agrees;update;candidate;emailed_not
"""


@pytest.mark.parametrize("name", IDENTIFYING.strip().replace("\n", ";").split(";"))
def test_a_name_in_any_language_tells_of_a_person(name: str) -> None:
    assert is_identifying(name)


@pytest.mark.parametrize("name", LABELS.strip().replace("\n", ";").split(";"))
def test_labels_are_no_persons(name: str) -> None:
    assert not is_identifying(name)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["Doe^John", "Roe^Jane^M"], "names"),
        (["normal", None, "Müller^Anna^^Dr."], "names"),
        (["ann@clinic.example", "bob@clinic.example"], "e-mail addresses"),
        (["19700131", "19651224"], "dates"),
        (["1970-01-31", "1965-12-24 10:00:00"], "dates"),
        (["31.01.1970", "24/12/1965", ""], "dates"),
        (["+49 89 1234567", "089/1234567"], "telephone numbers"),
        (["(555) 123-4567", "555-987-6543"], "telephone numbers"),
        (['{"PatientName": "x"}', '{"y": 1}'], "entries that identify"),
        (["A 70 year old man with a cough since two weeks", "No change. " * 9], "long texts"),
        (["severe non proliferative diabetic retinopathy with macular edema", "normal"] * 9, None),
        (["['a b', 'c d', 'e f', 'g h', 'i j', 'k l']", "a|b|c d|e f|g h|i j"], None),
        (["264.0 152.0 213.0 379.0", "0 0 256 256"], None),
        (["3056", "20000101"], None),
        (["6.18", "0.143"], None),
        (["58Y", "059Y"], None),
        (["10^3/uL", "2^4"], None),
        (["Cardiomegaly, Effusion", "Edema, Mass"], None),
        (["50414267", "53189527"], None),
        ([None, ""], None),
    ],
)  # fmt: skip
def test_values_tell_of_a_person_where_the_name_does_not(
    values: list[str | None], expected: str | None
) -> None:
    assert identifying_values(pa.chunked_array([pa.array(values, pa.string())])) == expected


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for row in range(2):
        Image.fromarray(np.full((8, 8), 9 * row, np.uint8)).save(tmp_path / f"{row}.png")
    (tmp_path / "t.csv").write_text(
        "path,patient,Patient's Name,seen,name_of_finding\n"
        "0.png,1,Doe^John,2001-02-03,mass\n1.png,2,Roe^Jane,2001-02-04,none\n"
    )
    return tmp_path / "t.csv"


def test_such_columns_are_left_out_with_one_line_and_kept_where_they_are_named(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = PackSettings(canvas=16, workers=1, summary=False)
    archive = pack(table, tmp_path / "a", settings=settings)
    assert archive.label_columns == ("name_of_finding",)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "left out" in line)
    assert "Patient's Name, seen (values that look like dates); allow_columns=" in line
    files = [path for path in archive.path.rglob("*") if path.is_file()]
    assert not any(b"Doe" in path.read_bytes() for path in files)
    kept = settings.model_copy(update={"allow_columns": ("seen",)})
    assert pack(table, tmp_path / "b", settings=kept).label_columns == ("seen", "name_of_finding")
    wrong = settings.model_copy(update={"allow_columns": ("sean",)})
    with pytest.raises(ScanlearnError, match="'sean', which is no label column"):
        pack(table, tmp_path / "c", settings=wrong)
    assert read_manifest(table).withheld == {"Patient's Name": "", "seen": "dates"}
    assert isinstance(archive, Archive)
