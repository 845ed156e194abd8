"""What every part of the frontend stands on: settings, errors, logging, metrics, event names."""
