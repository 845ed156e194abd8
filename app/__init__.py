"""The DMS frontend: the HTTP service, and the libraries that its process is made of."""
