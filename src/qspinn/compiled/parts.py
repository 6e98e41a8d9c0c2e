"""Compilation of parts of kernels for the kernels that call them, and for nothing else.

Numba makes a jitted function ready to be called from Python: it optimizes the function's module, has machine code made
of it and wraps it. A part of kernels is called by kernels alone, which link its code and optimize it once more as a
whole, so all of that work is thrown away: a third of the time that compiling a kernel of many parts takes. Here a part
ends as code that a kernel can link.

This relies on how Numba lowers and links a function. Where a version of Numba does that by other names, `PIPELINE` is
Numba's own, which only takes longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.core import codegen, typed_passes
from numba.core.compiler import Compiler, CompilerBase, DefaultPassBuilder, Flags
from numba.core.compiler_machinery import register_pass

_NEEDED = ("_finalize_dynamic_globals", "_verify_declare_only_symbols", "_get_module_for_linking", "_final_module")


class _Flags(Flags):  # type: ignore[misc]
    """Options of a compilation that are quick to look up: Numba reads all of them, one by one, to hash or compare them,
    a hundred thousand times for the kernels of a first run."""

    __slots__ = ()

    def __hash__(self) -> int:
        return _HASH

    def __eq__(self, other: object) -> Any:
        return (isinstance(other, Flags) and self._values == other._values) or super().__eq__(other)


_HASH = hash(Flags())
"""Numba hashes the names of options, not their values: the hash of one is that of all."""


class _PartLibrary(codegen.JITCodeLibrary):
    """Code of a part, with the parts that it calls, to be linked into kernels."""

    def finalize(self) -> None:
        """Links what the part calls, and leaves optimizing and machine code to the kernel."""
        self._raise_if_finalized()  # type: ignore[no-untyped-call]
        for library in dict.fromkeys(self._linking_libraries):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._final_module.verify()
        self._finalize_dynamic_globals()  # type: ignore[no-untyped-call]
        self._verify_declare_only_symbols()  # type: ignore[no-untyped-call]
        self._finalized = True


class _CalledByKernels(dict[Any, Any]):
    """Stands where Numba keeps the function that Python calls: its `__getitem__` raises whatever it is called with."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __missing__(self, arguments: Any) -> Any:
        raise TypeError(f"{self.name} is a part of kernels: only jitted functions can call it")


@register_pass(mutates_CFG=True, analysis_only=False)
class _PartLowering(typed_passes.NativeLowering):
    """Lowers a part to code that kernels link, without an entry for Python."""

    _name = "part_lowering"

    def run_pass(self, state: Any) -> bool:
        name = state.func_id.func_qualname
        library = state.library = _PartLibrary(state.targetctx.codegen(), name)  # type: ignore[no-untyped-call]
        library.enable_object_caching()  # type: ignore[no-untyped-call]
        state.flags.no_compile = True
        super().run_pass(state)  # type: ignore[no-untyped-call]
        entry: Callable[..., Any] = _CalledByKernels(name).__getitem__
        state.targetctx.insert_user_function(entry, state.cr.fndesc, [library])
        state.reload_init.extend(library._reload_init)
        state.cr = state.cr._replace(cfunc=entry)
        return True


class KernelCompiler(Compiler):  # type: ignore[misc]
    """Numba's pipeline, with options that are quick to look up."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.state.flags = _Flags(self.state.flags)


class _PartCompiler(CompilerBase):  # type: ignore[misc]
    """Numba's pipeline for functions without Python objects, with another last step."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.state.flags = _Flags(self.state.flags)

    def define_pipelines(self) -> list[Any]:
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)  # type: ignore[no-untyped-call]
        pipeline.passes = [
            (_PartLowering if one is typed_passes.NativeLowering else one, text) for one, text in pipeline.passes
        ]
        pipeline.finalize()
        return [pipeline]


def _is_known() -> bool:
    """Whether this version of Numba has what a part's library and pipeline rely on."""
    library = codegen.JITCodeLibrary
    return (
        hasattr(typed_passes, "NativeLowering")
        and hasattr(Flags(), "_values")
        and all(hasattr(library, name) or name == "_final_module" for name in _NEEDED)
    )


OPTIONS: dict[str, Any] = (
    {"pipeline_class": _PartCompiler, "no_cpython_wrapper": True, "no_cfunc_wrapper": True} if _is_known() else {}
)
"""Options of `numba.njit` for a part of kernels."""

KERNEL_OPTIONS: dict[str, Any] = {"pipeline_class": KernelCompiler} if _is_known() else {}
"""Options of `numba.njit` for a kernel."""
