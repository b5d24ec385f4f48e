"""From so many partitions to more: `roompulse migrate`."""

from agents.migration.steps import Migration, Plan, Result

__all__ = ["Migration", "Plan", "Result"]
