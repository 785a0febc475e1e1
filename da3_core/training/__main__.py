"""`python -m da3_core.training CONFIG [name=value ...]`, alone or under torchrun."""

from __future__ import annotations

import argparse
import logging
import sys

from da3_core.training.loop import train

log = logging.getLogger(__name__)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m da3_core.training", description="Run the training that a YAML file describes.")
    parser.add_argument("config", help="YAML file of settings, see config/train")
    parser.add_argument("overrides", nargs="*", metavar="name=value", help="settings on top, like optimizer.lr=1e-4")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    outcome = train(arguments.config, arguments.overrides)
    log.info(outcome.line())
    sys.exit(outcome.exit_code)


if __name__ == "__main__":
    main()
