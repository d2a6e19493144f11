"""The four networks: the note's sizes, the note's forward pass, the symmetries that they promise."""

import note
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.models.resnet import resnet18

from uvae_lib.cropping import periodic_pad
from uvae_lib.loss import kl_loss, mse_loss
from uvae_lib.model import (
    DecoderH,
    DecoderZ,
    DeepSet,
    Encoder,
    UniverseVAE,
    UpConv,
    format_table,
    map_shape,
    parameter_table,
)
from uvae_lib.presets import SMOKE, Config
from uvae_lib.runs.run import build
from uvae_lib.simulation.suite import simulate_suite
from uvae_lib.training.slices import CubePool, SliceSets, leave_one_out, standardisation

MAPS = {
    32: (512, 1, 1),
    64: (128, 2, 2),
    128: (32, 4, 4),
    256: (8, 8, 8),
    512: (2, 16, 16),
}  # of h, by image size
NAMES = ["recon_h", "z", "z_mu", "z_logvar", "h", "h_mu", "h_logvar", "h_post", "h_post_mu", "h_post_logvar"]


def note_loss(output, img_h, kl_z=1.0, kl_h=1.0):
    """The sum that training takes."""
    recon_h, (_, z_mu, z_logvar), (_, h_mu, h_logvar), (_, h_post_mu, h_post_logvar) = output
    kl_z_term = kl_loss(None, None, z_mu, z_logvar, kl_z=True)
    return mse_loss(recon_h, img_h) + kl_z * kl_z_term + kl_h * kl_loss(h_mu, h_logvar, h_post_mu, h_post_logvar)


def seeded(make, *args, seed=0, **options):
    """A module with weights of a seed; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(*args, **options)


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def noise_for(n, seed=5):
    """Standard normal numbers of z, h and h_post for n targets: three of (n, 512)."""
    return torch.randn(3, n, 512, generator=torch.Generator().manual_seed(seed)).unbind()


def settle(model, img_zs):
    """Evaluation mode, with the running statistics of a few batches, so that nothing is at its start."""
    with torch.no_grad():
        model.train()
        for _ in range(3):
            model.encoder.trunk(img_zs.flatten(0, 1))
            model.decoder_h(randn(12, 512))
    return model.eval()


def flat(output):
    """The ten tensors of a forward pass under their names."""
    recon, *latents = output
    return dict(zip(NAMES, [recon, *(x for latent in latents for x in latent)], strict=True))


def with_seed(model, *args, seed=3):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        return flat(model(*args))


def assert_equal(found, expected, **tolerance):
    """The same tensors under the same names, bit for bit when no tolerance is given."""
    tolerance = tolerance or {"rtol": 0, "atol": 0}
    for name in NAMES:
        torch.testing.assert_close(found[name], expected[name], msg=lambda m, n=name: f"{n}: {m}", **tolerance)


@pytest.fixture(scope="module")
def img_zs():
    """Three sets of four slices of 64 x 64 pixels."""
    return randn(3, 4, 1, 64, 64, seed=1)


@pytest.fixture(scope="module")
def img_h():
    return randn(3, 1, 64, 64, seed=2)


@pytest.fixture(scope="module")
def model(img_zs):
    """The note's model at 64 pixels, in evaluation mode. Tests do not change it."""
    return settle(seeded(UniverseVAE, 64), img_zs)


# --- sizes


@pytest.fixture(scope="module")
def table():
    with torch.device("meta"):
        return {name: (kind, count) for name, kind, count in parameter_table(UniverseVAE(128))}


def test_the_table_lists_the_networks_in_the_order_of_the_note(table):
    assert [(name, kind) for name, (kind, _) in table.items()] == [
        ("encoder", "ResNet"), ("deep_set", "DeepSet"), ("decoder_h", "DecoderH"), ("decoder_z", "DecoderZ"),
    ]  # fmt: skip


@pytest.mark.parametrize("name, count", [("deep_set", 279_808), ("decoder_z", 214_272), ("encoder", 11_794_496)])
def test_a_network_has_as_many_parameters_as_the_note_says(table, name, count):
    assert table[name][1] == count


def test_decoder_h_has_eleven_million_parameters(table):
    assert 11_000_000 <= table["decoder_h"][1] < 11_990_000


def test_the_table_prints_as_in_the_note():
    with torch.device("meta"):
        lines = format_table(UniverseVAE(128)).splitlines()
    rows = [
        "0 encoder ResNet 11 M",
        "1 deep_set DeepSet 279 K",
        "2 decoder_h DecoderH 11 M",
        "3 decoder_z DecoderZ 214 K",
    ]
    assert lines[0].split() == ["|", "Name", "|", "Type", "|", "Params"]
    assert [" ".join(line.replace("|", " ").split()) for line in lines[2:]] == rows


def test_the_table_counts_every_parameter_once(model):
    assert sum(count for _, _, count in parameter_table(model)) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("size, shape", MAPS.items())
def test_h_is_a_map_of_512_numbers_at_every_size(size, shape):
    assert map_shape(size) == shape


@pytest.mark.parametrize("size", [0, 16, 48, 96, 100, 1024])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match=f"found image_size={size} with latent_dim=512; expected .* 32, 64, 128"):
        map_shape(size)


def test_a_model_of_another_size_is_refused():
    with pytest.raises(ValueError, match="found image_size=96"), torch.device("meta"):
        UniverseVAE(96)


@pytest.mark.parametrize("circular", [False, True])
def test_the_forward_pass_has_the_shapes_of_the_note(circular, size=32):
    model = seeded(UniverseVAE, size, circular=circular)
    with torch.no_grad():
        found = flat(model(randn(2, 3, 1, size, size), randn(2, 1, size, size)))
    assert [tuple(x.shape) for x in found.values()] == [(2, 1, size, size)] + [(2, 512)] * 9


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("size", MAPS)
def test_every_size_runs_on_the_meta_device(size, circular):
    with torch.device("meta"):
        model = UniverseVAE(size, circular=circular)
        found = flat(model(torch.empty(2, 3, 1, size, size), torch.empty(2, 1, size, size)))
    assert [tuple(x.shape) for x in found.values()] == [(2, 1, size, size)] + [(2, 512)] * 9


@pytest.mark.parametrize("size", [128, 256, 512])
def test_trunk_and_decoder_of_large_slices_have_their_shapes(size):
    channels, side, _ = map_shape(size)
    with torch.device("meta"):
        trunk = Encoder(size).trunk(torch.empty(2, 1, size, size))
        decoded = DecoderH(size)(torch.empty(2, 512))
    assert (trunk.shape, decoded.shape) == (
        (2, 512, side, side),
        (2, 1, size, size),
    ) and channels * side**2 == 512


def test_another_latent_size_runs():
    model = seeded(UniverseVAE, 32, latent_dim=64).eval()
    found = flat(model(randn(2, 3, 1, 32, 32), randn(2, 1, 32, 32)))
    assert [x.shape[1] for name, x in found.items() if name != "recon_h"] == [64] * 9


# --- the note, word for word


def test_evaluation_is_the_note_s_forward_pass_bit_for_bit(model, img_zs, img_h):
    assert_equal(with_seed(model, img_zs, img_h), with_seed(note.NoteVAE(model).eval(), img_zs, img_h))


@pytest.fixture(scope="module")
def trained_once(img_zs, img_h):
    """One forward pass in training mode by the library and by the note, from equal BatchNorm buffers.

    It stands by itself because it moves the running statistics, and because it holds only for `forward`, which sends
    context and targets through the trunk one after the other, as the note does: `forward_sets` sends them together.
    """
    ours, theirs = (seeded(UniverseVAE, 64).train() for _ in range(2))
    return ours, theirs, with_seed(ours, img_zs, img_h), with_seed(note.NoteVAE(theirs), img_zs, img_h)


def test_training_with_batch_statistics_is_the_note_s_forward_pass_bit_for_bit(trained_once):
    assert_equal(trained_once[2], trained_once[3])


def test_training_leaves_the_running_statistics_that_the_note_leaves(trained_once):
    buffers = [dict(model.named_buffers()) for model in trained_once[:2]]
    assert buffers[0] and all(torch.equal(buffers[0][name], buffers[1][name]) for name in buffers[1])


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, 20.0)])
def test_the_loss_is_the_note_s(model, img_zs, img_h, weights):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        output = model(img_zs, img_h)
    torch.testing.assert_close(
        note_loss(output, img_h, *weights), note.loss(output, img_h, *weights), rtol=1e-6, atol=0
    )


def test_the_gradients_are_the_note_s(img_zs, img_h):
    ours, theirs = (seeded(UniverseVAE, 64) for _ in range(2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        note_loss(ours(img_zs, img_h), img_h, 0.7, 5.0).backward()
        torch.manual_seed(3)
        note.loss(note.NoteVAE(theirs)(img_zs, img_h), img_h, 0.7, 5.0).backward()
    gaps = {
        name: ((ours.get_parameter(name).grad - p.grad).norm() / p.grad.norm()).item()
        for name, p in theirs.named_parameters()
    }
    assert {name: gap for name, gap in gaps.items() if not gap < 1e-4} == {}


def test_the_third_argument_replaces_the_global_random_state(model, img_zs, img_h):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        noise = tuple(torch.randn(3, 512) for _ in range(3))
    found = with_seed(lambda *args: model(*args, noise), img_zs, img_h, seed=99)
    assert_equal(found, with_seed(model, img_zs, img_h, seed=3))


def test_without_noise_the_samples_differ_from_call_to_call(model, img_zs, img_h):
    a, b = (with_seed(model, img_zs, img_h, seed=seed) for seed in (1, 2))
    assert torch.equal(a["z_mu"], b["z_mu"]) and not torch.equal(a["z"], b["z"])


def test_a_sample_is_the_mean_plus_noise_times_the_standard_deviation(model):
    x, noise = randn(5, 1024), randn(5, 512, seed=1)
    sample, mu, logvar = model.reparameterize(x, noise)
    torch.testing.assert_close(sample, x[:, :512] + noise * torch.exp(x[:, 512:] / 2))
    assert torch.equal(torch.cat([mu, logvar], 1), x)


def test_drawn_noise_is_a_function_of_the_generator():
    a, b, c = noise_for(4, seed=1), noise_for(4, seed=1), noise_for(4, seed=2)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True)) and not torch.equal(a[0], c[0])


def test_the_three_noises_are_different_and_standard_normal():
    z, h, post = noise_for(200)
    assert not torch.equal(z, h) and not torch.equal(h, post)
    assert max(abs(x.mean().item()) for x in (z, h, post)) < 0.02
    assert max(abs(x.std().item() - 1) for x in (z, h, post)) < 0.02


def test_the_defaults_of_a_configuration_are_the_note_s_model_and_nothing_else(img_zs, img_h):
    built, plain = (seeded(make).state_dict() for make in (lambda: build(Config(), side=256), UniverseVAE))
    assert list(built) == list(plain) and all(torch.equal(built[name], plain[name]) for name in plain)
    model = seeded(UniverseVAE, 64).eval()
    assert_equal(with_seed(model, img_zs, img_h), with_seed(note.NoteVAE(model).eval(), img_zs, img_h))


# --- sets


def test_the_order_of_a_set_does_not_matter(model, img_zs, img_h):
    found = with_seed(model, img_zs[:, [2, 0, 3, 1]], img_h)
    assert_equal(found, with_seed(model, img_zs, img_h), rtol=1e-4, atol=1e-5)


def test_every_slice_of_a_set_matters(model, img_zs, img_h):
    base = with_seed(model, img_zs, img_h)["z_mu"]
    for i in range(img_zs.shape[1]):
        changed = img_zs.clone()
        changed[:, i] += 1
        assert (with_seed(model, changed, img_h)["z_mu"] - base).abs().amax() > 1e-4


def test_a_set_does_not_see_the_other_sets_of_a_batch(model, img_zs, img_h):
    other = img_zs.clone()
    other[1:] = 0
    a, b = (with_seed(model, images, img_h)["z_mu"][0] for images in (img_zs, other))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("pooling, scale", [("sum", 1.0), ("mean", 0.25)])
def test_a_set_is_pooled_over_its_slices(pooling, scale):
    deep_set, zs = seeded(DeepSet, pooling=pooling), randn(3, 4, 1024)
    pooled = sum(deep_set.each(zs[:, i]) for i in range(4)) * scale
    torch.testing.assert_close(deep_set(zs), deep_set.together(pooled))


def test_precisions_of_slices_add_up():
    """Twice the slices: what they add to the prior's precision of 1, and to its product with the mean, is doubled."""
    deep_set, zs = seeded(DeepSet, pooling="precision"), randn(3, 4, 1024)
    with torch.no_grad():
        deep_set.together.weight.chunk(2)[1].abs_()
        deep_set.together.bias.zero_()
        deep_set.together.bias.chunk(2)[1].fill_(30)  # where softplus is linear
        mu, logvar = deep_set(torch.cat([zs, zs], dim=1)).chunk(2, dim=1)
        mu_once, logvar_once = deep_set(zs).chunk(2, dim=1)
    torch.testing.assert_close((-logvar).exp() - 31, 2 * ((-logvar_once).exp() - 31), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(mu * (-logvar).exp(), 2 * mu_once * (-logvar_once).exp(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("logvar", [0.0, -3.0])
def test_the_precision_of_z_starts_where_it_is_told(logvar):
    deep_set = seeded(DeepSet, pooling="precision", logvar=logvar)
    with torch.no_grad():
        start = deep_set(torch.zeros(1, 4, 1024)).chunk(2, dim=1)[1].mean().item()
    assert start == pytest.approx(logvar, abs=0.1)


def test_the_mean_does_not_change_when_a_set_is_shown_twice():
    deep_set, zs = seeded(DeepSet, pooling="mean"), randn(3, 4, 1024)
    torch.testing.assert_close(deep_set(torch.cat([zs, zs], dim=1)), deep_set(zs))


@pytest.mark.parametrize("pooling", ["sum", "mean", "precision"])
def test_a_context_takes_the_slices_that_it_names(pooling):
    deep_set, zs = seeded(DeepSet, pooling=pooling), randn(2, 4, 1024)
    context = torch.tensor([[[1.0, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 1]]]).expand(2, -1, -1)
    expected = torch.stack([deep_set(zs[:, [0, 2]]), deep_set(zs[:, [1, 2, 3]]), deep_set(zs[:, [3]])], dim=1)
    torch.testing.assert_close(deep_set(zs, context), expected)


def by_target(model, sets, contexts, noise):
    """What `forward` says of every slice, one target at a time, given the slices that its context names."""
    outputs = []
    for b, one in enumerate(sets):
        for i in range(len(one)):
            chosen, place = one[contexts[b, i].bool()][None], b * len(one) + i
            outputs.append(flat(model(chosen, one[i][None], tuple(n[place : place + 1] for n in noise))))
    return {name: torch.cat([output[name] for output in outputs]) for name in NAMES}


def test_all_slices_at_once_are_the_slices_one_by_one(model, img_zs):
    context, noise = leave_one_out(3, 4), noise_for(12)
    with torch.no_grad():
        found = flat(model.forward_sets(img_zs, context, noise))
        assert_equal(found, by_target(model, img_zs, context, noise), rtol=1e-3, atol=1e-4)


def test_random_contexts_are_the_forward_pass_with_these_slices(model, img_zs):
    context = torch.randint(2, (3, 4, 4), generator=torch.Generator().manual_seed(0)).float()
    context, noise = context.maximum(torch.eye(4).roll(1, 0)), noise_for(12)  # none is empty
    with torch.no_grad():
        found = flat(model.forward_sets(img_zs, context, noise))
        assert_equal(found, by_target(model, img_zs, context, noise), rtol=1e-3, atol=1e-4)


def test_leave_one_out_gives_every_slice_all_others():
    assert torch.equal(leave_one_out(2, 3), torch.tensor([[[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]] * 2))


# --- what the networks see


def test_zs_does_not_know_where_things_are(model):
    f = randn(2, 512, 4, 4)
    torch.testing.assert_close(model.encoder.set_features(f.flip(2, 3)), model.encoder.set_features(f))


def test_zs_does_not_see_z(model, img_h):
    with torch.no_grad():
        assert torch.equal(model.encoder(img_h, randn(3, 512))[0], model.encoder(img_h, torch.zeros(3, 512))[0])


def test_h_post_sees_z(model, img_h):
    with torch.no_grad():
        gap = model.encoder(img_h, randn(3, 512))[1] - model.encoder(img_h, torch.zeros(3, 512))[1]
    assert gap.abs().amax() > 1e-3


def test_a_place_of_the_map_makes_the_numbers_of_h_post_at_that_place_only():
    encoder, f, z = seeded(Encoder, 128), randn(1, 512, 4, 4), randn(1, 512)
    changed = f.clone()
    changed[:, :, 1, 2] += 1
    gap = (
        (encoder.h_posterior(changed, z) - encoder.h_posterior(f, z))
        .unflatten(1, (2, 32, 4, 4))
        .abs()
        .amax(dim=(0, 1, 2))
    )
    assert (gap > 0).nonzero().tolist() == [[1, 2]]


def test_z_shifts_every_place_alike():
    encoder, f = seeded(Encoder, 128), randn(1, 512, 4, 4)
    gap = (encoder.h_posterior(f, randn(1, 512)) - encoder.h_posterior(f, torch.zeros(1, 512))).unflatten(1, (64, 4, 4))
    torch.testing.assert_close(gap, gap[:, :, :1, :1].expand_as(gap), rtol=1e-3, atol=1e-5)


def test_the_logvar_starts_are_added_to_the_posteriors(img_zs, img_h):
    plain, narrow = (seeded(UniverseVAE, 64, logvar_h=h, logvar_z=z).eval() for h, z in ((0, 0), (-4, -3)))
    noise = (torch.zeros(3, 512),) * 3
    with torch.no_grad():
        a, b = (flat(model(img_zs, img_h, noise)) for model in (plain, narrow))
    torch.testing.assert_close(b["h_post_logvar"], a["h_post_logvar"] - 4, rtol=0, atol=1e-4)
    torch.testing.assert_close(b["z_logvar"], a["z_logvar"] - 3, rtol=0, atol=1e-4)
    assert torch.equal(a["h_mu"], b["h_mu"]) and torch.equal(a["h_logvar"], b["h_logvar"])


@pytest.mark.parametrize("whole_sets", [False, True])
def test_the_loss_teaches_every_parameter_of_the_four_networks(img_zs, img_h, whole_sets):
    model = seeded(UniverseVAE, 64)
    output = model.forward_sets(img_zs, leave_one_out(3, 4)) if whole_sets else model(img_zs, img_h)
    target = img_zs.flatten(0, 1) if whole_sets else img_h
    note_loss(output, target).backward()
    untaught = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert untaught == [] and all(p.grad.isfinite().all() for p in model.parameters())


# --- devices and number types


def test_whole_sets_run_on_the_meta_device():
    with torch.device("meta"):
        output = UniverseVAE(64).forward_sets(torch.empty(2, 3, 1, 64, 64), torch.empty(2, 3, 3))
    assert {x.device.type for x in flat(output).values()} == {"meta"}


def on_fake_cuda(run, circular=False):
    """What `run(model, img_zs, img_h)` returns for a model and images on a GPU that is not there.

    Every tensor that is made on the wrong device raises.
    """
    with FakeTensorMode():
        with torch.device("cuda"):
            model = UniverseVAE(64, circular=circular)
            images = torch.empty(2, 3, 1, 64, 64), torch.empty(2, 1, 64, 64)
        return run(model, *images)


@pytest.mark.parametrize("circular", [False, True])
def test_the_forward_pass_stays_on_its_device(circular):
    output = on_fake_cuda(lambda model, img_zs, img_h: model(img_zs, img_h), circular)
    assert {x.device.type for x in flat(output).values()} == {"cuda"}


@pytest.mark.parametrize("circular", [False, True])
def test_whole_sets_stay_on_their_device(circular):
    output = on_fake_cuda(lambda model, sets, _: model.forward_sets(sets, leave_one_out(2, 3, "cuda")), circular)
    assert {x.device.type for x in flat(output).values()} == {"cuda"}


def test_noise_drawn_on_the_cpu_is_used_on_the_device_of_the_model():
    output = on_fake_cuda(lambda m, a, b: m(a, b, [x.cuda() for x in noise_for(2)]))
    assert flat(output)["h_post"].device.type == "cuda"


def test_a_tensor_on_the_wrong_device_would_be_seen():
    with pytest.raises(RuntimeError, match="device"):
        on_fake_cuda(lambda model, img_zs, img_h: model(img_zs, torch.empty(2, 1, 64, 64)))


def unlike(found, expected):
    """Root mean square difference over the standard deviation."""
    return ((found - expected).square().mean().sqrt() / expected.std()).item()


def test_bfloat16_autocast_stays_close_to_float32(model, img_zs, img_h):
    noise = noise_for(3)
    with torch.no_grad():
        expected = flat(model(img_zs, img_h, noise))
        with torch.autocast("cpu", torch.bfloat16):
            found = flat(model(img_zs, img_h, noise))
    assert {name: x.dtype for name, x in found.items()} == dict.fromkeys(NAMES, torch.float32)
    gaps = {name: unlike(found[name], expected[name]) for name in NAMES}
    assert {name: gap for name, gap in gaps.items() if not gap < 0.06} == {}


def test_channels_last_changes_nothing_but_rounding(model, img_zs, img_h):
    last = seeded(UniverseVAE, 64).eval()
    last.load_state_dict(model.state_dict())
    last = last.to(memory_format=torch.channels_last)
    found = with_seed(last, img_zs, img_h.to(memory_format=torch.channels_last))
    assert_equal(found, with_seed(model, img_zs, img_h), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("circular", [False, True])
def test_channels_last_is_kept_through_the_networks(circular):
    model = seeded(UniverseVAE, 64, circular=circular).to(memory_format=torch.channels_last).eval()
    images = randn(3, 1, 64, 64).to(memory_format=torch.channels_last)
    seen = []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(lambda m, i, o, name=name: seen.append((name, o)))
    with torch.no_grad():
        model.encoder.trunk(images)
        model.decoder_h(randn(3, 512))
    assert [name for name, x in seen if not x.is_contiguous(memory_format=torch.channels_last)] == []


# --- periodic convolutions


@pytest.mark.parametrize("p, size", [(1, 1), (1, 2), (1, 5), (2, 5), (3, 8), (3, 3)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels"])
def test_wrapping_is_circular_padding(p, size, memory_format):
    x = randn(2, 3, size, size + 1).to(memory_format=memory_format)
    assert torch.equal(periodic_pad(x, p), F.pad(x, (p,) * 4, mode="circular"))


def test_wrapping_keeps_channels_last():
    x = randn(2, 3, 5, 5).to(memory_format=torch.channels_last)
    assert periodic_pad(x, 1).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("p, size", [(1, 1), (1, 2), (2, 3), (3, 3)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["rows", "channels"])
def test_wrapping_has_the_gradient_that_it_computes(p, size, memory_format):
    x = randn(2, 2, size, size + 1, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: periodic_pad(x, p), x)


@pytest.mark.parametrize("p", [1, 3])
def test_wrapping_has_the_gradient_of_circular_padding(p):
    weight, grads = randn(2, 3, 6 + 2 * p, 6 + 2 * p, seed=1), []
    for pad in (lambda x: periodic_pad(x, p), lambda x: F.pad(x, (p,) * 4, mode="circular")):
        x = randn(2, 3, 6, 6).requires_grad_()
        (pad(x) * weight).sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)


def test_the_gradient_of_wrapping_leaves_its_input_alone():
    x, grad = randn(1, 1, 4, 4).requires_grad_(), randn(1, 1, 6, 6, seed=1)
    kept = grad.clone()
    torch.autograd.grad(periodic_pad(x, 1), x, grad)
    assert torch.equal(grad, kept)


@pytest.fixture(scope="module")
def periodic():
    """A circular model of 64-pixel slices in float64, in evaluation mode."""
    return seeded(UniverseVAE, 64, circular=True).double().eval()


@pytest.mark.parametrize("shift", [(32, 0), (0, 32), (32, 32)])
def test_a_periodic_trunk_moves_with_its_slice(periodic, shift):
    image = randn(1, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        found = periodic.encoder.trunk(image.roll(shift, (2, 3)))
        expected = periodic.encoder.trunk(image).roll((shift[0] // 32, shift[1] // 32), (2, 3))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (1, 1)])
def test_a_periodic_slice_moves_with_the_map_of_h(periodic, shift):
    h = randn(1, 128, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        found = periodic.decoder_h(h.roll(shift, (2, 3)).flatten(1))
        expected = periodic.decoder_h(h.flatten(1)).roll((32 * shift[0], 32 * shift[1]), (2, 3))
    torch.testing.assert_close(found, expected)


def test_the_average_that_zs_is_made_of_does_not_depend_on_the_origin_of_a_periodic_slice(periodic):
    image = randn(1, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        means = [periodic.encoder.trunk(x).mean((2, 3)) for x in (image, image.roll((32, 32), (2, 3)))]
    torch.testing.assert_close(*means)


def test_zero_padding_is_not_periodic():
    model, image = seeded(UniverseVAE, 64).double().eval(), randn(1, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        gap = model.encoder.trunk(image.roll(32, 2)) - model.encoder.trunk(image).roll(1, 2)
    assert gap.abs().amax() > 1e-3


@pytest.mark.parametrize("size", [32, 64, 128])
def test_a_decoder_of_a_whole_box_can_draw_structure(size):
    """Of one cell, convolutions that wrap make slices of one value, whatever their weights."""
    model = seeded(UniverseVAE, size, circular=True).eval()
    assert (model.decoder_h(randn(2, 512)).std(dim=(1, 2, 3)) > 1e-4).all()


def test_circular_changes_no_parameter():
    plain, circular = (seeded(UniverseVAE, 32, circular=flag).state_dict() for flag in (False, True))
    assert plain.keys() == circular.keys() and all(torch.equal(plain[name], circular[name]) for name in plain)


# --- upsampling


@pytest.mark.parametrize("size", [1, 2, 7])
def test_upconv_is_nearest_upsampling_and_a_convolution(size):
    layer, x = seeded(UpConv, 3, 5).double(), randn(2, 3, size, size, dtype=torch.float64)
    expected = F.conv2d(F.interpolate(x, scale_factor=2), layer.weight, padding=1)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_periodic_upconv_is_nearest_upsampling_and_a_circular_convolution(size):
    layer = seeded(UpConv, 3, 5, circular=True).double()
    x = randn(2, 3, size, size, dtype=torch.float64)
    wide = F.pad(F.interpolate(x, scale_factor=2), (1, 1, 1, 1), mode="circular")
    torch.testing.assert_close(layer(x), F.conv2d(wide, layer.weight))


def test_upconv_teaches_its_kernel_as_the_two_steps_do():
    layer, x = seeded(UpConv, 3, 5).double(), randn(2, 3, 4, 4, dtype=torch.float64)
    aim = randn(2, 5, 8, 8, seed=1, dtype=torch.float64)
    two_steps = F.conv2d(F.interpolate(x, scale_factor=2), layer.weight, padding=1)
    found, expected = (torch.autograd.grad((y * aim).sum(), layer.weight)[0] for y in (layer(x), two_steps))
    torch.testing.assert_close(found, expected)


def checkerboard(decoder, size=128):
    """Largest power of the modes where checkerboards sit, over the median of their neighbours.

    Patterns of period 2, 4 and 8 pixels, along the axes and the diagonal; a Hann window keeps the edges out of them.
    """
    hann = torch.hann_window(size)
    with torch.no_grad():
        image = decoder(randn(12, 512))
    image = image - image.mean(dim=(2, 3), keepdim=True)
    power = torch.fft.fft2(image * hann[:, None] * hann).abs().square().mean(dim=(0, 1))
    ratios = []
    for period in (2, 4, 8):
        k = size // period
        for row, col in ((k, 0), (0, k), (k, k)):
            near = power.roll((5 - row, 5 - col), (0, 1))[:11, :11].clone()
            peak = near[4:7, 4:7].amax()
            near[3:8, 3:8] = torch.nan
            ratios.append((peak / near.nanmedian()).item())
    return max(ratios)


@pytest.mark.parametrize("circular", [False, True])
def test_decoded_noise_has_no_checkerboard(circular):
    assert checkerboard(seeded(UniverseVAE, 128, circular=circular).decoder_h.train()) < 4


def test_a_strided_transposed_convolution_would_show_a_checkerboard():
    class Strided(nn.ConvTranspose2d):
        def __init__(self, layer):
            super().__init__(layer.in_channels, layer.out_channels, 4, stride=2, padding=1, bias=False)

    decoder = seeded(DecoderH, 128)
    for i, layer in enumerate(decoder.layers):
        if isinstance(layer, UpConv):
            decoder.layers[i] = seeded(Strided, layer, seed=i)
    assert checkerboard(decoder.train()) > 8


# --- learning


@pytest.fixture(scope="module")
def eight_sets(tmp_path_factory):
    """Eight sets of three context slices and one target, 32 pixels a side, of simulated cubes.

    Other test modules ask for the same folder, so that the cubes are made once.
    """
    suite = simulate_suite(tmp_path_factory.getbasetemp() / "smoke", SMOKE.simulation, progress=False)["LH"]
    pool, constants = CubePool(suite, range(6)), standardisation(suite, range(6))
    sets = SliceSets(pool, *constants, image_size=32, set_size=4, sets_per_step=8).sets(0)
    return sets[:, :-1], sets[:, -1]


def test_the_note_s_model_learns_eight_sets_with_its_own_loss(eight_sets):
    """The squared error falls below a fifth of the variance: every part of the wiring carries what it should.

    Judged in the mode of training: BatchNorm's running statistics lag behind weights that change this fast.
    """
    img_zs, img_h = eight_sets
    model = seeded(UniverseVAE, 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    errors = []
    for step in range(45):
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1.0, (step + 1) / 10)
        output = model(img_zs, img_h, noise_for(8, seed=step))
        optimizer.zero_grad()
        note_loss(output, img_h).backward()
        optimizer.step()
        errors.append(mse_loss(output[0], img_h).item() / 32**2)
    assert sum(errors[-5:]) / 5 < 0.2 * img_h.var().item()


# --- errors


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match='found pooling="max"; expected "sum", "mean" or "precision"'):
        DeepSet(pooling="max")


@pytest.mark.parametrize(
    "zs_shape, h_shape",
    [((2, 3, 1, 32, 32), (2, 1, 64, 64)), ((2, 3, 1, 64, 64), (2, 1, 32, 32)), ((6, 1, 64, 64), (2, 1, 64, 64)),
     ((2, 3, 2, 64, 64), (2, 1, 64, 64)), ((2, 3, 1, 64, 64), (2, 64, 64))],
)  # fmt: skip
def test_images_of_another_shape_are_refused(model, zs_shape, h_shape):
    with pytest.raises(ValueError, match=r"found sets of shape .*; expected \(B, S, 1, 64, 64\) and \(B, 1, 64, 64\)"):
        model(torch.zeros(zs_shape), torch.zeros(h_shape))


def test_sets_of_another_shape_are_refused(model):
    with pytest.raises(ValueError, match="expected"):
        model.forward_sets(torch.zeros(2, 3, 1, 32, 32), leave_one_out(2, 3))


def test_a_batch_of_targets_that_is_not_the_batch_of_sets_is_refused(model, img_zs, img_h):
    with pytest.raises(ValueError, match="expected"):
        model(img_zs[:1], img_h)


def test_the_encoder_is_torchvision_s_resnet_18_with_one_channel():
    expected = {name: tuple(p.shape) for name, p in resnet18().named_parameters() if not name.startswith("fc")}
    expected["conv1.weight"] = (64, 1, 7, 7)
    with torch.device("meta"):
        found = {name: tuple(p.shape) for name, p in Encoder().trunk.named_parameters()}
    assert found == expected


def test_decoder_z_is_the_note_s_size():
    assert [layer.out_features for layer in DecoderZ().layers if isinstance(layer, nn.Linear)] == [
        128,
        128,
        1024,
    ]


def test_validation_sees_the_weights_that_a_fused_optimiser_has_just_changed():
    """Fused optimisers do not raise the version of a weight, so that whatever is kept by it would be stale."""
    model = DecoderH(image_size=32, latent_dim=32).eval()
    optimizer, h = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True), torch.randn(2, 32)
    with torch.no_grad():
        model(h)
    model(h).square().sum().backward()
    optimizer.step()
    with torch.no_grad():
        found = model(h)
    torch.testing.assert_close(found, model(h).detach())
