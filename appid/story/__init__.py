"""The story room: what was seen of a call or a flow, told packet by packet. Pure: no clock, no file, no screen.

In: packets with their layers, the engine's commands, frame numbers and times (nanoseconds since 1970). Out: Story, from
which the ladder on a terminal, the page and the JSON lines all tell (docs/decisions/0021).
"""

from appid.story.step import Description, Effect, Fold, FoldLine, Party, Step, Story, Stream, Tale

__all__ = ["Description", "Effect", "Fold", "FoldLine", "Party", "Step", "Story", "Stream", "Tale"]
