"""``python -m vidanon``."""

from vidanon.cli import main

main(prog_name="vidanon")
