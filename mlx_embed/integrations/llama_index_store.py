"""LlamaIndex's vector store, by an `Index`."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from mlx_embed.index import Hit, Index

try:
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.schema import BaseNode, MetadataMode, TextNode
    from llama_index.core.vector_stores.types import (
        BasePydanticVectorStore,
        FilterCondition,
        FilterOperator,
        MetadataFilter,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
        VectorStoreQueryResult,
    )
    from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
except ImportError as error:
    raise ImportError('This needs llama-index-core: pip install ".[llama-index]" in a clone of mlx-embed') from error

MODES = {
    VectorStoreQueryMode.DEFAULT: "vector",
    VectorStoreQueryMode.SPARSE: "text",
    VectorStoreQueryMode.TEXT_SEARCH: "text",
    VectorStoreQueryMode.HYBRID: "hybrid",
}
# Of a text's metadata: what LlamaIndex knows of its node, as a mapping, by which filters cannot ask; and its document.
_NODE, _DOCUMENT = "_llama_index", "ref_doc_id"


class MLXVectorStore(BasePydanticVectorStore):
    """An index as LlamaIndex's vector store: it keeps texts, nodes and all, and finds them by vectors and by words.

    Nodes come with the vectors of LlamaIndex's embedding model, which has to be the index's own
    (`MLXEmbedding(index.model)`); nodes and queries without a vector are embedded by the index. A filter's "path" is
    that of a node's metadata, or a glob of files that `mlx-embed index` has indexed.
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    _index: Index = PrivateAttr()

    def __init__(self, index: Index) -> None:
        """Take an index that is open; close it at the end."""
        super().__init__()
        self._index = index

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex serialises."""
        return "MLXVectorStore"

    @property
    def client(self) -> Index:
        """The index."""
        return self._index

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Add nodes, or replace those with the same ids, in one commit; their ids.

        Raises:
            ValueError: vectors of another dimension than the index's, or nodes with a vector among some without.
        """
        ids = [node.node_id for node in nodes]
        texts = [node.get_content(MetadataMode.NONE) for node in nodes]
        embedded = [node.embedding for node in nodes if node.embedding is not None]
        if len(embedded) not in (0, len(nodes)):
            raise ValueError(f"{len(embedded)} of {len(nodes)} nodes have a vector: embed all of them, or none.")
        self._index.upsert(ids, texts, [_metadata(node) for node in nodes], vectors=embedded or None)
        return ids

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Remove the nodes of a document."""
        self._index.delete(list(self._index.get(filter={_DOCUMENT: ref_doc_id})))

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Remove nodes by id, by filter, or by both.

        Raises:
            ValueError: neither; `clear` removes all.
        """
        if node_ids is None and filters is None:
            raise ValueError("delete_nodes needs node_ids or filters; clear() removes all nodes.")
        self._index.delete(list(self._index.get(node_ids, filter=_filter(filters))))

    def clear(self) -> None:
        """Remove everything, and give back the space."""
        self._index.delete(list(self._index.get()))
        self._index.compact()

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Nodes by id, by filter, or by both; all of them where there is neither."""
        found = self._index.get(node_ids, filter=_filter(filters))
        names = found if node_ids is None else [name for name in node_ids if name in found]
        return [_node(found[name]) for name in names]

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The best nodes and their scores; `kwargs`, such as `rerank` and `min_score`, go to `Index.search`.

        Raises:
            ValueError: a mode or a filter that an index does not have; an alpha, since ranks are fused as they are.
        """
        if query.mode not in MODES:
            there = ", ".join(mode.value for mode in MODES)
            raise ValueError(f"An index has no mode {query.mode.value!r}; it has {there}.")
        if query.alpha not in (None, 0.5):
            raise ValueError(f"alpha is {query.alpha}; an index fuses both ranks alike: leave it out.")
        if query.query_str is None and (query.query_embedding is None or MODES[query.mode] != "vector"):
            raise ValueError(f"The mode {query.mode.value!r} needs query_str.")
        conditions = [_filter(query.filters) or {}]
        if query.doc_ids:
            conditions.append({_DOCUMENT: query.doc_ids})
        if query.node_ids:  # LlamaIndex's retriever gives [] where it means all
            conditions.append({"$id": query.node_ids})
        options: dict[str, Any] = {"mode": MODES[query.mode], "vectors": query.query_embedding, **kwargs}
        own = {"text": query.sparse_top_k, "hybrid": query.hybrid_top_k}.get(MODES[query.mode])
        wanted = {"$and": conditions} if any(conditions) else None
        hits = self._index.search(query.query_str or "", own or query.similarity_top_k, filter=wanted, **options)
        return VectorStoreQueryResult(
            nodes=[_node(hit) for hit in hits],
            similarities=[hit.score for hit in hits],
            ids=[hit.id for hit in hits],
        )

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """`add` in a thread."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """`delete` in a thread."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """`query` in a thread."""
        return await asyncio.to_thread(self.query, query, **kwargs)


def _metadata(node: BaseNode) -> dict[str, Any]:
    """What the index keeps of a node: its metadata, to filter by, and what the node is made of again."""
    told = node_to_metadata_dict(node, remove_text=True)
    about = {**node.metadata, _NODE: {"type": told["_node_type"], "content": json.loads(told["_node_content"])}}
    return about if node.ref_doc_id is None else {**about, _DOCUMENT: node.ref_doc_id}


def _node(hit: Hit) -> BaseNode:
    if (kept := hit.metadata.get(_NODE)) is not None:
        told = {"_node_type": kept["type"], "_node_content": json.dumps(kept["content"])}
        return metadata_dict_to_node(told, hit.text)
    # No node of LlamaIndex's: what `mlx-embed index` or `Index.add` has put there.
    place: dict[str, Any] = {"file_path": hit.path, "lines": [hit.line_start, hit.line_end]} if hit.path else {}
    return TextNode(id_=hit.id, text=hit.text, metadata={**place, **hit.metadata})


def _filter(given: MetadataFilters | None) -> dict[str, Any] | None:
    """LlamaIndex's filters as an index has them."""
    if given is None or not given.filters:
        return None
    parts = [_filter(one) or {} if isinstance(one, MetadataFilters) else _condition(one) for one in given.filters]
    if given.condition == FilterCondition.NOT:
        return {"$not": {"$or": parts}}
    return {"$or" if given.condition == FilterCondition.OR else "$and": parts}


def _condition(one: MetadataFilter) -> dict[str, Any]:
    value, operator = one.value, one.operator
    values = value if isinstance(value, list) else [value]

    def where(condition: Any) -> dict[str, Any]:
        # "path", and a key with a $ in front, mean something else in an index's own filters.
        own = {"$metadata": {one.key: condition}}
        globs = condition if isinstance(condition, list) else [condition]
        if one.key == "path" and all(isinstance(glob, str) for glob in globs):
            return {"$or": [own, {one.key: globs}]}
        return own

    if operator in (FilterOperator.EQ, FilterOperator.CONTAINS):
        return where(value)
    if operator in (FilterOperator.IN, FilterOperator.ANY):
        return where(values)
    if operator == FilterOperator.ALL:
        return {"$and": [where(each) for each in values]}
    if operator in (FilterOperator.NE, FilterOperator.NIN):
        return {"$not": where(values)}
    if operator in (FilterOperator.GT, FilterOperator.GTE, FilterOperator.LT, FilterOperator.LTE):
        return where({operator.value: value})
    if operator == FilterOperator.IS_EMPTY:
        return {"$not": where({"!=": ""})}
    raise ValueError(f"An index has no filter {operator.value!r} of metadata; mode text_search looks for words.")
