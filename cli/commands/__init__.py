"""The commands, one file a group; `cli.main` puts them together."""
