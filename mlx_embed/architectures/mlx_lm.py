"""mlx-lm's model files as submodules of this one, so that `mlx_lm` itself is not imported.

That would load transformers, which takes seconds, and lower the process's limit of open files.
"""

from importlib.util import find_spec

_package = find_spec("mlx_lm")
if _package is None:
    raise ImportError("there is no package mlx_lm")
__path__ = [f"{folder}/models" for folder in _package.submodule_search_locations or ()]
