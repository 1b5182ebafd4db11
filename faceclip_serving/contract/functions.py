"""Functions of an operator's own, named in a setting or a policy."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from .errors import UserError


def loaded(name: str, expected: str, error: type[UserError]) -> Any:
    """The function `name`: `module:function` or `file.py:function`. Raises `error`, whose message begins with `expected`."""
    where, _, function = name.rpartition(":")
    try:
        if where.endswith(".py"):
            spec = importlib.util.spec_from_file_location("faceclip_operators_own", where)
            assert spec is not None and spec.loader is not None  # of a name that ends in .py
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(where)
        return getattr(module, function)
    except Exception as problem:  # noqa: BLE001 - an operator's own code may raise anything
        raise error(
            f"{expected}, module:function or file.py:function; '{name}' cannot be had ({type(problem).__name__}: {problem})"
        ) from None
