"""One plain vision transformer for any number of views (paper section 3.2).

Blocks before `alt_start` see one view at a time; `encode_views` runs them, and what it returns of a view can be kept for as long as the
view stays in a window. From `alt_start` on cameras enter and every odd block attends across the views: `decode_window`.

No view is ever moved: attention does not know the order of views, so the reference view is simply the one that gets the first of the
two learned camera tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from da3_core.model.layers import Block, Mlp, SwiGLU, truncated_normal_
from da3_core.model.presets import BackboneConfig
from da3_core.model.reference_view import ReferenceView, choose_reference_view
from da3_core.model.rope import RotaryTable, table_across_views, table_within_view


class EncodedViews(NamedTuple):
    """Views after the blocks that see one view at a time. All tensors are (B, N, ...): slice and concatenate them along the views."""

    tokens: Tensor  # (B, N, 1 + P, D)
    class_tokens: Tensor  # (B, N, D), what the reference view is chosen from
    kept: Mapping[int, Tensor]  # block -> (B, N, 1 + P, D), for out layers this early and blocks asked for


class Feature(NamedTuple):
    """What a head reads from one of the four out layers."""

    patches: Tensor  # (B, N, P, C)
    camera: Tensor  # (B, N, C)


class DecodedWindow(NamedTuple):
    features: tuple[Feature, ...]  # of the four out layers
    kept: Mapping[int, Tensor]  # block -> (B, N, 1 + P, D), for blocks asked for


class Backbone(nn.Module):
    """DINOv2 with alternating attention."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.config = config
        self.patch_embed = nn.Conv2d(3, dim, config.patch_size, config.patch_size)
        self.cls_token = _token(1, dim)
        self.pos_embed = _token(1 + config.position_grid**2, dim)
        if config.alt_start is not None:
            self.camera_token = _token(2, dim)  # of the reference view, of all others
        self.blocks = nn.ModuleList(_block(config, i) for i in range(config.depth))
        self.norm = nn.LayerNorm(dim)

    @property
    def first_window_block(self) -> int:
        """Blocks before this one see one view at a time."""
        return self.config.first_window_block

    def forward(
        self, images: Tensor, camera_tokens: Tensor | None = None, reference_view: ReferenceView = "saddle_balanced"
    ) -> DecodedWindow:
        """Features of normalised images (B, N, 3, H, W)."""
        grid = self.grid_of(_size(images))
        return self.decode_window(self.encode_views(images), grid, camera_tokens, reference_view)

    def grid_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches of an (H, W) image. Raises ValueError when it is not made of whole patches."""
        (H, W), patch = size, self.config.patch_size
        if H % patch or W % patch:
            raise ValueError(
                f"an image of {W}x{H} pixels is not made of {patch}x{patch} patches: resize both sides to multiples of {patch}"
            )
        return H // patch, W // patch

    def encode_views(self, images: Tensor, keep: Collection[int] = ()) -> EncodedViews:
        """The blocks that see one view at a time: (B, N, 3, H, W), normalised, to tokens. `keep` asks for blocks' outputs."""
        self._check_blocks(keep)
        views = images.shape[:2]
        grid = self.grid_of(_size(images))
        table = self._table_within_view(grid, images.device)
        x = class_tokens = self.embed(images.flatten(0, 1), grid)  # (B * N, 1 + P, D)
        kept = {}
        for i in range(self.first_window_block):
            if i == self.first_window_block - 1:
                class_tokens = x
            x = self.blocks[i](x, self._from_start(table, i))
            if i in keep or i in self.config.out_layers:
                kept[i] = x.unflatten(0, views)
        return EncodedViews(x.unflatten(0, views), class_tokens[:, 0].unflatten(0, views), kept)

    def decode_window(
        self,
        encoded: EncodedViews,
        grid: tuple[int, int],
        camera_tokens: Tensor | None = None,
        reference_view: ReferenceView = "saddle_balanced",
        keep: Collection[int] = (),
        wanted: Tensor | None = None,
    ) -> DecodedWindow:
        """The blocks from `alt_start` on: all views of a window exchange what they know.

        camera_tokens: (B, N, D) of given cameras; without them the learned ones are used and `reference_view` says whose frame the
        others are expressed in. grid: rows and columns of patches. `keep` asks for the outputs of blocks. wanted: (M,) indices of the
        views whose patches a head will read, by default all; cameras are read of all views.
        """
        outputs = {i: self._feature(x, x, wanted) for i, x in encoded.kept.items() if i in self.config.out_layers}
        kept = {i: x for i, x in encoded.kept.items() if i in keep}
        x = local = encoded.tokens  # (B, N, 1 + P, D)
        if self.config.alt_start is not None:
            if camera_tokens is None:
                camera_tokens = self.learned_camera_tokens(encoded.class_tokens, reference_view)
            x = torch.cat([camera_tokens.unsqueeze(2).to(x.dtype), x[:, :, 1:]], 2)
        tables = self._table_within_view(grid, x.device), self._table_across_views(x)
        for i in range(self.first_window_block, self.config.depth):
            if wanted is not None and i % 2 and i == self.config.depth - 1 and i not in keep:
                outputs[i] = self._last_feature(x, local, tables[1], wanted)
                break
            x = self._window_block(i, x, tables)
            local = x if i % 2 == 0 else local
            if i in self.config.out_layers:
                outputs[i] = self._feature(local, x, wanted)
            if i in keep:
                kept[i] = x
        return DecodedWindow(tuple(outputs[i] for i in self.config.out_layers), kept)

    def embed(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens (V, 1 + P, D) of images (V, 3, H, W): class token, then patches row by row, with their absolute positions."""
        patches = self.patch_embed(images.to(self.patch_embed.weight.dtype)).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], 1)
        return tokens + self.position_embedding(grid).to(self.pos_embed.dtype)

    def position_embedding(self, grid: tuple[int, int]) -> Tensor:
        """(1, 1 + P, D): the stored grid resampled to this one. It depends on the grid alone: constant for a fixed image size."""
        (h, w), side = grid, self.config.position_grid
        if (h, w) == (side, side):
            return self.pos_embed
        stored = self.pos_embed[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
        # Checkpoints were trained with these factors: the 0.1 moves the sampling points.
        factors = ((h + 0.1) / side, (w + 0.1) / side)
        resampled = F.interpolate(stored, scale_factor=factors, mode="bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:, :1].float(), resampled.flatten(2).transpose(1, 2)], 1)

    def learned_camera_tokens(self, class_tokens: Tensor, reference_view: ReferenceView) -> Tensor:
        """(B, N, D) where no cameras are given, from class tokens (B, N, D): the reference view gets the first of the two."""
        reference = choose_reference_view(class_tokens, reference_view)
        is_reference = torch.arange(class_tokens.shape[1], device=reference.device) == reference.unsqueeze(1)  # (B, N)
        of_reference, of_others = self.camera_token.unbind(1)  # each (1, D)
        return torch.where(is_reference.unsqueeze(-1), of_reference, of_others)

    def _check_blocks(self, keep: Collection[int]) -> None:
        unknown = set(keep) - set(range(self.config.depth))
        if unknown:
            raise ValueError(f"there are no blocks {sorted(unknown)}: this network has {self.config.depth}, counted from 0")

    def _window_block(self, i: int, x: Tensor, tables: tuple[RotaryTable, RotaryTable]) -> Tensor:
        within_view, across_views = tables
        if i % 2:
            y: Tensor = self.blocks[i](x.flatten(1, 2), self._from_start(across_views, i))
        else:
            y = self.blocks[i](x.flatten(0, 1), self._from_start(within_view, i))
        return y.reshape(x.shape)

    def _feature(self, local: Tensor, x: Tensor, wanted: Tensor | None) -> Feature:
        camera = x[:, :, 0] if self.config.alt_start is None else torch.cat([local[:, :, 0], x[:, :, 0]], -1)
        if wanted is not None:
            local, x = local.index_select(1, wanted), x.index_select(1, wanted)
        return Feature(self._patch_feature(local[:, :, 1:], x[:, :, 1:]), camera)

    def _last_feature(self, x: Tensor, local: Tensor, table: RotaryTable, wanted: Tensor) -> Feature:
        """Nothing attends to the last block's output: it is computed for the tokens that are read, all cameras and the wanted patches."""
        _, n, length, _ = x.shape
        tokens = torch.arange(n * length, device=x.device).unflatten(0, (n, length))
        read = torch.cat([tokens[:, 0], tokens.index_select(0, wanted)[:, 1:].flatten()])
        y = self.blocks[-1](x.flatten(1, 2), self._from_start(table, self.config.depth - 1), read)
        cameras, patches = y[:, :n], y[:, n:].unflatten(1, (len(wanted), length - 1))
        return Feature(self._patch_feature(local.index_select(1, wanted)[:, :, 1:], patches), torch.cat([local[:, :, 0], cameras], -1))

    def _patch_feature(self, local: Tensor, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x)
        return normed if self.config.alt_start is None else torch.cat([local, normed.to(local.dtype)], -1)

    def _from_start(self, table: RotaryTable, block: int) -> RotaryTable | None:
        start = self.config.rope_start
        return None if start is None or block < start else table

    def _table_within_view(self, grid: tuple[int, int], device: torch.device) -> RotaryTable:
        config = self.config
        return table_within_view(grid, config.embed_dim // config.heads, config.rope_base, device)

    def _table_across_views(self, tokens: Tensor) -> RotaryTable:
        config = self.config
        _, n, length, _ = tokens.shape
        return table_across_views(length - 1, n, config.embed_dim // config.heads, config.rope_base, tokens.device)


def _block(config: BackboneConfig, index: int) -> Block:
    dim, hidden = config.embed_dim, config.mlp_ratio * config.embed_dim
    ffn = Mlp(dim, hidden, dim) if config.ffn == "mlp" else SwiGLU(dim, hidden)
    qk_norm = config.qknorm_start is not None and index >= config.qknorm_start
    return Block(dim, config.heads, ffn, qk_norm=qk_norm, layer_scale=config.layer_scale_init)


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


def _token(count: int, dim: int) -> nn.Parameter:
    return nn.Parameter(truncated_normal_(torch.empty(1, count, dim)))
