"""Errors that a person at the terminal can mend: one line, an exit code, no traceback."""

from __future__ import annotations


class ProgramError(Exception):
    """It failed; the message says what to do next."""

    exit_code = 1


class UsageError(ProgramError):
    """Wrong usage or settings: nothing was started."""

    exit_code = 2
