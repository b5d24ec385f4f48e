"""Apache Kafka's jars, fetched once with Maven and kept for every later run."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

KAFKA_VERSION: Final = "4.3.1"
MIN_JAVA: Final = 17
FETCH_TIMEOUT_S: Final = 900.0
INSTALL: Final = "on Debian and Ubuntu: apt-get install openjdk-17-jre-headless maven"
_PLUGIN: Final = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies"
# slf4j-simple: without a binding a broker would say nothing, not even why it ends.
_POM: Final = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>roompulse</groupId>
  <artifactId>kafka-jars</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""


class KafkaUnavailableError(RuntimeError):
    """A real Kafka cannot be run here; its one line says what to install or to look at."""


def java() -> str:
    """Return the path of a Java that runs Kafka; raise KafkaUnavailableError without one."""
    home = os.environ.get("JAVA_HOME")
    path = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if path is None:
        msg = f"java must be {MIN_JAVA} or newer, got none: {INSTALL}"
        raise KafkaUnavailableError(msg)
    told = subprocess.run([path, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < MIN_JAVA:
        msg = f"java must be {MIN_JAVA} or newer, got {told.splitlines()[:1]} from {path}: {INSTALL}"
        raise KafkaUnavailableError(msg)
    return path


def cache() -> Path:
    """Return the folder of what is fetched once: `$XDG_CACHE_HOME/roompulse`, else `~/.cache/roompulse`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "roompulse"


def classpath() -> str:
    """Return Java's class path with every jar of Kafka, fetching them the first time (45 MB)."""
    folder = cache() / f"kafka-{KAFKA_VERSION}"
    if not folder.is_dir():
        cache().mkdir(parents=True, exist_ok=True)
        with (cache() / "kafka.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at once: the second finds what the first fetched
            if not folder.is_dir():
                _fetch(folder)
    return f"{folder}/*"


def _fetch(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        msg = f"Maven must be there to fetch Kafka {KAFKA_VERSION}, got no mvn: {INSTALL}"
        raise KafkaUnavailableError(msg)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetch-") as made:
        (Path(made) / "pom.xml").write_text(_POM, encoding="utf-8")
        command = [maven, "-B", "-q", "--strict-checksums", _PLUGIN, "-DincludeScope=runtime", "-DoutputDirectory=jars"]
        try:
            said = subprocess.run(
                command, cwd=made, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            msg = f"Maven must fetch Kafka within {FETCH_TIMEOUT_S:g} s, got no end: look at the network"
            raise KafkaUnavailableError(msg) from None
        if said.returncode:
            errors = [line for line in said.stdout.splitlines() if "ERROR" in line]
            msg = f"Maven must fetch Kafka {KAFKA_VERSION}, got {(errors or ['no word'])[0][:300]}: look at the network"
            raise KafkaUnavailableError(msg)
        (Path(made) / "jars").rename(folder)  # whole or not at all
