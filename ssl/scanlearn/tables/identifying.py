"""Which columns of a table may identify a person: by their names, and by a look at their values."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice

import pyarrow as pa

# Words in several languages, folded as `words_of` folds them. One of these says it all:
_TELLING = frozenset(
    {
        *("surname", "lastname", "firstname", "forename", "familyname", "givenname", "middlename"),
        *("fullname", "maidenname", "patientname", "filename", "birthdate", "birthday", "dob"),
        *("mrn", "ssn", "accession", "uid", "email", "phone", "telephone", "fax", "postcode"),
        *("zipcode", "address", "addresses", "street", "phonenumber", "passport"),
        *("nachname", "vorname", "vornamen", "familienname", "geburtsname", "patientenname"),
        *("geburtsdatum", "geburtstag", "gebdatum", "gebdat", "patientennummer", "patientenid"),
        *("fallnummer", "versichertennummer", "adresse", "anschrift", "strasse", "wohnort"),
        *("telefon", "telefonnummer", "handynummer", "postleitzahl", "befundtext", "arztname"),
        *("prenom", "prenoms", "naissance", "courriel", "ipp", "nir"),
        *("apellido", "apellidos", "nacimiento", "direccion", "telefono", "correo", "nhc", "curp"),
        *("cognome", "nascita", "indirizzo", "sobrenome", "nascimento", "endereco", "telefone"),
        *("prontuario", "cpf", "achternaam", "voornaam", "geboortedatum", "telefoon", "bsn"),
        *("imie", "nazwisko", "urodzenia", "pesel", "fornamn", "efternamn", "personnummer"),
        *("fodelsedatum", "fornavn", "efternavn", "etternavn", "fodselsdato", "fodselsnummer"),
        *("soyad", "soyadi", "фамилия", "отчество", "рождения", "телефон", "адрес", "фио"),
    }
)
# These do where they are the whole name:
_ALONE = frozenset(
    {
        *("name", "names", "nom", "noms", "nombre", "nombres", "nome", "naam", "navn", "namn"),
        *("patient", "patients", "patientin", "paciente", "paziente", "имя", "pid", "nhs", "tel"),
        *(
            "mail",
            "mobile",
            "handy",
            "zip",
            "plz",
            "dni",
            "nif",
            "svnr",
            "cpr",
            "adres",
            "initials",
        ),
        *("report", "reports", "comment", "comments", "notes", "remarks", "narrative", "physician"),
        *("bemerkung", "bemerkungen", "kommentar", "kommentare", "commentaire", "commentaires"),
        *("compterendu", "comentario", "comentarios", "informe", "commento", "commenti", "referto"),
        *("opmerking", "opmerkingen", "verslag", "laudo", "arzt", "medecin", "medico"),
    }
)
# And these, all of a row:
_TOGETHER = tuple(
    frozenset(row.split())
    for row in (
        *("date birth", "time birth", "place birth", "nom famille", "datum geburts", "tc kimlik"),
        *("social security", "securite sociale", "seguridad social", "codice fiscale"),
        *("historia clinica", "compte rendu", "dogum tarihi", "medical record", "postal code"),
        *("report text", "radiology report", "report full", "free text", "zip code"),
        *("sozial versicherungsnummer", "date study", "date acquisition", "date exam"),
    )
)
# A name or a number of one of these:
_NAMES = frozenset({"name", "names", "nom", "nombre", "nome", "naam", "navn", "namn", "имя"})
_NUMBERS = frozenset(
    {"id", "ids", "number", "no", "nr", "num", "identifier", "nummer", "numero", "номер"}
)
_PEOPLE = frozenset(
    {
        *("patient", "patienten", "patientin", "paciente", "paziente", "пациента", "subject"),
        *("person", "participant", "first", "last", "family", "given", "middle", "maiden", "full"),
        *("mother", "mothers", "father", "birth", "madre", "mae", "physician", "doctor", "reader"),
        *("radiologist", "operator", "operators", "annotator", "arztes", "medecin", "medico"),
        *("hospital", "institution", "station", "file", "image", "pat", "pt"),
    }
)
_NUMBERED = frozenset(
    {
        *("patient", "patients", "patienten", "paciente", "paziente", "subject", "person"),
        *("participant", "study", "exam", "hospital", "national", "insurance", "passport"),
        *("pat", "pt", "chart", "record", "admission", "encounter", "report", "dicom"),
    }
)
# Languages without blanks between words.
_PARTS = (
    *("姓名", "患者", "氏名", "名前", "出生日期", "生年月日", "身份证", "电话", "電話", "地址"),
    *("住所", "病历号", "이름", "성명", "생년월일"),
)
# Attributes of DICOM whose type does not say it. Source: DICOM PS3.15 table E.1-1.
_ATTRIBUTES = frozenset(
    {
        *(
            "otherpatientids",
            "issuerofpatientid",
            "institutionname",
            "stationname",
            "patientaddress",
        ),
        *("institutionaldepartmentname", "deviceserialnumber", "patienttelephonenumbers"),
        *("medicalrecordlocator", "militaryrank", "patientreligiouspreference", "admissionid"),
        *("serviceepisodeid", "countryofresidence", "regionofresidence", "currentpatientlocation"),
        *("patientinstitutionresidence", "requestedprocedureid", "patientbirthtime", "deviceid"),
        *("scheduledprocedurestepid", "responsibleorganization", "personaddress", "studyid"),
    }
)
# Persons, identifiers of instances, dates, free text. Source: DICOM PS3.5 6.2.
_KINDS = ("PN", "UI", "DA", "DT", "LT", "ST", "UT")
_NO_PERSON = ("classuid", "transfersyntaxuid")

_PERSON_NAME = re.compile(r"\s*[^\W\d_][\w .'’-]*\^[\w .'’^-]*", re.UNICODE)
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")
_YEAR = r"(19|20)\d\d"
_DATE = re.compile(
    rf"({_YEAR}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
    rf"|{_YEAR}[-/.]\d{{1,2}}[-/.]\d{{1,2}}|\d{{1,2}}[-/.]\d{{1,2}}[-/.]{_YEAR})"
    r"([T ]\d\d:?\d\d(:?\d\d)?(\.\d+)?Z?)?"
)
_PHONE = re.compile(
    r"\+\d[\d ()/.-]{6,17}|\(?0\d{1,5}\)?[ /-]\d[\d /-]{4,14}|\(?\d{3}\)?[ .-]\d{3}[.-]\d{4}"
)
_JSON_KEY = re.compile(r"[\"']([^\"']{1,64})[\"']\s*:")
_LIST = re.compile(r"[|;,\[\]]")
_WORDS_OF_TEXT = 8
_MOST_CLASSES = 20
_SAMPLED = 2000


def words_of(name: str) -> list[str]:
    """Returns the words of a column's name without case, accents, punctuation and possessives."""
    name = re.sub(r"(?<=\w)['’]s\b", "", name)
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    folded = unicodedata.normalize("NFKD", name.casefold().replace("ı", "i").replace("ø", "o"))
    plain = "".join(c for c in folded if not unicodedata.combining(c)).replace("ł", "l")
    return re.findall(r"[^\W_]+", plain)


def is_identifying(name: str) -> bool:
    """Returns whether the name of a column, a key or a DICOM attribute promises an identity.

    ``Patient's Birth Date``, ``Nachname`` and ``date_de_naissance`` do; ``name_of_finding``,
    ``Patient Age`` and ``birth weight`` do not.
    """
    listed = words_of(name)
    words, joined = frozenset(listed), "".join(listed)
    if words & _TELLING or joined in _TELLING | _ALONE | _ATTRIBUTES:
        return True
    if any(row <= words for row in _TOGETHER) or any(part in name for part in _PARTS):
        return True
    if (words & _NAMES and words & _PEOPLE) or (words & _NUMBERS and words & _NUMBERED):
        return True
    return len(listed) > 1 and _kind_of_attribute(joined) in _KINDS


def _kind_of_attribute(joined: str) -> str | None:
    if joined.endswith(_NO_PERSON):
        return None
    # Here, since most tables have no column of two words that nothing above knows.
    from scanlearn.readers.dicom_tags import value_representation

    keyword = _keywords().get(joined)
    return None if keyword is None else value_representation(keyword)


@lru_cache(maxsize=1)
def _keywords() -> dict[str, str]:
    from scanlearn.readers.dicom_tags import keywords

    return {keyword.casefold(): keyword for keyword in keywords()}


def identifying_values(column: pa.ChunkedArray) -> str | None:
    """Returns what the values of a column look like that may identify a person; None for nothing.

    A sample of 2,000 different values is looked at.
    """
    distinct = column.unique()
    values = [text for text in islice(_texts(distinct), _SAMPLED) if text]
    if not values:
        return None
    if any(_PERSON_NAME.fullmatch(text) for text in values):
        return "names"
    if any(_EMAIL.fullmatch(text) for text in values):
        return "e-mail addresses"
    if any(
        is_identifying(key) for text in values if "{" in text for key in _JSON_KEY.findall(text)
    ):
        return "entries that identify"
    if _share(values, _DATE) > 0.5:
        return "dates"
    if _share(values, _PHONE) > 0.5:
        return "telephone numbers"
    # Names of classes may be long, but come again.
    is_repeated = len(distinct) <= min(_MOST_CLASSES, len(column) // 2)
    long = sum(any(len(part.split()) >= _WORDS_OF_TEXT for part in _LIST.split(t)) for t in values)
    return "long texts" if long > 0.1 * len(values) and not is_repeated else None


def _texts(column: pa.Array) -> Iterable[str | None]:
    return (None if value is None else str(value).strip() for value in column.to_pylist())


def _share(values: Sequence[str], pattern: re.Pattern[str]) -> float:
    return sum(pattern.fullmatch(text) is not None for text in values) / len(values)
