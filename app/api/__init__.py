"""HTTP's side of the frontend: routes, who may call them, and how errors are told."""
