"""Which classes, methods, properties and enumerators of TensorRT the code uses, gathered from the code itself.

A walk over the syntax trees follows each object: a name `trt` is the module, a call of its class gives an object, and
what a method of that returns is what the real bindings document. Types pass through assignments, arguments and results
of the functions that are read. An argument that is declared `Any` and never gets a type this way would hide uses:
`Uses.unknown` names it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.tensorrt_interface import Interface

_MODULE = ("class", "")
Type = tuple[str, str]
"""("class" or "object", a class's path) or ("own", a subclass in the code)."""
_PASSES = 6
"""Enough for a type to get through every function it is handed to."""


@dataclass
class Uses:
    """What was found, each with the places in the code."""

    names: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """(Class, name of a member of it)."""
    asked: set[tuple[str, str]] = field(default_factory=set)
    """Those that `hasattr` asks for."""
    stored: set[tuple[str, str]] = field(default_factory=set)
    """Properties that are set."""
    calls: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    """Method → counts of arguments it is called with, or, where the code overrides it, takes."""
    unknown: set[str] = field(default_factory=set)
    """Arguments declared `Any` whose type was not found."""


def find_uses(paths: Iterable[Path], interface: Interface) -> Uses:
    """Uses in the modules at `paths`, as far as `interface` tells what calls return."""
    walk = _Walk(interface)
    modules = [(path, ast.parse(path.read_text())) for path in paths]
    for path, module in modules:
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef):
                walk.functions.setdefault(node.name, []).append((f"{path.name}:{node.name}", node))
    for _ in range(_PASSES):
        walk.uses.unknown.clear()
        for path, module in modules:
            walk.enter(path, module)
    return walk.uses


class _Walk(ast.NodeVisitor):
    def __init__(self, interface: Interface) -> None:
        self.interface, self.uses = interface, Uses()
        self.functions: dict[str, list[tuple[str, ast.FunctionDef]]] = {}
        """Name → the scopes and trees of the functions of that name."""
        self.variables: dict[tuple[str, str], Type] = {}
        """(Scope, name) → type; an attribute of `self` has its class as scope."""
        self.returned: dict[str, Type] = {}
        self.bases: dict[str, str] = {}
        """Subclass in the code → class of TensorRT's."""
        self.members: dict[str, set[str]] = {}

    def enter(self, path: Path, module: ast.Module) -> None:
        self._file, self._scopes, self._class = path.name, [""], ""
        self.visit(module)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.members[node.name] = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and _is_self(n)}
        self.members[node.name] &= {
            *(n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)),
            *(n.name for n in node.body if isinstance(n, ast.FunctionDef)),
        }
        for base in node.bases:
            found = self._type(base)
            if found is not None and found[0] == "class":
                self.bases[node.name] = found[1]
        outer, self._class = self._class, node.name
        for statement in node.body:
            self.visit(statement)
        self._class = outer

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._scopes.append(f"{self._file}:{node.name}")
        arguments, base = node.args.args, self.bases.get(self._class)
        overrides = base is not None and not node.name.startswith("_")
        if base is not None and overrides:
            self._record(base, node.name, node)
            self.uses.calls.setdefault((base, node.name), set()).add(len(arguments) - 1)
        for argument in (*arguments, *node.args.kwonlyargs):
            declared = isinstance(argument.annotation, ast.Name) and argument.annotation.id == "Any"
            if declared and not overrides and self._variable(argument.arg) is None:
                self.uses.unknown.add(f"{self._scopes[-1]}({argument.arg})")
        for statement in node.body:
            self.visit(statement)
        self._scopes.pop()

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self._type(node.value)
        for target in node.targets:
            self._assign(target, value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._assign(node.target, self._type(node.value))

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and (found := self._type(node.value)) is not None:
            self.returned.setdefault(self._scopes[-1].rpartition(":")[2], found)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._assign(node.target, self._type(node.iter))
        for condition in node.ifs:
            self.visit(condition)

    def visit_For(self, node: ast.For) -> None:
        self._assign(node.target, self._type(node.iter))
        for statement in (*node.body, *node.orelse):
            self.visit(statement)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._type(node)

    def visit_Call(self, node: ast.Call) -> None:
        self._type(node)

    def _assign(self, target: ast.expr, value: Type | None) -> None:
        if isinstance(target, ast.Attribute):
            owner = self._type(target.value)
            if owner is not None and (member := self._member(owner, target.attr, target)) is not None:
                self.uses.stored.add(member)
            elif _is_self(target) and value is not None:
                self.variables.setdefault((self._class, target.attr), value)
        elif isinstance(target, ast.Name) and value is not None:
            self.variables.setdefault((self._scopes[-1], target.id), value)

    def _variable(self, name: str) -> Type | None:
        if name == "trt":
            return _MODULE
        return next((t for s in reversed(self._scopes) if (t := self.variables.get((s, name))) is not None), None)

    def _type(self, node: ast.expr) -> Type | None:
        """The type of an expression; its uses are recorded on the way."""
        if isinstance(node, ast.Name):
            return self._variable(node.id)
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.ListComp):
            for generator in node.generators:
                self.visit(generator)
            return self._type(node.elt)  # of a list, the type of its elements: what a loop over it gets
        self.generic_visit(node)
        return None

    def _attribute(self, node: ast.Attribute) -> Type | None:
        if _is_self(node):
            if node.attr == "_trt":
                return _MODULE
            return self.variables.get((self._class, node.attr))
        owner = self._type(node.value)
        if owner is None or (member := self._member(owner, node.attr, node)) is None:
            return None
        if not self.interface.has(*member):
            # Missing, which the test will say; a class of the other TensorRT is followed no further.
            return None
        path = ".".join(filter(None, member))
        if self.interface.kind(*member) == "class" and path in self.interface.classes:
            return ("class", path)
        given = self.interface.gives(*member)
        return None if given is None else ("object", given)

    def _member(self, owner: Type, name: str, node: ast.AST) -> tuple[str, str] | None:
        """The member of TensorRT's that `name` is, and record its use; None: one of a subclass's own."""
        path = owner[1]
        if owner[0] == "own":
            if name in self.members[path]:
                return None
            path = self.bases[path]
        self._record(path, name, node)
        return path, name

    def _record(self, owner: str, name: str, node: Any) -> None:
        self.uses.names.setdefault((owner, name), set()).add(f"{self._file}:{node.lineno}")

    def _call(self, node: ast.Call) -> Type | None:
        given = [self._type(argument) for argument in node.args]
        for keyword in node.keywords:
            self._type(keyword.value)
        if isinstance(node.func, ast.Name):
            return self._own_call(node.func.id, given, node)
        if not isinstance(node.func, ast.Attribute):
            self.visit(node.func)
            return None
        owner = None if _is_self(node.func) else self._type(node.func.value)
        if owner is None:
            return self._own_call(node.func.attr, given, node)
        found, member = self._type(node.func), self._member(owner, node.func.attr, node)
        if found is not None and found[0] == "class":
            return ("object", found[1])
        if member is not None and owner[0] != "class" and self.interface.has(*member):
            self.uses.calls.setdefault(member, set()).add(len(node.args) + len(node.keywords))
        return found

    def _own_call(self, name: str, given: list[Type | None], node: ast.Call) -> Type | None:
        if name in ("hasattr", "getattr") and given[0] is not None and isinstance(node.args[1], ast.Constant):
            asked = (given[0][1], str(node.args[1].value))
            self.uses.asked.add(asked)
            self._record(*asked, node)
        if name in self.bases:
            return ("own", name)
        for scope, function in self.functions.get(name, ()):
            parameters = [argument.arg for argument in function.args.args if argument.arg != "self"]
            for parameter, found in zip(parameters, given, strict=False):
                if found is not None:
                    self.variables.setdefault((scope, parameter), found)
        return self.returned.get(name)


def _is_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "self"
