"""The compose file and the image it builds say what the rest of the repository says."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from schemas.settings import Settings

ROOT = Path(__file__).parents[2]
PROVISIONED = re.compile(r"ROOMPULSE_(BROKER|CONFIG|KAFKA__\w+)")
SECRET_NAME = re.compile(r"KEY|SECRET|PASSWORD|TOKEN|CREDENTIAL")
REQUIRED_FROM_OUTSIDE = re.compile(r"\$\{(?P<name>[A-Z_]+):\?[^${}]+\}")
LOOKS_RANDOM = re.compile(r"(?<![\w+/=-])(?=\S*\d)(?=\S*[A-Za-z])[\w+/=-]{20,}(?![\w+/=-])")


def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def environment(service: str) -> dict[str, str]:
    found = compose()["services"][service].get("environment", {})
    assert isinstance(found, dict), f"{service}: environment must be a mapping"
    return {name: str(value) for name, value in found.items()}


def known_variables() -> set[str]:
    """Every variable the program reads: ROOMPULSE_<FIELD>, or ROOMPULSE_<SECTION>__<FIELD>."""
    names = {"ROOMPULSE_CONFIG"}
    for field, info in Settings.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            names |= {f"ROOMPULSE_{field}__{inner}".upper() for inner in info.annotation.model_fields}
        else:
            names.add(f"ROOMPULSE_{field}".upper())
    return names


SERVICES = sorted(compose()["services"])


def test_the_file_is_valid_by_the_compose_specification() -> None:
    schema = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_bytes())
    # Named, because its $schema lacks the trailing # by which the library would know draft 7.
    checker = jsonschema.Draft7Validator(schema)
    problems = [f"{error.json_path}: {error.message}" for error in checker.iter_errors(compose())]
    assert problems == []


@pytest.mark.parametrize("service", SERVICES)
def test_no_environment_value_holds_a_secret(service: str) -> None:
    for name, value in environment(service).items():
        if SECRET_NAME.search(name):
            required = REQUIRED_FROM_OUTSIDE.fullmatch(value)
            assert required, f"{service}.{name} must come from outside, without a default, got {value!r}"
            assert required["name"] == name
        else:
            assert not LOOKS_RANDOM.search(value), f"{service}.{name} looks like a secret: {value!r}"
        assert not re.search(r"://[^/\s]*:[^/\s]*@", value), f"{service}.{name} has a password in an address"


@pytest.mark.parametrize(
    "value", ["5L6g3nShT-eMCtK--X86sw", "9f86d081884c7d659a2feaa0c55ad015", "kafka://u,aB3dE6gH9jK2mN5pQ8sT"]
)
def test_a_pasted_key_would_be_noticed(value: str) -> None:
    assert LOOKS_RANDOM.search(value)


@pytest.mark.parametrize("service", SERVICES)
def test_every_variable_of_ours_is_one_the_program_knows(service: str) -> None:
    ours = {name for name in environment(service) if name.startswith("ROOMPULSE_")}
    assert ours <= known_variables(), f"{service}: unknown {sorted(ours - known_variables())}"


def test_only_the_worker_is_given_the_keys_and_it_is_given_both() -> None:
    keys = {"ROOMPULSE_PRIVACY_KEY", "ROOMPULSE_CONTROL_KEY"}
    assert {service: keys & environment(service).keys() for service in SERVICES} == {
        "kafka": set(),
        "provision": set(),
        "worker": keys,
    }


def test_the_worker_expects_the_topics_that_provision_makes() -> None:
    provision, worker = (
        {name: value for name, value in environment(service).items() if PROVISIONED.fullmatch(name)}
        for service in ("provision", "worker")
    )
    assert provision == worker
    assert "ROOMPULSE_BROKER" in worker


def test_provision_alone_decides_what_topics_are_like() -> None:
    kafka = environment("kafka")
    assert kafka["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    # A broker-wide value would also reach the changelogs; each topic of ours carries its own.
    overruled = {"KAFKA_LOG_MESSAGE_TIMESTAMP_TYPE", "KAFKA_LOG_CLEANUP_POLICY", "KAFKA_NUM_PARTITIONS"}
    assert not overruled & kafka.keys()


def test_topics_fit_on_the_one_broker() -> None:
    copies = environment("provision").get(
        "ROOMPULSE_KAFKA__REPLICATION_FACTOR", str(Settings().kafka.replication_factor)
    )
    assert copies == "1"
    assert {value for name, value in environment("kafka").items() if name.endswith(("_FACTOR", "_MIN_ISR"))} == {"1"}


def test_the_worker_waits_for_a_healthy_broker_and_its_topics() -> None:
    services = compose()["services"]
    assert "healthcheck" in services["kafka"]
    assert services["provision"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
    assert services["worker"]["depends_on"] == {
        "kafka": {"condition": "service_healthy"},
        "provision": {"condition": "service_completed_successfully"},
    }


def test_the_worker_can_be_scaled() -> None:
    worker = compose()["services"]["worker"]
    assert not {"container_name", "hostname", "ports", "volumes"} & worker.keys()


def test_inside_and_outside_reach_the_broker_by_an_address_it_advertises() -> None:
    kafka = environment("kafka")
    advertised = dict(listener.split("://") for listener in kafka["KAFKA_ADVERTISED_LISTENERS"].split(","))
    assert environment("worker")["ROOMPULSE_BROKER"] == f"kafka://{advertised['INTERNAL']}"
    assert compose()["services"]["kafka"]["ports"] == [f"{advertised['HOST']}:9092"]


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_open_to_this_machine_alone(service: str) -> None:
    for port in compose()["services"][service].get("ports", []):
        assert str(port).startswith("127.0.0.1:")


@pytest.mark.parametrize("service", SERVICES)
def test_images_are_ours_or_pinned_to_a_full_version(service: str) -> None:
    described = compose()["services"][service]
    assert "build" in described or re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+", described["image"])


def instructions() -> list[list[str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def test_the_image_installs_the_pinned_versions_and_runs_without_root() -> None:
    runs = [" ".join(words) for words in instructions() if words[0] == "RUN"]
    assert any("--require-hashes -r requirements.lock" in run for run in runs)
    users = [words[1] for words in instructions() if words[0] == "USER"]
    assert users, "the image must name a user"
    assert users[-1] not in {"root", "0"}


def test_the_image_is_built_from_every_package_and_only_from_files_that_docker_may_see() -> None:
    copied = {
        source
        for words in instructions()
        if words[0] == "COPY" and not words[1].startswith("--from")
        for source in words[1:-1]
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {name.partition(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    assert packages <= copied
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    assert copied == allowed
