"""What every block of settings is: frozen, and strict about its keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen block of settings; a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
