"""The configuration page names every field and is the one in docs/."""

from __future__ import annotations

from pathlib import Path

from infra.settings import ModelSettings
from infra.settings_reference import reference


def test_every_field_of_a_model_has_a_row_with_a_meaning() -> None:
    text = reference()
    for name, field in ModelSettings.model_fields.items():
        assert f"| `{name}` |" in text
        assert field.description, f"{name} has no description"


def test_docs_hold_the_current_reference(repository: Path) -> None:
    assert (repository / "docs" / "configuration.md").read_text() == reference()
