#!/usr/bin/env python3
"""Let schemathesis send the server what its own description allows, and what it does not: no answer may be a 500.

    python scripts/check_api.py [--examples 100]

It needs the extra serve and schemathesis. The models are tiny random ones of the tests. Exits with schemathesis's
status: 1 where an answer was a 5xx, of another media type than described, or not of the described shape.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mlx_embed import CrossEncoder, EmbeddingModel  # noqa: E402
from tests.checkpoints import reranker  # noqa: E402
from tests.mlx_embed.serve.harness import serving  # noqa: E402

CHECKS = "not_a_server_error,content_type_conformance,response_schema_conformance,status_code_conformance"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=100, help="requests of each kind to each route")
    options = parser.parse_args()
    embedder = EmbeddingModel.from_pretrained(ROOT / "tests/data/tiny-bert", device="cpu")
    with TemporaryDirectory() as folder:
        cross_encoder = CrossEncoder.from_pretrained(reranker("bert", 1, Path(folder)), device="cpu")
        with serving({"tiny-bert": embedder}, {"tiny-reranker": cross_encoder}) as running:
            command = ["run", f"{running.url}/openapi.json", "--checks", CHECKS, "--request-timeout", "30"]
            command += ["--max-examples", str(options.examples), "--phases", "examples,coverage,fuzzing", "--no-color"]
            run = subprocess.run([sys.executable, "-m", "schemathesis.cli", *command], cwd=folder)
    sys.exit(run.returncode)


if __name__ == "__main__":
    main()
