"""Small models of kinds that no library has in one place, written as people write them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FeedForward(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.up(self.norm(x))))


class ConformerBlock(nn.Module):
    """Half a feed-forward, self-attention, a gated depthwise convolution, half a feed-forward (Gulati 2020)."""

    def __init__(self, width: int, heads: int, kernel: int):
        super().__init__()
        self.first, self.last = FeedForward(width, 2 * width), FeedForward(width, 2 * width)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.conv_norm = nn.LayerNorm(width)
        self.pointwise_in = nn.Conv1d(width, 2 * width, 1)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.batch_norm = nn.BatchNorm1d(width)
        self.pointwise_out = nn.Conv1d(width, width, 1)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.first(x)
        y = self.attention_norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        y = F.glu(self.pointwise_in(self.conv_norm(x).transpose(1, 2)), dim=1)
        y = self.pointwise_out(F.silu(self.batch_norm(self.depthwise(y))))
        x = x + y.transpose(1, 2)
        return self.norm(x + 0.5 * self.last(x))


class Conformer(nn.Module):
    """Speech frames ``b t f`` to letters."""

    def __init__(self, features: int = 20, width: int = 32, blocks: int = 2, letters: int = 12):
        super().__init__()
        self.subsample = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU())
        self.into = nn.Linear(8 * (((features - 1) // 2 - 1) // 2), width)
        self.blocks = nn.ModuleList(ConformerBlock(width, 4, 7) for _ in range(blocks))
        self.out = nn.Linear(width, letters)

    def forward(self, x: Tensor) -> Tensor:
        y = self.subsample(x[:, None])
        b, c, t, f = y.shape
        y = self.into(y.transpose(1, 2).reshape(b, t, c * f))
        for block in self.blocks:
            y = block(y)
        return self.out(y).log_softmax(-1)


class DenseGraphNetwork(nn.Module):
    """Graph convolution with a dense adjacency: ``b n f, b n n -> b k``."""

    def __init__(self, features: int = 6, width: int = 32, classes: int = 5):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(features, width), nn.Linear(width, width), nn.Linear(width, width)])
        self.out = nn.Linear(width, classes)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        adjacency = adjacency + torch.eye(adjacency.shape[-1])
        scale = adjacency.sum(-1).rsqrt()
        adjacency = scale[..., None] * adjacency * scale[..., None, :]
        for layer in self.layers:
            x = F.relu(adjacency @ layer(x))
        return self.out(x.mean(1))


class MessagePassing(nn.Module):
    """Messages along edges, added up at their targets: ``n f, 2 e, e d -> n k``."""

    def __init__(self, features: int = 6, edges: int = 3, width: int = 24, classes: int = 5, rounds: int = 2):
        super().__init__()
        self.into, self.edge = nn.Linear(features, width), nn.Linear(edges, width)
        self.message = nn.ModuleList(
            nn.Sequential(nn.Linear(3 * width, 40), nn.ReLU(), nn.Linear(40, width)) for _ in range(rounds)
        )
        self.update = nn.ModuleList(nn.GRUCell(width, width) for _ in range(rounds))
        self.out = nn.Linear(width, classes)

    def forward(self, x: Tensor, edges: Tensor, attributes: Tensor) -> Tensor:
        source, target = edges[0], edges[1]
        x, e = self.into(x), self.edge(attributes)
        for message, update in zip(self.message, self.update, strict=True):
            sent = message(torch.cat([x[source], x[target], e], -1))
            gathered = torch.zeros_like(x).index_add(0, target, sent)
            x = update(gathered, x)
        return self.out(x)


class GraphAttention(nn.Module):
    """Attention along edges with a softmax per target by scatter: ``n f, 2 e -> n k`` (Velickovic 2018)."""

    def __init__(self, features: int = 6, heads: int = 4, width: int = 8, classes: int = 5):
        super().__init__()
        self.heads, self.width = heads, width
        self.project = nn.Linear(features, heads * width, bias=False)
        self.source, self.target = nn.Parameter(torch.randn(heads, width)), nn.Parameter(torch.randn(heads, width))
        self.out = nn.Linear(heads * width, classes)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges[0], edges[1]
        h = self.project(x).view(-1, self.heads, self.width)
        score = F.leaky_relu((h * self.source).sum(-1)[source] + (h * self.target).sum(-1)[target], 0.2).exp()
        total = torch.zeros(x.shape[0], self.heads).index_add(0, target, score)
        weight = score / total[target].clamp_min(1e-6)
        sent = h[source] * weight[..., None]
        y = torch.zeros_like(h).scatter_add(0, target[:, None, None].expand_as(sent), sent)
        return self.out(F.elu(y.flatten(1)))


class Transducer(nn.Module):
    """RNN-T: an encoder over frames, a predictor over letters, and a joint network over all pairs."""

    def __init__(self, features: int = 20, letters: int = 12, width: int = 32):
        super().__init__()
        self.encoder = nn.LSTM(features, width, num_layers=2, batch_first=True, bidirectional=True)
        self.embedding = nn.Embedding(letters, 16)
        self.predictor = nn.GRU(16, width, batch_first=True)
        self.from_encoder, self.from_predictor = nn.Linear(2 * width, 40), nn.Linear(width, 40)
        self.joint = nn.Linear(40, letters)

    def forward(self, frames: Tensor, tokens: Tensor) -> Tensor:
        heard, _ = self.encoder(frames)
        said, _ = self.predictor(self.embedding(tokens))
        both = torch.tanh(self.from_encoder(heard)[:, :, None] + self.from_predictor(said)[:, None])
        return self.joint(both).log_softmax(-1)


class AttentionSeq2Seq(nn.Module):
    """A GRU encoder, and a GRU cell with additive attention that decodes a few steps greedily."""

    def __init__(self, words: int = 30, width: int = 24, steps: int = 4):
        super().__init__()
        self.steps, self.width = steps, width
        self.embedding = nn.Embedding(words, width)
        self.encoder = nn.GRU(width, width, batch_first=True)
        self.query, self.key, self.score = nn.Linear(width, 16), nn.Linear(width, 16), nn.Linear(16, 1)
        self.cell = nn.GRUCell(2 * width, width)
        self.out = nn.Linear(width, words)

    def forward(self, tokens: Tensor) -> Tensor:
        memory, state = self.encoder(self.embedding(tokens))
        state, word, found = state[-1], tokens[:, 0], []
        for _ in range(self.steps):
            weight = self.score(torch.tanh(self.query(state)[:, None] + self.key(memory))).softmax(1)
            state = self.cell(torch.cat([self.embedding(word), (weight * memory).sum(1)], -1), state)
            logits = self.out(state)
            word = logits.argmax(-1)
            found.append(logits)
        return torch.stack(found, 1)


class CRNN(nn.Module):
    """Text in images: convolutions, then a bidirectional LSTM over columns."""

    def __init__(self, letters: int = 12):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d((2, 1)),
        )  # fmt: skip
        self.recurrent = nn.LSTM(24 * 4, 32, bidirectional=True)
        self.out = nn.Linear(64, letters)

    def forward(self, x: Tensor) -> Tensor:
        y = self.features(x)
        b, c, h, w = y.shape
        y, _ = self.recurrent(y.permute(3, 0, 1, 2).reshape(w, b, c * h))
        return self.out(y)


class SelectiveScan(nn.Module):
    """A state-space block whose scan is a loop over steps (Mamba, written plainly)."""

    def __init__(self, width: int = 24, inner: int = 32, states: int = 8, rank: int = 4, classes: int = 6):
        super().__init__()
        self.inner, self.states, self.rank = inner, states, rank
        self.into = nn.Linear(width, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, 4, groups=inner, padding=3)
        self.project = nn.Linear(inner, rank + 2 * states, bias=False)
        self.step = nn.Linear(rank, inner)
        self.decay = nn.Parameter(torch.rand(inner, states))
        self.skip = nn.Parameter(torch.rand(inner))
        self.out, self.head = nn.Linear(inner, width, bias=False), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        u, gate = self.into(x).chunk(2, dim=-1)
        u = F.silu(self.conv(u.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        rate, write, read = self.project(u).split([self.rank, self.states, self.states], dim=-1)
        rate = F.softplus(self.step(rate))
        decay = torch.exp(rate[..., None] * -self.decay.exp())
        drive = (rate * u)[..., None] * write[:, :, None]
        state, found = torch.zeros(x.shape[0], self.inner, self.states), []
        for k in range(6):
            state = decay[:, k] * state + drive[:, k]
            found.append((state * read[:, k, None]).sum(-1))
        y = torch.stack(found, 1) + u * self.skip
        return self.head(x + self.out(y * F.silu(gate)))


class MixtureOfExperts(nn.Module):
    """Experts stacked in one weight ``e o i``; the two that a router likes best answer for each token."""

    def __init__(self, width: int = 24, inner: int = 32, experts: int = 4, classes: int = 6):
        super().__init__()
        self.into = nn.Linear(10, width)
        self.router = nn.Linear(width, experts)
        self.up = nn.Parameter(torch.randn(experts, width, 2 * inner) / 5)
        self.down = nn.Parameter(torch.randn(experts, inner, width) / 5)
        self.out = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        weight, chosen = self.router(x).softmax(-1).topk(2, dim=-1)
        share = torch.zeros(*x.shape[:-1], self.up.shape[0]).scatter(-1, chosen, weight)
        gate, value = torch.einsum("btd,edi->btei", x, self.up).chunk(2, dim=-1)
        y = torch.einsum("btei,eid->bted", F.silu(gate) * value, self.down)
        return self.out(x + (y * share[..., None]).sum(2))


class PointNet(nn.Module):
    """Points ``b n 3`` to a class: shared layers, a maximum over points, and a learned 3 x 3 alignment."""

    def __init__(self, classes: int = 6):
        super().__init__()
        self.align = nn.Sequential(nn.Conv1d(3, 16, 1), nn.ReLU(), nn.Conv1d(16, 24, 1), nn.ReLU())
        self.matrix = nn.Linear(24, 9)
        self.local = nn.Sequential(nn.Conv1d(3, 24, 1), nn.BatchNorm1d(24), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv1d(24, 48, 1), nn.BatchNorm1d(48), nn.ReLU())
        self.segment = nn.Conv1d(24 + 48, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.matrix(self.align(x.transpose(1, 2)).amax(-1)).view(-1, 3, 3) + torch.eye(3)
        near = self.local((x @ matrix).transpose(1, 2))
        far = self.wide(near).max(-1, keepdim=True)[0].expand(-1, -1, x.shape[1])
        return self.segment(torch.cat([near, far], 1))


class MLPMixer(nn.Module):
    """Layers over patches and over channels in turn (Tolstikhin 2021)."""

    def __init__(self, patches: int = 16, width: int = 32, classes: int = 6):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 8, 8)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.tokens = nn.ModuleList(
            nn.Sequential(nn.Linear(patches, 24), nn.GELU(), nn.Linear(24, patches)) for _ in range(2)
        )
        self.channels = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 48), nn.GELU(), nn.Linear(48, width)) for _ in range(2)
        )
        self.out = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        for k in range(2):
            x = x + self.tokens[k](self.norms[2 * k](x).transpose(1, 2)).transpose(1, 2)
            x = x + self.channels[k](self.norms[2 * k + 1](x))
        return self.out(x.mean(1))


class WaveNet(nn.Module):
    """Dilated causal convolutions with gates and skips, weights normalised (van den Oord 2016)."""

    def __init__(self, width: int = 16, skip: int = 24, classes: int = 12):
        super().__init__()
        norm = torch.nn.utils.parametrizations.weight_norm
        self.embedding = nn.Embedding(classes, width)
        self.gates = nn.ModuleList(norm(nn.Conv1d(width, 2 * width, 2, dilation=2**k)) for k in range(3))
        self.residual = nn.ModuleList(norm(nn.Conv1d(width, width, 1)) for _ in range(3))
        self.skips = nn.ModuleList(norm(nn.Conv1d(width, skip, 1)) for _ in range(3))
        self.end = nn.Sequential(nn.ReLU(), nn.Conv1d(skip, skip, 1), nn.ReLU(), nn.Conv1d(skip, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.embedding(x).transpose(1, 2)
        total = torch.zeros(())
        for k, (gate, residual, skip) in enumerate(zip(self.gates, self.residual, self.skips, strict=True)):
            a, b = gate(F.pad(y, (2**k, 0))).chunk(2, 1)
            z = torch.tanh(a) * torch.sigmoid(b)
            total = total + skip(z)
            y = y + residual(z)
        return self.end(total)


class RecommendationModel(nn.Module):
    """Dense features and embedded categories meet in all pairwise products (DLRM, Naumov 2019)."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.bottom = nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, width), nn.ReLU())
        self.tables = nn.ModuleList(nn.Embedding(50, width) for _ in range(3))
        self.top = nn.Sequential(nn.Linear(width + 6, 24), nn.ReLU(), nn.Linear(24, 1))

    def forward(self, dense: Tensor, categories: Tensor) -> Tensor:
        x = self.bottom(dense)
        every = torch.stack([x, *(table(categories[:, k]) for k, table in enumerate(self.tables))], 1)
        pairs = every @ every.transpose(1, 2)
        rows, columns = torch.tril_indices(4, 4, -1)
        return self.top(torch.cat([x, pairs[:, rows, columns]], 1))


class RadianceField(nn.Module):
    """A point in space to colour and density, through sines of its position (NeRF, Mildenhall 2020)."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(4))
        self.first = nn.ModuleList([nn.Linear(27, width), nn.Linear(width, width), nn.Linear(width + 27, width)])
        self.density, self.feature = nn.Linear(width, 1), nn.Linear(width, width)
        self.colour = nn.Sequential(nn.Linear(width + 3, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, points: Tensor, directions: Tensor) -> Tensor:
        angles = (points[..., None] * self.frequencies).flatten(-2)
        x = y = torch.cat([points, angles.sin(), angles.cos()], -1)
        for k, layer in enumerate(self.first):
            y = F.relu(layer(torch.cat([y, x], -1) if k == 2 else y))
        colour = torch.sigmoid(self.colour(torch.cat([self.feature(y), directions], -1)))
        return torch.cat([colour, F.relu(self.density(y))], -1)


class PlainTransformer(nn.Module):
    """`nn.Transformer` as it comes, for sequences of vectors."""

    def __init__(self, width: int = 32, words: int = 30):
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.body = nn.Transformer(width, 4, 2, 2, 48, batch_first=True)
        self.out = nn.Linear(width, words)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        scale = math.sqrt(self.embedding.embedding_dim)
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        y = self.body(self.embedding(source) * scale, self.embedding(target) * scale, tgt_mask=mask, tgt_is_causal=True)
        return self.out(y)


class UNet(nn.Module):
    """Down, up, and skips that are concatenated (Ronneberger 2015)."""

    def __init__(self, width: int = 12, classes: int = 4):
        super().__init__()
        self.down = nn.ModuleList(
            [self.double(3, width), self.double(width, 2 * width), self.double(2 * width, 4 * width)]
        )
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(4 * width, 2 * width, 2, 2), nn.ConvTranspose2d(2 * width, width, 2, 2)]
        )
        self.merge = nn.ModuleList([self.double(4 * width, 2 * width), self.double(2 * width, width)])
        self.out = nn.Conv2d(width, classes, 1)

    @staticmethod
    def double(inputs: int, outputs: int) -> nn.Module:
        first = [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        return nn.Sequential(*first, nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for k, block in enumerate(self.down):
            x = block(x if not k else F.max_pool2d(x, 2))
            kept.append(x)
        for up, merge, skip in zip(self.up, self.merge, kept[-2::-1], strict=True):
            x = merge(torch.cat([skip, up(x)], 1))
        return self.out(x)


class VariationalAutoencoder(nn.Module):
    """Mean and spread of a code side by side in one layer; the mean is decoded."""

    def __init__(self, code: int = 8):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 12, 4, 2, 1), nn.ReLU(), nn.Conv2d(12, 16, 4, 2, 1), nn.ReLU(), nn.Flatten()
        )
        self.moments = nn.Linear(16 * 49, 2 * code)
        self.expand = nn.Linear(code, 16 * 49)
        self.decoder = nn.Sequential(nn.ConvTranspose2d(16, 12, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(12, 1, 4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean, _ = self.moments(self.encoder(x)).chunk(2, -1)
        return self.decoder(self.expand(mean).view(-1, 16, 7, 7))


class NeuralODE(nn.Module):
    """A vector field followed by Runge-Kutta steps; one set of weights at every step."""

    def __init__(self, width: int = 16, inner: int = 32, classes: int = 5):
        super().__init__()
        self.into, self.out = nn.Linear(6, width), nn.Linear(width, classes)
        self.field = nn.Sequential(nn.Linear(width, inner), nn.Tanh(), nn.Linear(inner, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.into(x)
        for _ in range(3):
            a = self.field(y)
            b = self.field(y + 0.1 * a)
            y = y + 0.1 * (a + b)
        return self.out(y)


class HyperNetwork(nn.Module):
    """One network writes the weights of another, sample by sample."""

    def __init__(self, context: int = 5, inputs: int = 8, outputs: int = 6, width: int = 24):
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.writer = nn.Sequential(nn.Linear(context, width), nn.ReLU(), nn.Linear(width, width * inputs))
        self.width = width
        self.out = nn.Linear(width, outputs)

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        weight = self.writer(context).view(-1, self.width, self.inputs)
        return self.out(F.relu(torch.bmm(weight, x[..., None])[..., 0]))


class TemporalNetwork(nn.Module):
    """Dilated residual convolutions over time, the last step classified (Bai 2018)."""

    def __init__(self, features: int = 5, width: int = 20, classes: int = 6):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(features if not k else width, width, 3, dilation=2**k) for k in range(3))
        self.skips = nn.ModuleList(nn.Conv1d(features if not k else width, width, 1) for k in range(3))
        self.out = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        for k, (conv, skip) in enumerate(zip(self.convs, self.skips, strict=True)):
            x = F.relu(conv(F.pad(x, (2 * 2**k, 0)))) + skip(x)
        return self.out(x[:, :, -1])


class CellLoop(nn.Module):
    """LSTM cells stepped by hand, as in reinforcement learning agents, with an actor and a critic."""

    def __init__(self, features: int = 6, width: int = 24, actions: int = 4):
        super().__init__()
        self.width = width
        self.into, self.cell = nn.Linear(features, width), nn.LSTMCell(width, width)
        self.actor, self.critic = nn.Linear(width, actions), nn.Linear(width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = c = torch.zeros(x.shape[0], self.width)
        for k in range(5):
            h, c = self.cell(F.relu(self.into(x[:, k])), (h, c))
        return self.actor(h).softmax(-1), self.critic(h)
