"""What calls of the Kubernetes libraries may cost at most.

Source: the API server's cost table, which decides which rules a definition may have.
"""

from __future__ import annotations

import math

from k3s.api.cel.cost import ONE, PATTERN, TRAVERSAL, UNKNOWN, ZERO, Argument, Range, Sizes
from k3s.api.cel.syntax import Literal
from k3s.api.cel.values import UINT_MAX

Answer = tuple[Range, Range | None]
_CHECK = Range(350_000, 350_000)
_PLAIN = frozenset(
    (
        "serviceAccount", "path", "group", "resource", "subresource", "namespace", "name", "allowed", "reason", "error",
        "errored", "fieldSelector", "labelSelector", "masked", "prefixLength", "family", "isUnspecified", "isLoopback",
        "isLinkLocalMulticast", "isLinkLocalUnicast", "sign", "asInteger", "isInteger", "asApproximateFloat",
        "isGreaterThan", "isLessThan", "compareTo", "add", "sub", "major", "minor", "patch",
    )
)  # fmt: skip
_LISTS = frozenset(("isSorted", "sum", "max", "min", "indexOf", "lastIndexOf"))
_SAME_SIZE = frozenset(("lowerAscii", "upperAscii", "substring", "trim"))
_PARSED = frozenset(("url", "cidr", "isIP", "isCIDR", "quantity", "isQuantity", "semver", "isSemver"))
_ADDRESS = Range(4, 16)


def call(function: str, overload: str, target: Argument | None, args: list[Argument], sizes: Sizes) -> Answer | None:
    """The cost of a call and the size of its value; None for functions of the language itself."""
    if function == "check":
        return _CHECK, None
    if function in _PLAIN:
        return ONE, None
    if function in _PARSED or function in ("ip", "ip.isCanonical"):
        return _parsed(function, target, args, sizes)
    if function in ("sets.contains", "sets.intersects", "sets.equivalent") and len(args) == 2:
        product = size_of(args[0], sizes).times(size_of(args[1], sizes))
        return product.by(2 if function == "sets.equivalent" else 1).plus(ONE), None
    if target is None:
        return None
    if function in _LISTS:
        return _list(target, sizes), None
    size = size_of(target, sizes)
    if function in _SAME_SIZE:
        return size.by(TRAVERSAL), size
    if function == "replace" and len(args) >= 2:
        return size.by(2 * TRAVERSAL), _replaced(size, size_of(args[0], sizes), size_of(args[1], sizes))
    if function == "split":
        return size.by(2 * TRAVERSAL), Range(0, _most_parts(size, args))
    if function == "join":
        made = _joined(target, args, sizes)
        return made.by(TRAVERSAL), made
    if function in ("find", "findAll"):
        text = size.plus(ONE).by(TRAVERSAL)
        return text.times(size_of(args[0], sizes).by(PATTERN)), Range(0, size.high)
    if function in ("containsIP", "containsCIDR"):
        return _contained(function, overload, args, sizes), None
    return None


def size_of(argument: Argument, sizes: Sizes) -> Range:
    """The size of an argument, as large as can be when nothing tells."""
    if argument.size is not None:
        return argument.size
    found = sizes(argument.path) if argument.path else None
    return UNKNOWN if found is None else found


def _element(target: Argument) -> Argument | None:
    if not target.type.args:
        return None
    return Argument((*target.path, "@items") if target.path else (), target.type.args[0], None)


def _list(target: Argument, sizes: Sizes) -> Range:
    element = _element(target)
    if element is None:
        return size_of(target, sizes).by(TRAVERSAL)
    each = ONE
    if element.type.name in ("string", "bytes"):
        each = each.plus(size_of(element, sizes).by(TRAVERSAL))
    return size_of(target, sizes).times(each)


def _parsed(function: str, target: Argument | None, args: list[Argument], sizes: Sizes) -> Answer | None:
    if function == "ip" and target is not None and not args:
        return ONE, None
    if function == "url" and len(args) == 1:
        return size_of(args[0], sizes).by(TRAVERSAL), None
    # Upstream asks for a target here, which these functions do not have: they cost what any other does.
    return None


def _replaced(size: Range, old: Range, new: Range) -> Range:
    count_high, kept_high = 0, 0
    if old.low == 0:
        count_high, kept_high = min(size.high + 1, UINT_MAX), size.high
    elif new.high <= old.low:
        kept_high = size.high
    else:
        count_high = math.ceil(size.high / old.low)
    count_low, kept_low = 0, 0
    if old.high == 0:
        count_low, kept_low = min(size.low + 1, UINT_MAX), size.low
    elif old.high <= new.low:
        kept_low = size.low
    else:
        count_low = math.ceil(size.low / old.high)
    return Range(count_low, count_high).times(new).plus(Range(kept_low, kept_high))


def _most_parts(size: Range, args: list[Argument]) -> int:
    node = args[1].node if len(args) > 1 else None
    if isinstance(node, Literal) and isinstance(node.value, int) and node.value >= 0:
        return int(node.value)
    return size.high


def _joined(target: Argument, args: list[Argument], sizes: Sizes) -> Range:
    count, element = size_of(target, sizes), _element(target)
    made = count.times(size_of(element, sizes)) if element is not None else ZERO
    if args:
        made = made.plus(size_of(args[0], sizes).times(Range(max(0, count.low - 1), max(0, count.high - 1))))
    return made


def _contained(function: str, overload: str, args: list[Argument], sizes: Sizes) -> Range:
    cost = _ADDRESS.plus(_ADDRESS).by(TRAVERSAL)
    if function == "containsCIDR":
        cost = cost.plus(_ADDRESS.by(TRAVERSAL)).plus(ONE)
    if overload.endswith("_string"):
        cost = cost.plus(size_of(args[0], sizes).by(TRAVERSAL))
    return cost
