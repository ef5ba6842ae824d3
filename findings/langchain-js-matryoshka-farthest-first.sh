#!/usr/bin/env bash
# Version:   @langchain/classic 1.0.50 with @langchain/core 1.4.0 (npm) and node 20.
# Guess:     MatryoshkaRetriever orders what the short vectors found by the long ones, from the most to the least similar, by
#            whichever of its three search types.
# Behaviour: by "euclidean" it sorts the distances as if they were similarities, the greatest first: of the smallK candidates
#            it gives the largeK that are farthest from the query. "cosine" and "innerProduct" are right.
# Why:       the second look at the candidates, which is there to make the first one better, throws out the best: with the
#            default sizes, 50 candidates and 8 hits, the nearest document is never among them. For vectors of length 1 all
#            three types should agree. Nothing was found about this.
# Seen (ten documents at rising angles to the query, the three that come back):
#   cosine:       0 1 2
#   innerProduct: 0 1 2
#   euclidean:    9 8 7
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

npm install --silent --no-audit --no-fund --ignore-scripts --legacy-peer-deps --prefix "$work" \
  @langchain/classic@1.0.50 @langchain/core@1.4.0

cat > "$work/rank.mjs" <<'JS'
import { MatryoshkaRetriever } from "@langchain/classic/retrievers/matryoshka_retriever";
import { MemoryVectorStore } from "@langchain/classic/vectorstores/memory";
import { Document } from "@langchain/core/documents";
import { Embeddings } from "@langchain/core/embeddings";

// A text is its angle in degrees; the vectors have length 1.
class Angles extends Embeddings {
  constructor() {
    super({});
  }
  async embedQuery(text) {
    const angle = (Number(text) * Math.PI) / 180;
    return [Math.cos(angle), Math.sin(angle)];
  }
  async embedDocuments(texts) {
    return Promise.all(texts.map((text) => this.embedQuery(text)));
  }
}

for (const searchType of ["cosine", "innerProduct", "euclidean"]) {
  const retriever = new MatryoshkaRetriever({
    vectorStore: new MemoryVectorStore(new Angles()),
    largeEmbeddingModel: new Angles(),
    smallK: 10,
    largeK: 3,
    searchType,
  });
  const texts = [...Array(10).keys()].map((at) => String(10 * at));
  await retriever.addDocuments(texts.map((pageContent) => new Document({ pageContent, metadata: {} })));
  const hits = (await retriever.invoke("0")).map((hit) => hit.pageContent / 10).join(" ");
  console.log(`${`${searchType}:`.padEnd(13)} ${hits}`);
  if (hits !== (searchType === "euclidean" ? "9 8 7" : "0 1 2")) throw new Error(`${searchType}: another order.`);
}
JS
node "$work/rank.mjs"
