"""``python -m redisha``: the same as the command ``redisha``."""

from redisha.cli import main

main()
