"""Lists files over 400 lines, refuses files over 600 and functions over 50: ``python .ci/size.py FOLDER...``."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

LISTED_LINES = 400
FILE_LINES = 600
FUNCTION_LINES = 50


def long_functions(file: Path, text: str) -> Iterator[str]:
    """Yield a line for each function longer than allowed, its docstring included."""
    for node in ast.walk(ast.parse(text, filename=str(file))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield f"{file}:{node.lineno}: {node.name} has {length} lines, at most {FUNCTION_LINES} are allowed: divide it"


def main(folders: list[str]) -> int:
    """Print the findings; return 1 if one of them is refused."""
    refused: list[str] = []
    for file in sorted(f for folder in folders for f in Path(folder).rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        n_lines = text.count("\n")
        if n_lines > FILE_LINES:
            refused.append(f"{file}: {n_lines} lines, at most {FILE_LINES} are allowed: divide it")
        elif n_lines > LISTED_LINES:
            print(f"{file}: {n_lines} lines; over {FILE_LINES} it will be refused")
        refused += long_functions(file, text)
    print("\n".join(refused) or f"sizes: no file over {FILE_LINES} lines, no function over {FUNCTION_LINES}")
    return bool(refused)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
