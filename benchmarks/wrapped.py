"""Runs one of the scripts with a part of it replaced, as alpha_rule.py and both_actors.py do."""

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent


def parser(description: str) -> argparse.ArgumentParser:
    """Knows --script; the caller adds its own options, and all other words go to the script."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--script", required=True, help="without .py")
    return made


def run(known: argparse.ArgumentParser, replace: Callable[[ModuleType, argparse.Namespace], None]) -> None:
    """Imports the script, lets replace(script, options) change it, and runs it."""
    options, flags = known.parse_known_args()
    sys.path.insert(0, str(ROOT))
    script = importlib.import_module(options.script)
    replace(script, options)
    sys.argv = [f"{options.script}.py", *flags]
    script.main()
