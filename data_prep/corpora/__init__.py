"""One module a corpus; each yields Clips."""
