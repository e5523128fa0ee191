"""Build the optional C extension; everything else is declared in pyproject.toml.

`BUILD_EXTENSION=yes` makes a failed build an error (wheels, CI), `BUILD_EXTENSION=no` skips it, and
otherwise a machine without a compiler gets the Python twins.
"""

from __future__ import annotations

import os

from setuptools import Extension, setup

wish = os.environ.get("BUILD_EXTENSION", "maybe")

native = Extension(
    "sarrapipe._native",
    sources=["native/module.c", "native/atomics.c", "native/beneath.c", "native/syncfs.c"],
    depends=["native/kernels.h"],
    extra_compile_args=["-O3", "-Wall", "-Wextra", "-std=c11"],
    optional=wish != "yes",
)

setup(ext_modules=[] if wish == "no" else [native])
