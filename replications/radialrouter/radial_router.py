"""RadialRouter: scores from RadialFormer, trained for one trade-off alpha (RadialRouter, Sections 3.2, 3.3, 4.4).

torch is imported only when a router is trained or asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Self

import numpy as np

from routebook.benchmark import RoutingBenchmark
from routebook.errors import UserError, suggest
from routebook.progress import progress
from routebook.routers import BaseRouter, check_count
from routebook.text_encoder import TextEncoder
from routebook.threads import one_torch_thread

BACKBONES = ("radialformer", "star-transformer", "transformer", "mlp")
LOSSES = ("kl", "kl-reverse", "ce", "query-llm", "none")
SCALES = ("head", "printed")
COSTS = ("model", "call")

# What the quick profile trains. A linear map of frozen embeddings learns in a few hundred steps at this rate; 5e-5 is
# meant for an encoder that is trained as well, for 1,000 steps and more.
QUICK: dict[str, Any] = {"layers": 2, "width": 64, "heads": 4, "head_width": 16, "lr": 2e-3, "steps": 200}

# Routers trained side by side must agree in these; everything else may differ.
SHARED = ("backbone", "layers", "width", "heads", "head_width", "scale", "batch_size", "steps", "lr", "n_negatives")
AT_ONCE = 12
TSNE_PERPLEXITY = 30.0
# Half of scikit-learn's default. The first 250, of early exaggeration, decide which prompts lie together, and K-means
# into a few groups reads no more than that; all 1,000 would take longer than training ten routers does.
TSNE_ITERATIONS = 500
PROMPTS_AT_ONCE = 512


class RadialRouter(BaseRouter):
    """A router trained for one alpha; its choice is the argmax of its predicted scores (Section 3.2).

    `predict_quality` returns the predicted scores s^pr. They stand for performance - alpha cost, Eq. (7), up to a
    constant a prompt, and so hold the cost already: the paper's choice is `argmax(quality_hat - lam * cost)` at
    lam = 0, the left end of a deferral curve. Another trade-off is another training; sweeping lam on one router would
    charge for cost twice. `probabilities` returns p = softmax(s^pr).

    Parameters
    ----------
    alpha
        What a dollar per 1,000 queries is worth in performance: 0, 0.02 and 0.1 in the paper's scenarios.
    layers, width, heads, head_width, scale, backbone
        See `radialformer.RadialFormer` and `radialformer.BACKBONES`. The paper's T = 6, d = 768, 4 heads of 32.
    loss : {"kl", "kl-reverse", "ce", "query-llm", "none"}
        Eq. (4) as printed, its other direction, Eq. (8), Eq. (9); or the contrastive loss alone (Table 2, "w/o L_KL"),
        which reaches E(x) only, so that everything behind it, the scores included, stays as it was drawn.
    temperature
        Of the target q = softmax(score / temperature) of "kl" and "kl-reverse"; 1 in the paper, where q is nearly flat.
    top_k
        K of Eq. (9).
    contrast
        Weight of the query-query contrastive loss, the paper's lambda; 0 leaves it out.
    n_groups, n_negatives
        N semantic groups and H prompts of other groups; neither is printed. 8 and 3 are RouterDC's.
    group_dims
        t-SNE dimensions before K-means: 1 to 3, or 0 for K-means on the embeddings themselves. RouterDC has 5, but
        scikit-learn's fast t-SNE ends at 3; 2 takes half the time of 3.
    steps, batch_size, lr
        Of AdamW with torch's defaults (weight decay 0.01). The paper has "maximum training epoch" 1000; RouterDC's
        1,000 are steps, and so are ours.
    cost : {"model", "call"}
        cost_i of Eq. (7): each LLM's mean over the training prompts, as printed, or the cost of the call itself.
    cost_scale
        Times the benchmark's cost it is the cost that alpha multiplies: 1,000 makes USD per prompt dollars per 1,000
        queries, the unit of the paper's tables (RR-12); 1 takes the benchmark's own unit.
    seed
        Of initial weights, batches and contrastive pairs. Groups do not depend on it: they are made once.
    groups : ndarray of int, [N], optional
        Groups already made for the training prompts.
    finetune_encoder
        False: the embeddings given are frozen, and E(x) is a trained linear map of them, which is what the contrastive
        loss can shape. True: the text encoder `encoder` is trained too and reads the prompts; the embeddings given to
        `fit` make the groups only. Then ask `predict_quality(router.embed(prompts))`.
    encoder, max_length
        With `finetune_encoder`: a name that `routebook.encoders.encoder` knows, any hub id or folder; and the tokens a
        prompt is cut to, from its left, as RouterDC does. The paper's is microsoft/mdeberta-v3-base. The first token's
        last hidden state is E(x), followed by a linear map only if its width is not `width`.

    Attributes
    ----------
    network_ : torch.nn.Module
    cost_ : ndarray, [n]
        Mean cost of each LLM on the training prompts, times `cost_scale`.
    groups_ : ndarray of int, [N], or None when `contrast` is 0
    loss_ : ndarray, [steps]
        Training loss, Eq. (6), a step: the mean over the batch where Algorithm 2 writes a sum, the same direction
        under AdamW up to its epsilon.
    n_parameters_ : int
        Trained parameters, without those of the encoder.

    Notes
    -----
    The weights of the last step are kept; no checkpoint is chosen. Frozen embeddings are centred and divided by one
    number, so that E(x) starts on the scale of the LLM embeddings. A prompt without another one of its group in the
    batch has no contrastive loss.
    """

    def __init__(
        self,
        alpha: float = 0.02,
        layers: int = 6,
        width: int = 768,
        heads: int = 4,
        head_width: int = 32,
        loss: str = "kl",
        temperature: float = 1.0,
        top_k: int = 3,
        contrast: float = 0.5,
        n_groups: int = 8,
        n_negatives: int = 3,
        group_dims: int = 2,
        steps: int = 1000,
        lr: float = 5e-5,
        batch_size: int = 64,
        seed: int = 0,
        backbone: str = "radialformer",
        scale: str = "head",
        cost: str = "model",
        cost_scale: float = 1000.0,
        groups: np.ndarray | None = None,
        finetune_encoder: bool = False,
        encoder: str = "minilm",
        max_length: int = 512,
    ):
        self.alpha = alpha
        self.layers = layers
        self.width = width
        self.heads = heads
        self.head_width = head_width
        self.loss = loss
        self.temperature = temperature
        self.top_k = top_k
        self.contrast = contrast
        self.n_groups = n_groups
        self.n_negatives = n_negatives
        self.group_dims = group_dims
        self.steps = steps
        self.lr = lr
        self.batch_size = batch_size
        self.seed = seed
        self.backbone = backbone
        self.scale = scale
        self.cost = cost
        self.cost_scale = cost_scale
        self.groups = groups
        self.finetune_encoder = finetune_encoder
        self.encoder = encoder
        self.max_length = max_length

    def fit(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> Self:
        """Train on the labels and costs of `benchmark`; see `BaseRouter.fit`.

        Raises
        ------
        UserError
            Before anything is trained: a parameter out of its range, a pool of one LLM, more groups than prompts, heads
            that do not fit the width, an LLM without a price at alpha > 0, or an encoder that cannot be loaded.
        """
        _train([self._prepare(benchmark, embeddings)])
        return self

    def predict_quality(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the predicted scores s^pr, [N, n]; route at lam = 0 (see the class).

        With `finetune_encoder`, the embeddings are those of `embed`.
        """
        return self._run(embeddings)[0]

    def probabilities(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the routing probabilities p = softmax(s^pr), [N, n]."""
        scores = self.predict_quality(embeddings)
        power = np.exp(scores - scores.max(axis=1, keepdims=True))
        return power / power.sum(axis=1, keepdims=True)

    def query_embedding(self, embeddings: np.ndarray) -> np.ndarray:
        """Return E(x), which the relay starts from and the contrastive loss shapes, [N, d]: what Figure 3 shows."""
        return self._run(embeddings)[1]

    def embed(self, prompts: Sequence[str]) -> np.ndarray:
        """Return the trained encoder's vectors of prompts, [N, D], for a router with `finetune_encoder`."""
        if not hasattr(self, "text_encoder_"):
            raise UserError("RadialRouter.embed needs a router fitted with finetune_encoder=True; else use routebook")
        return self.text_encoder_.embed(prompts, self.batch_size)

    def _run(self, embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import torch

        inputs = torch.tensor((self._check_width(embeddings) - self.shift_) / self.unit_, dtype=torch.float32)
        with torch.inference_mode(), one_torch_thread():
            parts = [self.network_(part) for part in inputs.split(PROMPTS_AT_ONCE)]
        scores, query = (torch.cat(part).to(torch.float64).numpy() for part in zip(*parts, strict=True))
        return scores, query

    def _prepare(self, benchmark: RoutingBenchmark, embeddings: np.ndarray) -> _Job:
        embeddings = self._check_fit(benchmark, embeddings)
        self._check_parameters(benchmark)
        text_encoder = (
            TextEncoder(self.encoder, self.max_length, self.seed, who="RadialRouter") if self.finetune_encoder else None
        )
        self.models_ = list(benchmark.models)
        self.cost_ = benchmark.mean_cost * self.cost_scale
        self.groups_ = None
        if self.contrast > 0:
            self.groups_ = self.groups
            if self.groups is None:
                self.groups_ = query_groups(embeddings, self.n_groups, dims=self.group_dims)
        self.shift_, self.unit_ = np.zeros(embeddings.shape[1]), 1.0
        if text_encoder is None:
            self.shift_ = embeddings.mean(axis=0, dtype=float)
            self.unit_ = float(np.sqrt(np.mean((embeddings - self.shift_) ** 2))) or 1.0
        else:
            self.n_features_in_ = text_encoder.width
            self.shift_ = np.zeros(text_encoder.width)
        return _Job(self, benchmark, embeddings, text_encoder)

    def _check_parameters(self, benchmark: RoutingBenchmark) -> None:
        n, models = len(benchmark), len(benchmark.models)
        for name in ("layers", "width", "heads", "head_width", "top_k", "n_negatives", "steps", "batch_size"):
            check_count(self, name, getattr(self, name))
        check_count(self, "n_groups", self.n_groups, most=n, of="training prompts")
        choices = {"loss": LOSSES, "backbone": BACKBONES, "scale": SCALES, "cost": COSTS, "group_dims": range(4)}
        for name, known in choices.items():
            value = getattr(self, name)
            if value not in known:
                near = suggest(value, known) if isinstance(value, str) else ""
                raise UserError(
                    f"RadialRouter: {name} is {value!r}, expected one of {', '.join(map(repr, known))}{near}"
                )
        for name, least in (("alpha", True), ("contrast", True), ("temperature", False), ("lr", False)):
            value = getattr(self, name)
            if not (np.isfinite(value) and (value > 0 or (least and value == 0))):
                raise UserError(f"RadialRouter: {name} is {value!r}, expected a number {'>=' if least else '>'} 0")
        if not (np.isfinite(self.cost_scale) and self.cost_scale > 0):
            raise UserError(f"RadialRouter: cost_scale is {self.cost_scale!r}, expected a number > 0")
        if self.loss == "none" and self.contrast == 0:
            raise UserError(
                "RadialRouter: loss is 'none' and contrast is 0, so there is nothing to train; set contrast > 0, or a "
                f"loss: {', '.join(map(repr, LOSSES[:-1]))}"
            )
        if models < 2:
            raise UserError(
                f"RadialRouter: the pool of {benchmark.name} holds one LLM, {benchmark.models[0]!r}, so there is "
                "nothing to route; give at least two"
            )
        if self.loss == "query-llm" and 2 * self.top_k > models:
            raise UserError(
                f"RadialRouter: top_k is {self.top_k}, but Eq. (9) sets {self.top_k} LLMs against {self.top_k} others "
                f"and the pool has {models}; use top_k={models // 2} at most"
            )
        if self.alpha > 0 and benchmark.unpriced:
            raise UserError(
                f"RadialRouter: alpha is {self.alpha}, but {benchmark.unpriced[0]!r} has no price; use "
                "benchmark.priced(), which leaves such LLMs out, or alpha=0"
            )
        if self.groups is not None and np.shape(self.groups) != (n,):
            raise UserError(f"RadialRouter: groups has shape {np.shape(self.groups)}, expected one a prompt, ({n},)")
        if self.backbone == "transformer" and self.width % self.heads:
            raise UserError(f"RadialRouter: heads is {self.heads}, which does not divide the width {self.width}")
        if self.backbone in ("radialformer", "star-transformer"):
            from replications.radialrouter.radialformer import check_heads

            check_heads(self.width, self.heads, self.head_width)


def fit_many(
    routers: Iterable[RadialRouter],
    benchmark: RoutingBenchmark | Sequence[RoutingBenchmark],
    embeddings: np.ndarray | Sequence[np.ndarray],
    *,
    at_once: int = AT_ONCE,
) -> list[RadialRouter]:
    """Train many routers, those of equal architecture side by side in batched products.

    On one thread this takes about half the time of training them one by one at the quick profile's size; at d = 128
    and more, where arithmetic outweighs the calls, little is left of that.

    Each keeps its own seed, batches, alpha, loss, temperature, contrast, groups and data, and gets the weights that
    `fit` would give it, up to the rounding of float sums. The result depends on nothing else, bit for bit, but which
    routers share a pass: the same call gives the same numbers.

    Parameters
    ----------
    routers
        Unfitted routers; those that fine-tune an encoder are trained one by one.
    benchmark, embeddings
        One for all, or a list with one for each router (other prompts, another prompt view, another pool).
    at_once
        Most routers in a pass.

    Returns
    -------
    list of RadialRouter
        The same objects, fitted, in the order given.

    Raises
    ------
    UserError
        As in `RadialRouter.fit`, before any of them is trained; and when a list has another length than `routers`.
    """
    routers = list(routers)
    if isinstance(at_once, bool) or at_once < 1:
        raise UserError(f"fit_many: at_once is {at_once!r}, expected a whole number >= 1")
    if len({id(router) for router in routers}) < len(routers):
        raise UserError("fit_many: one router occurs twice in the list; make one for each training")
    benchmarks = _one_each(benchmark, len(routers), "benchmark", isinstance(benchmark, RoutingBenchmark))
    vectors = _one_each(embeddings, len(routers), "embeddings", isinstance(embeddings, np.ndarray))
    jobs = [router._prepare(b, e) for router, b, e in zip(routers, benchmarks, vectors, strict=True)]
    alike: dict[tuple, list[_Job]] = {}
    for place, job in enumerate(jobs):
        alike.setdefault(job.key if job.text_encoder is None else (place,), []).append(job)
    passes = []
    for group in alike.values():
        # The Transformer is torch's own, which takes the weights of one network.
        size = 1 if group[0].router.backbone == "transformer" else at_once
        passes += [group[i : i + size] for i in range(0, len(group), size)]
    for group in progress(passes, label="training", unit="pass"):
        _train(group)
    return routers


def true_scores(
    benchmark: RoutingBenchmark, alpha: float, *, cost: str = "model", cost_scale: float = 1000.0
) -> np.ndarray:
    """Return Eq. (7), performance - alpha cost, [N, n]; NaN where the quality was not observed.

    Parameters
    ----------
    cost : {"model", "call"}
        Each LLM's mean cost over these prompts, or the cost of the call itself.
    cost_scale
        See `RadialRouter`.
    """
    if alpha == 0:
        return benchmark.quality.copy()
    price = benchmark.mean_cost if cost == "model" else benchmark.cost
    return benchmark.quality - alpha * cost_scale * price  # Eq. (7)


def query_groups(embeddings: np.ndarray, n_groups: int, *, dims: int = 2, seed: int = 0) -> np.ndarray:
    """Cluster prompts into semantic groups by t-SNE and K-means (Section 3.3), [N] of int in 0..n_groups-1.

    Equal embeddings are looked at once: an encoder that sees only a shared prefix gives a whole dataset one vector, on
    which t-SNE is not defined. With no more distinct vectors than groups, each is a group. Groups are kept in memory,
    so that routers trained on the same embeddings make them once.

    Parameters
    ----------
    embeddings : ndarray, [N, D]
        Of the encoder before training.
    dims
        t-SNE dimensions, 1 to 3; 0 leaves t-SNE out.
    """
    if n_groups > len(embeddings):
        raise UserError(f"there are {len(embeddings)} prompts for n_groups={n_groups}; lower n_groups")
    vectors = np.ascontiguousarray(embeddings, dtype=np.float32)
    return _groups(_Content(vectors), n_groups, dims, seed).copy()


class _Content:
    """An array that is equal to another with the same numbers, so that a cache can look it up."""

    def __init__(self, array: np.ndarray):
        self.array = array
        self._digest = hashlib.sha256(array.tobytes()).digest() + str(array.shape).encode()

    def __hash__(self) -> int:
        return hash(self._digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Content) and self._digest == other._digest


@lru_cache(maxsize=32)
def _groups(content: _Content, n_groups: int, dims: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    distinct, place = np.unique(content.array, axis=0, return_inverse=True)
    place = place.reshape(-1)
    if len(distinct) <= n_groups:
        return place
    # With several threads the order in which partial sums are added is not fixed, so the last bits vary.
    with threadpool_limits(1):
        points = distinct
        if dims and len(distinct) > dims + 1:
            from sklearn.manifold import TSNE

            perplexity = min(TSNE_PERPLEXITY, (len(distinct) - 1) / 3)
            projection = TSNE(dims, perplexity=perplexity, init="pca", max_iter=TSNE_ITERATIONS, random_state=seed)
            points = projection.fit_transform(distinct)
        # Every prompt counts, also where several have one vector.
        weights = np.bincount(place).astype(float)
        clustering = KMeans(n_groups, n_init=10, random_state=seed).fit(points, sample_weight=weights)
    return clustering.labels_[place].astype(int)


def _one_each(value: Any, n: int, name: str, single: bool) -> list:
    values = [value] * n if single else list(value)
    if len(values) != n:
        raise UserError(f"fit_many: {len(values)} {name} for {n} routers; give one for all, or one for each")
    return values


class _Job:
    """A router with its data as tensors, its random numbers, and its untrained network."""

    def __init__(self, router: RadialRouter, benchmark: RoutingBenchmark, embeddings: np.ndarray, text_encoder: Any):
        self.router, self.benchmark, self.embeddings, self.text_encoder = router, benchmark, embeddings, text_encoder
        # Weights without a gradient must not decay, which AdamW only grants a whole stack of them: hence "none" apart.
        shared = (getattr(router, name) for name in SHARED)
        size = min(router.batch_size, len(benchmark))
        self.key = (*shared, router.loss == "none", len(router.models_), embeddings.shape[1], size)

    def start(self) -> None:
        """Make tensors, batches and initial weights; all randomness of the training comes from one generator."""
        import torch

        from replications.radialrouter.losses import targets
        from replications.radialrouter.radialformer import RadialNetwork

        router = self.router
        scores = true_scores(self.benchmark, router.alpha, cost=router.cost, cost_scale=router.cost_scale)
        target = np.zeros_like(scores)
        if router.loss != "none":
            target = targets(scores, router.loss, temperature=router.temperature, top_k=router.top_k)
        self.seen = torch.tensor(~np.isnan(scores))
        self.target = torch.tensor(target, dtype=torch.float32)
        groups = router.groups_ if router.groups_ is not None else np.zeros(len(scores), dtype=int)
        self.groups = torch.tensor(np.unique(groups, return_inverse=True)[1].reshape(-1))
        self.generator = torch.Generator().manual_seed(router.seed)
        if self.text_encoder is None:
            self.inputs = torch.tensor((self.embeddings - router.shift_) / router.unit_, dtype=torch.float32)
        else:
            self.tokens = self.text_encoder.tokens(self.benchmark.prompts)
        n_inputs = router.n_features_in_
        self.network = RadialNetwork(
            n_inputs,
            len(router.models_),
            router.backbone,
            router.width,
            router.layers,
            router.heads,
            router.head_width,
            router.scale,
            project=self.text_encoder is None or n_inputs != router.width,
            generator=self.generator,
        )
        self.plan = self._batches(torch)

    def _batches(self, torch: Any) -> Any:
        """Rows of every step, [steps, B]: shuffled epochs, each cut to whole batches."""
        n = len(self.benchmark)
        size = min(self.router.batch_size, n)
        epochs = -(-self.router.steps // (n // size))
        rows = [torch.randperm(n, generator=self.generator)[: n // size * size].view(-1, size) for _ in range(epochs)]
        return torch.cat(rows)[: self.router.steps]

    def finish(self, losses: np.ndarray) -> None:
        """Hand the trained network to the router."""
        router = self.router
        router.network_ = self.network.eval().requires_grad_(False)
        router.loss_ = losses
        router.n_parameters_ = sum(p.numel() for p in self.network.parameters())
        if self.text_encoder is not None:
            self.text_encoder.model.eval().requires_grad_(False)
            router.text_encoder_ = self.text_encoder


def _train(jobs: list[_Job]) -> None:
    """Algorithm 2 for routers of equal architecture, side by side if there are several."""
    import torch

    with one_torch_thread(), torch.random.fork_rng(devices=[]):
        # Only an encoder's own dropout draws from the global state.
        torch.manual_seed(jobs[0].router.seed)
        for job in jobs:
            job.start()
        forward, parameters, finish = _together(jobs) if len(jobs) > 1 else _alone(jobs[0])
        objective, plan = _objective(jobs), torch.stack([job.plan for job in jobs])
        first = jobs[0].router
        optimiser = torch.optim.AdamW(parameters, lr=first.lr, fused=True)
        losses = torch.empty(first.steps, len(jobs))
        for step in progress(range(first.steps), label="RadialRouter", unit="step"):
            rows = plan[:, step]
            optimiser.zero_grad()
            loss = objective(*forward(rows), rows)
            loss.sum().backward()
            optimiser.step()
            losses[step] = loss.detach()
        finish()
    for place, job in enumerate(jobs):
        job.finish(losses[:, place].double().numpy())


Forward = Callable[[Any], tuple[Any, Any]]


def _alone(job: _Job) -> tuple[Forward, list, Callable[[], None]]:
    network, encoder = job.network.train(), job.text_encoder
    parameters = list(network.parameters())
    if encoder is not None:
        parameters += [p for p in encoder.model.train().parameters() if p.requires_grad]

    def forward(rows: Any) -> tuple[Any, Any]:
        inputs = job.inputs[rows[0]] if encoder is None else encoder([job.tokens[i] for i in rows[0].tolist()])
        scores, query = network(inputs)
        return scores.unsqueeze(0), query.unsqueeze(0)

    return forward, parameters, lambda: None


def _together(jobs: list[_Job]) -> tuple[Forward, list, Callable[[], None]]:
    from torch.func import functional_call, stack_module_state

    networks = [job.network.train() for job in jobs]
    stacked, _ = stack_module_state(networks)
    template = networks[0]
    inputs = Rows([job.inputs for job in jobs])

    def forward(rows: Any) -> tuple[Any, Any]:
        return functional_call(template, stacked, (inputs[rows],))

    def finish() -> None:
        for place, network in enumerate(networks):
            network.load_state_dict({name: value[place].detach() for name, value in stacked.items()})

    return forward, list(stacked.values()), finish


class Rows:
    """Tables of several routers, tensors [N, ...]; a table that some share is held once."""

    def __init__(self, tables: list):
        import torch

        distinct = {id(table): table for table in tables}
        starts = dict(zip(distinct, np.cumsum([0, *map(len, distinct.values())]).tolist(), strict=False))
        self.table = torch.cat(list(distinct.values())) if len(distinct) > 1 else tables[0]
        self.starts = torch.tensor([[starts[id(table)]] for table in tables])

    def __getitem__(self, rows: Any) -> Any:
        """Return rows [G, B] of each router's own table, [G, B, ...]."""
        return self.table.index_select(0, (rows + self.starts).flatten()).unflatten(0, rows.shape)


def _objective(jobs: list[_Job]) -> Callable[[Any, Any, Any], Any]:
    """Return Eq. (6) as a function of scores [G, B, n], queries [G, B, d] and rows [G, B]: one value a router, [G]."""
    import torch

    from replications.radialrouter.losses import LOSSES as FUNCTIONS
    from routebook.contrastive import pairs, query_query

    by_loss: dict[str, list[int]] = {}
    for place, job in enumerate(jobs):
        if job.router.loss == "none":
            continue
        by_loss.setdefault(job.router.loss, []).append(place)
    contrasted = [place for place, job in enumerate(jobs) if job.router.contrast > 0]
    weights = torch.tensor([jobs[place].router.contrast for place in contrasted], dtype=torch.float32)
    everyone = list(range(len(jobs)))
    targets, seen, groups = (Rows([getattr(job, name) for job in jobs]) for name in ("target", "seen", "groups"))
    size = jobs[0].plan.shape[1]
    keys = torch.empty(len(contrasted), size, size)

    def pick(values: Any, places: list[int]) -> Any:
        return values if places == everyone else values[places]

    def objective(scores: Any, query: Any, rows: Any) -> Any:
        target, known = targets[rows], seen[rows]
        total = scores.new_zeros(len(jobs))
        for name, places in by_loss.items():
            losses = FUNCTIONS[name](pick(scores, places), pick(target, places), pick(known, places))
            total = total.index_add(0, torch.tensor(places), losses.mean(dim=-1))
        if contrasted:
            for place, key in zip(contrasted, keys, strict=True):
                torch.rand(size, size, generator=jobs[place].generator, out=key)
            drawn = pairs(pick(groups[rows], contrasted), keys, jobs[0].router.n_negatives)
            contrast = query_query(pick(query, contrasted), *drawn).mean(dim=-1)
            total = total.index_add(0, torch.tensor(contrasted), weights * contrast)  # Eq. (6)
        return total

    return objective
