"""Scores for videos of talking faces."""
