"""What pyproject.toml cannot say: a wheel brings the compiled kernels where a C compiler makes them.

Without a compiler it is a wheel for all platforms, whose kernels are compiled on first use where there is one.
"""

import sys
from functools import cache
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).parent))

from charlm.inference.compiled import SHIPPED, compile_for_all_processors

kernels = cache(compile_for_all_processors)


class Package(Distribution):
    """A distribution that belongs to a platform if it has the kernels."""

    def has_ext_modules(self) -> bool:  # noqa: D102
        # a source distribution has no kernels; pip makes the metadata in another process, which would compile them, too
        return not {"dist_info", "sdist"}.intersection(self.commands) and kernels() is not None


class BuildPackage(build_py):
    """Adds the kernels to the modules. An editable install has none: there, they are compiled on first use."""

    def run(self) -> None:  # noqa: D102
        super().run()
        if not self.editable_mode and (library := kernels()) is not None:
            (Path(self.build_lib) / "charlm" / "inference" / SHIPPED.name).write_bytes(library)


class BuildWheel(bdist_wheel):
    """The kernels belong to a platform, not to a version of Python."""

    def get_tag(self) -> tuple[str, str, str]:  # noqa: D102
        python, abi, platform = super().get_tag()
        return ("py3", "none", platform) if kernels() is not None else (python, abi, platform)


setup(distclass=Package, cmdclass={"build_py": BuildPackage, "bdist_wheel": BuildWheel})
