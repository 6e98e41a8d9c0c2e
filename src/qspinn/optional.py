"""Optional libraries: what is missing is said in one line with the command that installs it.

Modules that need an optional library import it at their top as usual. Whoever reaches such a module on demand does so
by `module`, and so nobody without the library sees a traceback from within.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from qspinn.errors import ConfigError

INSTALL = {"h5py": "qspinn[hdf5]", "torch": "qspinn[torch]", "sklearn": "scikit-learn"}
"""What to install for a library, where it is not called as it is imported."""


def module(name: str, what: str) -> ModuleType:
    """The module of this name, imported now.

    Args:
        what: what needs it, for the error: "networks of layers".

    Raises:
        ConfigError: a library that it needs is not installed; names the library and the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise missing(error, what) from None


def missing(error: ModuleNotFoundError, what: str) -> ConfigError | ModuleNotFoundError:
    """The error that says what a library which is not installed is needed for; the same error where a module of this
    package is missing, which no command installs."""
    library = (error.name or "").partition(".")[0]
    if library in ("", "qspinn"):
        return error
    return ConfigError(
        what, f"needs {library}, which is not installed", fix=f"pip install {INSTALL.get(library, library)}"
    )
