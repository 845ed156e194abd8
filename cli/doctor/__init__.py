"""What `dms-frontend doctor` looks at, in three parts: the store, its server, the services."""
