"""Four common names, one distribution: what is installed is this repository and nothing else."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOUR = ("schemas", "pipeline", "agents", "dashboards")
LOCKS = ("requirements.lock", "requirements-dev.lock")
PIN = re.compile(r"^(?P<name>[a-z0-9.-]+)==(?P<version>\S+)", re.MULTILINE)


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def pins(lock: str) -> dict[str, str]:
    return {found["name"]: found["version"] for found in PIN.finditer((ROOT / lock).read_text(encoding="utf-8"))}


@pytest.mark.parametrize("name", FOUR)
def test_each_package_resolves_inside_the_repository(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__file__ == str(ROOT / name / "__init__.py")


def test_the_package_list_names_every_folder_with_an_init_and_no_other() -> None:
    folders = {
        ".".join(init.parent.relative_to(ROOT).parts) for name in FOUR for init in (ROOT / name).rglob("__init__.py")
    }
    listed = pyproject()["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(folders)


def test_every_pattern_of_package_data_matches_a_file() -> None:
    data: dict[str, list[str]] = pyproject()["tool"]["setuptools"]["package-data"]
    unmatched = [
        f"{package}: {pattern}"
        for package, patterns in data.items()
        for pattern in patterns
        if not any((ROOT / package.replace(".", "/")).glob(pattern))
    ]
    assert unmatched == []


def test_the_installed_version_is_the_one_in_pyproject() -> None:
    try:
        installed = importlib.metadata.version("roompulse")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("roompulse is not installed here; `make venv` installs it")
    assert installed == pyproject()["project"]["version"]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_names_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", text)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_has_a_hash_for_every_pin_and_pins_nothing_else(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    requirements = re.split(r"^(?=\S)", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE)
    for requirement in filter(None, requirements):
        assert PIN.match(requirement), requirement
        assert "--hash=sha256:" in requirement, requirement


def test_the_locks_agree_so_that_tests_run_with_what_users_get() -> None:
    runtime, dev = (pins(lock) for lock in LOCKS)
    assert runtime.items() <= dev.items()


@pytest.mark.parametrize(("lock", "extra"), [("requirements.lock", None), ("requirements-dev.lock", "dev")])
def test_a_lock_file_pins_every_dependency_that_pyproject_names(lock: str, extra: str | None) -> None:
    project = pyproject()["project"]
    wanted = project["dependencies"] + (project["optional-dependencies"][extra] if extra else [])
    names = {re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower() for requirement in wanted}
    assert names - pins(lock).keys() == set(), "run `make lock`"
