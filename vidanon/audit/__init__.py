"""Measure the encoded result, make it again where someone is still recognisable, and report."""
