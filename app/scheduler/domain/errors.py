"""Errors of triggers and of what they are made of."""


class SchedulerError(Exception):
    """Base of every error of `app.scheduler`."""


class CronError(SchedulerError, ValueError):
    """A cron expression that means nothing; says which field, which value, and what is allowed."""
