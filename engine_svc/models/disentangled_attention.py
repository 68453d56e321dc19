"""Disentangled attention (He et al. 2020, arXiv 2006.03654): a score is also how well a query suits the distance to a
key, and a key the distance from a query. What distances look like to either is known at load; which of them a pair of
tokens has is looked up: on CUDA by the attention kernel, elsewhere for some queries at a time. DeBERTa is built of it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engine_svc.models.attention import rows_of
from engine_svc.models.attention_pattern import AttentionPattern
from engine_svc.models.dense_attention import TILE_NUMBERS_MAX
from engine_svc.models.kernels.available import runs_kernels
from engine_svc.models.layout import Layout
from engine_svc.models.transformer import Attention, Rotations, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class DisentangledAttention(Attention):
    """All tokens see each other."""

    scale: float
    place_keys: Tensor | None  # [heads, head_dim, places]: what queries are compared with
    place_queries: Tensor | None  # the same for keys
    places: int
    place_of_distance: Tensor  # int64 [2 * longest - 1], by distance of a key from a query, from 1 - longest on

    def __call__(self, hidden: Rows, layout: Layout, rotations: Rotations) -> Tensor:
        projected = self.query_key_value(hidden).view(len(hidden), 3, self.heads, -1)
        attends = self.attend_by_kernel if runs_kernels(hidden.device) else self.attend_by_runs
        query, key, value = projected.unbind(1)
        return self.output(attends(query, key, value, layout).flatten(1))

    def attend_by_kernel(self, query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
        from engine_svc.models.kernels.attention import Places, attend_by_kernel

        of_queries, of_keys = (
            None if places is None else tokens.transpose(0, 1) @ places
            for tokens, places in ((query, self.place_keys), (key, self.place_queries))
        )
        pattern, bias = AttentionPattern(scale=self.scale), Places(of_queries, of_keys, self.place_of_distance)
        return attend_by_kernel(query, key, value, layout, pattern, places=bias)

    def attend_by_runs(self, query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
        result = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        for run in layout.runs:
            step = max(1, self._queries_max(run.length) // run.length)
            parts = [torch.split(rows_of(part, run), step) for part in (result, query, key, value)]
            for own, *others in zip(*parts, strict=True):
                self._attend(own, *others)
        result[layout.runs[-1].stop_row :] = 0
        return result

    def _queries_max(self, length: int) -> int:
        """Of sequences of this length, how many have their scores held at once."""
        return max(1, TILE_NUMBERS_MAX // (self.heads * max(length, self.places)))

    def _attend(self, result: Tensor, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Of sequences of one length, [sequences, heads, length, head_dim], some queries at a time."""
        length = query.shape[2]
        of_keys = None if self.place_queries is None else key @ self.place_queries
        for start in range(0, length, step := self._queries_max(length)):
            queries = range(start, min(start + step, length))
            own = query[:, :, start : queries.stop]
            bias = self._bias(own, of_keys, self._places_of(queries, length)).mul_(self.scale)
            attended = functional.scaled_dot_product_attention(own, key, value, bias, scale=self.scale)
            result[:, :, start : queries.stop] = attended

    def _bias(self, query: Tensor, of_keys: Tensor | None, places: Tensor) -> Tensor:
        """[sequences, heads, queries, keys], of `places` [queries, keys]."""
        places = places.expand(*query.shape[:2], -1, -1)
        bias = torch.zeros(places.shape, dtype=query.dtype, device=query.device)
        if self.place_keys is not None:
            bias += (query @ self.place_keys).gather(3, places)
        if of_keys is not None:
            bias += of_keys.gather(3, places.transpose(2, 3)).transpose(2, 3)
        return bias

    def _places_of(self, queries: range, length: int) -> Tensor:
        zero = len(self.place_of_distance) // 2
        near = self.place_of_distance[zero + 1 - queries.stop : zero + length - queries.start]
        return near.unfold(0, length, 1).flip(0)
