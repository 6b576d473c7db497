"""Providers of analyses behind one interface; ``make_source`` makes a configured one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.credential_blocks import read_credentials
from infra.errors import FoldcastError
from infra.settings import SettingsError, SourceSettings
from infra.sources.source import Source


def make_source(name: str, settings: SourceSettings) -> Source:
    """The source of a configured name.

    Args:
        name: what it is called in the settings; becomes part of object keys.
        settings: its type and options; ``options``, and what its block of credentials holds, are the further
            arguments of the type's class.

    Raises:
        SettingsError: an option the type does not know, or one it needs is missing.
        CredentialsError: the block that is named is not there.
    """
    block = settings.credentials_block
    kept = read_credentials(block) if block else {}
    common: dict[str, Any] = {**settings.options, **kept, "name": name}
    try:
        return _make(settings, common)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"sources.{name} (type {settings.type}): {error}") from error


def _make(settings: SourceSettings, options: dict[str, Any]) -> Source:
    # Imported here: a forecast from one source should not load the libraries of all of them.
    mirrored: dict[str, Any] = {
        "parallel": settings.parallel,
        **({"roots": settings.roots} if settings.roots else {}),
    }
    if settings.type == "open-data":
        from infra.sources.open_data import OpenData

        return OpenData(kind=settings.kind, **mirrored, **options)
    if settings.type == "gfs":
        from infra.sources.gfs import Gfs

        return Gfs(kind=settings.kind, **mirrored, **options)
    if settings.type == "cds":
        from infra.sources.cds import Cds

        return Cds(kind=settings.kind, **_root(settings, "endpoint"), **options)
    if settings.type == "arco-era5":
        from infra.sources.arco_era5 import ArcoEra5

        return ArcoEra5(kind=settings.kind, **_root(settings, "root"), **options)
    if settings.type == "files":
        from infra.sources.files import Files

        return Files(kind=settings.kind, **_root(settings, "root"), **options)
    if settings.type == "deepmind":
        from infra.sources.deepmind_dataset import DeepMindDataset

        return DeepMindDataset(kind=settings.kind, path=Path(_root(settings, "root")["root"]), **options)
    if settings.type == "nature-run":
        from infra.sources.nature_run import NatureRun

        return NatureRun(kind=settings.kind, roots=settings.roots, **options)
    raise FoldcastError(f"unknown type of source {settings.type!r}")


def _root(settings: SourceSettings, argument: str) -> dict[str, Any]:
    if len(settings.roots) > 1:
        raise ValueError(f"roots: expected one, got {len(settings.roots)}")
    return {argument: settings.roots[0]} if settings.roots else {}
