"""All configuration: from the environment (``FOLDCAST_…``) and one TOML file. Nothing else reads either.

Precedence, highest first: arguments, environment, the TOML file, defaults. Nested fields use a double
underscore in the environment, e.g. ``FOLDCAST_STORE__ROOT=s3://forecasts/prod``. The TOML file is
``foldcast.toml`` in the working folder, or the one named by ``FOLDCAST_CONFIG``. Relative paths are relative
to the file's folder, without a file to the working folder.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from infra.credential_blocks import STORE_KEYS, read_store_keys
from infra.errors import FoldcastError, UnknownModelError
from infra.object_store import ObjectStore

SourceKind = Literal["hres", "era5", "gfs", "nature-run"]


class SettingsError(FoldcastError):
    """The configuration is not valid; the message names the field, what was expected and what came."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoreSettings(_Section):
    """Where forecasts, checkpoints and products live."""

    root: str = Field("foldcast-data", description="Local folder or fsspec URL of the store.")
    endpoint_url: str | None = Field(None, description="Endpoint of an S3-compatible server.")
    access_key: SecretStr | None = Field(None, description="Access key; default: the ambient credentials.")
    secret_key: SecretStr | None = Field(None, description="Secret key of the access key.")
    session_token: SecretStr | None = Field(None, description="Token of temporary keys.")
    credentials_block: str | None = Field(
        None,
        description="Instead of keys here: the Prefect Secret that holds them, a JSON object with access_key, "
        "secret_key and, where needed, session_token and endpoint_url.",
    )
    public_url: str | None = Field(None, description="Base URL under which readers see the store, for links.")

    @model_validator(mode="after")
    def _keys_from_one_place(self) -> StoreSettings:
        keys = (self.access_key, self.secret_key)
        if self.credentials_block and any((*keys, self.session_token)):
            raise ValueError("expected either keys or credentials_block, got both")
        if any((*keys, self.session_token)) and not all(keys):
            raise ValueError("expected access_key and secret_key together, and session_token only with them")
        return self

    def open(self) -> ObjectStore:
        """The object store these settings describe.

        Raises:
            CredentialsError: the block that is named is not there or does not hold keys.
        """
        if not self.root.startswith("s3://"):
            return ObjectStore(root=self.root)
        given: dict[str, str | None] = {"endpoint_url": self.endpoint_url}
        if self.credentials_block:
            given |= read_store_keys(self.credentials_block)
        else:
            secrets = {name: getattr(self, name) for name in STORE_KEYS}
            given |= {name: secret.get_secret_value() for name, secret in secrets.items() if secret}
        options = {option: given[name] for name, option in _S3_OPTIONS.items() if given.get(name)}
        return ObjectStore(root=self.root, options=options)


_S3_OPTIONS = {
    "endpoint_url": "endpoint_url",
    "access_key": "key",
    "secret_key": "secret",
    "session_token": "token",
}


class SourceSettings(_Section):
    """One provider of analyses."""

    type: Literal["open-data", "arco-era5", "cds", "gfs", "files", "deepmind", "nature-run"] = Field(
        ..., description="Which provider's layout to read."
    )
    kind: SourceKind = Field(..., description="What the analyses are; must match what the weights expect.")
    roots: tuple[str, ...] = Field((), description="Root URLs in order of preference; default: all mirrors.")
    parallel: int = Field(4, ge=1, le=16, description="Byte ranges read at once.")
    options: dict[str, Any] = Field(
        default_factory=dict, repr=False, description="Further options of that provider; may hold its key."
    )
    credentials_block: str | None = Field(
        None,
        description="The Prefect Secret that holds further options, a JSON object, such as a provider's key.",
    )


class PointSettings(_Section):
    """A named point for meteograms."""

    name: str = Field(..., description="Name shown on the plot.")
    latitude: float = Field(..., ge=-90, le=90, description="Degrees north.")
    longitude: float = Field(..., ge=-180, lt=360, description="Degrees east.")


class EventSettings(_Section):
    """An event whose probability is a product: a quantity above or below a threshold."""

    quantity: str = Field(..., description="Variable or derived quantity, e.g. 10m_wind_speed.")
    threshold: float = Field(..., description="Threshold in the quantity's units.")
    level: int | None = Field(None, description="Pressure level in hPa, for quantities on levels.")
    below: bool = Field(False, description="Whether the event is falling below instead of exceeding.")


class ProductSettings(_Section):
    """What is made from the members."""

    quantiles: tuple[float, ...] = Field((0.1, 0.5, 0.9), description="Ensemble quantiles, within 0…1.")
    events: tuple[EventSettings, ...] = Field(
        (
            EventSettings(quantity="10m_wind_speed", threshold=10.0),
            EventSettings(quantity="10m_wind_speed", threshold=15.0),
            EventSettings(quantity="total_precipitation", threshold=0.005),
        ),
        description="Events whose probabilities are published.",
    )
    points: tuple[PointSettings, ...] = Field((), description="Named points for meteograms.")
    formats: tuple[Literal["zarr", "netcdf", "grib2", "png"], ...] = Field(
        ("zarr", "png"), description="Formats to publish."
    )

    @field_validator("quantiles")
    @classmethod
    def _within_unit_interval(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 <= q <= 1 for q in value) or list(value) != sorted(value):
            raise ValueError(f"expected ascending numbers within 0…1, got {value}")
        return value


class StationSettings(_Section):
    """Station observations a model's forecasts are scored against."""

    observations: str = Field(
        ...,
        description="File or URL (.csv, .parquet, .nc) of reports; strftime codes stand for the valid time.",
    )
    lapse_rate: float = Field(
        0.0065, description="K per metre by which 2 m temperature is brought to a station's height; 0: not."
    )
    gross_limits: dict[str, float] = Field(
        default_factory=lambda: {
            "2m_temperature": 20.0,
            "mean_sea_level_pressure": 3000.0,
            "10m_u_component_of_wind": 30.0,
            "10m_v_component_of_wind": 30.0,
            "10m_wind_speed": 30.0,
        },
        description="Departure from the ensemble mean beyond which a report is left out, by variable.",
    )


class ModelSettings(_Section):
    """One configured model: its weights, its inputs and how it is run."""

    checkpoint: str = Field(..., description="Path or URL of the params .npz file.")
    statistics: str = Field(..., description="Folder or URL with the *_by_level.nc normalisation statistics.")
    resolution: float | None = Field(
        None, description="Grid spacing in degrees, for a checkpoint that does not say its own."
    )
    loader: str | None = Field(
        None, description="'module:function' that loads a model of a family not built in."
    )
    trained_on: SourceKind = Field(..., description="Which analyses the weights were trained on.")
    source: str = Field(..., description="Name of the source of its initial conditions.")
    members: int = Field(1, ge=1, description="Ensemble size.")
    steps: int = Field(..., ge=1, description="Number of model steps.")
    init_hours: tuple[int, ...] = Field((0, 12), description="Hours of day, UTC, at which cycles start.")
    cutoff: timedelta = Field(
        timedelta(hours=10),
        description="After init_time + cutoff a cycle without inputs is late. Where analyses come days later, so long: "
        "until six hours after it they are waited for.",
    )
    publish_by: timedelta = Field(
        timedelta(hours=12), description="After init_time + publish_by a cycle with inputs is overdue."
    )
    truth_within: timedelta = Field(
        timedelta(days=30),
        description="Truth that has not come so long after its time (and the cycle's publication) is missing: it is no "
        "longer waited for.",
    )
    seed: int = Field(0, ge=0, description="Seed of the cycle's base random key.")
    rng: Literal["operational", "reference"] = Field("operational", description="Recipe of random keys.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="Compute type.")
    attention: str = Field("auto", description="Attention implementation (GenCast).")
    members_per_program: int = Field(1, ge=1, description="Members computed by one compiled program.")
    block_size: int = Field(4, ge=1, description="Members per worker run.")
    checkpoint_every: int = Field(4, ge=1, description="Steps between rollout checkpoints.")
    step_timeout: timedelta = Field(timedelta(minutes=30), description="Limit without progress.")
    require: Literal["all"] | int = Field("all", description="'all' members, or the least number.")
    sea_surface_temperature: Literal["source", "era5t", "skin-temperature"] = Field(
        "source", description="Where SST comes from."
    )
    regridding: Literal["auto", "linear", "conservative", "nearest"] = Field(
        "auto", description="'auto' takes a subset of points where possible, else linear interpolation."
    )
    perturbation: dict[str, Any] = Field(
        default_factory=dict, description="Initial-condition perturbation of a deterministic model."
    )
    climatology: str | None = Field(None, description="Climatology file for anomalies and verification.")
    stations: StationSettings | None = Field(None, description="Station observations to score against.")
    products: ProductSettings = Field(default_factory=ProductSettings, description="What is published.")


class RunSettings(_Section):
    """How work is handed out."""

    submission: Literal["in-process", "work-pool"] = Field("in-process", description="Where blocks run.")
    work_pool: str = Field("gpu", description="Work pool of member blocks.")
    block_attempts: int = Field(3, ge=1, description="Attempts before a block is given up.")
    workers_at_once: int = Field(8, ge=1, description="Blocks submitted at once.")
    retry_delay: timedelta = Field(
        timedelta(seconds=15), description="Wait before a block's second attempt; doubled for each further."
    )
    heartbeat: timedelta = Field(timedelta(seconds=15), description="Between a worker's signs of life.")
    lost_after: timedelta = Field(
        timedelta(minutes=3), description="A running block silent for so long is given to another worker."
    )
    start_within: timedelta = Field(
        timedelta(minutes=15),
        description="A block that a worker took but did not begin within this is given to another.",
    )
    poll: timedelta = Field(timedelta(seconds=5), description="Between looks at a submitted block.")
    cache: str = Field("~/.cache/foldcast", description="Compiled programs, graphs, remote files, weights.")


NO_TELEMETRY = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}
"""Environment in which neither Prefect nor Great Expectations calls home."""

_QUIET = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
}

_Some = TypeVar("_Some", bound=_Section)
_MODEL_PATHS = ("checkpoint", "statistics", "climatology")


def _anchored(section: _Some, folder: Path, fields: tuple[str, ...]) -> _Some:
    paths = {name: getattr(section, name) for name in fields}
    local = {name: path for name, path in paths.items() if path is not None and "://" not in path}
    return section.model_copy(
        update={name: str(folder / Path(path).expanduser()) for name, path in local.items()}
    )


def _anchored_model(model: ModelSettings, folder: Path) -> ModelSettings:
    model = _anchored(model, folder, _MODEL_PATHS)
    if model.stations is None:
        return model
    return model.model_copy(update={"stations": _anchored(model.stations, folder, ("observations",))})


class Settings(BaseSettings):
    """Everything that can be configured."""

    model_config = SettingsConfigDict(
        env_prefix="FOLDCAST_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    store: StoreSettings = Field(default_factory=StoreSettings, description="The object store.")
    run: RunSettings = Field(default_factory=RunSettings, description="How work is handed out.")
    sources: dict[str, SourceSettings] = Field(default_factory=dict, description="Providers by name.")
    models: dict[str, ModelSettings] = Field(default_factory=dict, description="Models by name.")
    keep_days: int = Field(30, ge=1, description="Days published cycles are kept.")
    webhook: SecretStr | None = Field(None, description="URL that alerts are posted to.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the TOML file."""
        path = settings_cls.model_config.get("toml_file")
        toml = (TomlConfigSettingsSource(settings_cls),) if path else ()
        return (init_settings, env_settings, *toml)

    def configured_model(self, name: str) -> ModelSettings:
        """The model of that name.

        Raises:
            UnknownModelError: no such model; the message lists the configured ones, and says where a
                configuration goes if there is none.
        """
        if name not in self.models:
            known = ", ".join(sorted(self.models)) or f"none; {_where_models_come_from()}"
            raise UnknownModelError(f"unknown model {name!r}; configured: {known}")
        return self.models[name]

    def simulated(self, model: str) -> bool:
        """Whether a model's analyses are a nature run's: weather that never was, at times of its own."""
        configured = self.configured_model(model)
        source = self.sources.get(configured.source)
        return (source.kind if source is not None else configured.trained_on) == "nature-run"

    def with_source(self, model: str, source: str) -> Settings:
        """The same settings with a model's initial conditions taken from another configured source."""
        self.configured_source(source)
        changed = self.configured_model(model).model_copy(update={"source": source})
        return self.model_copy(update={"models": {**self.models, model: changed}})

    def anchored(self, folder: Path) -> Settings:
        """The same settings with relative paths made absolute below a folder."""
        models = {name: _anchored_model(model, folder) for name, model in self.models.items()}
        store = _anchored(self.store, folder, ("root",))
        run = _anchored(self.run, folder, ("cache",))
        return self.model_copy(update={"models": models, "store": store, "run": run})

    def configured_source(self, name: str) -> SourceSettings:
        """The source of that name.

        Raises:
            SettingsError: no such source; the message lists the configured ones.
        """
        if name not in self.sources:
            known = ", ".join(sorted(self.sources)) or "none"
            raise SettingsError(f"unknown source {name!r}; configured: {known}")
        return self.sources[name]


def configuration_file(path: Path | None = None) -> Path | None:
    """The TOML file that is read, absolute; None where there is none.

    Args:
        path: the one to read; default ``FOLDCAST_CONFIG``, else ``foldcast.toml`` if it exists.

    Raises:
        SettingsError: a file was named and is not there.
    """
    named = path or (Path(os.environ["FOLDCAST_CONFIG"]) if "FOLDCAST_CONFIG" in os.environ else None)
    if named is not None and not named.is_file():
        raise SettingsError(f"configuration file: expected a TOML file, found none at {named}")
    file = named or Path("foldcast.toml")
    return file.resolve() if file.is_file() else None


def _where_models_come_from() -> str:
    file = configuration_file()
    if file is not None:
        return f"{file} has no [models.…]; docs/quickstart.md has examples"
    return (
        f"no foldcast.toml found in {Path.cwd()}, and FOLDCAST_CONFIG names none; "
        "docs/quickstart.md has one to copy"
    )


def load_settings(path: Path | None = None, **overrides: Any) -> Settings:
    """Settings from overrides, the environment and a TOML file.

    Args:
        path: the TOML file; default ``FOLDCAST_CONFIG``, else ``foldcast.toml`` if it exists.
        overrides: top-level fields that win over everything else.

    Raises:
        SettingsError: the file is missing or not TOML, or a field is not valid.
    """
    file = configuration_file(path)

    class _FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    try:
        return _FromFile(**overrides).anchored(file.parent if file is not None else Path.cwd())
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        raise SettingsError(f"configuration is not valid: {problems}") from None
    except ValueError as error:
        raise SettingsError(f"configuration file {file}: {error}") from None


def child_environment(**variables: str) -> dict[str, str]:
    """This process's environment with further variables, for processes it starts."""
    return {**os.environ, **variables}


def quiet_orchestration(*, debug: bool) -> None:
    """Settle what Prefect and Great Expectations read from the environment; call it before they are imported.

    No telemetry is sent, whoever set what. The rest are defaults: expected failures are shown by the command
    itself, so Prefect's own log stays silent unless debugging; a slow machine gets time to start the temporary
    server of a command that runs without one.
    """
    os.environ.update(NO_TELEMETRY)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, "INFO" if debug and name.endswith("LOGGING_LEVEL") else value)


def private_orchestration(home: Path) -> None:
    """Keep Prefect's database of this process in a folder and off any server; call it before its import.

    Raises:
        SettingsError: the folder cannot be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"folder {home}: cannot be written: {error.strerror}") from None
    os.environ.pop("PREFECT_API_URL", None)
    os.environ["PREFECT_HOME"] = str(home)
