"""The hidden states between the branches of a transformer. The output of a branch is added only when the sum is needed:
then one kernel does the addition together with the norm that follows. `transformer.py` passes the stream through its
layers.
"""

from typing import TypeGuard

from torch import Tensor

from engine_svc.models.float8 import Float8Rows
from engine_svc.models.kernels.available import runs_kernels
from engine_svc.models.norms import LayerNorm, Norm, RMSNorm


class ResidualStream:
    def __init__(self, hidden: Tensor) -> None:
        self._hidden = hidden  # [rows, hidden]
        self._update: Tensor | None = None  # not yet added to `_hidden`

    def add(self, update: Tensor) -> None:
        """Adds the output of a branch. The caller must not use the tensor again: the sum may be written into it."""
        self._hidden, self._update = self.hidden(), update

    def hidden(self) -> Tensor:
        if self._update is not None:
            self._hidden, self._update = self._update.add_(self._hidden), None
        return self._hidden

    def normalized(self, norm: Norm, *, as_float8: bool) -> Tensor | Float8Rows:
        """The norm of the hidden states, which stay as they are. Float8Rows if `as_float8`, where a kernel runs."""
        if not has_kernel(norm, self._hidden):
            return norm(self.hidden())
        from engine_svc.models.kernels.norms import add_and_normalize

        result = add_and_normalize(self._hidden, norm, self._update, as_float8=as_float8)
        if self._update is not None:
            self._hidden, self._update = self._update, None
        return result

    def normalize(self, norm: Norm) -> None:
        """Replaces the hidden states by their norm."""
        if not has_kernel(norm, self._hidden):
            self._hidden = norm(self.hidden())
            return
        from engine_svc.models.kernels.norms import normalize

        self._hidden, self._update = normalize(self._hidden, norm, self._update), None


def has_kernel(norm: Norm, hidden: Tensor) -> TypeGuard[LayerNorm | RMSNorm]:
    return isinstance(norm, LayerNorm | RMSNorm) and runs_kernels(hidden.device)
