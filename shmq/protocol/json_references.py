"""References in JSON: fastjson writes an object that occurs again as ``{"$ref":"$.path.to.first[0]"}``.

Pure; used by the tolerant reader only.
"""

import re
from typing import Any


def resolve(root: Any) -> None:
    """Replace all references in place: by what they lead to, shared, or by None when they lead nowhere.

    A target that holds a reference itself counts as nowhere: so nothing can become a circle or grow.
    """
    places: list[tuple[Any, Any, str]] = []
    holders: set[int] = set()
    _find_references(root, places, holders)
    for container, name, path in places:
        target = _followed(path, root)
        container[name] = None if id(target) in holders else target


def _find_references(value: Any, places: list[tuple[Any, Any, str]], holders: set[int]) -> None:
    """Collect where references are, and the ids of everything that holds one."""
    before = len(places)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        if isinstance(item, dict) and len(item) == 1 and isinstance(item.get("$ref"), str):
            places.append((value, name, item["$ref"]))
            holders.add(id(item))
        else:
            _find_references(item, places, holders)
    if len(places) > before:
        holders.add(id(value))


def _followed(path: str, root: Any) -> Any:
    """Return what a path such as ``$.a.b[0]`` leads to, None when it leads nowhere."""
    found = root
    for step in re.findall(r"[^.\[\]]+", path.removeprefix("$")):
        if isinstance(found, list) and step.isdigit() and int(step) < len(found):
            found = found[int(step)]
        elif isinstance(found, dict):
            found = found.get(step, found.get(int(step)) if step.isdigit() else None)
        else:
            return None
    return found
