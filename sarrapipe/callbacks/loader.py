"""Find callbacks by name and make them: `callback log`, `callback_prepend mine`, `flowcb mine.Mine`.

A bare name is looked for in the configuration's `plugins/` directory, then among those that come with
sarrapipe, then on the import path. The class is the one named, else the CamelCase of the module's name, else
the only `FlowCallback` in the module (sr3-surface.md 2.2, Loading).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Final, cast

from sarrapipe.callbacks.base import FlowCallback
from sarrapipe.config.model import FlowConfig
from sarrapipe.errors import ConfigError

__all__ = ["is_bundled", "load", "load_class", "load_configured"]

_BUNDLED: Final = "sarrapipe.callbacks"
_ALWAYS: Final = ("log",)
"""In every flow, after those it names."""


def load(names: list[str], config: FlowConfig, plugin_directory: Path) -> list[FlowCallback]:
    """Make the callbacks of a flow, in order.

    Args:
        names: As configured, first to last; those of `callback_prepend` come first already.
        config: Handed to each.
        plugin_directory: Where a user's modules lie.

    Raises:
        ConfigError: No such module or class, or its constructor failed.
    """
    made = []
    for name in names:
        kind = load_class(name, plugin_directory)
        try:
            made.append(kind(config))
        except Exception as error:
            raise ConfigError(f"callback {name!r} cannot start: {type(error).__name__}: {error}") from error
    return made


def load_configured(config: FlowConfig) -> list[FlowCallback]:
    """Import what a configuration asks for, and make its callbacks: those it names, then the bundled ones.

    Raises:
        ConfigError: A module or class is missing, or a constructor failed.
    """
    for module in config.imports:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(f"import {module}: {error}", config.file) from error
    asked_for = ("segment_at",) if config.segment_at else ()
    names = [*(spec.name for spec in config.callbacks), *asked_for, *_ALWAYS]
    return load(list(dict.fromkeys(names)), config, Path(config.config_dir) / "plugins")


def is_bundled(callback: FlowCallback) -> bool:
    """Return whether a callback came with sarrapipe, and may run on the flow's own thread."""
    return type(callback).__module__.startswith(_BUNDLED + ".")


def load_class(name: str, plugin_directory: Path) -> type[FlowCallback]:
    """Return the class a configured name stands for.

    Raises:
        ConfigError: Nothing of that name; the message lists where was looked.
    """
    module_name, _, class_name = name.rpartition(".") if _ends_in_class(name) else (name, "", "")
    module = _find_module(module_name, plugin_directory)
    wanted = class_name or _camel(module_name.rpartition(".")[2])
    found = getattr(module, wanted, None)
    if found is None and not class_name:
        found = _only_callback(module)
    if not inspect.isclass(found):
        raise ConfigError(f"callback {name!r}: {module.__name__} has no class {wanted}")
    # Any class with hooks of the right names will do: sr3's do not derive from ours.
    return cast("type[FlowCallback]", found)


def _ends_in_class(name: str) -> bool:
    last = name.rpartition(".")[2]
    return last[:1].isupper()


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _find_module(name: str, plugin_directory: Path) -> ModuleType:
    file = plugin_directory.joinpath(*name.split(".")).with_suffix(".py")
    if file.is_file():
        return _load_file(name, file)
    for candidate in (f"{_BUNDLED}.{name.replace('.', '_')}", name):
        try:
            return importlib.import_module(candidate)
        except ModuleNotFoundError as error:
            if error.name is None or not candidate.startswith(error.name):
                raise ConfigError(
                    f"callback {name!r} needs a module that is missing: {error.name}"
                ) from error
        except Exception as error:
            raise ConfigError(f"callback {name!r} cannot be imported: {error}") from error
    raise ConfigError(
        f"callback {name!r} not found in {plugin_directory}, among those that come with sarrapipe, "
        "or on the import path"
    )


def _load_file(name: str, file: Path) -> ModuleType:
    qualified = f"sarrapipe_plugins.{name}"
    known = sys.modules.get(qualified)
    if known is not None and known.__file__ == str(file):
        return known
    spec = importlib.util.spec_from_file_location(qualified, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[qualified] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[qualified]
        raise ConfigError(f"callback {name!r}: {type(error).__name__}: {error}", str(file)) from error
    return module


def _only_callback(module: ModuleType) -> object:
    kinds = [
        kind
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, FlowCallback) and kind.__module__ == module.__name__
    ]
    return kinds[0] if len(kinds) == 1 else None
