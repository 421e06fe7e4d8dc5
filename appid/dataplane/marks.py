"""The packet mark and connmark layout. In: what was decided, and the operator's mask. Out: mark values, and back.

From the lowest bit of the mask upwards: 2 bits state (0 undecided, 1 allow, 2 deny, 3 drop in silence), 1 bit watch,
1 bit PASS (packet only, never saved), then, in the mask's upper run of bits, the application's number. A second mask
may hold the QoS class of the policy rule that decided (0: none). Bits outside both belong to others and are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from appid.policy import Action

UNDECIDED: Final = 0
ALLOW: Final = 1
DENY: Final = 2
DROP: Final = 3

STATES: Final[dict[Action | None, int]] = {None: UNDECIDED, "allow": ALLOW, "deny": DENY, "drop": DROP}
_ACTIONS: Final[tuple[Action | None, ...]] = (None, "allow", "deny", "drop")


class Mark(NamedTuple):
    """A mark taken apart. `action` is None while undecided."""

    action: Action | None
    application: int
    watch: bool
    passing: bool
    qos: int = 0


def _low_bit(value: int) -> int:
    return (value & -value).bit_length() - 1


@dataclass(frozen=True, slots=True)
class Marks:
    """The layout inside `mask`: four neighbouring bits, then one run of at least eight for the application's number.
    `qos`: one run of bits beside it for QoS classes, or 0. `nibble`: the lowest four.

    ValueError(reason) if the masks do not hold that. `saved` is what goes into the connmark: all but PASS. Once made,
    `mask` is all bits that are ours.
    """

    mask: int = 0x00FFFF0F
    qos: int = 0
    shift: int = field(init=False)
    nibble: int = field(init=False)
    state: int = field(init=False)
    watch: int = field(init=False)
    passing: int = field(init=False)
    saved: int = field(init=False)
    application: int = field(init=False)
    application_shift: int = field(init=False)
    qos_shift: int = field(init=False)

    def __post_init__(self) -> None:
        if not 0 < self.mask <= 0xFFFFFFFF:
            raise ValueError(f"mark mask {self.mask:#x} is not a 32-bit value")
        shift = _low_bit(self.mask)
        nibble = 0xF << shift
        if self.mask & nibble != nibble:
            raise ValueError(f"mark mask {self.mask:#010x}: its lowest four bits are not neighbours")
        rest = self.mask & ~nibble
        run = rest >> _low_bit(rest) if rest else 0
        if run & (run + 1) or run < 0xFF:
            raise ValueError(f"mark mask {self.mask:#010x}: needs one run of at least 8 bits for the application")
        classes = self.qos >> _low_bit(self.qos) if self.qos else 0
        if not 0 <= self.qos <= 0xFFFFFFFF or self.qos & self.mask or classes & (classes + 1):
            raise ValueError(
                f"QoS mask {self.qos:#010x}: needs one run of bits outside the mark mask {self.mask:#010x}"
            )
        derived = {
            "mask": self.mask | self.qos,
            "shift": shift,
            "nibble": nibble,
            "state": 3 << shift,
            "watch": 4 << shift,
            "passing": 8 << shift,
            "saved": (self.mask | self.qos) & ~(8 << shift),
            "application": rest,
            "application_shift": _low_bit(rest),
            "qos_shift": max(_low_bit(self.qos), 0),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def encode(
        self, action: Action | None, application: int = 0, *, watch: bool = False, passing: bool = False, qos: int = 0
    ) -> int:
        """Mark bits within the mask. A number too large for the run is left out (0): the decision still holds."""
        value = STATES[action] << self.shift | qos << self.qos_shift & self.qos
        if watch:
            value |= self.watch
        if passing:
            value |= self.passing
        return value | (application << self.application_shift) & self._number_mask(application)

    def _number_mask(self, application: int) -> int:
        return self.application if 0 <= application <= self.application >> self.application_shift else 0

    @property
    def settled(self) -> int:
        """The nibble of a packet whose flow is allowed and unwatched: watch without a state, which the engine never
        gives. The clearing table writes it, so that the chains need not ask conntrack again."""
        return self.watch

    @property
    def classes(self) -> int:
        """How many QoS classes there is room for."""
        return self.qos >> self.qos_shift

    def decode(self, mark: int) -> Mark:
        return Mark(
            _ACTIONS[(mark & self.state) >> self.shift],
            (mark & self.application) >> self.application_shift,
            bool(mark & self.watch),
            bool(mark & self.passing),
            (mark & self.qos) >> self.qos_shift,
        )

    def state_of(self, mark: int) -> int:
        """UNDECIDED, ALLOW, DENY or DROP."""
        return (mark & self.state) >> self.shift

    def merge(self, theirs: int, ours: int) -> int:
        """The packet mark `theirs` with our bits replaced by `ours`. A repeated packet must carry a state or PASS,
        or the kernel would queue it again for ever: PASS is added where both are missing."""
        ours &= self.mask
        if not ours & (self.state | self.passing):
            ours |= self.passing
        return theirs & ~self.mask & 0xFFFFFFFF | ours
