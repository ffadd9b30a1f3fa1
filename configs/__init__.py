"""Configs: a complete base for each network and small overrides on it."""
