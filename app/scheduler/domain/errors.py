"""Errors of triggers and of what they are made of."""


class SchedulerError(Exception):
    """Base of every error of `app.scheduler`."""


class CronError(SchedulerError, ValueError):
    """A cron expression that means nothing; says which field, which value, and what is allowed."""


class TriggerError(SchedulerError):
    """Base of what can go wrong with a trigger or with a scheduler's list of them."""


class TriggerConfigError(TriggerError, ValueError):
    """A trigger cannot be made of these arguments; names the argument and what is allowed."""


class DuplicateTriggerError(TriggerError, ValueError):
    """The trigger's id, or the trigger itself, is registered already."""


class UnknownTriggerError(TriggerError, KeyError):
    """No trigger is registered under that id."""

    def __str__(self) -> str:  # KeyError would show the message in quotation marks
        return str(self.args[0])


class TriggerNotRunningError(TriggerError):
    """The trigger was not started, or was stopped: nothing was published."""


class EventFactoryError(TriggerError):
    """An event factory raised, took too long or made something else than an event. The cause is
    `__cause__`."""


class TemplateError(SchedulerError, ValueError):
    """A text among parameters holds something else than a template; says where."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}")
        self.place = place
        self.problem = problem
