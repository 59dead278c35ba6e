"""`python docs/messages.py`: every error message in the source, and which have no section in docs/troubleshooting.md yet.

A message is what stands where an error is made, `raise LayerError(f"...")` or `return LayerError(...)`, with "…" for what
differs from case to case. A section's heading is the beginning of one message or of several, written in the same way.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "seewhy"
PAGE = ROOT / "docs" / "troubleshooting.md"
HOLE = "…"

FAMILY = (
    "SeewhyError",
    *(f"{kind}Error" for kind in ("Image", "Model", "Layer", "Target", "Method", "Metric", "Recording", "Render")),
)

ELSEWHERE = {
    (
        "explainer.py",
        "' '.join(request.skipped.values())",
    ): "the messages of the methods that were left out, told together",
    ("maps/registry.py", "str(error)"): "a message that is told under another name",
    ("cli/evaluating.py", "why"): "the messages of pictures that were skipped, told again",
    ("recorder/attended.py", "self.chain.refusal"): "one of the refusals that the same file's chains are made with",
}
"""What is no message by itself: (file, expression) and why."""


@dataclass(frozen=True)
class Message:
    """One message: where it is made, by which error, and its text with holes."""

    file: str
    line: int
    error: str
    text: str

    @property
    def beginning(self) -> str:
        """What a heading may look like."""
        return self.text if len(self.text) <= 70 else self.text[:70].rpartition(" ")[0]


class _File(ast.NodeVisitor):
    """Collects the messages of one file."""

    def __init__(self, path: Path) -> None:
        self.name = path.relative_to(SOURCE).as_posix()
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.found: list[Message] = []
        self.unread: list[tuple[str, str, int]] = []
        self.visit(self.tree)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in FAMILY and node.args:
            texts = list(_texts(node.args[0], self.tree))
            if texts:
                self.found += [Message(self.name, node.lineno, name, text) for text in texts]
            elif (self.name, ast.unparse(node.args[0])) not in ELSEWHERE:
                self.unread.append((self.name, ast.unparse(node.args[0]), node.lineno))
        for word in node.keywords:
            if word.arg == "refusal":  # an error that is raised where its reason is asked for
                self.found += [
                    Message(self.name, node.lineno, "MethodError", text) for text in _texts(word.value, self.tree)
                ]
        self.generic_visit(node)


def _texts(node: ast.expr, tree: ast.Module) -> Iterator[str]:
    """Yield what an expression can be as text: a literal, one of two, a constant, or what a function of the file returns."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield re.sub(f"{HOLE}+", HOLE, "".join(_part(each, tree) for each in node.values))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        for left in list(_texts(node.left, tree)) or [HOLE]:
            for right in list(_texts(node.right, tree)) or [HOLE]:
                yield left + right
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body, tree)
        yield from _texts(node.orelse, tree)
    elif isinstance(node, ast.Name):
        yield from _constant(node.id, tree)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        yield from _returned(node.func.id, tree)


def _part(node: ast.expr, tree: ast.Module) -> str:
    """Return a part of an f-string: its text, that of a CONSTANT, or a hole."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    value = node.value if isinstance(node, ast.FormattedValue) else None
    if isinstance(value, ast.Name) and value.id.isupper():
        return next(_constant(value.id, tree), HOLE)
    return HOLE


def _imported(name: str, tree: ast.Module) -> Iterator[ast.Module]:
    """Yield the files of the source from which a file imports a name."""
    for each in ast.walk(tree):
        if isinstance(each, ast.ImportFrom) and any(alias.name == name for alias in each.names):
            path = (SOURCE / "/".join((each.module or "").split(".")[1:])).with_suffix(".py")
            if path.is_file():
                yield ast.parse(path.read_text(encoding="utf-8"))


def _constant(name: str, tree: ast.Module) -> Iterator[str]:
    for other in _imported(name, tree):
        yield from _constant(name, other)
    for each in ast.walk(tree):
        targets = (
            each.targets if isinstance(each, ast.Assign) else [each.target] if isinstance(each, ast.NamedExpr) else []
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            yield from _texts(each.value, tree)


def _returned(name: str, tree: ast.Module) -> Iterator[str]:
    """Yield what a function returns, where it is defined in this file or in one that this file imports it from."""
    for each in ast.walk(tree):
        if isinstance(each, ast.FunctionDef) and each.name == name:
            for inner in ast.walk(each):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    yield from _texts(inner.value, tree)
    for other in _imported(name, tree):
        yield from _returned(name, other)


def messages() -> tuple[list[Message], list[tuple[str, str, int]]]:
    """Return every message in the source, and the expressions of which no text could be read (file, expression, line)."""
    files = [_File(path) for path in sorted(SOURCE.rglob("*.py"))]
    return [each for file in files for each in file.found], [each for file in files for each in file.unread]


def headings() -> list[str]:
    """Return the beginnings of messages that the page has sections for."""
    return re.findall(r"^### `+ ?(.+?) ?`+$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def begins(message: str, heading: str) -> bool:
    """Return whether a message begins as a heading says; "…" in the heading stands for some words within one sentence."""
    some = r"(?:(?![.;:] ).){0,60}?"
    return re.match(some.join(map(re.escape, heading.split(HOLE))), message) is not None


def missing() -> list[Message]:
    """Return the messages that no section is for."""
    known = headings()
    return [each for each in messages()[0] if not any(begins(each.text, heading) for heading in known)]


if __name__ == "__main__":
    for each in missing():
        print(f"### `{each.beginning}`\n\n<!-- {each.file}:{each.line} {each.error}: {each.text} -->\n")
    sys.exit(bool(missing()))
