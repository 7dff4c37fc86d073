"""CSCR: a projection of prompts into the space of LLM descriptors, and routing by similarity (CSCR Section 3)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from replications.cscr.cost_spectrum import Averaging, GammaSign, cost_bands, loss_terms, spectrum_loss_and_slope
from replications.cscr.lookup import ExpertIndex
from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError, suggest
from routebook.routers import Lesson, TrainedRouter, check_count, dense, fit_together
from routebook.threads import one_torch_thread

Loss = Literal["cost-spectrum", "vanilla"]
Rule = Literal["auto", "correct", "margin"]
# torch's default for AdamW; the paper names none.
WEIGHT_DECAY = 0.01
# Length that a query is taken to have at least where it is brought to unit length; torch's default.
SHORTEST = 1e-12


def positive_experts(
    benchmark: RoutingBenchmark, rule: Rule = "auto", *, threshold: float = 1.0, margin: float = 0.1
) -> np.ndarray:
    """Return which LLMs count as correct on each prompt, P(i) of Eq. (6), [N, M] of bool; unobserved ones never do.

    Parameters
    ----------
    rule : {"auto", "correct", "margin"}
        "correct": a quality of at least `threshold`. With 1, partial credit is no correct answer, as in the released
        code, which casts RouterBench's scores to integers (forensics 7.2 #22). "margin": within `margin` of the best
        LLM on the prompt, as the released code takes soft scores (#21). "auto": "correct" for binary qualities,
        "margin" for soft ones.

    Raises
    ------
    UserError
        For an unknown rule, or a negative margin.
    """
    if rule not in ("auto", "correct", "margin"):
        raise UserError(f"positives is {rule!r}, expected 'auto', 'correct' or 'margin'")
    if not margin >= 0:
        raise UserError(f"margin is {margin!r}, expected a number >= 0")
    if rule == "auto":
        rule = "correct" if benchmark.quality_kind == "binary" else "margin"
    known = np.where(np.isnan(benchmark.quality), -np.inf, benchmark.quality)
    if rule == "correct":
        return known >= threshold
    return (known >= known.max(axis=1, keepdims=True) - margin) & (known > -np.inf)


@dataclass(eq=False, repr=False, kw_only=True)
class CSCR(TrainedRouter):
    """The Cost-Spectrum Contrastive Router (Section 3): a two-layer MLP trained with Eq. (8), routing with Eq. (9).

    The MLP brings a frozen prompt embedding to the length of an LLM's descriptor; both are of unit length. Only the
    MLP is trained, so LLMs come and go with their descriptors alone.

    Eq. (9) is printed as argmin over the top k of cosine + lambda * cost, which takes the *least* similar of them;
    what can be meant, and what the released code does, is argmax of cosine - lambda * cost (CS-19). That is the house
    rule, argmax(quality_hat - lambda * cost), with `predict_quality` the cosine, and NaN (never routed there) outside
    the k most similar. lambda has another scale than in routers that estimate a quality. As the cheapest LLM need not
    be among the k, a curve need not reach it: its area wants `left="flat"`.

    Parameters
    ----------
    descriptors : mapping of str to ndarray, [D']
        Descriptor of every LLM by name; scaled to unit length here. Names beyond the training pool are allowed:
        `add_models` takes them from here.
    loss : {"cost-spectrum", "vanilla"}
        "vanilla": InfoNCE, Eq. (6), which is Eq. (8) with one band and gamma = 0. Its temperature is then that of
        Eq. (7) for the whole pool; the paper gives none.
    n_bands, gamma, gamma_sign, alpha, tau_min, averaging, divide_penalty
        As in `cost_spectrum.cost_spectrum_loss`; the paper's defaults. Costs are the LLMs' mean costs on the training
        prompts. More bands than LLMs are an error; bands that equal costs leave empty are dropped.
    k
        LLMs retrieved before the cost is looked at, 4 in Section 3.5.
    positives : {"auto", "correct", "margin"}
    threshold, margin
        As in `positive_experts`. A prompt that no LLM answers correctly teaches nothing and is left out.
    hidden
        Units of the hidden layer; None, the released code's: as many as the embedding has (384 for MiniLM).
    width_factor
        Multiplies `hidden`, the "x4" of Table 13.
    bias
        None in the released code. ReLU between the layers; no dropout.
    epochs, lr, batch_size
        AdamW; 10, 5e-4 and 512 in Appendix D.1. The last epoch is kept.
    min_steps
        Train further whole epochs until there were so many steps: 10 epochs are 700 steps on the paper's EmbedLLM, but
        40 on 2,000 prompts. 0, as in the paper, for exactly `epochs`.
    seed
        Of the initial weights and the shuffling.

    Attributes
    ----------
    network_ : torch.nn.Module
    index_ : ExpertIndex
        The pool's descriptors, in the order of `models_`.
    bands_ : Bands
        Of the LLMs it was trained on, `trained_on_`.
    loss_ : ndarray, [epochs run]
    n_steps_ : int
        Training steps made.
    n_trained_prompts_ : int
        Training prompts with a correct LLM.
    n_parameters_ : int
    """

    dynamic = True

    descriptors: Mapping[str, np.ndarray]
    loss: Loss = "cost-spectrum"
    n_bands: int = 5
    gamma: float = 0.2
    gamma_sign: GammaSign = "printed"
    alpha: float = 0.25
    tau_min: float = 0.05
    k: int = 4
    positives: Rule = "auto"
    threshold: float = 1.0
    margin: float = 0.1
    averaging: Averaging = "query"
    divide_penalty: bool = True
    hidden: int | None = None
    width_factor: int = 1
    bias: bool = False
    epochs: int = 10
    min_steps: int = 0
    lr: float = 5e-4
    batch_size: int = 512
    seed: int = 0

    def __repr__(self) -> str:
        given = {name: value for name, value in self.get_params().items() if name != "descriptors"}
        listed = ", ".join(f"{name}={value!r}" for name, value in given.items())
        return f"CSCR(descriptors=<{len(self.descriptors)} LLMs>, {listed})"

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Train the projection on the prompts that some LLM answers correctly.

        Parameters
        ----------
        benchmark
            Training prompts with the labels and costs of the training LLMs, [N, M].
        embeddings : ndarray, [N, D]

        Raises
        ------
        UserError
            As in `BaseRouter.fit`; when k or n_bands exceeds the pool, an LLM has no price or no descriptor,
            descriptors differ in length, or no prompt has a correct LLM.
        """
        fit_together([self], [(benchmark, embeddings)])
        return self

    def _lesson(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Lesson:
        import torch

        embeddings = self._check_fit(benchmark, embeddings)
        self._check_parameters(len(benchmark.models))
        vectors = self._vectors(benchmark.models)
        n_bands, gamma = (1, 0.0) if self.loss == "vanilla" else (self.n_bands, self.gamma)
        self.bands_ = cost_bands(benchmark.mean_cost, n_bands, benchmark.models)
        correct = positive_experts(benchmark, self.positives, threshold=self.threshold, margin=self.margin)
        rows = correct.any(axis=1)
        if not rows.any():
            raise UserError(
                f"CSCR: no LLM of {benchmark.name} counts as correct on any of the {len(rows)} training prompts; for "
                "soft scores set positives='margin', or lower threshold"
            )
        self.models_ = list(benchmark.models)
        self.trained_on_ = list(benchmark.models)
        self.index_ = ExpertIndex().add(self.models_, vectors)
        self.n_trained_prompts_ = int(rows.sum())
        generator = torch.Generator().manual_seed(self.seed)
        self.network_ = self._network(embeddings.shape[1], vectors.shape[1], generator)
        options = {"gamma": gamma, "gamma_sign": self.gamma_sign, "alpha": self.alpha, "tau_min": self.tau_min}
        tau, penalty, *places = loss_terms(self.bands_, **options)
        return Lesson(
            inputs=torch.tensor(embeddings[rows], dtype=torch.float32),
            targets=torch.tensor(correct[rows]),
            seen=None,
            constants=(torch.tensor(vectors), tau.float(), penalty.float(), *places),
            generator=generator,
            output=f"{self.averaging}, {self.divide_penalty}",
        )

    def _loss_and_slope(self, output: Any, targets: Any, share: Any, *constants: Any) -> tuple[Any, Any]:
        import torch

        experts, *terms = constants
        options = {"averaging": self.averaging, "divide_penalty": self.divide_penalty}
        # Dividing the products instead of the queries passes over far fewer numbers.
        norm = output.norm(dim=-1)
        length = norm.clamp(min=SHORTEST)[..., None, :]
        similarity = (experts @ output.mT).div_(length)
        # Eq. (8) is no mean over cells: `share` has no part in it.
        loss, slope = spectrum_loss_and_slope(similarity, targets, *terms, **options)
        # A longer query is no other query: its own direction is taken out of the gradient.
        along = (slope * similarity).sum(dim=-2).mul_(norm >= SHORTEST).div_(norm.clamp(min=SHORTEST).square())
        return loss, torch.baddbmm(output * along[..., None], slope.div_(length).mT, experts, beta=-1)

    def _adam_options(self) -> dict[str, Any]:
        per_epoch = -(-self.n_trained_prompts_ // self.batch_size)
        epochs = max(self.epochs, -(-self.min_steps // per_epoch))
        self.n_steps_ = epochs * per_epoch
        label = "CSCR" if self.loss == "cost-spectrum" else "vanilla InfoNCE"
        return super()._adam_options() | {"epochs": epochs, "weight_decay": WEIGHT_DECAY, "label": label}

    def _check_parameters(self, n_models: int) -> None:
        check_count(self, "k", self.k, most=n_models, of="LLMs in the pool")
        for name in ("epochs", "batch_size", "width_factor"):
            check_count(self, name, getattr(self, name))
        if self.hidden is not None:
            check_count(self, "hidden", self.hidden)
        if not self.lr > 0:
            raise UserError(f"CSCR: lr is {self.lr!r}, expected a number > 0")
        if not self.min_steps >= 0:
            raise UserError(f"CSCR: min_steps is {self.min_steps!r}, expected a number >= 0")
        if self.loss not in ("cost-spectrum", "vanilla"):
            raise UserError(f"CSCR: loss is {self.loss!r}, expected 'cost-spectrum' or 'vanilla'")

    def _vectors(self, models: Sequence[str]) -> np.ndarray:
        """Return the descriptors of these LLMs, of unit length, [m, D'] float32."""
        return unit_descriptors(self.descriptors, models)

    def _network(self, width: int, out: int, generator: Any) -> Any:
        from torch import nn

        hidden = (self.hidden or width) * self.width_factor
        first = dense(width, hidden, generator, bias=self.bias, glorot=False)
        return nn.Sequential(first, nn.ReLU(), dense(hidden, out, generator, bias=self.bias, glorot=False))

    def project(self, embeddings: np.ndarray) -> np.ndarray:
        """Bring prompt embeddings [N, D] into the space of descriptors: q of Eq. (8), [N, D'] of unit length."""
        import torch
        from torch.nn import functional

        inputs = torch.tensor(self._check_width(embeddings), dtype=torch.float32)
        with torch.inference_mode(), one_torch_thread():
            return functional.normalize(self.network_(inputs), dim=1).numpy()

    def similarity(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the cosine of every prompt and LLM, [N, M], top k or not; columns in the order of `models_`."""
        return self.project(embeddings).astype(float) @ self.index_.vectors.T.astype(float)

    def predict_quality(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the cosine of each prompt to its k most similar LLMs, and NaN for the others, [N, M].

        Raises
        ------
        UserError
            As in `BaseRouter.predict_quality`; and when k exceeds the pool as it is now.
        """
        queries = self.project(embeddings)
        similarity, place = self.index_.search(queries, self.k)
        estimate = np.full((len(place), len(self.models_)), np.nan)
        np.put_along_axis(estimate, place, similarity, axis=1)
        return estimate

    def choose(self, embeddings: np.ndarray, cost: np.ndarray, lam: float = 0.0) -> np.ndarray:
        """Route prompts [N, D] at one trade-off by Eq. (9), for costs [M] in the order of `models_`; columns, [N]."""
        return self.index_.choose(self.project(embeddings), cost, lam, self.k)

    def add_models(self, benchmark: RoutingBenchmark, embeddings: np.ndarray | None = None) -> Self:
        """Add the LLMs of `benchmark` by their descriptors; neither labels nor embeddings are looked at."""
        return self._add(benchmark.models, self._vectors(benchmark.models))

    def add_experts(self, descriptors: Mapping[str, np.ndarray]) -> Self:
        """Add LLMs by name and descriptor [D'], without retraining; a name already in the pool gets the new one.

        The cosines of all other LLMs stay as they are, but which are among the top k can change.

        Raises
        ------
        UserError
            When a descriptor has another length than those in the pool, or is zero or not finite.
        """
        return self._add(list(descriptors), unit_descriptors(descriptors, list(descriptors)))

    def _add(self, names: Sequence[str], vectors: np.ndarray) -> Self:
        self._check_is_fitted()
        width = self.index_.vectors.shape[1]
        if vectors.shape[1] != width:
            raise UserError(
                f"CSCR: the descriptor of {names[0]!r} has {vectors.shape[1]} entries, those of the pool {width}; make "
                "all fingerprints over the same probes or tokens"
            )
        return self._route_over(self._pool() | dict(zip(names, vectors, strict=True)))

    def _pool(self) -> dict[str, np.ndarray]:
        return dict(zip(self.models_, self.index_.vectors, strict=True))

    def remove_models(self, models: Sequence[str]) -> Self:
        """Take LLMs out of the pool, without retraining; UserError for a name that is not in it."""
        self._check_is_fitted()
        unknown = [name for name in models if name not in self.models_]
        if unknown:
            raise UserError(f"CSCR: the pool holds no {unknown[0]!r}{suggest(unknown[0], self.models_)}")
        if set(models) == set(self.models_):
            raise UserError(f"CSCR: removing {len(self.models_)} LLMs would leave no pool; keep at least one")
        return self._route_over({name: vector for name, vector in self._pool().items() if name not in models})

    def with_models(self, models: Sequence[str]) -> Self:
        """Return a router of the same training over exactly these LLMs, in this order; this one is left as it is."""
        self._check_is_fitted()
        pool = self._pool()
        new = [name for name in models if name not in pool]
        pool.update(zip(new, self._vectors(new), strict=True))
        return copy.copy(self)._route_over({name: pool[name] for name in models})

    def _route_over(self, pool: Mapping[str, np.ndarray]) -> Self:
        """Make these LLMs, by name and unit vector, the pool."""
        self.index_ = ExpertIndex().add(list(pool), np.stack(list(pool.values())))
        self.models_ = list(pool)
        return self

    def _check_is_fitted(self) -> None:
        if not hasattr(self, "models_"):
            raise UserError("CSCR is not fitted; call fit(benchmark, embeddings) first")


def unit_descriptors(descriptors: Mapping[str, np.ndarray], models: Sequence[str]) -> np.ndarray:
    """Return the descriptors of these LLMs scaled to unit length, [m, D'] float32.

    Raises
    ------
    UserError
        When an LLM has none, they differ in length, or one holds NaN or infinity or only zeros.
    """
    vectors = []
    for name in models:
        if name not in descriptors:
            raise UserError(
                f"there is no descriptor of {name!r}{suggest(name, descriptors)}; fingerprint it over the same probes, "
                "or leave it out of the pool"
            )
        vector = np.asarray(descriptors[name], dtype=float)
        if vector.ndim != 1:
            raise UserError(f"the descriptor of {name!r} has shape {vector.shape}, expected [D']")
        if vectors and len(vector) != len(vectors[0]):
            raise UserError(
                f"descriptors differ in length: {models[0]!r} has {len(vectors[0])} entries, {name!r} has "
                f"{len(vector)}; make all of them over the same probes or tokens (CS-26: N = K)"
            )
        norm = np.linalg.norm(vector)
        if not 0 < norm < np.inf:
            raise UserError(f"the descriptor of {name!r} has length {norm:g}, expected a finite number > 0")
        vectors.append(vector / norm)
    return np.array(vectors, dtype=np.float32)
