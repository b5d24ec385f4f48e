"""What is in the repository concerns everybody: no machine's paths, no registry's addresses, no heavy file."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_BYTES = 1024 * 1024
# Put together here, so that this file does not contain what it forbids.
FORBIDDEN = re.compile(
    "|".join(
        [
            r"(?<![\w.-])/" + "work/",
            r"(?<![\w.-])/" + "root/",
            "pypi.org/" + "simple",
            "files." + "pythonhosted.org",
            "registry." + "npmjs.org",
        ]
    )
)


def repository_files() -> list[Path]:
    """Return what a commit of everything would hold: tracked files and those that git does not ignore."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout to know which files belong to the repository")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    # A file that was removed but not yet from the index is listed too.
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_text_file_names_a_path_of_one_machine_or_a_registry() -> None:
    found = []
    for path in repository_files():
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode("utf-8", errors="replace").splitlines(), start=1):
            if match := FORBIDDEN.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match.group()}")
    assert found == []


def test_no_file_but_the_trained_table_is_larger_than_a_mebibyte() -> None:
    heavy = [str(path.relative_to(ROOT)) for path in repository_files() if path.stat().st_size > MAX_BYTES]
    assert heavy == ["pipeline/sentiment/grams.bin.z"]


@pytest.mark.parametrize(
    "line", ["open('/" + "work/x')", "~/" + "x /" + "root/.cache", "https://pypi.org/" + "simple/a"]
)
def test_the_patterns_find_what_they_are_for(line: str) -> None:
    assert FORBIDDEN.search(line)


@pytest.mark.parametrize("line", ["docs/frame" + "work/x", "https://example.org/" + "work/x", "tests/" + "root/x"])
def test_the_patterns_leave_other_paths_alone(line: str) -> None:
    assert not FORBIDDEN.search(line)
