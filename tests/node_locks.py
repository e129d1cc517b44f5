"""The locks of `two_nodes`' file server: of whole files, of both nodes."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Lock:
    """A lock on a whole file, held or wanted."""

    node: Any
    owner: tuple[int, bool]
    exclusive: bool
    pid: int
    waits: int = 0


@dataclass
class Locks:
    """Those that are held, by inode, and those that are waited for."""

    held: dict[int, list[Lock]] = field(default_factory=dict)
    waiting: list[tuple[int, Lock]] = field(default_factory=list)

    def conflict(self, file: int, wanted: Lock) -> Lock | None:
        """A lock that keeps this one from being taken. POSIX locks and flock do not see each other."""
        others = (held for held in self.held.get(file, []) if held.owner[1] == wanted.owner[1])
        others = (held for held in others if (held.node, held.owner) != (wanted.node, wanted.owner))
        return next((held for held in others if held.exclusive or wanted.exclusive), None)

    def take(self, file: int, wanted: Lock) -> bool:
        """Take a lock that is free."""
        if self.conflict(file, wanted):
            return False
        self.free(file, wanted.node, wanted.owner)
        self.held.setdefault(file, []).append(wanted)
        return True

    def free(self, file: int, node: Any, owner: tuple[int, bool]) -> None:
        """Free what an owner holds."""
        kept = [held for held in self.held.pop(file, []) if (held.node, held.owner) != (node, owner)]
        if kept:
            self.held[file] = kept

    def grant(self) -> None:
        """Give those who wait what has become free."""
        for file, wanted in list(self.waiting):
            if self.take(file, wanted):
                self.waiting.remove((file, wanted))
                wanted.node.fresh(file)
                wanted.node.reply(wanted.waits)
