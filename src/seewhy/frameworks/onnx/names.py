"""Names of an ONNX graph's nodes as names of layers: levels joined by dots, as in the model that was exported."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Sequence

from onnx import NodeProto

_SCOPES = "pkg.torch.onnx.name_scopes"
"""Where PyTorch's exporter writes the modules that a node lies in."""


def layer_names(nodes: Sequence[NodeProto]) -> list[str]:
    """Return a name for each node, each once.

    "/layer4/layer4.1/relu/Relu" becomes "layer4.1.relu": a node that is alone in its module has the module's name.
    """
    paths = [_path(node) for node in nodes]
    within = Counter(path[:end] for path in paths for end in range(1, len(path)))
    short = [path[:-1] if len(path) > 1 and within[path[:-1]] == 1 else path for path in paths]
    found: dict[str, None] = {}
    for path, own in zip(paths, short, strict=True):
        name = ".".join(own if ".".join(own) not in found else path)
        number = 1
        while name in found:
            name, number = f"{'.'.join(path)}_{number}", number + 1
        found[name] = None
    return list(found)


def _path(node: NodeProto) -> tuple[str, ...]:
    """Return the levels of a node's name, its own last."""
    if scopes := _scopes(node):
        return tuple(_cleaned(part) for part in ".".join(scopes[-2:]).split(".") if part)
    text = node.name or re.sub(r"_output_\d+$", "", node.output[0])
    levels: list[str] = []
    above = ""
    for level in filter(None, text.split("/")):
        inner = level.removeprefix(f"{above}.") if above else level  # "layer4/layer4.1" says "layer4" twice
        levels += [_cleaned(part) for part in inner.split(".") if part]
        above = level
    if not levels or (len(levels) == 1 and levels[0].isdigit()):  # a tensor's number
        return ("_".join([node.op_type, *levels]),)
    return tuple(levels)


def _scopes(node: NodeProto) -> list[str]:
    told = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "")
    try:
        scopes = ast.literal_eval(told) if told else []
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    is_known = isinstance(scopes, list) and len(scopes) > 1 and all(isinstance(each, str) for each in scopes)
    return [each for each in scopes if each] if is_known else []


def _cleaned(part: str) -> str:
    """Return a level without what means something else in a layer's name: globs, numbers of runs, ports."""
    return re.sub(r"[^\w\-]", "_", re.sub(r":\d+$", "", part))
