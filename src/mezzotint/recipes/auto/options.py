"""Every switch of the default recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from mezzotint._words import check_words
from mezzotint.allocation import FEWEST_PROJECTIONS
from mezzotint.errors import FormatError, UsageError
from mezzotint.formats import FLOAT, RangeSearch, parse_activation_format, parse_weight_format
from mezzotint.measuring import CACHE_BYTES, MOST_PROBES, Metric, chosen_metric
from mezzotint.plan import CLIPS, CallSelection, Encoding
from mezzotint.recipes.found_structures import Shortcuts
from mezzotint.recipes.learning import BEST
from mezzotint.recipes.option_values import selected_calls
from mezzotint.recipes.restrictions import Restrictions
from mezzotint.training.options import Training

ACT_SHARE = 0.95
"""Share of the multiply-accumulates whose inputs are quantized, where nothing else is asked for."""

FORMATS = (
    *(f"int{bits}/channel" for bits in range(2, 9)),
    *(f"lut{bits}/channel" for bits in range(2, 7)),
)
"""Weight formats among which layers choose where nothing else is asked for."""

Rounding = Literal["feedback", "nearest"]
BiasCorrection = Literal["tried", "always", "never"]
Sensitivity = Literal["hybrid", "probes", "measured"]


@dataclass(frozen=True)
class Auto:
    """The default recipe: exact allocation of weights and inputs, and how it looks for a plan.

    Attributes:
        calibration_prompts: how many to take where none are given; by default 8 to 32, as many as
            256 denoising steps allow.
        calls: the most calls of the denoiser to keep of the pipeline's run, at timesteps spread
            over all of it, of 8 samples each; none for all of them, whole. Where inputs may have a
            scale for each timestep, one of each is kept at least.
        formats: weight formats a layer may take; of the default ones, those in the `profile`.
        mixtures: average bits, 2 to 7 each, of mixtures of widths inside a layer that it may take
            as well: channels with outliers take a bit more, as many of the others a bit less, by
            the search of MPQ-DM. There are none under a latency.
        inputs: activation formats a layer may take; by default those of the budget's `act_bits`
            per token, with and without a zero point, and `float`. One may have static ranges, such
            as `uint8/tensor`, and one a scale for each timestep of the sampler, such as
            `uint4/step`, which is stored and counted.
        activation: the one activation format of every layer, in place of `inputs`.
        pin: layers whose choice is decided, each as `PATTERN=int8/channel`, or with the input as
            well, `PATTERN=int8/channel:float`; the program spends the rest. The last that names a
            layer holds.
        exclude: patterns of layers that stay floating. Their weights do not count in averages.
        act_share: least share of the multiply-accumulates whose inputs are quantized; by default
            0.95, and any where `activation` or a latency decides.
        rounding: `feedback` of each column's error to those left (GPTQ), or to the `nearest` value.
        bias_correction: whether biases absorb what rounding shifts the layers' mean outputs by:
            `tried` at the end, and kept where it lowers the noise of held-out samples; or `always`,
            or `never`.
        sensitivity: `probes` predict the noise of every candidate from backward passes, `measured`
            measures it one by one, `hybrid` measures those that probes leave in doubt. Metrics
            other than noise are measured.
        probes: backward passes at the least, 4 to 256; they double while the plan is in doubt.
        regret: share of the plan's noise that more probes might save, and need not.
        exchanges: try to trade bytes between the layers of a plan that was found by probes.
        refit: folder of a result of the model that this one is a fine-tune of: its plan and
            probes are gone by, and a tenth as many probes correct them. Exchanges are those of the
            base.
        bos: keep the constant first token of text embeddings out of the quantizers (MixDQ).
        shortcuts: which layers get a quantizer per half of a concatenated input (MixDQ):
            `shortcuts` of residual blocks, all `concatenations` that a layer reads directly, or
            `none`.
        smoothing: let inputs with a few large channels be smoothed (SmoothQuant), for a byte per
            channel, where that is worth it.
        smoothing_norms: let norms smooth what they put out, without a byte, where nothing but
            smoothed layers of one input reads that. Adapters that were made for the original are
            refused there.
        search: choice of the clipping ranges of weights.
        clips: of static inputs, among which each layer takes the one of least noise by probes:
            `full` range, `p99.9`, `p99.99` (shares of the values), or `mse`. Without probes all
            take the first.
        metric: what the plan makes least, a metric such as `ImageError(4)`, or the name of a
            registered one: `noise` of the denoiser's output, or by images `ssim` and `image-error`.
        cache_bytes: memory for what runs before a layer while that is measured, which saves about
            two fifths of the time; None for no bound, 0 to run every call in full. Plans do not
            depend on it.
        labels: folder that `mezzotint sample` made of the same model: what a predictor learns from
            it of each layer then weighs the noise of that. Exchanges, which look at noise alone,
            are left out.
        predictor: learns from the labels: a registered one, or the `best` of them on these labels.
            Where that adds up noise, as this recipe does, labels change nothing.
        profile: file of `mezzotint profile` for a budget's latency; by default the model is
            profiled, once per machine.
        profile_batch: images per denoiser call that a latency is for; by default the profile's,
            or 1.
        tune_minutes: minutes in which scales, biases and norms of the plan that was found are
            trained, as `mezzotint tune` does; no byte is added. None for no training; 0 for what an
            interrupted one has come to, where its states are kept.
        tune_steps: updates of that training, in place of minutes.
    """

    calibration_prompts: int | None = None
    calls: int | None = CallSelection.calls
    formats: tuple[str, ...] = FORMATS
    mixtures: tuple[int, ...] = ()
    inputs: tuple[str, ...] | None = None
    activation: str | None = None
    pin: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    act_share: float | None = None
    rounding: Rounding = "feedback"
    bias_correction: BiasCorrection = "tried"
    sensitivity: Sensitivity = "hybrid"
    probes: int = 64
    regret: float = 0.05
    exchanges: bool = True
    refit: str | None = None
    bos: bool = True
    shortcuts: Shortcuts = "shortcuts"
    smoothing: bool = True
    smoothing_norms: bool = False
    search: RangeSearch = Encoding.search
    clips: tuple[str, ...] = ("full", "p99.99", "mse")
    metric: str | Metric = "noise"
    cache_bytes: int | None = CACHE_BYTES
    labels: str | None = None
    predictor: str = BEST
    profile: str | None = None
    profile_batch: int | None = None
    tune_minutes: float | None = None
    tune_steps: int | None = None

    def __post_init__(self) -> None:
        check_words(self)
        chosen_metric(self.metric)
        self._check_numbers()
        self._check_inputs()
        _ = self.restrictions
        if self.labels is not None and self.metric != "noise":
            raise UsageError("labels: weigh the noise of layers; leave metric out with them")
        if self.smoothing_norms and not self.smoothing:
            raise UsageError(
                "smoothing_norms: says who smooths, and without smoothing nobody does; leave it out"
            )
        if self.tune_minutes is not None and not 0 <= self.tune_minutes < math.inf:
            raise UsageError(f"tune_minutes: is {self.tune_minutes}; give 0 or more")
        if self.tune_steps is not None and self.tune_minutes is not None:
            raise UsageError("tune_steps: stands in place of tune_minutes; leave one of them out")
        if self.tune_steps is not None and self.tune_steps < 0:
            raise UsageError(f"tune_steps: is {self.tune_steps}; give 0 or more")

    def _check_numbers(self) -> None:
        if self.calibration_prompts is not None and self.calibration_prompts < 1:
            raise UsageError(f"calibration_prompts: is {self.calibration_prompts}; give 1 or more")
        if not FEWEST_PROJECTIONS <= self.probes <= MOST_PROBES:
            raise UsageError(
                f"probes: is {self.probes}; give {FEWEST_PROJECTIONS} to {MOST_PROBES}"
            )
        selected_calls(self.calls)
        if self.profile_batch is not None and self.profile_batch < 1:
            raise UsageError(f"profile_batch: is {self.profile_batch}; give 1 or more")
        if self.cache_bytes is not None and self.cache_bytes < 0:
            raise UsageError(f"cache_bytes: {self.cache_bytes} is negative; 0 switches it off")
        if not self.regret >= 0:
            raise UsageError(f"regret: is {self.regret}; give a share, 0 or more")
        if self.act_share is not None and not 0 <= self.act_share <= 1:
            raise UsageError(f"act_share: is {self.act_share}; give a share from 0 to 1")

    def _check_inputs(self) -> None:
        if not self.formats:
            raise UsageError("formats: none given; a layer needs at least one to choose from")
        if not self.clips or not set(self.clips) <= set(CLIPS):
            raise UsageError(f"clips: are {self.clips}; give one or more of: {', '.join(CLIPS)}")
        if self.inputs is not None and self.activation is not None:
            raise UsageError("activation: stands for inputs of one format; leave one of them out")
        if sum(name.endswith("/tensor") for name in self.inputs or ()) > 1:
            raise UsageError("inputs: more than one has static ranges; keep one of them")
        if sum(name.endswith("/step") for name in self.inputs or ()) > 1:
            raise UsageError("inputs: more than one has a scale per timestep; keep one of them")
        if self.inputs is not None and not self.inputs:
            raise UsageError("inputs: none given; a layer needs at least one to choose from")
        self._check_names("formats", self.formats, parse_weight_format)
        if not all(2 <= bits <= 7 for bits in self.mixtures):
            raise UsageError(f"mixtures: are of {self.mixtures} bits; give 2 to 7 each, or none")
        self._check_names("inputs", self.inputs or (), parse_activation_format)
        activation = () if self.activation is None else (self.activation,)
        self._check_names("activation", activation, parse_activation_format)

    @staticmethod
    def _check_names(field: str, names: Iterable[str], parse: Callable[[str], object]) -> None:
        for name in names:
            try:
                parse(name)
            except FormatError as cause:
                raise UsageError(f"{field}: {cause}") from cause

    @property
    def restrictions(self) -> Restrictions:
        """Pins and exclusions."""
        return Restrictions.of(self.pin, self.exclude)

    @property
    def tuning(self) -> Training | None:
        """The options of training; None where nothing is trained."""
        if self.tune_minutes is None and self.tune_steps is None:
            return None
        return Training(self.tune_minutes, self.tune_steps, train="scales")

    @property
    def floats_weights(self) -> bool:
        """True where a layer may stay floating altogether."""
        return FLOAT in self.formats
