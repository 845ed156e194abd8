"""The routes of the frontend, one file a subject; the explicit list of them stands in app.main."""
