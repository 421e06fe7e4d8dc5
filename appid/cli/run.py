"""`appid run`: the inline gateway on NFQUEUE, until SIGTERM or Ctrl-C. Says `ready` on stderr once it serves."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from appid.edge.config import load_config
from appid.edge.privileges import keep_for_rules
from appid.edge.service import Service


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", dest="config", metavar="FILE", type=Path, help="default: /etc/appid/appid.toml")
    parser.add_argument("--monitor", action="store_true", help="let everything pass, report what would have been")


def run(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(message)s", force=True)
    logging.getLogger("appid").setLevel(config.level.upper())  # ours; libraries only warn
    with Service(config, arguments.monitor) as service:
        keep_for_rules()
        service.run()
    return 0
