"""``python -m ftengine`` is the same as ``ftengine``."""

from ftengine.cli import main

main(prog_name="ftengine")
