"""The rivals' own Python environment: made once under `build/`, from pinned versions, never mixed with this program's.

Stock Faust needs none: it runs in this program's environment, so its version is the same by construction.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agents.errors import ProgramError

ROOT: Final = Path(__file__).resolve().parents[1]
REQUIREMENTS: Final = Path(__file__).with_name("rivals") / "requirements.txt"
INSTALL_TIMEOUT_S: Final = 600


def folder() -> Path:
    """Return where the environment belongs: another one for other pins or another Python."""
    digest = hashlib.blake2b(REQUIREMENTS.read_bytes() + sys.version.encode(), digest_size=6).hexdigest()
    return ROOT / "build" / f"rivals-{digest}"


def ready(tell: Callable[[str], object]) -> Path:
    """Return the environment's interpreter, after making it if there is none.

    Raises
    ------
    ProgramError
        It could not be made, for instance without a package index; nothing half-made stays.
    """
    home = folder()
    python = home / "bin" / "python"
    stamp = home / "complete"
    if stamp.exists():
        return python
    shutil.rmtree(home, ignore_errors=True)
    tell(f"installing the rivals of {REQUIREMENTS.name} into {home.relative_to(ROOT)} (once)")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    for command in ([sys.executable, "-m", "venv", str(home)], [*pip, "-r", str(REQUIREMENTS)]):
        try:
            done = subprocess.run(command, capture_output=True, timeout=INSTALL_TIMEOUT_S, check=False, text=True)
            failure = (done.stderr or done.stdout).strip().splitlines()[-1:] if done.returncode else None
        except (OSError, subprocess.TimeoutExpired) as error:
            failure = [str(error)]
        if failure is not None:
            shutil.rmtree(home, ignore_errors=True)
            words = failure[0][:300] if failure else "no word"
            msg = f"the rivals must install, got: {words} (without them: --contenders roompulse,faust,faust-take)"
            raise ProgramError(msg)
    stamp.touch()
    return python
