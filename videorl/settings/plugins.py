"""Parts that a recipe names: a built-in name, or `module:attribute` for one of the user's own.

The module must be importable where the recipe is read and on every worker: it lies in the working
directory, is installed, or is shipped by `ray job submit --working-dir` or `py_modules`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from videorl.errors import ConfigError


def is_plugin(name: str) -> bool:
    """Tell whether a recipe's name is `module:attribute`, and not that of a built-in part."""
    return ":" in name


def find(name: str, known: Mapping[str, str], where: str) -> Any:
    """Return the part that a recipe names.

    Args:
        name: One of `known`, or `module:attribute`.
        known: Built-in name -> `module:attribute`.
        where: The setting that names it, for errors, e.g. `rewards.0.name`.

    Raises:
        ConfigError: There is no such part, or its module cannot be imported.
    """
    if not is_plugin(name):
        if name not in known:
            raise ConfigError(unknown(name, known, where))
        name = known[name]
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError:
        module = _import_beside(module_name, name, where)
    except Exception as error:  # whatever the user's module raises is theirs to see
        raise _not_imported(module_name, name, where, error) from error
    if not attribute or not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, dir(module), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{where}={name}: {module_name} has no {attribute!r}{hint}")
    return getattr(module, attribute)


def source_of(name: str) -> Path | None:
    """Return the file of the module that `module:attribute` names; None for a built-in part.

    None also where the module was not imported, or is no file.
    """
    module = sys.modules.get(name.partition(":")[0]) if is_plugin(name) else None
    file = getattr(module, "__file__", None)
    return Path(file) if file and Path(file).is_file() else None


def unknown(name: str, known: Sequence[str] | Mapping[str, Any], where: str) -> str:
    """Return what to say of a name that is no built-in one."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{where} must be one of {', '.join(known)}, or module:attribute, got {name}{hint}"


def lacks(part: Any, wanted: type) -> list[str]:
    """Return what a part lacks of a Protocol: missing members, and methods with other signatures.

    Args:
        part: A class, or an object.
        wanted: The Protocol; its public methods and properties are looked for.
    """
    problems: list[str] = []
    for name, declared in _members(wanted):
        given = inspect.getattr_static(part, name, None)
        if given is None and not _is_assigned(part, name):
            problems.append(f"no {name}")
        elif inspect.isfunction(declared) and inspect.isfunction(given):
            names = list(inspect.signature(declared).parameters)
            if not accepts(given, len(names)):
                problems.append(
                    f"{name}{inspect.signature(given)} instead of {name}({', '.join(names)})"
                )
    return problems


def accepts(function: Any, num_arguments: int, **named: Any) -> bool:
    """Tell whether a callable can be called with so many positional arguments and these names."""
    try:
        inspect.signature(function).bind(*[None] * num_arguments, **named)
    except TypeError:
        return False
    except ValueError:  # builtins without a signature
        return callable(function)
    return True


def problem_of_function(where: str, name: str, *arguments: str) -> str | None:
    """Return what can be seen to be wrong with a function of the user's own, before it is called.

    Args:
        where: The setting that names it.
        name: `module:function`.
        arguments: What it is called with, in words for the message.
    """
    try:
        function = find(name, {}, where)
    except ConfigError as error:
        return str(error)
    if callable(function) and accepts(function, len(arguments)):
        return None
    return f"{where}={name} must be a function of {' and '.join(arguments)}, got {function!r}"


def _members(wanted: type) -> Iterator[tuple[str, Any]]:
    for base in reversed(wanted.__mro__):
        for name, member in vars(base).items():
            is_member = inspect.isfunction(member) or isinstance(member, property)
            if is_member and (not name.startswith("_") or name == "__call__"):
                yield name, member


def _is_assigned(part: Any, name: str) -> bool:
    """Tell whether instances of a class get an attribute: a field, or set in its constructor."""
    cls = part if inspect.isclass(part) else type(part)
    if name in getattr(cls, "__annotations__", {}):
        return True
    code = getattr(getattr(cls, "__init__", None), "__code__", None)
    return code is not None and name in code.co_names


def _import_beside(module_name: str, name: str, where: str) -> Any:
    """Import from the working directory, which the `videorl` command has not on its path."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
        importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except Exception as error:  # as above
        raise _not_imported(module_name, name, where, error) from error


def _not_imported(module_name: str, name: str, where: str, error: Exception) -> ConfigError:
    hint = ""
    if isinstance(error, ModuleNotFoundError) and error.name == module_name.partition(".")[0]:
        hint = (
            f"; there is no {module_name} in the working directory ({Path.cwd()}) or among the "
            "installed packages"
        )
    return ConfigError(
        f"{where}={name}: {module_name} cannot be imported ({type(error).__name__}: {error}){hint}"
    )
