"""appid: a firewall that knows applications, not ports.

packet -> flow -> decode -> evidence -> identify -> policy | alg -> dataplane -> (edge) kernel

`appid check`: where packaging/compile has made build/native of this very source, the modules in it are imported instead
of their text (docs/decisions/0014). APPID_INTERPRETED=1: never.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from hashlib import sha256
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

__version__ = "0.1.0"


class _Compiled(MetaPathFinder):
    """Finds the extension modules below `native`, which are of the sources of this package."""

    def __init__(self, native: Path) -> None:
        self.native = native

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith("appid"):
            return None
        module = self.native.joinpath(*name.split("."))
        package = module / f"__init__{EXTENSION_SUFFIXES[0]}"
        if package.is_file():
            inside = Path(__file__).parent.joinpath(*name.split(".")[1:])
            return spec_from_file_location(name, package, submodule_search_locations=[str(inside)])
        extension = module.with_name(module.name + EXTENSION_SUFFIXES[0])
        return spec_from_file_location(name, extension) if extension.is_file() else None


def _is_of(sums: Path, root: Path) -> bool:
    """Whether the sources are those of which `sums` tells, and the interpreter is."""
    try:
        with sums.open() as lines:
            if next(lines, "") != f"# {sys.implementation.cache_tag}\n":
                return False
            for line in lines:
                digest, path = line.rstrip("\n").split("  ", 1)
                with open(f"{root}/{path}", "rb") as source:
                    if sha256(source.read()).hexdigest() != digest:
                        return False
    except (OSError, ValueError):
        return False
    return True


def prefer_compiled() -> None:
    """To be called before any of them is imported; does nothing where they are not, or not of this source."""
    root = Path(__file__).resolve().parent.parent
    if not os.environ.get("APPID_INTERPRETED") and _is_of(root / "build" / "native" / "SHA256SUMS", root):
        sys.meta_path.insert(0, _Compiled(root / "build" / "native"))
