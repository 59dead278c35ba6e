"""The result: frozen, raw and signed; resizing, scaling, colouring and saving are later steps that change nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from seewhy.diagnosis import Finding
from seewhy.errors import RenderError
from seewhy.evidence import Evidence
from seewhy.images import Geometry
from seewhy.places import Block, Interval, connected
from seewhy.reading import Reduction, Scaling, Shows, View, reduce_colours
from seewhy.recorder import Cost, Layout
from seewhy.targets import Detection, Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image


@dataclass(frozen=True)
class Prediction:
    """One class of the model's answer.

    Attributes:
        index: the class.
        name: its name.
        score: its logit; where the model answers place by place, the mean over the places at which it is predicted.
        probability: 0..1, NaN where it has no meaning; where the model answers place by place, the part of the seen picture
            that the class covers.
        means: which of both it is: "probability", or "area".
    """

    index: int
    name: str
    score: float
    probability: float
    means: Literal["probability", "area"] = "probability"


def layer_words(names: Sequence[str]) -> str:
    """Return the layers of a map as captions and tables show them: their names, or of four and more their number."""
    return " + ".join(names) if len(names) < _NUMBERED else f"{len(names)} layers"


_NUMBERED = 4


@dataclass(frozen=True)
class Box:
    """A region of a map on the original picture, in pixels; right and bottom are one past the last pixel.

    Attributes:
        left, top, right, bottom: its edges.
        share: the part of the map's whole positive mass that lies in the region, 0..1.
    """

    left: int
    top: int
    right: int
    bottom: int
    share: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a model said what it said about one image.

    Attributes:
        raw: `(*grid)` float32: signed, not scaled, at the layer's resolution. High means "supports the target".
        geometry: where the model's input lies in the original picture.
        image: `(height, width, 3)` uint8, the original, upright; None when the input was not a picture.
        name: the image's name.
        asked: the question itself, from one sample's output to the number that is explained.
        target: the question in words; `target_index` is the class, if it is about one.
        score: the number that is explained.
        prediction: the five likeliest classes (of a model that answers place by place, those that cover most; of a detector,
            boxes); `about` is the class asked about, also when it is not one of them.
        method: the method's name; `options` are its options.
        layers: the layers' names; `layouts` how each was read.
        colours: `(channel, *grid)` float32, the map of each colour channel, where the method has one; `raw` is made of them.
        reduction: how: see :meth:`reduced`.
        scaling: the scale of the heat map; see :meth:`scaled`.
        shows: "evidence" for the target, or "influence" on it in either direction.
        smooth: what was put around the method, in words.
        evidence: how true the map was found to be on the model itself; None where that was not asked for (`verify=True`), and of
            maps of one place.
        reported: numbers that the method told about its map, such as the gap of integrated gradients.
        view: "positive": the heat map is the positive part, 0..1; "signed": the map itself, -1..1.
        cost: what this map took; the seconds of the recording that it shares with other maps are counted in each.
        shared: that recording's own cost.
        cut_short: (runs made, runs planned) where a budget ended the work early.
        among: of how many maps the method chose this one by what the model says of parts of the picture; 1: it did not.
        diagnosis: what is wrong with the map and what to try next; empty when nothing is.
        notes: what was assumed on the way.
        detections: what an object detector found, the most confident first; empty for other models.
        outline: `(*original shape)` bool, the part of the picture that is asked about (a box, a region); None: all of it.
        input: `(channel, *space)` float32, what the model was given, in the input's own axis order; None for RGB pictures.
    """

    raw: npt.NDArray[np.float32]
    geometry: Geometry
    image: npt.NDArray[np.uint8] | None
    name: str
    target: str
    target_index: int | None
    score: float
    prediction: tuple[Prediction, ...]
    method: str
    options: Mapping[str, Any]
    layers: tuple[str, ...]
    layouts: tuple[Layout, ...]
    view: View
    cost: Cost
    model: str = ""
    about: Prediction | None = None
    diagnosis: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = field(default=())
    colours: npt.NDArray[np.float32] | None = None
    reduction: Reduction | None = None
    scaling: Scaling = "per-image"
    shows: Shows = "evidence"
    shared: Cost = field(default_factory=Cost)
    smooth: tuple[str, ...] = ()
    cut_short: tuple[int, int] | None = None
    among: int = 1
    asked: Target | None = field(default=None, repr=False)
    evidence: Evidence | None = None
    reported: Mapping[str, float] = field(default_factory=dict)
    outline: npt.NDArray[np.bool_] | None = None
    detections: tuple[Detection, ...] = ()
    input: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.view not in ("positive", "signed"):
            raise RenderError(f"view='{self.view}' is not known. Known: positive, signed.")

    @property
    def layout(self) -> str:
        """How the layers' outputs were read, in words."""
        return "; ".join(map(str, self.layouts)) or "the input itself"

    @property
    def probability(self) -> float | None:
        """The target class's probability, or the part of the picture that it covers; None when no class is asked about."""
        known = (*([self.about] if self.about is not None else []), *self.prediction)
        return next((p.probability for p in known if p.index == self.target_index), None)

    @cached_property
    def heatmap(self) -> npt.NDArray[np.float32]:
        """The map on the original pixels, float32, 0..1 (view "signed": -1..1); what the model did not see is 0."""
        return self.scaled(self.scaling)

    @cached_property
    def seen(self) -> npt.NDArray[np.bool_]:
        """Which original pixels the model was given; the others were cropped away and have no explanation."""
        return self.geometry.seen()

    def scaled(
        self, scaling: Scaling | float = "per-image", *, shape: tuple[int, ...] | None = None
    ) -> npt.NDArray[np.float32]:
        """Return the map on the original pixels under another scale.

        Args:
            scaling: "per-image": the largest absolute value becomes 1; "percentile": the 99th percentile does, and what is
                above is clipped; "none": raw values; a number: this raw value becomes 1 (one scale for several images).
            shape: sample the original at this many pixels instead (a smaller picture of the same view).

        Raises:
            RenderError: unknown scaling.
        """
        geometry = self.geometry if shape is None else self.geometry.viewed_at(shape)
        finite = np.nan_to_num(self.raw, nan=0.0, posinf=0.0, neginf=0.0)
        # The ReLU comes before the interpolation, as in the papers: a cell's sign is its own.
        values = geometry.to_original(finite if self.view == "signed" else np.maximum(finite, 0))
        if scaling == "none":
            return values
        peak = _peak(values, scaling)
        return np.clip(values / peak, -1, 1) if peak > 0 else values

    def viewed(self, view: View) -> Explanation:
        """Return the same explanation, shown as "positive" or "signed".

        Raises:
            RenderError: another view.
        """
        return replace(self, view=view)

    def reduced(self, how: Reduction) -> Explanation:
        """Return the same explanation with its colour channels made one map in another way.

        Args:
            how: "sum", "mean", "max-abs", "sum-abs" or "norm".

        Raises:
            RenderError: another word, or the map has no colour channels.
        """
        if self.colours is None:
            raise RenderError(f"A map by {self.method} has no colour channels to reduce.")
        shows: Shows = "evidence" if how in ("sum", "mean") and self.shows == "evidence" else "influence"
        return replace(self, raw=reduce_colours(self.colours, how), reduction=how, shows=shows)

    def mask(self, threshold: Literal["otsu"] | float = "otsu", *, top: float | None = None) -> npt.NDArray[np.bool_]:
        """Return where the heat map is high and above 0, on the original pixels.

        Args:
            threshold: "otsu", or a value of the heat map, 0..1.
            top: instead, this part of the seen pixels (0.2: the highest fifth); less where less of the map is above 0.

        Raises:
            RenderError: a threshold or part outside 0..1.
        """
        positive = np.maximum(self.heatmap, 0)
        seen = positive[self.seen] if self.seen.any() else np.zeros(1, np.float32)
        least = _threshold(seen, threshold, top)
        # At or above: the border of a map is a plateau, whose value is often the threshold itself.
        return np.asarray((positive >= least) & (positive > 0) & self.seen)

    def boxes(
        self, threshold: Literal["otsu"] | float = "otsu", *, top: float | None = None, least: float = 0.01
    ) -> list[Box]:
        """Return the connected regions of :meth:`mask` as boxes, the one with the largest share of the map first.

        Args:
            threshold, top: as in :meth:`mask`.
            least: regions with a smaller share of the map's positive mass are left out.

        Raises:
            RenderError: the map has other than two axes.
        """
        self._needs_axes(2, "boxes()", "intervals() of a signal, regions() of a volume")
        return [
            Box(left, upper, right, lower, share)
            for (upper, left), (lower, right), share in self._connected(threshold, top, least)
        ]

    def intervals(
        self, threshold: Literal["otsu"] | float = "otsu", *, top: float | None = None, least: float = 0.01
    ) -> list[Interval]:
        """Return where the map of a signal is high, as intervals of samples, the one with the largest share first.

        Args:
            threshold, top, least: as in :meth:`boxes`.

        Raises:
            RenderError: the map has other than one axis.
        """
        self._needs_axes(1, "intervals()", "boxes() of a picture, regions() of a volume")
        return [Interval(start, stop, share) for (start,), (stop,), share in self._connected(threshold, top, least)]

    def regions(
        self, threshold: Literal["otsu"] | float = "otsu", *, top: float | None = None, least: float = 0.01
    ) -> list[Block]:
        """Return where the map is high, as blocks along all of its axes in the input's order, the largest share first.

        Args:
            threshold, top, least: as in :meth:`boxes`.
        """
        return [Block(start, stop, share) for start, stop, share in self._connected(threshold, top, least)]

    def channel_shares(self) -> npt.NDArray[np.float64]:
        """Return each input channel's part of the sum of absolute attributions: `(channel,)`, 0..1, sum 1 (or all 0).

        Raises:
            RenderError: the method keeps no channels apart.
        """
        if self.colours is None:
            raise RenderError(
                f"A map by {self.method} has no channels to compare. Ask a method that keeps the input's channels apart, such "
                "as integrated-gradients or input-x-gradient."
            )
        sums = np.abs(self.colours.astype(np.float64)).reshape(len(self.colours), -1).sum(1)
        return np.asarray(sums / (sums.sum() or 1.0))

    def _needs_axes(self, axes: int, what: str, instead: str) -> None:
        found = len(self.geometry.axes)
        if found != axes:
            word = ("one axis", "two axes")[axes - 1]
            raise RenderError(f"{what} needs a map of {word}; this one has {found}. There are {instead}, and mask().")

    def _connected(
        self, threshold: Literal["otsu"] | float, top: float | None, least: float
    ) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], float]]:
        return connected(np.maximum(self.heatmap, 0), self.mask(threshold, top=top), least)

    def overlay(self, **style: Any) -> Image.Image:
        """Return the map laid over the picture, as a PIL image; arguments as in :func:`seewhy.render.overlay`."""
        from seewhy.render import overlay

        return overlay(self, **style)

    def figure(self, **style: Any) -> Figure:
        """Return a matplotlib figure: picture, overlay and map; a signal's lines; a volume's slices; with a colour bar.

        Arguments as in :func:`seewhy.render.figure`.
        """
        from seewhy.render import figure

        return figure([self], **style)

    def save(self, path: str | os.PathLike[str], **style: Any) -> None:
        """Write by the file's ending: .png .jpg .webp (overlay with a legend), .npz, .json, .html, .pdf or .svg (figure).

        Signals are drawn as lines, volumes as slices; .gif shows a volume's slices one after the other.

        Raises:
            RenderError: unknown ending, or the file cannot be written.
        """
        from seewhy.render import save

        save(self, path, **style)

    def _repr_png_(self) -> bytes:
        from seewhy.render import png_bytes

        return png_bytes(self)

    def _repr_html_(self) -> str:
        from seewhy.render import html_fragment

        return html_fragment(self)

    def __repr__(self) -> str:
        """Return one line that says what this is."""
        told = "".join(f" [{finding.code}]" for finding in self.diagnosis)
        grid = "x".join(map(str, self.raw.shape))
        where = ", ".join(self.layers) or "the input"
        return f"<Explanation of {self.name!r}: {self.target}, {self.method} at {where}, {grid}{told}>"


def _peak(values: npt.NDArray[np.float32], scaling: Scaling | float) -> float:
    """Return the value that becomes 1."""
    if isinstance(scaling, int | float) and scaling > 0:
        return float(scaling)
    if scaling == "per-image":
        return float(np.abs(values).max())
    if scaling == "percentile":
        return float(np.percentile(np.abs(values), 99)) or float(np.abs(values).max())
    raise RenderError(f"scaling={scaling!r} is not known. Known: per-image, percentile, none, or a positive number.")


def _threshold(values: npt.NDArray[np.float32], threshold: Literal["otsu"] | float, top: float | None) -> float:
    """Return the value from which on a pixel is in the mask."""
    from skimage.filters import threshold_otsu

    if top is not None:
        if not 0 < top <= 1:
            raise RenderError(f"top={top} must be a part of the pixels: above 0 and at most 1.")
        return float(np.quantile(values, 1 - top))
    if threshold == "otsu":
        return float(threshold_otsu(values)) if np.ptp(values) > 0 else float(values.flat[0]) / 2
    if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise RenderError(f"threshold={threshold!r} must be 'otsu' or a value of the heat map, 0 to 1.")
    return float(threshold)
