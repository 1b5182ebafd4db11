"""Small faults in a Python source, one at a time: a comparison turned, a number one higher, a statement left out.

Knows syntax alone. Docstrings, annotations, decorators and assertions are left as they are; so are the words of a message between
its values, which no test should spell out, while each value that a message names is left out once.

Own, because mutmut (3.8) leaves out what stands outside of functions, and properties: all that declares the parameters.
"""

from __future__ import annotations

import ast
import copy
import difflib
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}
_PAIRS = (("min", "max"), ("any", "all"), ("lower", "upper"), ("lstrip", "rstrip"), ("startswith", "endswith"))
CALLS = {name: other for pair in _PAIRS for name, other in (pair, pair[::-1])}
"""A function or method -> what is called in its place."""

_UNTOUCHED = {"annotation", "returns", "decorator_list", "format_spec"}
_ATOMS = (ast.Constant, ast.Name, ast.Call, ast.Attribute, ast.JoinedStr, ast.stmt)


@dataclass(frozen=True)
class Mutant:
    """A source with one fault."""

    source: str
    lines: range
    """The lines of the statement that holds the fault; of a block, its head alone."""
    at_import: bool
    """Whether that statement runs when the module is imported, so that no test can be said to run it."""
    was: str
    """The changed lines without the fault, each stripped, as one."""
    now: str

    def diff(self, source: str, file: str) -> str:
        """As `diff -U1` shows it."""
        changes = difflib.unified_diff(source.splitlines(), self.source.splitlines(), file, file, n=1, lineterm="")
        return "\n".join(changes)


def mutants(source: str) -> list[Mutant]:
    """All of a module, in the order of its text."""
    tree = ast.parse(source)
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return list(_Walk(source.encode(), starts).visit(tree, None, True, None))


@dataclass
class _Walk:
    source: bytes
    starts: list[int]
    """Of each line, in bytes."""

    def visit(
        self, node: ast.AST, statement: ast.stmt | None, at_import: bool, message: ast.JoinedStr | None
    ) -> Iterator[Mutant]:
        """`statement`, `message`: the innermost statement and the outermost f-string around the node."""
        for name, value in ast.iter_fields(node):
            if name in _UNTOUCHED:
                continue
            inside = at_import and not (isinstance(node, ast.FunctionDef) and name == "body")
            for index, child in enumerate(value if isinstance(value, list) else [value]):
                if not isinstance(child, ast.AST) or _is_text(node, name, child) or isinstance(child, ast.Assert):
                    continue
                holder = child if isinstance(child, ast.stmt) else statement
                around = message or (child if isinstance(child, ast.JoinedStr) else None)
                for replacement in _replacements(node, name, child, inside):
                    if isinstance(value, list):
                        value[index] = replacement
                    else:
                        setattr(node, name, replacement)
                    whole = message if message is not None else replacement
                    try:
                        yield self._mutant(message or child, whole, holder, inside)
                    finally:
                        if isinstance(value, list):
                            value[index] = child
                        else:
                            setattr(node, name, child)
                yield from self.visit(child, holder, inside, around)

    def _mutant(self, before: ast.AST, after: ast.AST, statement: ast.stmt | None, at_import: bool) -> Mutant:
        assert isinstance(before, ast.expr | ast.stmt) and statement is not None
        assert before.end_lineno is not None and before.end_col_offset is not None and statement.end_lineno is not None
        text = ast.unparse(ast.fix_missing_locations(copy.deepcopy(after)))
        if not isinstance(after, _ATOMS):
            text = f"({text})"
        begin = self.starts[before.lineno - 1] + before.col_offset
        end = self.starts[before.end_lineno - 1] + before.end_col_offset
        body = getattr(statement, "body", None)
        last = max(statement.lineno, body[0].lineno - 1) if body else statement.end_lineno
        head, tail = self.starts[before.lineno - 1], self.starts[before.end_lineno]
        was = self.source[head:tail]
        now = self.source[head:begin] + text.encode() + self.source[end:tail]
        return Mutant(
            (self.source[:begin] + text.encode() + self.source[end:]).decode(),
            range(statement.lineno, last + 1),
            at_import,
            *(" ".join(line.strip() for line in part.decode().splitlines()) for part in (was, now)),
        )


def _is_text(parent: ast.AST, field: str, child: ast.AST) -> bool:
    """Docstrings, of anything, and what stands between the values of a message."""
    if isinstance(parent, ast.JoinedStr):
        return isinstance(child, ast.Constant)
    return isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)


def _replacements(parent: ast.AST, field: str, node: ast.AST, at_import: bool) -> Iterator[ast.AST]:
    """What may stand in the place of a node."""
    yield from _of_kind(node, at_import)
    tested = field == "test" or (isinstance(parent, ast.comprehension) and field == "ifs")
    if tested and not isinstance(node, ast.Compare | ast.BoolOp | ast.UnaryOp):
        assert isinstance(node, ast.expr)
        yield ast.UnaryOp(ast.Not(), node)


def _of_kind(node: ast.AST, at_import: bool) -> Iterator[ast.AST]:
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(value=str(value)):
            yield ast.Constant("" if value else "XX")
        case ast.Constant(value=bytes(value)):
            yield ast.Constant(b"" if value else b"XX")
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                for other in COMPARISONS[type(op)]:
                    yield ast.Compare(node.left, [*ops[:i], other(), *ops[i + 1 :]], node.comparators)
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.BinOp(op=op) if type(op) in OPERATORS:
            yield ast.BinOp(node.left, OPERATORS[type(op)](), node.right)
        case ast.AugAssign(op=op) if type(op) in OPERATORS:
            yield ast.AugAssign(node.target, OPERATORS[type(op)](), node.value)
        case ast.Lambda(args=arguments, body=body) if not isinstance(body, ast.Constant):
            yield ast.Lambda(arguments, ast.Constant(None))
        case ast.Call():
            yield from _of_call(node)
        case ast.JoinedStr(values=values):
            for i, value in enumerate(values):
                if isinstance(value, ast.FormattedValue):
                    yield ast.JoinedStr([*values[:i], *values[i + 1 :]])
        case ast.Expr() | ast.Raise():
            yield ast.Pass()
        case ast.Assign(targets=targets, value=value) if not at_import and not isinstance(value, ast.Constant):
            yield ast.Assign(targets, ast.Constant(None))
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()


def _of_call(call: ast.Call) -> Iterator[ast.Call]:
    for i, keyword in enumerate(call.keywords):
        if keyword.arg is not None:
            yield ast.Call(call.func, call.args, [*call.keywords[:i], *call.keywords[i + 1 :]])
    match call.func:
        case ast.Name(id=name) if name in CALLS:
            yield ast.Call(ast.Name(CALLS[name]), call.args, call.keywords)
        case ast.Attribute(value=value, attr=name) if name in CALLS:
            yield ast.Call(ast.Attribute(value, CALLS[name]), call.args, call.keywords)
