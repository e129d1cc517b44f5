"""The permutohedral lattice in plain torch (Adams, Baek & Davis 2010; variant of Krähenbühl & Koltun's dense CRF).

It is the reference implementation of the native operators: they are tested against it, and it runs where they are not
built.

A Gaussian filter over N points in d dimensions, in time linear in N: every point adds its value to the d+1 corners of
the lattice simplex that it lies in (splat), every corner is blurred along the d+1 lattice axes, and every point reads
its corners again (slice). The kernel has standard deviation 1; its height is not that of the Gaussian, but a factor
that depends on d and varies from point to point (near 0.8 for d = 2, 0.45 for d = 5), so compare ratios of results.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

FARTHEST_CELL = 2**20


class Lattice:
    """The lattice of some points: built once, it filters any number of values.

    Runs on the device of the points. Results are bit-identical on every run.
    """

    def __init__(self, features: Tensor) -> None:
        """Build the lattice.

        Args:
            features: float32 [B, d, N], already divided by the standard deviations. Points of different sets b share
                no vertex: the result is that of B separate lattices.

        Raises:
            ValueError: the points span more lattice cells than 64 bits can number, or lie so many cells from the
                origin that float32 does not tell their place in the cell.
        """
        sets, d, points = features.shape
        elevated = _elevate(features.transpose(0, 1).reshape(d, sets * points))
        cell, rank = _enclosing_simplex(elevated)
        origin, axis_step = _vertex_numbers(cell, sets)

        # From the corner of remainder r to that of r + 1 every coordinate grows by 1, except that the one of rank d - r
        # shrinks by d: one step along that coordinate's axis. So falling rank orders both corners and weights.
        falling = torch.empty_like(rank)
        falling.scatter_(0, d - rank, torch.arange(d + 1, device=rank.device)[:, None].expand_as(rank))
        corners = torch.cat([origin, axis_step[falling[:-1]]]).cumsum(0)  # [d+1, BN]
        inside = ((elevated - (d + 1) * cell) * (1 / (d + 1))).gather(0, falling)
        weights = torch.cat([inside[:1] + (1 - inside[-1:]), inside[1:] - inside[:-1]])  # [d+1, BN]
        self._slice_weights = weights.t().contiguous()  # [BN, d+1]

        # Sorting the corners brings together what one vertex receives.
        numbers, order = corners.t().reshape(-1).sort(stable=True)
        first = torch.ones_like(numbers, dtype=torch.bool)
        torch.ne(numbers[1:], numbers[:-1], out=first[1:])
        starts = first.nonzero().squeeze(1)
        self._splat_points = order.div(d + 1, rounding_mode="floor")
        self._splat_weights = self._slice_weights.view(-1)[order]
        self._splat_starts = F.pad(starts, (0, 1), value=len(numbers))  # [M+1]
        self._vertices = torch.empty_like(order).scatter_(0, order, first.cumsum(0) - 1).view(-1, d + 1)  # [BN, d+1]
        self._neighbours = _neighbours(numbers[starts], axis_step)  # [d+1, M+1, 3]

    def filter(self, values: Tensor) -> Tensor:
        """Filter float32 values [B, C, N], without gradient; the result has their shape."""
        sets, channels, points = values.shape
        table = values.detach().transpose(1, 2).reshape(sets * points, channels)
        # The last of the M+1 rows is empty, and stands for every missing neighbour.
        vertices = _weighted_sums(self._splat_points, table, self._splat_weights, self._splat_starts)
        kernel = values.new_tensor([0.5, 1, 0.5]).repeat(len(vertices), 1)
        for neighbours in self._neighbours:
            vertices = _weighted_sums(neighbours, vertices, kernel)
        result = _weighted_sums(self._vertices, vertices, self._slice_weights)
        d = len(self._neighbours) - 1
        return result.mul_(1 / (1 + 2**-d)).view(sets, points, channels).transpose(1, 2).contiguous()


def bilateral_filter(image: Tensor, values: Tensor, sigma_rgb: float, sigma_xy: float) -> Tensor:
    """The reference of `fsr.ops.bilateral_filter`, for float32 tensors, without gradient."""
    if values.numel() == 0:
        return torch.empty_like(values)
    lattice = Lattice(pixel_features(image, sigma_xy, sigma_rgb))
    return lattice.filter(values.flatten(2)).view(values.shape)


def mean_field(
    image: Tensor, logits: Tensor, iterations: int, spatial: tuple[float, float], bilateral: tuple[float, float, float]
) -> Tensor:
    """The reference of `fsr.ops.mean_field`; `spatial` is weight and xy std, `bilateral` weight, xy and rgb std."""
    if logits.numel() == 0:
        return torch.empty_like(logits)
    if not torch.isfinite(logits).all():
        raise ValueError("Expected finite logits, got some with NaN or infinity")
    terms = []
    for weight, *stds in (spatial, bilateral):
        lattice = Lattice(pixel_features(image, *stds))
        ones = torch.ones_like(logits[:, :1]).flatten(2)
        terms.append((weight, lattice, (lattice.filter(ones) + 1e-20).rsqrt()))
    scores = logits.flatten(2)
    marginals = scores.softmax(1)
    for _ in range(iterations):
        messages = sum(weight * norm * lattice.filter(norm * marginals) for weight, lattice, norm in terms)
        marginals = (scores + messages).softmax(1)
    return marginals.view(logits.shape)


def pixel_features(image: Tensor, xy_std: float, rgb_std: float | None = None) -> Tensor:
    """Place and, with a standard deviation for it, colour of each pixel in standard deviations: float32 [B, d, HW]."""
    batch, _, height, width = image.shape
    if not torch.isfinite(image).all():
        raise ValueError("Expected a finite image, got one with NaN or infinity")
    y, x = torch.meshgrid(
        torch.arange(height, device=image.device), torch.arange(width, device=image.device), indexing="ij"
    )
    features = torch.stack([x, y]).float().expand(batch, -1, -1, -1)
    stds = [xy_std, xy_std]
    if rgb_std is not None:
        features = torch.cat([features, image.float()], dim=1)
        stds += [rgb_std] * 3
    # Divided by a tensor: CUDA would multiply by a number's reciprocal, and the lattice would differ from the CPU's.
    return features.flatten(2) / torch.tensor(stds, device=image.device)[:, None]


def _weighted_sums(rows: Tensor, table: Tensor, weights: Tensor, starts: Tensor | None = None) -> Tensor:
    """Weighted sums of a table's rows, summed in the order given: unlike `index_add_`, one result on every run."""
    return F.embedding_bag(rows, table, starts, mode="sum", per_sample_weights=weights)


def _elevate(features: Tensor) -> Tensor:
    """Points [d, N] in the d+1 coordinates of the lattice's hyperplane, [d+1, N]. The float order decides ties."""
    d = len(features)
    multiple = torch.arange(1, d + 1, device=features.device)[:, None]
    # Rounded to float32 on the way, as in pydensecrf: the last bit decides which vertices exist.
    deviation = torch.tensor(math.sqrt(2 / 3) * (d + 1), dtype=torch.float32).double()
    scale = deviation * (1 / (multiple * (multiple + 1)).double().sqrt())
    scaled = features * scale.float()
    multiples = multiple * scaled
    total = torch.zeros_like(features[0])
    elevated = []
    for i in reversed(range(d)):
        elevated.append(total - multiples[i])
        total = total + scaled[i]
    return torch.stack([total, *reversed(elevated)])


def _enclosing_simplex(elevated: Tensor) -> tuple[Tensor, Tensor]:
    """The simplex each point lies in: its corner of remainder 0, divided by d+1, and the ranks of its coordinates.

    Both are [d+1, N]; the first float32 (whole numbers), the second int64.
    """
    d = len(elevated) - 1
    cell = (elevated * (1 / (d + 1))).round()
    residual = elevated - (d + 1) * cell
    # How many coordinates have a larger residual, the earlier of two equals counting as the larger.
    rank = torch.arange(d + 1, device=elevated.device)[:, None].repeat(1, elevated.shape[1])
    for distance in range(1, d + 1):
        less = (residual[:-distance] < residual[distance:]).long()
        rank[:-distance] += less
        rank[distance:] -= less
    # Rounding may leave the hyperplane; the coordinates that it moved furthest go back by one cell.
    rank += cell.sum(0).long()
    wrap = (rank < 0).long() - (rank > d).long()
    return cell + wrap, rank + (d + 1) * wrap


def _vertex_numbers(cell: Tensor, sets: int) -> tuple[Tensor, Tensor]:
    """Number the vertices so that a step along a lattice axis always changes the number by the same amount.

    A vertex is d coordinates (the last follows from them), all with the same remainder r modulo d+1: (d+1)·q_i + r.
    Its number is their scalar product with the place values t of a mixed radix system for q. All t but t_0 = 1 are
    multiples of d+1, so the number's own remainder is r, and no two vertices share a number.

    Returns:
        The number of each point's corner of remainder 0, int64 [1, BN], and the step along each axis, int64 [d+1].
    """
    d = len(cell) - 1
    lowest = cell[:d].amin(1) - 2  # a corner is up to one cell lower, its neighbours one more
    span = cell[:d].amax(1) + 2 - lowest
    places = [1]
    near = bool((cell.abs() <= FARTHEST_CELL).all())  # false for NaN
    for digits in span.tolist() if near else ():
        places.append(places[-1] * (d + 1) * math.ceil(digits / (d + 1)))
    if not near or places[-1] * sets * (d + 1) * 2 > torch.iinfo(torch.int64).max:
        raise ValueError(
            "The filter's standard deviations are too small: the points span more cells than 64 bits number"
        )
    place = torch.tensor(places, device=cell.device)
    set_index = torch.arange(sets, device=cell.device).repeat_interleave(cell.shape[1] // sets)
    digits = torch.cat([(cell[:d] - lowest[:, None]).long(), set_index[None]])
    origin = (d + 1) * (digits * place[:, None]).sum(0, keepdim=True)
    axes = F.pad(place[:d], (0, 1))
    return origin, axes.sum() - (d + 1) * axes


def _neighbours(numbers: Tensor, axis_step: Tensor) -> Tensor:
    """For each axis and vertex: the vertices before, at and after it, [axes, M+1, 3]; M where there is none.

    Args:
        numbers: int64 [M], rising.
        axis_step: int64 [axes].
    """
    size = len(numbers)
    here = torch.arange(size + 1, device=numbers.device).repeat(len(axis_step), 1)
    wanted = numbers + axis_step[:, None]
    found = torch.searchsorted(numbers, wanted).clamp_(max=size - 1)
    after = F.pad(torch.where(numbers[found] == wanted, found, size), (0, 1), value=size)
    before = torch.full_like(here, size).scatter_(1, after, here)
    before[:, size] = size
    return torch.stack([before, here, after], dim=2)
