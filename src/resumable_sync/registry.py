"""Connectors, sinks and stores by name, built from plain data, such as a configuration file or a table of datasources.

    connector({"type": "sql", "url": "postgresql://etl:${SHOP_PASSWORD}@db/shop", "table": "orders"})
    sink({"type": "sql", "table": "orders", "mode": "replace"})
    store({"type": "sql", "url": "${WAREHOUSE_URL}"})

`type` is the name of an entry point in the group `resumable_sync.connectors`, `resumable_sync.sinks` or
`resumable_sync.stores`; the other keys are the keyword arguments of what that entry point leads to: a class, or a
function that makes the object. To add your own, declare it in the packaging of your project, and nothing else:

    [project.entry-points."resumable_sync.connectors"]
    crm = "acme_sync.crm:CRMConnector"

Where its arguments are annotated with `str`, `int`, `float`, `bool`, `Literal`, lists and mappings of them, values of
other types are refused before it is called. `${NAME}` in a value is replaced by the environment variable `NAME`, for an
argument that is a number by that number. In a URL it is percent-encoded as it must be there: in user and password, as
the value of a parameter (`?key=${NAME}`), and in the path of a web address, where a slash remains one. `$${` stands for
`${`. Everything is built without connecting to anything.
"""

import inspect
import os
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeAlias, get_args, get_type_hints

from resumable_sync._errors import ConfigurationError, MissingExtraError, describe_error, mask_credentials
from resumable_sync._hidden import hiding
from resumable_sync._model import Batch
from resumable_sync._plain import Filled, Place, at, fill, is_plain, misfit, suggestion
from resumable_sync._protocols import Connector, JobStore, Sink

__all__ = ["Port", "connector", "names", "sink", "store"]

Port: TypeAlias = Literal["connectors", "sinks", "stores"]
Data: TypeAlias = Mapping[str, Any]

_ONE: dict[Port, str] = {"connectors": "connector", "sinks": "sink", "stores": "store"}


def connector(data: Data, *, place: Place = ("connector",), environ: Mapping[str, str] | None = None) -> Connector[Any]:
    """Build a connector from plain data.

    Args:
        data: `type`, and the arguments of that type; values are text, numbers, booleans, lists and dicts of them.
        place: Where the data stand, for error messages: keys and indexes, such as `("jobs", "orders", "source")`.
        environ: What `${NAME}` is looked up in. None: the environment of the process.

    Raises:
        ConfigurationError: If it cannot be built. Its `place` is that of the value that is wrong, its text names it,
            says what is allowed, and holds no value of the environment.
        MissingExtraError: If the type needs an optional package that is not installed.

    Examples:
        >>> connector({"type": "sql", "url": "sqlite:///shop.db", "table": "orders"})
        SQLConnector('sqlite:///shop.db', 'orders', paging='keyset')
    """
    made: Connector[Any] = _build("connectors", data, place, environ)
    return made


def sink(
    data: Data, *, place: Place = ("sink",), environ: Mapping[str, str] | None = None
) -> Sink[Any] | Callable[[Batch[Any]], object]:
    """Build a sink from plain data.

    Args:
        data: `type`, and the arguments of that type, as for `connector`.
        place: Where the data stand, for error messages.
        environ: What `${NAME}` is looked up in. None: the environment of the process.

    Raises:
        ConfigurationError: If it cannot be built, as for `connector`.
        MissingExtraError: If the type needs an optional package that is not installed.

    Examples:
        >>> sink({"type": "sql", "table": "orders", "mode": "append"})
        SQLSink('orders', mode='append')
        >>> sink({"type": "sql", "table": "orders", "mode": "apend"})
        Traceback (most recent call last):
        ...
        resumable_sync._errors.ConfigurationError: sink.mode = 'apend' is none of ...; did you mean 'append'?
    """
    made: Sink[Any] | Callable[[Batch[Any]], object] = _build("sinks", data, place, environ)
    return made


def store(data: Data, *, place: Place = ("store",), environ: Mapping[str, str] | None = None) -> JobStore:
    """Build a job store from plain data.

    Args:
        data: `type`, and the arguments of that type, as for `connector`.
        place: Where the data stand, for error messages.
        environ: What `${NAME}` is looked up in. None: the environment of the process.

    Raises:
        ConfigurationError: If it cannot be built, as for `connector`.
        MissingExtraError: If the type needs an optional package that is not installed.

    Examples:
        >>> store({"type": "sql", "url": "sqlite:///warehouse.db"}).load("orders")
    """
    made: JobStore = _build("stores", data, place, environ)
    return made


def names(port: Port) -> list[str]:
    """Give the types that are installed, in alphabetical order.

    Args:
        port: `"connectors"`, `"sinks"` or `"stores"`.

    Raises:
        ConfigurationError: If it is none of these.

    Examples:
        >>> "sql" in names("connectors")
        True
    """
    return sorted(_found(port))


def _found(port: Port) -> dict[str, EntryPoint]:
    if port not in get_args(Port):
        msg = f"there are no {port!r} to choose from; ask for 'connectors', 'sinks' or 'stores'"
        raise ConfigurationError(msg)
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=f"resumable_sync.{port}"):
        # Nobody else's package can take one of our names, whichever comes first on the path.
        if entry.name not in found or entry.value.startswith("resumable_sync."):
            found[entry.name] = entry
    return found


def _build(port: Port, data: Any, place: Place, environ: Mapping[str, str] | None) -> Any:
    """Build what data describe.

    Raises:
        ConfigurationError: If that cannot be done.
        MissingExtraError: If an optional package is not installed.
    """
    entry = _entry(port, data, place)
    make = _loaded(port, entry, (*place, "type"))
    filled = fill({key: value for key, value in data.items() if key != "type"}, place, _environment(environ))
    _check_keys(make, filled, entry.name, place)
    try:
        with hiding(filled.secrets):
            return make(**filled.values)
    except MissingExtraError:
        raise
    except ConfigurationError as error:
        # What it quotes may have come from the environment.
        # Where it says which of the arguments is wrong, the place is that of the value.
        place = (*place, *error.place)
        msg = f"{at(place)}: {filled.hide(mask_credentials(str(error)))}"
        raise ConfigurationError(msg, place) from None
    except Exception as error:  # noqa: BLE001 - it may be anybody's code
        msg = (
            f"{at(place)}: no {_ONE[port]} of type {entry.name!r} can be made of this: "
            f"{filled.hide(describe_error(error))}; correct what it complains of"
        )
        raise ConfigurationError(msg, place) from (None if filled.secrets else error)


def _environment(environ: Mapping[str, str] | None) -> Mapping[str, str]:
    return os.environ if environ is None else environ


def _entry(port: Port, data: Any, place: Place) -> EntryPoint:
    """Give the entry point that data name.

    Raises:
        ConfigurationError: If they name none that is there.
    """
    if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
        msg = f"{at(place)} must be a table of keys and values with a type, such as {{ type = 'sql', ... }}"
        raise ConfigurationError(msg, place)
    found = _found(port)
    listed = ", ".join(map(repr, sorted(found))) or "none; install resumable_sync, so that its own are found"
    if "type" not in data:
        msg = f"{at(place)} has no type; give one of those that are installed: {listed}"
        raise ConfigurationError(msg, place)
    wanted, here = data["type"], (*place, "type")
    problem = misfit(wanted, str)
    if problem is not None:
        raise ConfigurationError(f"{at(here)} {problem}; those that are installed: {listed}", here)
    if wanted not in found:
        meant = suggestion(wanted, found)
        shown = mask_credentials(repr(wanted))
        msg = f"{at(here)} = {shown} is no {_ONE[port]}{meant}; those that are installed: {listed}"
        raise ConfigurationError(msg, here)
    return found[wanted]


def _loaded(port: Port, entry: EntryPoint, place: Place) -> Callable[..., Any]:
    """Give what makes the object.

    Raises:
        ConfigurationError: If the package that declares it is broken.
        MissingExtraError: If an optional package is not installed.
    """
    try:
        make: Any = entry.load()
    except MissingExtraError:
        raise
    except Exception as error:
        package = entry.dist.name if entry.dist is not None else "unknown"
        msg = (
            f"{at(place)}: the {_ONE[port]} {entry.name!r} of package {package} cannot be loaded from {entry.value}: "
            f"{describe_error(error)}; install what it needs"
        )
        raise ConfigurationError(msg, place) from error
    if not callable(make):
        msg = f"{at(place)}: {entry.value} is no class or function that could make a {_ONE[port]}; mend its entry point"
        raise ConfigurationError(msg, place)
    return make  # type: ignore[no-any-return]


def _check_keys(make: Callable[..., Any], filled: Filled, name: str, place: Place) -> None:
    """Check that the keys are arguments of `make`, that none is missing, and that the values are of their types.

    Raises:
        ConfigurationError: If not.
    """
    parameters = inspect.signature(make).parameters
    hints = _hints(make)
    named = [key for key, one in parameters.items() if one.kind in _BY_NAME and is_plain(hints.get(key, Any))]
    anything = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    for key in filled.values:
        if key not in named and not anything:
            listed = ", ".join(named) or "none"
            here = (*place, key)
            meant = suggestion(key, named)
            raise ConfigurationError(f"{at(here)}: {name!r} has no such key{meant}; its keys: {listed}", here)
    for key in named:
        if parameters[key].default is inspect.Parameter.empty and key not in filled.values:
            raise ConfigurationError(f"{at(place)} has no {key!r}, which {name!r} must be given", place)
    for key in filled.values:
        hint = hints.get(key, Any)
        filled.values[key] = filled.value(key, hint)
        problem = misfit(filled.values[key], hint)
        if problem is not None:
            here = (*place, key)
            raise ConfigurationError(filled.hide(f"{at(here)} {problem}"), here)


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _hints(make: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return get_type_hints(make.__init__ if isinstance(make, type) else make)  # type: ignore[misc]
    except Exception:  # noqa: BLE001 - a hint may name what exists for the type checker alone
        return {}
