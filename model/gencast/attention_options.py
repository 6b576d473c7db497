"""Which form of attention to use, and how; none of it changes the result beyond rounding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from model.errors import UnknownOptionError

AUTO = "auto"
ATTENTION_KINDS = ("splash_mha", "fused_banded_mha", "blocked_mha", "triblockdiag_mha", "mha")
SPLASH_BLOCK_SIZES = (
    "block_q",
    "block_kv",
    "block_kv_compute",
    "block_q_dkv",
    "block_kv_dkv",
    "block_kv_dkv_compute",
)
SPLASH_CHANNELS_MULTIPLE = 128
"""The TPU kernel takes heads of a multiple of this many channels."""


@dataclass(frozen=True, kw_only=True)
class AttentionOptions:
    """What may be chosen about attention without changing its result beyond rounding.

    Args:
      kind: one of ``ATTENTION_KINDS``, or ``auto`` for the one that suits the platform.
      block_size: queries per block; None takes the default of the platform and mesh. ``triblockdiag_mha``
        needs at least the half bandwidth and rounds up to it.
      mask_type: for ``splash_mha``, ``lazy`` evaluates the mask by blocks, ``full`` makes it dense first; None
        takes the checkpoint's.
      splash_block_sizes: block sizes for ``splash_mha`` by their published names; the checkpoint's for the rest.
      interpret: run Pallas kernels in the interpreter, for tests without the device.
    """

    kind: str = AUTO
    block_size: int | None = None
    mask_type: str | None = None
    splash_block_sizes: tuple[tuple[str, int], ...] = ()
    interpret: bool = False

    def __post_init__(self) -> None:
        if self.kind not in (AUTO, *ATTENTION_KINDS):
            raise UnknownOptionError(
                f"attention: expected one of {', '.join((AUTO, *ATTENTION_KINDS))}, got {self.kind!r}"
            )
        if self.mask_type not in (None, "lazy", "full"):
            raise UnknownOptionError(f"mask_type: expected lazy or full, got {self.mask_type!r}")
        if self.block_size is not None and self.block_size < 1:
            raise ValueError(f"expected a positive attention block size, got {self.block_size}")
        unknown = {name for name, _ in self.splash_block_sizes} - set(SPLASH_BLOCK_SIZES)
        if unknown:
            raise UnknownOptionError(
                f"attention: expected block sizes among {', '.join(SPLASH_BLOCK_SIZES)}, got {sorted(unknown)}"
            )

    @classmethod
    def parse(cls, text: str) -> AttentionOptions:
        """Options from the command line: a kind, then settings, as ``splash_mha,mask_type=full,block_q=512``.

        Raises:
          UnknownOptionError: no such kind or setting, or a size that is no number; the message lists them.
        """
        kind, *settings = (part.strip() for part in text.split(","))
        named = dict(setting.partition("=")[::2] for setting in settings)
        allowed = ("mask_type", "block_size", *SPLASH_BLOCK_SIZES)
        for name, value in named.items():
            if name not in allowed or (name != "mask_type" and not value.isdigit()):
                raise UnknownOptionError(
                    f"attention: expected settings {', '.join(f'{each}=…' for each in allowed)}, "
                    f"sizes as whole numbers; got {name}={value}"
                )
        return cls(
            kind=kind,
            mask_type=named.get("mask_type"),
            block_size=int(named["block_size"]) if "block_size" in named else None,
            splash_block_sizes=tuple(
                (name, int(named[name])) for name in SPLASH_BLOCK_SIZES if name in named
            ),
        )

    def with_checkpoint(self, *, mask_type: str, splash_block_sizes: Mapping[str, int]) -> AttentionOptions:
        """What was not chosen, from the checkpoint."""
        sizes = {**splash_block_sizes, **dict(self.splash_block_sizes)}
        return replace(self, mask_type=self.mask_type or mask_type, splash_block_sizes=tuple(sizes.items()))


def attention_kind_for(kind: str, *, platform: str, channels_per_head: int) -> str:
    """Resolves ``auto`` for a JAX platform (``cpu``, ``gpu``, ``tpu``); other kinds pass through.

    Raises:
      ValueError: the kind cannot run there.
    """
    if kind == AUTO:
        if platform == "tpu":
            return "splash_mha" if channels_per_head % SPLASH_CHANNELS_MULTIPLE == 0 else "triblockdiag_mha"
        return "blocked_mha" if platform == "cpu" else "fused_banded_mha"
    if kind == "splash_mha" and channels_per_head % SPLASH_CHANNELS_MULTIPLE:
        raise ValueError(
            f"splash_mha: expected a multiple of {SPLASH_CHANNELS_MULTIPLE} channels per head, got "
            f"{channels_per_head}; use triblockdiag_mha or auto"
        )
    return kind
