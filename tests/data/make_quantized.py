"""Make tests/data/odd/quantized: a layer of tiny-bert as mlx-embeddings writes it, one of qwen3 as mlx-lm does.

    PYTHONPATH=<the code of mlx-embeddings> python tests/data/make_quantized.py

quantized.npz beside it has the hidden states that their own code computes of these files.
"""

import contextlib
import importlib
import io
import json
import shutil
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.data.make_odd import ODD, copied, save, versions


def main() -> None:
    import mlx.core as mx

    # mlx-embeddings imports one function of mlx-vlm, for images.
    vision = types.ModuleType("mlx_vlm")
    vision.utils = types.ModuleType("mlx_vlm.utils")  # type: ignore[attr-defined]
    vision.utils.sanitize_weights = lambda cls, weights, config: weights
    sys.modules |= {"mlx_vlm": vision, "mlx_vlm.utils": vision.utils}
    import mlx_lm.utils as mlx_lm
    from mlx.utils import tree_flatten
    from mlx_embeddings import utils

    convert = importlib.import_module("mlx_embeddings.convert")  # the package has a function of this name
    mx.set_default_device(mx.cpu)
    ids = mx.array([[2, 5, 12, 13, 40, 41, 3]])
    folder = ODD / "quantized"
    folder.mkdir(exist_ok=True, parents=True)

    def mixed(path: str, module: Any) -> Any:
        if not hasattr(module, "to_quantized"):
            return False
        return {"group_size": 32, "bits": 8 if "down_proj" in path or "v_proj" in path else 4, "mode": "affine"}

    meta: dict[str, Any] = {"versions": versions("mlx", "mlx-lm"), "ids": ids.tolist(), "files": {}}
    meta["versions"]["mlx-embeddings"] = "0.1.0"
    arrays = {}

    def keep(name: str, weights: dict[str, Any], config: dict[str, Any], hidden: Any) -> None:
        place = folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        mx.save_safetensors(str(place / "model.safetensors"), weights, {"format": "mlx"})
        (place / "config.json").write_text(json.dumps(config, indent=1))
        arrays[name] = np.array(hidden.astype(mx.float32))
        meta["files"][name] = config.get("quantization")

    for name, bits, group, mode in (
        ("bert-5", 5, 32, "affine"),
        ("bert-mxfp4", 4, 32, "mxfp4"),
        ("bert-mxfp8", 8, 32, "mxfp8"),
        ("bert-nvfp4", 4, 16, "nvfp4"),
    ):
        with copied("tiny-bert", num_hidden_layers=1) as source:
            rewrite(source, lambda key: key if "layer.1." not in key and "layer.2." not in key else None)
            model = utils.load_model(source, path_to_repo=str(source))
            config = utils.load_config(source)
        with contextlib.redirect_stdout(io.StringIO()):
            weights, config = convert.quantize_model(model, config, group, bits, mode)
        keep(name, dict(weights), config, again(weights, config, utils, ids))
    with (
        copied("decoders/qwen3", num_hidden_layers=1, layer_types=["full_attention"]) as source,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        rewrite(source, lambda key: f"model.{key}" if "layers.1." not in key and "layers.2." not in key else None)
        model, config = mlx_lm.load_model(source, lazy=False)
        model, config = mlx_lm.quantize_model(model, config, 32, 4, quant_predicate=mixed)
        keep("qwen3-mixed", dict(tree_flatten(model.parameters())), config, model.model(ids))
    save("quantized", meta, arrays)


def rewrite(folder: Path, rename: Callable[[str], str | None]) -> None:
    """Rename the tensors of a checkpoint; those that become None are left out."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    kept = {name: value for key, value in tensors.items() if (name := rename(key)) is not None}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def again(weights: Any, config: dict[str, Any], utils: Any, ids: Any) -> Any:
    """The hidden states of a model that mlx-embeddings loads back."""
    import mlx.core as mx

    with tempfile.TemporaryDirectory() as place:
        mx.save_safetensors(f"{place}/model.safetensors", dict(weights), {"format": "mlx"})
        Path(place, "config.json").write_text(json.dumps(config))
        return utils.load_model(Path(place), path_to_repo=place)(ids).last_hidden_state


if __name__ == "__main__":
    main()
