"""The command line of DMS: `dms-frontend`, or `dms` for short."""
