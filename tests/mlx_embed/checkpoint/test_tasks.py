"""A LoRA for each task: transformers' folder against peft, live, and the authors' against the same sums by hand."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import CheckpointError, CrossEncoder, EmbeddingModel, convert
from mlx_embed.checkpoint import read_checkpoint
from tests.checkpoints import NORMALIZE, edit, pooling, read, rename, with_modules
from tests.mlx_embed.architectures.cases import TOLERANCE, difference, oracle
from tests.mlx_embed.architectures.test_jina import JOINED, OF_FLASH

TASKS = ["retrieval.query", "retrieval.passage", "text-matching"]
TEXTS = ["the wing", "", "heat of the flow " * 10]
RANK, ALPHA = 4, 8
PROMPTS = {"retrieval.query": "query of ", "retrieval.passage": "text of ", "text-matching": ""}


def factors(name: str, shape: tuple[int, ...], task: int) -> tuple[np.ndarray, np.ndarray]:
    """What a task adds to a weight [out, in] is ALPHA / RANK times the second times the first."""
    rng = np.random.default_rng([task, *name.encode()])
    return tuple(0.1 * rng.normal(size=size).astype(np.float32) for size in ((RANK, shape[1]), (shape[0], RANK)))


def plain(folder: Path) -> Path:
    """jina_embeddings_v3 under its authors' names, float32, with modules and prompts."""
    with_modules(folder, [pooling("mean"), NORMALIZE], base="jina_embeddings_v3")
    rename(folder, *OF_FLASH, ("^", "roberta."), join=JOINED)
    tensors = {name: array.astype(mx.float32) for name, array in read(folder).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, {"format": "pt"})
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": PROMPTS}))
    return edit(folder, dtype="float32")


def is_matrix(name: str, array: mx.array) -> bool:
    return array.ndim == 2 and name.endswith(".weight")


def merged(folder: Path, task: int | None) -> Path:
    """The plain folder with a task's LoRA in its weights."""
    tensors = read(plain(folder))
    for name, array in tensors.items():
        if task is not None and is_matrix(name, array):
            a, b = factors(name, array.shape, task)
            tensors[name] = array + mx.array(ALPHA / RANK * (b @ a))
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, {"format": "pt"})
    return folder


def authors(folder: Path) -> Path:
    """As jina-embeddings-v3 lies on the hub."""
    tensors = {}
    for name, array in read(plain(folder)).items():
        if not is_matrix(name, array):
            tensors[name] = array
            continue
        place = name.removesuffix("weight") + "parametrizations.weight"
        pairs = [factors(name, array.shape, task) for task in range(len(TASKS))]
        first, second = (mx.array(np.stack(part)) for part in zip(*pairs, strict=True))
        if "embeddings." in name:
            first, second = second, first
        tensors |= {f"{place}.original": array, f"{place}.0.lora_A": first, f"{place}.0.lora_B": second}
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, {"format": "pt"})
    modules = json.loads((folder / "modules.json").read_text())
    modules[0] |= {"type": "custom_st.Transformer", "kwargs": ["task"]}
    (folder / "modules.json").write_text(json.dumps(modules))
    stated = {"lora_adaptations": TASKS, "lora_rank": RANK, "lora_alpha": ALPHA, "auto_map": {"AutoModel": "a--b.C"}}
    positions = {"position_embedding_type": "rotary", "rotary_emb_base": 20000.0, "rope_parameters": None}
    return edit(folder, model_type="xlm-roberta", **stated, **positions)


def theirs(folder: Path) -> Path:
    """As transformers has it: a folder of peft's for each task."""
    shapes = {name: array.shape for name, array in read(plain(folder)).items() if is_matrix(name, array)}
    for index, task in enumerate(TASKS):
        place = folder / task.replace(".", "_").replace("-", "_")
        place.mkdir()
        tensors = {}
        for name, shape in shapes.items():
            module = name.removeprefix("roberta.").removesuffix(".weight").replace("encoder.layers", "layers")
            a, b = factors(name, shape, index)
            if "embeddings." in name:
                tensors |= {f"{module}.lora_embedding_A": b.T, f"{module}.lora_embedding_B": a.T}
                continue
            if "Wqkv" in module:
                for part, rows in zip("qkv", np.split(b, 3), strict=True):
                    new = module.replace("mixer.Wqkv", f"self_attn.{part}_proj")
                    tensors |= {f"{new}.lora_A.weight": a, f"{new}.lora_B.weight": rows}
            else:
                module = module.replace("mixer.out_proj", "self_attn.o_proj")
                tensors |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
        arrays = {f"base_model.model.{key}": mx.array(np.ascontiguousarray(x)) for key, x in tensors.items()}
        mx.save_safetensors(str(place / "adapter_model.safetensors"), arrays, {"format": "pt"})
        modules = sorted({key.rpartition(".lora_")[0].rpartition(".")[2] for key in tensors})
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": modules}
        (place / "adapter_config.json").write_text(json.dumps(config))
    return folder


FORMS = {"the authors'": authors, "transformers'": theirs}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str | None, np.ndarray]:
    """The vectors of each task, and of none, of folders in which it is merged."""
    found = {}
    for index, task in enumerate([None, *TASKS]):
        folder = merged(tmp_path_factory.mktemp("merged") / "m", index - 1 if index else None)
        found[task] = EmbeddingModel.from_pretrained(folder, device="cpu").encode(TEXTS)
    return found


@pytest.mark.parametrize("form", FORMS)
def test_each_task(form: str, expected: dict[str | None, np.ndarray], tmp_path: Path) -> None:
    """In any order, in one model, by either spelling, or chosen when it is loaded."""
    folder = FORMS[form](tmp_path / "m")
    model = EmbeddingModel.from_pretrained(folder, device="cpu")
    assert difference(model.encode(TEXTS), expected[None]) <= TOLERANCE
    for task in reversed(TASKS):
        assert difference(model.encode(TEXTS, task=task), expected[task]) <= TOLERANCE
        assert difference(expected[task], expected[None]) > 1e-2
    assert difference(model.encode(TEXTS), expected[None]) <= TOLERANCE
    assert difference(model.encode(TEXTS, task="text_matching"), expected["text-matching"]) <= TOLERANCE
    own = EmbeddingModel.from_pretrained(folder, device="cpu", task="retrieval_query", engine="reference")
    for one in (own, pickle.loads(pickle.dumps(own))):
        assert difference(one.encode(TEXTS), expected["retrieval.query"]) <= TOLERANCE
    assert difference(own.encode(TEXTS, task="text-matching"), expected["text-matching"]) <= TOLERANCE


@pytest.mark.parametrize("form", FORMS)
def test_queries_and_documents(form: str, tmp_path: Path) -> None:
    """Each has its LoRA and its prompt, where nothing else is said."""
    model = EmbeddingModel.from_pretrained(FORMS[form](tmp_path / "m"), device="cpu")
    for encode, task in ((model.encode_query, TASKS[0]), (model.encode_document, TASKS[1])):
        named = model.encode(TEXTS, task=task, prompt_name=task)
        assert np.array_equal(encode(TEXTS), named)
        assert np.array_equal(encode(TEXTS, prompt=""), model.encode(TEXTS, task=task))
        assert np.array_equal(encode(TEXTS, task="text-matching", prompt=""), model.encode(TEXTS, task="text-matching"))
    assert np.array_equal(model.begin(TEXTS, "query")(), model.encode_query(TEXTS))
    chosen = EmbeddingModel.from_pretrained(tmp_path / "m", device="cpu", task="text-matching")
    assert np.array_equal(chosen.encode_query(TEXTS, prompt=""), chosen.encode(TEXTS))


def test_live(tmp_path: Path) -> None:
    """transformers loads the folder, and peft the LoRA."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    model = EmbeddingModel.from_pretrained(theirs(tmp_path / "m"), device="cpu")
    assert difference(model.encode(TEXTS), oracle(tmp_path / "m").encode(TEXTS)) <= TOLERANCE
    for task in ("retrieval_query", "text_matching"):
        reference = oracle(tmp_path / "m")
        peft.PeftModel.from_pretrained(reference[0].model, str(tmp_path / "m" / task))  # which changes the model
        assert difference(model.encode(TEXTS, task=task), reference.encode(TEXTS)) <= TOLERANCE


@pytest.mark.parametrize("form", FORMS)
def test_conversion(form: str, expected: dict[str | None, np.ndarray], tmp_path: Path) -> None:
    """Tasks are kept, or one is merged, which alone can be quantized."""
    folder = FORMS[form](tmp_path / "a")
    convert(folder, tmp_path / "b")
    model = EmbeddingModel.from_pretrained(tmp_path / "b", device="cpu")
    assert len(model.checkpoint.tasks) == len(TASKS)
    for task in (None, *TASKS):
        assert difference(model.encode(TEXTS, task=task), expected[task]) <= TOLERANCE
    report = convert(folder, tmp_path / "c", task="retrieval.passage", quantize=8, group_size=32)
    assert report.min_cosine >= 0.999
    alone = EmbeddingModel.from_pretrained(tmp_path / "c", device="cpu")
    assert alone.checkpoint.tasks == ()
    assert (alone.encode(TEXTS) * expected["retrieval.passage"]).sum(axis=1).min() >= 0.999
    with pytest.raises(ValueError, match=r"has tasks .*retrieval.query.*; pass one as task"):
        convert(folder, tmp_path / "d", quantize=8, group_size=32)
    assert not (tmp_path / "d").exists()


def test_unknown_tasks(tmp_path: Path) -> None:
    folder = authors(tmp_path / "m")
    model = EmbeddingModel.from_pretrained(folder, device="cpu")
    with pytest.raises(ValueError, match=r"task 'summary' is not one of the model's: retrieval.query, retrieval.pass"):
        model.encode(TEXTS, task="summary")
    with pytest.raises(ValueError, match="task 3 is not one"):
        EmbeddingModel.from_pretrained(folder, device="cpu", task=3)
    bare = EmbeddingModel.from_pretrained(with_modules(tmp_path / "bert", [pooling("mean")]), device="cpu")
    with pytest.raises(ValueError, match="task 'query': this model has no tasks"):
        bare.encode(TEXTS, task="query")
    with pytest.raises(ValueError, match="this model has no tasks"):
        CrossEncoder.from_pretrained(tmp_path / "bert", device="cpu", task="query")


def test_tasks_that_do_not_fit(tmp_path: Path) -> None:
    folder = authors(tmp_path / "m")
    whole = read(folder)
    name = "roberta.encoder.layers.0.mlp.fc1.parametrizations.weight.0.lora_A"
    cases: list[tuple[dict[str, Any], str]] = [
        ({key: x for key, x in whole.items() if key != name}, "lacks its weight or its other half"),
        (whole | {name: whole[name][:2]}, r"lora_A.* has shape \(2, 4, 32\) and .*, which do not fit \(40, 32\)"),
        (whole | {name: whole[name][:, :1]}, "which do not fit"),
    ]
    for tensors, message in cases:
        mx.save_safetensors(str(folder / "model.safetensors"), tensors)
        EmbeddingModel.from_pretrained(folder, device="cpu").encode(TEXTS)
        with pytest.raises(CheckpointError, match=message):
            EmbeddingModel.from_pretrained(folder, device="cpu", task="text-matching")
    mx.save_safetensors(str(folder / "model.safetensors"), whole)
    with pytest.raises(CheckpointError, match="\"lora_alpha\": 'x'"):
        EmbeddingModel.from_pretrained(edit(folder, lora_alpha="x"), device="cpu", task="text-matching")
    with pytest.raises(CheckpointError, match='"lora_adaptations": 5, where a list of names'):
        read_checkpoint(edit(folder, lora_adaptations=5))


def test_its_own_module_is_known_with_tasks_alone(tmp_path: Path) -> None:
    """Others have modules of that name, which do something else."""
    folder = edit(authors(tmp_path / "m"), lora_adaptations=None)
    with pytest.raises(Exception, match=r"custom_st.Transformer: code of the repository's own"):
        EmbeddingModel.from_pretrained(folder, device="cpu")


def test_a_folder_without_its_file(tmp_path: Path) -> None:
    folder = theirs(tmp_path / "m")
    (folder / "text_matching/adapter_model.safetensors").unlink()
    shutil.rmtree(folder / "retrieval_query")
    model = EmbeddingModel.from_pretrained(folder, device="cpu")
    assert model.checkpoint.tasks == ("retrieval_passage", "text_matching")
    with pytest.raises(CheckpointError, match=r"adapter_config.json and no adapter_model.safetensors"):
        model.encode(TEXTS, task="text-matching")
