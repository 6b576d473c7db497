"""Settings: precedence, validation, and secrets that stay secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import UnknownModelError
from infra.settings import Settings, SettingsError, load_settings

MODEL = """
[models.tiny]
checkpoint = "params.npz"
statistics = "stats"
trained_on = "era5"
source = "archive"
steps = 4
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "foldcast.toml"
    path.write_text(text)
    return path


def test_the_file_fills_what_nobody_else_says(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, MODEL + "[store]\nroot = 'here'\n"))
    assert settings.store.root == str(tmp_path / "here")
    assert settings.configured_model("tiny").members == 1


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDCAST_STORE__ROOT", "s3://bucket/prod")
    assert load_settings(written(tmp_path, "[store]\nroot = 'here'\n")).store.root == "s3://bucket/prod"


def test_the_environment_can_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDCAST_CONFIG", str(written(tmp_path, "keep_days = 3\n")))
    assert load_settings().keep_days == 3


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("keep_days = 0\n", "keep_days"),
        ("unheard_of = 1\n", "unheard_of"),
        (MODEL.replace("steps = 4", "steps = 0"), "models.tiny.steps"),
        (MODEL.replace('"era5"', '"radar"'), "models.tiny.trained_on"),
        ("not toml", "foldcast.toml"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, names: str) -> None:
    with pytest.raises(SettingsError, match=names):
        load_settings(written(tmp_path, text))


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    model = load_settings(written(tmp_path, MODEL)).configured_model("tiny")
    assert model.checkpoint == str(tmp_path / "params.npz")


def test_urls_stay_as_they_are(tmp_path: Path) -> None:
    text = MODEL.replace('"params.npz"', '"gs://bucket/params.npz"')
    assert (
        load_settings(written(tmp_path, text)).configured_model("tiny").checkpoint == "gs://bucket/params.npz"
    )


def test_a_missing_named_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="found none"):
        load_settings(tmp_path / "absent.toml")


def test_an_unknown_model_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="tiny"):
        load_settings(written(tmp_path, MODEL)).configured_model("other")


def test_without_a_configuration_it_is_said_where_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FOLDCAST_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownModelError) as caught:
        load_settings().configured_model("graphcast")
    assert f"no foldcast.toml found in {tmp_path}, and FOLDCAST_CONFIG names none" in str(caught.value)
    (tmp_path / "foldcast.toml").write_text('[store]\nroot = "data"\n')
    with pytest.raises(UnknownModelError, match=r"foldcast\.toml has no \[models\.…\]; docs/quickstart\.md"):
        load_settings().configured_model("graphcast")


def test_what_a_nature_run_gives_is_simulated() -> None:
    model = {"checkpoint": "a.npz", "statistics": "b", "trained_on": "era5", "steps": 1}
    settings = Settings.model_validate(
        {
            "sources": {
                "archive": {"type": "files", "kind": "era5"},
                "bundled": {"type": "nature-run", "kind": "nature-run"},
            },
            "models": {
                "real": {**model, "source": "archive"},
                "demo": {**model, "source": "bundled"},
            },
        }
    )
    assert settings.simulated("demo")
    assert not settings.simulated("real")


def test_secrets_are_not_shown() -> None:
    settings = Settings.model_validate(
        {
            "store": {
                "root": "s3://b",
                "access_key": "AKIA-x",
                "secret_key": "hush",
                "session_token": "hush-2",
            },
            "webhook": "https://h/hush",
        }
    )
    store = settings.store.open()
    assert store.options == {"key": "AKIA-x", "secret": "hush", "token": "hush-2"}
    shown = f"{settings!r} {settings.model_dump_json()} {store!r} {store}"
    assert "hush" not in shown
    assert "AKIA-x" not in shown


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"access_key": "hush"}, "access_key and secret_key together"),
        ({"session_token": "hush"}, "session_token only with them"),
        ({"access_key": "hush", "secret_key": "hush", "credentials_block": "store"}, "either keys or"),
    ],
)
def test_keys_come_whole_and_from_one_place(given: dict[str, str], expected: str) -> None:
    with pytest.raises(SettingsError, match=expected) as caught:
        load_settings(store={"root": "s3://b", **given})
    assert "hush" not in str(caught.value)


def test_an_invalid_value_is_not_echoed(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(written(tmp_path, "[store]\nroot = 's3://b'\nsecret_key = ['hush']\n"))
    assert "hush" not in str(caught.value)
