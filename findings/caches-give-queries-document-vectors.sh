#!/usr/bin/env bash
# Version:   litellm 1.110.2; llama-index-core 0.14.25.
# Guess:     a cache of embeddings gives for a query what the model gives for a query, whatever it holds of documents.
# Behaviour: LiteLLM's cache knows a text by the model, the text, dimensions and encoding_format. What says that it is a
#            query - input_type, task, task_type, also in extra_body - is not in its key: the second side gets the
#            vector of the first. LlamaIndex's embeddings_cache has one entry for get_text_embedding and
#            get_query_embedding. LiteLLM has a switch, enable_caching_on_provider_specific_optional_params, with which
#            all is right. Both were reported: LiteLLM #15595, closed, and LlamaIndex #23181, open.
# Why:       models for search give a text two vectors. Titles, questions of a list of questions, and texts that are
#            searched by themselves are both; which vector is found for them depends on what was asked for first.
# Seen (a text first as a document, then as a query; the model gives [0, 1] and [1, 0]):
#   LiteLLM, input_type: [0.0, 1.0] [0.0, 1.0], with the switch [0.0, 1.0] [1.0, 0.0]
#   LiteLLM, extra_body: [0.0, 1.0] [0.0, 1.0], with the switch [0.0, 1.0] [1.0, 0.0]
#   LlamaIndex:          [0.0, 1.0] [0.0, 1.0], without a cache [0.0, 1.0] [1.0, 0.0]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet litellm==1.110.2 llama-index-core==0.14.25

cat > "$work/sides.py" <<'PY'
import asyncio
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import litellm
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.storage.kvstore import SimpleKVStore

# What a model for search gives for one text, by the side that it is on.
SIDES = {"document": [0.0, 1.0], "query": [1.0, 0.0]}


class Server(BaseHTTPRequestHandler):
    """OpenAI's protocol with an input_type, which NVIDIA's servers and others take beside it."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        vectors = [{"object": "embedding", "index": 0, "embedding": SIDES[asked["input_type"]]}]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        answer = json.dumps({"object": "list", "model": "m", "data": vectors, "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


class Sided(BaseEmbedding):
    def _get_query_embedding(self, query: str) -> list[float]:
        return SIDES["query"]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return SIDES["query"]

    def _get_text_embedding(self, text: str) -> list[float]:
        return SIDES["document"]


async def both(url: str, way: str, switch: bool) -> list[list[float]]:
    """A text's vectors as a document and then as a query, by LiteLLM's cache."""
    litellm.cache = litellm.Cache()
    litellm.enable_caching_on_provider_specific_optional_params = switch
    place = {"model": "hosted_vllm/m", "api_base": url, "api_key": "none", "encoding_format": "float", "caching": True}
    vectors = []
    for side in SIDES:
        said = {"input_type": side} if way == "input_type" else {"extra_body": {"input_type": side}}
        # Each way has its own text, so that nothing is left from the one before.
        answer = await litellm.aembedding(input=[f"{way} {switch}"], **place, **said)
        vectors.append(answer.data[0]["embedding"])
    return vectors


async def by_litellm(url: str) -> dict[str, list[list[list[float]]]]:
    return {way: [await both(url, way, switch) for switch in (False, True)] for way in ("input_type", "extra_body")}


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
seen = asyncio.run(by_litellm(f"http://127.0.0.1:{server.server_port}/v1"))
for way, (plain, switched) in seen.items():
    print(f"LiteLLM, {way}:", *plain, end="")
    print(", with the switch", *switched)
models = Sided(embeddings_cache=SimpleKVStore()), Sided()
cached, direct = ([model.get_text_embedding("wing"), model.get_query_embedding("wing")] for model in models)
print("LlamaIndex:         ", *cached, end="")
print(", without a cache", *direct)
right, same = [*SIDES.values()], [SIDES["document"]] * 2
if direct != right or any(switched != right for _, switched in seen.values()):
    sys.exit("The sides are no longer told apart where they were.")
if cached != same:
    sys.exit("LlamaIndex's cache tells the sides apart now.")
if any(plain != same for plain, _ in seen.values()):
    sys.exit("LiteLLM's cache tells the sides apart now.")
PY
export LITELLM_LOCAL_MODEL_COST_MAP=True
"$work/venv/bin/python" "$work/sides.py" 2>"$work/said" || { tail -n 5 "$work/said" >&2; exit 1; }
