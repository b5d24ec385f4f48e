"""Settings from outside: environment variables over a TOML file over defaults, each mistake named with its source."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from agents.errors import UsageError
from schemas.settings import Policy, Settings

PREFIX: Final = "ROOMPULSE_"
CONFIG_VARIABLE: Final = "ROOMPULSE_CONFIG"
_MAX_SHOWN: Final = 60


class _Environment(Settings, BaseSettings):
    """The same tree under the names that environment variables have."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True)


_JSON_SHAPES: Final[dict[Any, str]] = {dict: "object", tuple: 'list, like ["segment"]'}
"""What a variable of a field with several values has to hold."""


class _Layer(NamedTuple):
    """Values from one place; `where` words the place of a field."""

    values: Mapping[str, Any]
    where: Callable[[tuple[str, ...]], str]


def load_settings(config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings of this process.

    Parameters
    ----------
    config : TOML file; None takes the one that `ROOMPULSE_CONFIG` names, if any.
    overrides : a tree of values that beat the environment, which beats the file.

    Raises
    ------
    UsageError
        One line that names the field and where its value came from. Values of secrets are never shown.
    """
    named = config or (Path(name) if (name := os.environ.get(CONFIG_VARIABLE)) else None)
    layers = [_Layer(overrides or {}, lambda _: "given by the caller"), _environment()]
    if named is not None:
        layers.append(_file(named))
    return _validated(layers)


def load_policy(path: Path) -> Policy:
    """Return the policy that a TOML file of settings describes, without a look at the environment."""
    return _validated([_file(path)]).policy


def broker_of(settings: Settings) -> str:
    """Return the broker's address; raise UsageError when none is set."""
    if settings.broker is None:
        msg = "broker must be set, got none: set ROOMPULSE_BROKER to kafka://host:port[,host:port]"
        raise UsageError(msg)
    return settings.broker


def control_key_of(settings: Settings) -> bytes:
    """Return the key that signs controls; raise UsageError when none is set."""
    return _key(settings.control_key, "control_key")


def privacy_key_of(settings: Settings) -> bytes:
    """Return the key that turns ids into tokens; raise UsageError when none is set."""
    return _key(settings.privacy_key, "privacy_key")


def _key(key: SecretStr | None, field: str) -> bytes:
    if key is None:
        msg = f"{field} must be set, got none: set {PREFIX}{field.upper()} to at least 32 random characters"
        raise UsageError(msg)
    return key.get_secret_value().encode()


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _variables() -> Iterator[tuple[str, Any]]:
    """Yield each variable that is read, with the annotation of its field."""
    for name, info in Settings.model_fields.items():
        if _is_section(info.annotation):
            for inner, inner_info in info.annotation.model_fields.items():  # type: ignore[union-attr]  # a section
                yield f"{PREFIX}{name}__{inner}".upper(), inner_info.annotation
        else:
            yield f"{PREFIX}{name}".upper(), info.annotation


def _environment() -> _Layer:
    known = dict(_variables())
    for variable, value in os.environ.items():
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        if variable not in known:
            msg = f"environment variable {variable} must be one the program knows{_meant(variable, known)}"
            raise UsageError(msg)
        shape = _JSON_SHAPES.get(get_origin(known[variable]))
        if value and shape is not None:
            _check_json(variable, value, shape)
    return _Layer(EnvSettingsSource(_Environment)(), _variable)


def _check_json(variable: str, value: str, shape: str) -> None:
    try:
        json.loads(value)
    except ValueError as error:
        msg = f"environment variable {variable} must be a JSON {shape}: {error}"
        raise UsageError(msg) from None


def _variable(place: tuple[str, ...]) -> str:
    return f"environment variable {PREFIX}{'__'.join(place[:2]).upper()}"


def _file(path: Path) -> _Layer:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:  # says line and column
        msg = f"{path} must be valid TOML: {error}"
        raise UsageError(msg) from None
    except UnicodeDecodeError as error:
        msg = f"{path} must be UTF-8: {error.reason} at byte {error.start}"
        raise UsageError(msg) from None
    except OSError as error:
        msg = f"{path} must be a readable TOML file: {error.strerror or error}"
        raise UsageError(msg) from None
    return _Layer(values, lambda _: str(path))


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for name, value in above.items():
        under = result.get(name)
        both = isinstance(value, Mapping) and isinstance(under, Mapping) and name in Settings.model_fields
        result[name] = {**under, **value} if both else value  # type: ignore[dict-item]  # `both` says it is a mapping
    return result


def _validated(layers: list[_Layer]) -> Settings:
    values: dict[str, Any] = {}
    for layer in reversed(layers):
        values = _merged(values, layer.values)
    try:
        return Settings.model_validate(values)
    except ValidationError as invalid:
        raise UsageError(_explained(invalid, layers)) from None


def _explained(invalid: ValidationError, layers: list[_Layer]) -> str:
    """Return one line: the first mistake, its value unless secret, its source, and how many more there are."""
    errors = invalid.errors(include_url=False)
    first = errors[0]
    place = tuple(str(part) for part in first["loc"])
    field = ".".join(place)
    if first["type"] == "extra_forbidden":
        words = f"{field} must be a field the program knows{_meant(place[-1], _siblings(place))}"
    else:
        message = first["msg"].removeprefix("Value error, ")
        message = message.replace("Input should be ", "must be ").replace("Input should have ", "must have ")
        across_fields = len(place) == 1 and place[0] in Settings.model_fields and first["type"] == "value_error"
        got = "" if first["type"] == "value_error" else f", got {_shown(place, first['input'])}"
        glue = "." if across_fields and message.split(" ", 1)[0] in _siblings((*place, "")) else " "
        words = f"{field}{glue}{message[:1].lower()}{message[1:]}{got}"
    more = f"; and {len(errors) - 1} more" if len(errors) > 1 else ""
    return f"{words} ({' and '.join(_sources(place, layers)) or 'default'}){more}"


def _sources(place: tuple[str, ...], layers: list[_Layer]) -> list[str]:
    """Return where the value at `place` came from; for rules across a section, everywhere it came from."""
    found = []
    for layer in layers:
        here: Any = layer.values
        for part in place:
            if isinstance(here, list):  # a place in it: what names the list names its values
                continue
            if not isinstance(here, Mapping) or part not in here:
                break
            here = here[part]
        else:
            whole = isinstance(here, Mapping) and len(place) == 1
            found += [layer.where((*place, name)) for name in here] if whole else [layer.where(place)]
            if not whole:
                break
    return list(dict.fromkeys(found))


def _shown(place: tuple[str, ...], value: Any) -> str:
    info = Settings.model_fields.get(place[0])
    if info is not None and SecretStr in (info.annotation, *get_args(info.annotation)):
        return "a value that is not shown"
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


def _siblings(place: tuple[str, ...]) -> list[str]:
    fields = Settings.model_fields
    if len(place) > 1 and _is_section(section := fields[place[0]].annotation):
        return list(section.model_fields)  # type: ignore[union-attr]  # a section
    return list(fields)


def _meant(name: str, known: Mapping[str, Any] | list[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
