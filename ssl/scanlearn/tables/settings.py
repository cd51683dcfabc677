"""Settings of every command that takes a table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from scanlearn.config.loading import Spread
from scanlearn.config.settings import Settings


def _as_separator(value: object) -> object:
    return {"tab": "\t", "\\t": "\t"}.get(str(value), value)


def _is_separator(value: str | None) -> str | None:
    if value is not None and (len(value) != 1 or value.isalnum() or value in '"\r\n'):
        raise ValueError(
            f"{value!r} cannot separate cells; give one sign such as ; or |, or the word tab"
        )
    return value


def _is_pattern(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        num_groups = re.compile(value).groups
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{value!r} is no regular expression ({error}); give one such as patient(\\d+)"
        ) from None
    if num_groups != 1:
        raise ValueError(
            f"{value!r} has {num_groups} groups; put brackets around the one part that is the"
            " patient, as in patient(\\d+), and write (?:...) for others"
        )
    return value


PathColumn = Annotated[
    str | None, Field(description="Table column with the paths; null looks for usual names.")
]
PatientColumn = Annotated[
    str | None, Field(description="Table column with the patients; null looks for usual names.")
]
PatientPattern = Annotated[
    str | None,
    AfterValidator(_is_pattern),
    Field(
        description="Regular expression whose one group is the patient in a path, such as"
        " 'patient(\\d+)'; for folders too. null takes the patient column."
    ),
]
Root = Annotated[
    Path | None,
    Field(
        description="Folder that the paths in a table start from; null tries the table's own, its"
        " images folder and the one above if the paths begin so, then looks for the names below."
        " Or an archive, whose scans a table without paths labels."
    ),
]
Sep = Annotated[
    str | None,
    BeforeValidator(_as_separator),
    AfterValidator(_is_separator),
    Field(description="What separates the cells of a CSV, such as ';', '|' or tab; null finds it."),
]
ExcelSheet = Annotated[
    str | None, Field(description="Sheet of an Excel file; null takes the first and says which.")
]


class TableSettings(Settings):
    """How a table of scans is read."""

    path_column: PathColumn = None
    patient_column: PatientColumn = None
    patient_pattern: PatientPattern = None
    root: Root = None
    sep: Sep = None
    sheet: ExcelSheet = None
    issuer: str | None = Field(
        default=None,
        description="Issuer of the patient numbers, where files do not name one: equal numbers of"
        " two issuers are two people. null takes the name of the source's folder.",
    )

    @model_validator(mode="after")
    def _names_patients_once(self) -> TableSettings:
        if self.patient_column is not None and self.patient_pattern is not None:
            raise ValueError(
                "patient_column and patient_pattern both say whose a scan is; give one of them"
            )
        return self


TABLE_SETTINGS = tuple(TableSettings.model_fields)
# As an argument of a function that a command calls.
Table = Annotated[TableSettings, Spread()]
DEFAULT_TABLE = TableSettings()
