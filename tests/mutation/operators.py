"""Small, plausible bugs, one at a time: what is planted where in a source."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

OTHER_OPERATOR = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult},
    **{ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And},
}
PAIRS = "mean sum, min max, amin amax, argmin argmax, minimum maximum, any all, train eval, zeros ones, sin cos"
PAIRS += ", zeros_like ones_like, ceil floor, test train, high low, lower upper, rows columns"
OTHER_NAME = {a: b for pair in PAIRS.split(", ") for a, b in (pair.split(), reversed(pair.split()))}
OTHER_NAME |= {"sorted": "list", "randn": "rand", "std": "var", "extend": "append", "startswith": "endswith"}
METHODS = "abs clamp clip clone contiguous cumsum detach exp flip flatten float log log10 mean round sigmoid sort sqrt"
METHODS += " square std strip sum tanh"
DROPPED = frozenset(METHODS.split())
"""Left out, so that their argument is the result."""
NAMESPACES = {"torch", "math", "np", "F"}
NO_CONTEXT = '__import__("contextlib").nullcontext()'


@dataclass(frozen=True)
class Mutant:
    """Bytes ``start`` to ``end`` of a source replaced by ``text``."""

    line: int
    start: int
    end: int
    was: str
    text: str

    def planted(self, source: str) -> str:
        raw = source.encode()
        return (raw[: self.start] + self.text.encode() + raw[self.end :]).decode()


def mutants(source: str) -> list[Mutant]:
    """All of them, in the order of the source."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for node, text in _changes(ast.parse(source)):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        found.append(Mutant(node.lineno, start, end, ast.unparse(node), text))
    return sorted(set(found), key=lambda mutant: (mutant.start, mutant.end, mutant.text))


def of_snakefile(source: str) -> list[Mutant]:
    """One of a rule's inputs, parameters or resources left out."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    lines = [(n, line) for n, line in enumerate(source.splitlines()) if re.fullmatch(r" {8}[^\s#].*,", line)]
    return [Mutant(n + 1, starts[n], starts[n + 1], line.strip(), "") for n, line in lines]


def _changes(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Nodes and what takes their place; messages, docstrings, types and imports stay as they are."""
    if isinstance(node, (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)):
        return
    if isinstance(node, ast.stmt):
        yield from ((part, text) for part, text in _of_statement(node))
    elif isinstance(node, ast.expr) and not isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del)):
        yield from ((node, f"({text})") for text in _of_expression(node))
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_text(child):
                yield from _changes(child)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _of_statement(node: ast.stmt) -> Iterator[tuple[ast.AST, str]]:
    match node:
        case ast.Expr(value=ast.Call()) | ast.Continue() | ast.Break():
            yield node, "pass"
        case ast.AugAssign(op=op):
            yield node, "pass"
            if other := OTHER_OPERATOR.get(type(op)):
                yield node, ast.unparse(ast.AugAssign(node.target, other(), node.value))
        case ast.If(test=test, body=body):
            yield test, "False"
            if not isinstance(body[0], ast.Raise):
                yield test, "True"
        case ast.With(items=items):
            yield from ((item.context_expr, NO_CONTEXT) for item in items if item.optional_vars is None)
        case ast.FunctionDef(decorator_list=decorators):
            yield from ((used, "(lambda f: f)") for used in decorators if "no_grad" in ast.unparse(used))


def _of_expression(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.BinOp(left=left, op=op, right=right) if other := OTHER_OPERATOR.get(type(op)):
            yield ast.unparse(ast.BinOp(left, other(), right))
        case ast.Compare(left=left, ops=[op, *more], comparators=right) if other := OTHER_OPERATOR.get(type(op)):
            yield ast.unparse(ast.Compare(left, [other(), *more], right))
        case ast.BoolOp(op=op, values=values):
            yield ast.unparse(ast.BoolOp(OTHER_OPERATOR[type(op)](), values))
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
            yield ast.unparse(operand)
        case ast.IfExp(body=body, orelse=orelse):
            yield from (ast.unparse(body), ast.unparse(orelse))
        case ast.Subscript(value=value, slice=ast.Slice()):
            yield ast.unparse(value)
        case ast.Constant(value=bool(value)):
            yield repr(not value)
        case ast.Constant(value=int(value)):
            yield repr(value + 1)
        case ast.Constant(value=float(value)):
            yield repr(value * 1.5 or 0.1)
        case ast.Constant(value=str(value)) if value in OTHER_NAME:
            yield repr(OTHER_NAME[value])
        case ast.Call():
            yield from _of_call(node)


def _of_call(node: ast.Call) -> Iterator[str]:
    func, args, keywords = node.func, node.args, node.keywords
    for i, keyword in enumerate(keywords):
        if keyword.arg:
            yield ast.unparse(ast.Call(func, args, keywords[:i] + keywords[i + 1 :]))
    if len(args) > 1 and not any(isinstance(arg, ast.Starred) for arg in args[:2]):
        yield ast.unparse(ast.Call(func, [args[1], args[0], *args[2:]], keywords))
    match func:
        case ast.Name(id=name) if name in OTHER_NAME:
            yield ast.unparse(ast.Call(ast.Name(OTHER_NAME[name]), args, keywords))
        case ast.Attribute(value=value, attr=name):
            if other := OTHER_NAME.get(name):
                yield ast.unparse(ast.Call(ast.Attribute(value, other), args, keywords))
            if name in DROPPED:
                of_module = isinstance(value, ast.Name) and value.id in NAMESPACES
                yield ast.unparse(args[0] if of_module and args else value)
