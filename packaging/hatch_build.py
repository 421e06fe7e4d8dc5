"""A wheel with the hot modules compiled beside their text, where APPID_COMPILE=1 asks for it (docs/decisions/0014).

In: hatchling's build of a wheel. Out: the same wheel, or one of this platform and interpreter with build/native in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Compiled(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "standard" or self.target_name != "wheel" or os.environ.get("APPID_COMPILE") != "1":
            return
        subprocess.run([sys.executable, "packaging/compile"], cwd=self.root, check=True, stdout=sys.stderr)
        native = Path(self.root, "build", "native")
        build_data["force_include"] |= {str(path): str(path.relative_to(native)) for path in native.rglob("*.so")}
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
