"""Fictional people and who gets which."""
