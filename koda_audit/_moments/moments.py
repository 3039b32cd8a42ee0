"""Count, sum and cross-product of feature rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from koda_audit._files import atomic_write
from koda_audit._moments.symmetric import add_product, mirror
from koda_audit.errors import InputError, StoreError

FORMAT = {"koda_audit": "moments 1"}
PRODUCT_ROWS = 4_096  # rows of one float32 product: with fewer, adding takes longer; with more, the bound grows
PRODUCTS = (torch.float64, torch.float32)


@dataclass(frozen=True, eq=False)
class Moments:
    """Of feature rows f (D,): how many, their sum, and the sum of f f'.

    Moments of parts add up to the moments of the whole, so rows may be cut into shards and chunks in any way and order:
    results agree to 1e-10 of the largest entry (float64 products). C/n is the covariance about zero, whose eigenvalues
    other than 0 are those of the kernel matrix K/n.

    Attributes:
        count: rows.
        total: (D,) float64.
        cross: (D, D) float64, exactly symmetric. Neither tensor is ever written to again.
    """

    count: int
    total: Tensor
    cross: Tensor

    def __post_init__(self) -> None:
        """Raises InputError where the parts do not fit each other."""
        shapes = tuple(self.total.shape), tuple(self.cross.shape)
        if self.count < 0 or self.total.ndim != 1 or shapes[1] != 2 * shapes[0]:
            raise InputError(f"moments of {self.count} rows with shapes {shapes}: expected (D,) and (D, D)")
        if {self.total.dtype, self.cross.dtype} != {torch.float64}:
            raise InputError(f"moments of dtype {self.total.dtype} and {self.cross.dtype}: expected torch.float64")

    @classmethod
    def zero(cls, width: int, device: torch.device | str = "cpu") -> Moments:
        """Of no rows.

        >>> Moments.zero(3).cross.shape
        torch.Size([3, 3])
        """
        total = torch.zeros(width, dtype=torch.float64, device=device)
        return cls(0, total, torch.zeros(width, width, dtype=torch.float64, device=device))

    @classmethod
    def of(cls, chunks: Iterable[Tensor], products: torch.dtype = torch.float64) -> Moments:
        """Of all rows of a stream; holds one D x D matrix, whatever the number of chunks.

        Args:
            chunks: (n, D) each, n as it comes, on one device, where the result lies.
            products: float64; or float32, faster on most devices: products of at most 4,096 rows, summed in float64.
                Then C_ij is off by at most 2.5e-4 sqrt(C_ii C_jj) for any number of rows (4,098 roundings of 2^-24),
                so by at most that part of the largest entry; as measured by 1e-6 of it.

        Raises:
            InputError: no chunk, widths that differ, a value that is not finite, float32 products where torch may
                make them with fewer digits.

        >>> moments = Moments.of(torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]]))
        >>> moments.count, moments.total.tolist(), moments.cross.tolist()
        (2, [4.0, 2.0], [[10.0, 2.0], [2.0, 4.0]])
        """
        _check_products(products)
        sums: Moments | None = None
        count = 0
        for number, rows in enumerate(chunks, 1):
            if rows.ndim != 2 or (sums is not None and rows.shape[1] != sums.width):
                width = "columns" if sums is None else sums.width
                raise InputError(f"chunk {number} has shape {tuple(rows.shape)}: expected (rows, {width})")
            if sums is None:
                sums = cls.zero(rows.shape[1], rows.device)
            count += len(rows)
            sums.total.add_(rows.sum(dim=0, dtype=torch.float64))
            for part in torch.split(rows, PRODUCT_ROWS if products == torch.float32 else max(len(rows), 1)):
                add_product(sums.cross, part.to(products))
            if not torch.isfinite(sums.cross.diagonal()).all():  # no entry is larger than the largest of the diagonal
                raise InputError(f"chunk {number} holds a value that is not finite, or whose square is not")
        if sums is None:
            raise InputError("no rows: expected at least one chunk")
        mirror(sums.cross)
        return cls(count, sums.total, sums.cross)

    @property
    def width(self) -> int:
        """D."""
        return len(self.total)

    def update(self, rows: Tensor, products: torch.dtype = torch.float64) -> Moments:
        """With the rows (n, D) added. For many chunks use ``of``, which makes no new matrix for each.

        >>> Moments.zero(2).update(torch.ones(5, 2)).count
        5
        """
        return self.merge(Moments.of([rows], products))

    def merge(self, other: Moments) -> Moments:
        """Of the rows of both.

        Raises:
            InputError: widths that differ.

        >>> Moments.of([torch.ones(5, 2)]).merge(Moments.of([torch.ones(3, 2)])).total.tolist()
        [8.0, 8.0]
        """
        if other.width != self.width:
            raise InputError(f"moments of width {self.width} and {other.width} cannot be merged: they must be equal")
        return Moments(self.count + other.count, self.total + other.total, self.cross + other.cross)

    def save(self, path: Path) -> None:
        """Write a safetensors file, atomically; the bytes are made in memory first.

        Raises:
            StoreError: the disk is full or the folder cannot be written.
        """
        tensors = {"count": torch.tensor(self.count), "total": self.total.cpu(), "cross": self.cross.cpu()}
        with atomic_write(path) as stream:
            stream.write(save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=FORMAT))

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> Moments:
        """What ``save`` wrote.

        Raises:
            StoreError: no such file, damaged, or not one of moments.
        """
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                if file.metadata() != FORMAT:
                    raise StoreError(f"{path} holds no moments: its format is {file.metadata()}, expected {FORMAT}")
                count, total, cross = (file.get_tensor(name) for name in ("count", "total", "cross"))
                return cls(int(count), total, cross)
        except (OSError, SafetensorError, InputError) as error:
            raise StoreError(f"cannot read moments from {path}: {error}") from error


def _check_products(products: torch.dtype) -> None:
    if products not in PRODUCTS:
        raise InputError(f"products are {products}: expected torch.float64 or torch.float32")
    if products == torch.float32 and not full_float32():
        raise InputError(
            "float32 products may have fewer digits in this process: "
            "call torch.set_float32_matmul_precision('highest'), or use float64"
        )


def full_float32() -> bool:
    """Whether float32 products have all their digits in this process."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # torch refuses to answer where one backend has been allowed fewer digits by itself
        return False
