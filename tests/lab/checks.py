"""What a run must show. In: its claims, as they are settled. Out: a line each, `ok` or `FAILED` with the numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Console
from rich.text import Text


@dataclass
class Checks:
    console: Console
    run: str = ""
    settled: list[tuple[str, bool, str, str]] = field(default_factory=list)

    def check(self, claim: str, held: bool, numbers: object = "") -> bool:
        self.settled.append((self.run, held, claim, str(numbers)))
        line = Text.assemble(("ok      ", "green") if held else ("FAILED  ", "bold red"), claim)
        if str(numbers):
            line.append(f": {numbers}")
        self.console.print(line, soft_wrap=True)
        return held

    def note(self, text: str) -> None:
        self.console.print(Text(f"        {text}"), soft_wrap=True)

    @property
    def failed(self) -> list[str]:
        return [f"{run}: {claim}: {numbers}" for run, held, claim, numbers in self.settled if not held]
