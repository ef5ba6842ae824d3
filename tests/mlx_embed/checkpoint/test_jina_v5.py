"""jina-embeddings-v5's two folders, LoRAs in adapters/<task>: as merged by hand, and live as its authors have it."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_embed import CheckpointError, EmbeddingModel, convert
from tests.checkpoints import NORMALIZE, edit, pooling, read, with_modules
from tests.conftest import DATA
from tests.mlx_embed.architectures.cases import TOLERANCE, difference

pytestmark = pytest.mark.filterwarnings("ignore::mlx_embed.TruncationWarning")
TASKS = ["retrieval", "text-matching", "clustering", "classification"]
TEXTS = ["the wing", "heat of the flow " * 20, "a", "code, qux 42!"]
PROMPTS = {"query": "Query: ", "document": "Document: "}
RANK, ALPHA = 4, 6
BACKBONES = {"small": ("qwen3", "decoders"), "nano": ("eurobert", "encoders")}


def base(folder: Path, size: str) -> Path:
    """The weights without any LoRA, in float32, with sentence-transformers' modules, as of a task's repository."""
    name, kind = BACKBONES[size]
    with_modules(folder, [pooling("lasttoken"), NORMALIZE])
    tensors = {
        key: array.astype(mx.float32) for key, array in mx.load(str(DATA / kind / name / "model.safetensors")).items()
    }
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, {"format": "pt"})
    (folder / "config.json").write_text((DATA / kind / name / "config.json").read_text())
    prompts = {"prompts": PROMPTS, "default_prompt_name": "document"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return edit(folder, dtype="float32")


def factors(name: str, shape: tuple[int, ...], task: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(list(f"{task} {name}".encode()))
    return tuple(0.2 * rng.normal(size=size).astype(np.float32) for size in ((RANK, shape[1]), (shape[0], RANK)))


def changed(folder: Path) -> dict[str, mx.array]:
    """What the LoRAs are of."""
    return {name: array for name, array in read(folder).items() if name.endswith("proj.weight")}


def merged(folder: Path, size: str, task: str) -> Path:
    """As the authors' repository of one task is: an architecture that transformers has."""
    tensors = read(base(folder, size))
    for name, array in changed(folder).items():
        a, b = factors(name, array.shape, task)
        tensors[name] = array + mx.array(ALPHA / RANK * (b @ a))
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, {"format": "pt"})
    return folder


def authors(folder: Path, size: str) -> Path:
    """As the repository of all tasks is."""
    weights = changed(base(folder, size))
    for task in TASKS:
        place = folder / "adapters" / task
        place.mkdir(parents=True)
        tensors = {}
        for name, array in weights.items():
            module = f"base_model.model.{name.removesuffix('.weight')}"
            for part, factor in zip("AB", factors(name, array.shape, task), strict=True):
                tensors[f"{module}.lora_{part}.weight"] = mx.array(factor)
        mx.save_safetensors(str(place / "adapter_model.safetensors"), tensors, {"format": "pt"})
        modules = sorted({name.split(".")[-2] for name in weights})
        config = {"peft_type": "LORA", "task_type": "FEATURE_EXTRACTION", "r": RANK, "lora_alpha": ALPHA}
        config |= {"base_model_name_or_path": f"jinaai/jina-embeddings-v5-text-{size}", "lora_dropout": 0.1}
        (place / "adapter_config.json").write_text(json.dumps(config | {"target_modules": modules}))
    (folder / "1_Pooling/config.json").unlink()
    module = {"idx": 0, "name": "transformer", "path": "", "type": "custom_st.Transformer"}
    (folder / "modules.json").write_text(json.dumps([module | {"kwargs": ["task", "truncate_dim"]}]))
    theta = json.loads((folder / "config.json").read_text())["rope_parameters"]["rope_theta"]
    old = {"rope_parameters": None, "rope_theta": theta, "rope_scaling": None, "torch_dtype": "float32"}
    if size == "nano":
        old |= {"is_decoder": False}
    auto_map = {"AutoModel": "modeling_jina_embeddings_v5.JinaEmbeddingsV5Model"}
    return edit(folder, model_type="jina_embeddings_v5", task_names=TASKS, auto_map=auto_map, **old)


def oracle(folder: Path, size: str) -> Any:
    """The authors' `encode`: peft's LoRAs beside transformers' model, the last token's hidden state, its length."""
    torch = pytest.importorskip("torch", reason="PyTorch oracles are not installed")
    transformers = pytest.importorskip("transformers", reason="PyTorch oracles are not installed")
    peft = pytest.importorskip("peft", reason="peft is not installed")
    kind = {"small": "Qwen3", "nano": "EuroBert"}[size]
    settings = json.loads((folder / "config.json").read_text())
    for key in ("model_type", "architectures", "auto_map", "task_names", "is_decoder"):
        settings.pop(key, None)
    config = getattr(transformers, f"{kind}Config")(**settings)
    plain = getattr(transformers, f"{kind}Model").from_pretrained(folder, config=config, dtype=torch.float32)
    model = peft.PeftMixedModel.from_pretrained(plain, str(folder / "adapters" / TASKS[0]), adapter_name=TASKS[0])
    for task in TASKS[1:]:
        model.load_adapter(str(folder / "adapters" / task), adapter_name=task)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)

    def encode(texts: list[str], task: str, prompt_name: str = "document", truncate_dim: int | None = None) -> Any:
        given = [PROMPTS[prompt_name] + text for text in texts]
        batch = tokenizer(
            given, return_tensors="pt", padding=True, truncation=True, max_length=64, padding_side="right"
        )
        batch.pop("token_type_ids", None)
        model.set_adapter([task])
        model.eval()
        with torch.no_grad():
            hidden = model(**batch).last_hidden_state
        last = hidden[torch.arange(len(hidden)), batch["attention_mask"].sum(dim=1) - 1]
        return torch.nn.functional.normalize(last[:, :truncate_dim], dim=-1).numpy()

    return encode


@pytest.mark.parametrize("size", BACKBONES)
def test_live(size: str, tmp_path: Path) -> None:
    encode = oracle(authors(tmp_path, size), size)
    model = EmbeddingModel.from_pretrained(tmp_path, device="cpu")
    for task in TASKS:
        assert difference(model.encode(TEXTS, task=task), encode(TEXTS, task)) <= TOLERANCE
        assert (
            difference(model.encode(TEXTS[0], task=task, truncate_dim=8), encode(TEXTS[:1], task, "document", 8)[0])
            <= TOLERANCE
        )
    assert difference(model.encode_query(TEXTS), encode(TEXTS, "retrieval", "query")) <= TOLERANCE
    assert difference(model.encode_document(TEXTS), encode(TEXTS, "retrieval")) <= TOLERANCE


@pytest.mark.parametrize("size", BACKBONES)
def test_each_task_is_as_its_own_repository(size: str, tmp_path: Path) -> None:
    folder = authors(tmp_path / "m", size)
    model = EmbeddingModel.from_pretrained(folder, device="cpu", engine="reference")
    assert model.checkpoint.tasks == tuple(TASKS)
    found = {task: model.encode(TEXTS, task=task) for task in TASKS}
    for task in TASKS[:2]:
        alone = EmbeddingModel.from_pretrained(merged(tmp_path / task, size, task), device="cpu")
        assert difference(found[task], alone.encode(TEXTS)) <= TOLERANCE
        assert (
            difference(EmbeddingModel.from_pretrained(folder, device="cpu", task=task).encode(TEXTS), found[task])
            <= TOLERANCE
        )
    assert difference(found["retrieval"], found["clustering"]) > 1e-2
    assert np.abs(np.linalg.norm(found["retrieval"], axis=1) - 1).max() <= 1e-5
    for given in ({}, {"prompt_name": "query"}):
        with pytest.raises(ValueError, match="needs a task, of retrieval, text-matching, clustering, classification"):
            model.encode(TEXTS, **given)


def test_conversion(tmp_path: Path) -> None:
    folder = authors(tmp_path / "a", "nano")
    model = EmbeddingModel.from_pretrained(folder, device="cpu")
    convert(folder, tmp_path / "b")
    convert(folder, tmp_path / "c", task="clustering")
    kept = EmbeddingModel.from_pretrained(tmp_path / "b", device="cpu")
    for task in TASKS:
        assert difference(kept.encode(TEXTS, task=task), model.encode(TEXTS, task=task)) <= TOLERANCE
    alone = EmbeddingModel.from_pretrained(tmp_path / "c", device="cpu")
    assert difference(alone.encode(TEXTS), model.encode(TEXTS, task="clustering")) <= TOLERANCE
    assert alone.checkpoint.tasks == ()


def test_bad_folders(tmp_path: Path) -> None:
    folder = authors(tmp_path, "small")
    (folder / "adapters/clustering/adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"clustering.adapter_config.json is missing, the LoRA of the task"):
        EmbeddingModel.from_pretrained(folder, device="cpu").encode(TEXTS, task="clustering")
    for names, message in ((["../retrieval"], "no names of folders"), ("retrieval", "a list of names is needed")):
        with pytest.raises(CheckpointError, match=message):
            EmbeddingModel.from_pretrained(edit(folder, task_names=names), device="cpu")
