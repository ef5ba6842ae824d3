"""Make the tiny checkpoints and golden vectors of this folder, with transformers and sentence-transformers.

    python tests/data/make_checkpoints.py encoders    those of MAKERS that are named, or all

Every parameter is random, biases and norms too, so that a tensor in the wrong place changes the vectors. They are the
same each time: what git calls changed, beside the new, comes of other versions of the libraries.
"""

import random
import string
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer, quantize_embeddings
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    EuroBertConfig,
    EuroBertModel,
    Gemma3TextConfig,
    Gemma3TextModel,
    GemmaConfig,
    GemmaModel,
    GteConfig,
    GteModel,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    ModernBertConfig,
    ModernBertDecoderConfig,
    ModernBertDecoderModel,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    NomicBertConfig,
    NomicBertModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
)

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.checkpoints import (
    CLASSIFIERS,
    FAMILIES,
    GENERATIVE,
    STACKS,
    classifier,
    encoder,
    generative,
    reranker,
    with_modules,
)
from tests.conftest import minilm_folder
from tests.mlx_embed.architectures import cases
from tests.mlx_embed.checkpoint.test_modules import PROMPT, TEXTS
from tests.mlx_embed.test_cross_encoder import CASES, PAIRS
from tests.mlx_embed.test_cross_encoder_decoders import PAIRS as CLASSIFIED
from tests.mlx_embed.test_cross_encoder_decoders import oracle as classifier_oracle
from tests.mlx_embed.test_vector_dtypes import vectors

HERE = Path(__file__).parent
WORDS = [
    "the",
    "a",
    "of",
    "and",
    "to",
    "in",
    "is",
    "wing",
    "flow",
    "heat",
    "boundary",
    "layer",
    "speed",
    "index",
    "text",
    "vector",
    "model",
    "query",
    "note",
    "code",
]
POOLING = ("mean", "cls", "max", "lasttoken")


def texts() -> list[str]:
    """Mixed lengths: one token to more than any of the checkpoints takes."""
    rng = random.Random(0)
    sentences = [" ".join(rng.choices(WORDS, k=k)) for k in (1, 2, 3, 5, 8, 13, 21, 34, 55, 61, 62, 63, 64, 200, 600)]
    return [
        *sentences,
        "",
        "   ",
        "?",
        "Qux!",
        "naïve café",
        "日本語のテキスト",
        "emoji 😀 here",
        "x" * 300,
        "[PAD] the",
        "[SEP]",
    ]


def tokenizer(specials: list[str], pad: str) -> Tokenizer:
    """A WordPiece tokenizer over a handful of words and all letters; `specials` are cls, sep, pad, unk, mask."""
    cls, sep, pad, unk, mask = specials
    first = [cls, pad, sep, unk] if pad == "<pad>" else [pad, unk, cls, sep]
    letters = string.ascii_lowercase + string.digits + string.punctuation
    vocabulary = [*first, mask, *WORDS, *letters, *("##" + letter for letter in string.ascii_lowercase)]
    ids = {token: i for i, token in enumerate(vocabulary)}
    result = Tokenizer(models.WordPiece(ids, unk_token=unk))
    result.normalizer = normalizers.BertNormalizer(lowercase=True)
    result.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    result.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(cls, ids[cls]), (sep, ids[sep])],
    )
    return result


def randomize(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            norm = name.endswith("norm.weight") or name.endswith("LayerNorm.weight")
            parameter.copy_(1 + 0.2 * noise if norm else 0.2 * noise)


def make(name: str, model: torch.nn.Module, specials: list[str], **extra: np.ndarray) -> None:
    randomize(model)
    folder = HERE / name
    cls, sep, pad, unk, mask = specials
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(specials, pad),
        cls_token=cls, sep_token=sep, pad_token=pad, unk_token=unk, mask_token=mask, model_max_length=64,
    )  # fmt: skip
    model.eval().save_pretrained(folder)
    fast.save_pretrained(folder)
    golden = {}
    for mode in POOLING:
        transformer = Transformer(str(folder), max_seq_length=64)
        modules = [transformer, Pooling(transformer.get_embedding_dimension(), pooling_mode=mode)]
        golden[mode] = SentenceTransformer(modules=modules, device="cpu").encode(texts(), batch_size=4)
    sentence = SentenceTransformer(modules=[transformer, Pooling(32, pooling_mode="mean"), Normalize()], device="cpu")
    sentence.save(str(folder), create_model_card=False)
    (folder / "model.safetensors").chmod(0o644)
    golden["encode"] = sentence.encode(texts(), batch_size=4)
    np.savez_compressed(HERE / f"{name}.npz", texts=np.array(texts()), **golden, **extra)


def make_encoders() -> None:
    """Tiny checkpoints of the other architectures, in half precision and without tokenizer, and golden vectors.

    tests/checkpoints.py completes the folders with the tokenizer of tiny-bert or tiny-mpnet.
    """
    sizes = {"vocab_size": 120, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 40}
    two, bert = {"num_hidden_layers": 2, **sizes}, {"max_position_embeddings": 64}
    roberta = {"max_position_embeddings": 66, "type_vocab_size": 1}
    distil = {"vocab_size": 120, "dim": 32, "n_heads": 4, "hidden_dim": 40, "n_layers": 2}
    tokens = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "mask_token_id": 4}
    t5 = {"vocab_size": 120, "d_model": 32, "num_heads": 4, "d_kv": 16, "d_ff": 40, "num_layers": 2}
    models = {
        "roberta": RobertaModel(RobertaConfig(layer_norm_eps=1e-5, **roberta, **two)),
        "distilbert": DistilBertModel(DistilBertConfig(**bert, **distil)),
        "modernbert": ModernBertModel(
            ModernBertConfig(num_hidden_layers=4, local_attention=16, pad_token_id=0, **bert, **sizes)
        ),
        "modernbert_decoder": ModernBertDecoderModel(
            ModernBertDecoderConfig(local_attention=16, pad_token_id=0, **bert, **two)
        ),
        "nomic_bert": NomicBertModel(NomicBertConfig(**bert, **two)),
        "gte": GteModel(GteConfig(**bert, **two)),
        "electra": ElectraModel(ElectraConfig(embedding_size=64, **bert, **two)),
        "albert": AlbertModel(
            AlbertConfig(num_hidden_layers=3, num_hidden_groups=2, embedding_size=64, **bert, **sizes)
        ),
        "deberta-v2": DebertaV2Model(
            DebertaV2Config(
                relative_attention=True,
                position_buckets=16,
                norm_rel_ebd="layer_norm",
                share_att_key=True,
                pos_att_type=["p2c", "c2p"],
                position_biased_input=False,
                **bert,
                **two,
            )
        ),
        "eurobert": EuroBertModel(EuroBertConfig(num_key_value_heads=2, **bert, **two, **tokens)),
        "t5": T5EncoderModel(T5Config(**t5)),
        "t5_gated": T5EncoderModel(T5Config(feed_forward_proj="gated-gelu", **t5)),
    }
    golden = {}
    for name, model in models.items():
        randomize(model)
        model.eval().half().save_pretrained(HERE / "encoders" / name)
        (HERE / "encoders" / name / "model.safetensors").chmod(0o644)
        with tempfile.TemporaryDirectory() as folder:
            golden[name] = cases.oracle(encoder(name, Path(folder))).encode(
                texts(), batch_size=4, normalize_embeddings=True
            )
    np.savez_compressed(HERE / "encoders.npz", texts=np.array(texts()), **golden)


def make_decoder(name: str, folder: Path) -> None:
    """A decoder of random weights in half precision, by transformers."""
    kinds = {
        "qwen3": (Qwen3Config, Qwen3Model),
        "qwen2": (Qwen2Config, Qwen2Model),
        "gemma": (GemmaConfig, GemmaModel),
        "llama": (LlamaConfig, LlamaModel),
        "mistral": (MistralConfig, MistralModel),
        "gemma3_text": (Gemma3TextConfig, Gemma3TextModel),
    }
    sizes = {"vocab_size": 120, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64}
    own: dict[str, dict[str, Any]] = {
        "qwen3": {"tie_word_embeddings": True},
        "qwen2": {},
        "gemma": {"bos_token_id": 2, "eos_token_id": 3},
        "llama": {"attention_bias": True, "mlp_bias": True},
        "mistral": {"sliding_window": 12, "head_dim": None},
        "gemma3_text": {
            "sliding_window": 16,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "query_pre_attn_scalar": 20,
            "use_bidirectional_attention": True,
        },
    }
    config, kind = kinds[name]
    model = kind(config(**(sizes | heads | own[name])))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            middle = 1.0 if "norm" in key and not name.startswith("gemma") else 0.0
            parameter.copy_(middle + 0.2 * torch.randn(parameter.shape, generator=generator))
    model.eval().half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def make_decoders() -> None:
    """Tiny decoders in half precision, and golden vectors of all cases; tests/checkpoints.py completes the folders."""
    golden = {}
    for name in FAMILIES:
        make_decoder(name, HERE / "decoders" / name)
    for variant in cases.DECODER_CASES:
        case = cases.CASES[variant]
        with tempfile.TemporaryDirectory() as folder:
            model = cases.oracle(cases.make(variant, Path(folder)))
            golden[variant] = model.encode(texts(), batch_size=4)
            if variant == case.base:
                golden[f"{variant}: query"] = model.encode_query(texts(), batch_size=4)
                golden[f"{variant}: short"] = model.encode_document(
                    texts(), batch_size=4, truncate_dim=12, normalize_embeddings=True
                )
    np.savez_compressed(HERE / "decoders.npz", texts=np.array(texts()), **golden)


def make_cross_encoders() -> None:
    """Golden scores of rerankers; tests/checkpoints.py puts heads on the encoders."""
    golden = {}
    for name, labels in CASES:
        with tempfile.TemporaryDirectory() as folder:
            model = CrossEncoder(str(reranker(name, labels, Path(folder))), device="cpu")
            golden[f"{name} {labels}"] = model.predict(PAIRS)
    np.savez_compressed(HERE / "cross_encoders.npz", **golden)


def make_generative() -> None:
    """Golden scores of rerankers that generate; tests/checkpoints.py makes them of the decoders."""
    golden = {}
    for name in GENERATIVE:
        with tempfile.TemporaryDirectory() as folder:
            model = CrossEncoder(str(generative(name, Path(folder))), device="cpu")
            golden[name] = model.predict(PAIRS)
            golden[f"{name}, prompt"] = model.predict(PAIRS, prompt="the note of ")
    np.savez_compressed(HERE / "generative.npz", **golden)


def make_classifiers() -> None:
    """Golden scores of decoders with a classifier; tests/checkpoints.py makes them of the decoders."""
    golden = {}
    for name in CLASSIFIERS:
        with tempfile.TemporaryDirectory() as folder:
            model = classifier_oracle(classifier(name, Path(folder)))
            golden[name] = model.predict(CLASSIFIED, activation_fn=torch.nn.Identity())
            golden[f"{name}, prompt"] = model.predict(CLASSIFIED, prompt="find the ", batch_size=3)
    np.savez_compressed(HERE / "classifiers.npz", **golden)


def make_modules() -> None:
    """Golden vectors of what may follow the encoder, on tiny-bert; tests/checkpoints.py names and writes them."""
    golden = {}
    for name, stack in STACKS.items():
        with tempfile.TemporaryDirectory() as folder:
            model = SentenceTransformer(str(with_modules(Path(folder), stack)), device="cpu")
            golden[name] = model.encode(TEXTS, prompt=PROMPT)
    np.savez_compressed(HERE / "modules.npz", **golden)


def make_quantization() -> None:
    """Golden bytes of quantized vectors."""
    rows, calibration = 3 * vectors(12, 20, seed=1), vectors(50, 20, seed=2)
    golden = {
        dtype: quantize_embeddings(rows, dtype, calibration_embeddings=calibration)
        for dtype in ("int8", "uint8", "binary", "ubinary")
    }
    np.savez_compressed(HERE / "quantization.npz", vectors=rows, calibration=calibration, **golden)


def make_tiny() -> None:
    """The checkpoints of most tests, whole, and golden vectors by each pooling."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    bert = BertConfig(vocab_size=120, max_position_embeddings=64, **sizes)
    make("tiny-bert", BertModel(bert), ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"])
    mpnet = MPNetConfig(vocab_size=120, max_position_embeddings=66, layer_norm_eps=1e-5, **sizes)
    model = MPNetModel(mpnet)
    distances = torch.arange(-511, 512)
    buckets = model.encoder.relative_position_bucket(distances, num_buckets=32).numpy().astype(np.int32)
    make("tiny-mpnet", model, ["<s>", "</s>", "<pad>", "[UNK]", "<mask>"], buckets=buckets)


def make_minilm() -> None:
    """Golden vectors of the real all-MiniLM-L6-v2, where it is here."""
    if (folder := minilm_folder()) is not None:
        minilm = SentenceTransformer(str(folder), device="cpu")
        np.savez_compressed(HERE / "all-MiniLM-L6-v2.npz", texts=np.array(texts()), encode=minilm.encode(texts()))


MAKERS = {
    "tiny": make_tiny,
    "encoders": make_encoders,
    "decoders": make_decoders,
    "cross_encoders": make_cross_encoders,
    "generative": make_generative,
    "classifiers": make_classifiers,
    "modules": make_modules,
    "quantization": make_quantization,
    "minilm": make_minilm,
}


def main() -> None:
    for name in sys.argv[1:] or MAKERS:
        MAKERS[name]()


if __name__ == "__main__":
    main()
