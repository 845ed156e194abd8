"""Triggers: they say when, and publish an event. They run no task: that is `dms_scheduler`."""
