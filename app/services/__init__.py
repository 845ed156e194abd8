"""What the frontend does, free of HTTP's server side: tasks, dispatching, live views."""
