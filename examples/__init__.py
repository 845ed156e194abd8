"""Examples: importable, so that DMS_TASK_MODULES can name them. Not part of the distribution."""
