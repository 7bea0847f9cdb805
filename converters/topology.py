"""Is the graph in this file the network we know? Both are entered into one table and compared.

A node is its operation, its name, its settings and the nodes it reads. Equal nodes get one
number, so two networks compute the same thing when their outputs have the same number; and
where they differ, the first nodes that only one of them has say why.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

# Operations whose inputs may come in any order.
COMMUTATIVE = frozenset({"sum", "max"})


@dataclass(frozen=True, slots=True)
class Node:
    """One operation; ``settings`` are sorted pairs, ``inputs`` numbers of other nodes."""

    operation: str
    name: str
    settings: tuple[tuple[str, Any], ...]
    inputs: tuple[int, ...]


@dataclass(slots=True)
class Table:
    """Nodes by number, each kept once however often it is added."""

    nodes: list[Node] = field(default_factory=list)
    numbers: dict[Node, int] = field(default_factory=dict)

    def add(
        self, operation: str, name: str = "", inputs: Iterable[int] = (), **settings: Any
    ) -> int:
        """Return the number of this node, new or known."""
        inputs = tuple(inputs)
        if operation in COMMUTATIVE:
            inputs = tuple(sorted(inputs))
        node = Node(operation, name, tuple(sorted(settings.items())), inputs)
        return self.numbers.setdefault(node, self._append(node))

    def _append(self, node: Node) -> int:
        if node not in self.numbers:
            self.nodes.append(node)
        return len(self.nodes) - 1

    def describe(self, number: int) -> str:
        """Name a node for a message: by its name, or by what it reads."""
        node = self.nodes[number]
        if node.name:
            return f"{node.operation} {node.name}"
        if node.inputs:
            return f"{node.operation} of {self.describe(node.inputs[-1])}"
        return node.operation


def differences(table: Table, expected: int, found: dict[int, str]) -> Iterator[str]:
    """Say where the expected node's ancestors first differ from the nodes ``found``.

    ``found`` maps the numbers of the other network's nodes to their places in its file.
    Only first differences are told: nodes that are missing although all they read is there.
    """
    for number in _ancestors(table, expected):
        node = table.nodes[number]
        if number in found or any(one not in found for one in node.inputs):
            continue
        rivals = [
            (other, place)
            for other, place in found.items()
            if (table.nodes[other].operation, table.nodes[other].name)
            == (node.operation, node.name)
            and (node.name or table.nodes[other].inputs == node.inputs)
        ]
        if not rivals:
            yield f"{table.describe(number)}: not in the file"
        for other, place in rivals:
            yield f"{place} ({table.describe(other)}): {_compared(table, other, number)}"


def _compared(table: Table, found: int, expected: int) -> str:
    ours, theirs = dict(table.nodes[expected].settings), dict(table.nodes[found].settings)
    words = [
        f"{key} {_shown(theirs.get(key))}, expected {_shown(ours.get(key))}"
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key)
    ]
    read, wanted = table.nodes[found].inputs, table.nodes[expected].inputs
    if read != wanted:
        words.append(
            f"reads {' and '.join(map(table.describe, read)) or 'nothing'}, "
            f"expected {' and '.join(map(table.describe, wanted))}"
        )
    return "; ".join(words)


def _shown(value: Any) -> str:
    if isinstance(value, tuple) and len(set(value)) == 1:
        return str(value[0])
    return str(value)


def _ancestors(table: Table, number: int) -> list[int]:
    """Return the node and all it depends on, inputs first."""
    seen: set[int] = set()
    stack = [number]
    while stack:
        one = stack.pop()
        if one not in seen:
            seen.add(one)
            stack.extend(table.nodes[one].inputs)
    return sorted(seen)
