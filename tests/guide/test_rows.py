"""Every row of the guide has one test here, named after it."""

import ast
from collections import Counter
from pathlib import Path

ROWS = [*(f"g{number:02}" for number in range(1, 31)), *(f"c{number}" for number in range(1, 6))]


def test_every_row_of_the_guide_has_exactly_one_test_that_quotes_it() -> None:
    rows = Counter[str]()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(("test_g", "test_c")):
                rows[node.name.split("_")[1]] += 1
                assert ast.get_docstring(node), f"{node.name} does not say what the guide asks for"
    assert rows == Counter(ROWS), f"not one test each: {set(ROWS) ^ set(rows) or rows.most_common(1)}"
