"""python -m da3_ros is the command da3."""

from .cli import main

main()
