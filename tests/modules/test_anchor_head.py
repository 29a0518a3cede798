"""The anchor head against a loop over boxes, anchors and cells, and against its own decoding."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import complete_box_iou_loss

from selfdistill.core import ConfigError
from selfdistill.modules.anchor_head import AnchorHead
from selfdistill.modules.detector_output import DetectorOutput

K = 3
SIZE = (96, 128)
GRIDS = [(12, 16), (6, 8), (3, 4)]
NONE = [-1.0, 0.0, 0.0, 0.0, 0.0]
TARGETS = torch.tensor(
    [
        [[0, 10, 10, 40, 50], [1, 5, 20, 90, 60], [2, 100, 80, 128, 96.0], [2, 10, 12, 38, 50]],
        [[1, 60, 30, 70, 44], NONE, NONE, NONE],
    ]
)


def outputs(levels: int = 3, gamma: float = 1.5, seed: int = 0):
    """A head's predictions with scores all over the place."""
    torch.manual_seed(seed)
    head = AnchorHead([4] * levels, K, gamma=gamma)
    for conv in head.convs:
        torch.nn.init.normal_(conv.weight, std=0.5)
    return head([torch.randn(2, 4, *grid) for grid in GRIDS[-levels:]])


def focal_by_hand(scores, targets, gamma):
    entropy = -(targets * F.logsigmoid(scores) + (1 - targets) * F.logsigmoid(-scores))
    if gamma == 0:
        return entropy
    p = scores.sigmoid()
    right = targets * p + (1 - targets) * (1 - p)
    return entropy * (targets * 0.25 + (1 - targets) * 0.75) * (1 - right) ** gamma


def cells_of(index, count):
    """The cell and its nearer neighbor on one axis, if it lies on the grid."""
    cell = min(int(index), count - 1)
    return cell, cell - 1 if index - cell < 0.5 else cell + 1


def level_by_hand(raw, anchors, gamma):
    """The three terms of one level, (B, A, 5 + K, h, w), a box at a time."""
    (height, width), (rows, columns) = SIZE, raw.shape[-2:]
    is_object, overlaps, kinds = torch.zeros_like(raw[:, :, 4]), [], []
    for b, a in torch.cartesian_prod(torch.arange(2), torch.arange(len(anchors))).tolist():
        wide, tall = (anchors[a] * max(SIZE)).tolist()
        for row in TARGETS[b]:
            sides = row[3:] - row[1:3]
            ratios = [*(sides / anchors[a] / max(SIZE)), *(anchors[a] * max(SIZE) / sides)]
            if row[0] < 0 or max(ratios) >= 4:
                continue
            x, neighbor = cells_of((row[1] + row[3]) / 2 / width * columns, columns)
            y, above = cells_of((row[2] + row[4]) / 2 / height * rows, rows)
            for i, j in [(x, y), (neighbor, y), (x, above)]:
                if not (0 <= i < columns and 0 <= j < rows):
                    continue
                p = raw[b, a, :, j, i]
                s = p.sigmoid()
                cx, cy = (
                    (2 * s[0] - 0.5 + i) * width / columns,
                    (2 * s[1] - 0.5 + j) * height / rows,
                )
                w, h = (2 * s[2]) ** 2 * wide, (2 * s[3]) ** 2 * tall
                box = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
                overlaps.append(1 - complete_box_iou_loss(box, row[1:]))
                is_object[b, a, j, i] = max(is_object[b, a, j, i], overlaps[-1].detach())
                truth = F.one_hot(row[0].long(), K).float()
                kinds.append(focal_by_hand(p[5:], truth, gamma).mean())
    thing = focal_by_hand(raw[:, :, 4], is_object, gamma).mean()
    assert overlaps, "a level without a box proves little"
    return 1 - torch.stack(overlaps).mean(), thing, torch.stack(kinds).mean()


@pytest.mark.parametrize("gamma", [0.0, 1.5])
@pytest.mark.parametrize("levels", [3, 1])
def test_the_loss_is_that_of_a_loop(levels, gamma):
    out = outputs(levels, gamma)
    balance = [4.0, 1.0, 0.4] if levels == 3 else [1.0]
    want = torch.zeros(())
    for raw, anchors, weight in zip(out.maps, out.anchors, balance, strict=True):
        parts = raw.unflatten(1, (len(anchors), -1))
        box, thing, kind = level_by_hand(parts, anchors, gamma)
        want = want + 0.05 * box + weight * 96 * 128 / 640**2 * thing + 0.5 * K / 80 * kind
    torch.testing.assert_close(out.loss(TARGETS, SIZE), 64 * 3 / levels * want)


def encoded(box, anchor, cell, grid):
    """Raw x, y, width and height that decode to a box: the inverse of the decoding."""
    low, high = box[:2], box[2:]
    steps = torch.tensor([SIZE[1] / grid[1], SIZE[0] / grid[0]])
    offset = (low + high) / 2 / steps - torch.tensor(cell)
    extent = ((high - low) / (anchor * max(SIZE))).sqrt()
    return torch.cat([torch.logit((offset + 0.5) / 2), torch.logit(extent / 2)])


def one_sure_box():
    """DetectorOutput of one image that see nothing but a box of class 1, exactly where it is."""
    out = outputs(1)
    box, cell, anchor = torch.tensor([30.0, 20.0, 70.0, 60.0]), (1, 1), 7
    raw = torch.full((1, 9, 5 + K, 3, 4), -12.0)
    raw[0, anchor, :4, cell[1], cell[0]] = encoded(box, out.anchors[0, anchor], cell, (3, 4))
    raw[0, anchor, [4, 6], cell[1], cell[0]] = 12.0
    return out._replace(maps=(raw.flatten(1, 2),)), box


def test_what_is_encoded_is_decoded():
    out, box = one_sure_box()
    boxes, scores = out.decoded(SIZE)
    assert boxes.shape == (1, 108, 4)
    assert scores.shape == (1, 108, K)
    index, label = divmod(int(scores.flatten().argmax()), K)
    assert label == 1
    torch.testing.assert_close(boxes[0, index], box, rtol=1e-4, atol=1e-4)
    (detections,) = out.detections(SIZE)
    assert detections.labels.tolist() == [1]
    torch.testing.assert_close(detections.boxes[0], box, rtol=1e-4, atol=1e-4)


def test_a_box_exactly_met_is_the_whole_target_of_objectness():
    out, box = one_sure_box()
    (level,) = out._levels()
    target = torch.cat([torch.ones(1), box])[None, None]
    index = 7 * 12 + 1 * 4 + 1
    for said_there in (0.0, 3.0):  # plain cross-entropy of p with target 1 is −log p
        level.raw[0, 7, 1, 1, 4] = said_there
        _, thing, _ = level.losses(target, SIZE, 0.0)
        level.raw[0, 7, 1, 1, 4] = 40.0
        _, certain, _ = level.losses(target, SIZE, 0.0)
        want = -F.logsigmoid(torch.tensor(said_there)) / (9 * 12)
        torch.testing.assert_close(thing - certain, want, rtol=1e-3, atol=1e-6)
    assert level.boxes(SIZE)[0, index] == pytest.approx(box, abs=1e-3)


def test_without_a_box_there_is_objectness_alone():
    out = outputs(gamma=0.0)
    want = sum(
        64 * weight * 96 * 128 / 640**2 * F.softplus(m.unflatten(1, (3, -1))[:, :, 4]).mean()
        for weight, m in zip([4, 1, 0.4], out.maps, strict=True)
    )
    nothing = torch.tensor(NONE).expand(2, 4, 5)
    torch.testing.assert_close(out.loss(nothing, SIZE), want)
    torch.testing.assert_close(out.loss(nothing[:, :0], SIZE), want)


def test_an_image_without_a_box_among_others_counts_in_objectness():
    targets = TARGETS.clone()
    targets[1] = torch.tensor(NONE)
    loss = outputs().loss(targets, SIZE)
    assert loss.isfinite()
    assert loss != outputs().loss(TARGETS, SIZE)


def test_every_weight_gets_a_finite_gradient_even_of_certain_scores():
    head = AnchorHead([4, 4, 4], K)
    maps = [1e4 * torch.randn(2, 4, *grid) for grid in GRIDS]
    head(maps).loss(TARGETS, SIZE).backward()
    for parameter in head.parameters():
        assert parameter.grad.isfinite().all()
    head.zero_grad()
    head([m / 1e4 for m in maps]).loss(TARGETS, SIZE).backward()
    assert all(parameter.grad.any() for parameter in head.parameters())


def test_shapes_do_not_depend_on_what_is_there():
    """On the meta device nothing can be looked at, so nothing waits for an accelerator either."""
    with torch.device("meta"):
        out = AnchorHead([4, 4, 4], K)([torch.empty(2, 4, *grid) for grid in GRIDS])
        assert out.loss(torch.empty(2, 7, 5), SIZE).shape == ()
        assert out.soft_loss(out, 2.0).shape == ()
        assert [x.shape for x in out.decoded(SIZE)] == [(2, 756, 4), (2, 756, K)]


@pytest.mark.slow
def test_the_loss_compiles_as_one_graph():
    out = outputs().detach()
    compiled = torch.compile(
        lambda maps, rows: out._replace(maps=maps).loss(rows, SIZE), fullgraph=True
    )
    torch.testing.assert_close(compiled(out.maps, TARGETS), out.loss(TARGETS, SIZE))


def test_the_loss_is_taken_in_full_precision():
    out = outputs()
    halved = out._replace(maps=tuple(m.bfloat16() for m in out.maps))
    rounded = out._replace(maps=tuple(m.bfloat16().float() for m in out.maps))
    with torch.autocast("cpu", torch.bfloat16):
        loss = halved.loss(TARGETS, SIZE)
    torch.testing.assert_close(loss, rounded.loss(TARGETS, SIZE))


def test_boxes_grow_with_the_image_and_stay_inside():
    out = outputs()
    small, large = out.decoded(SIZE)[0], out.decoded((192, 256))[0]
    torch.testing.assert_close(2 * small, large)
    assert small.min() >= 0
    assert (small[..., ::2] <= SIZE[1]).all()
    assert (small[..., 1::2] <= SIZE[0]).all()


def test_one_map_has_all_nine_anchors():
    three, one = AnchorHead([4, 4, 4], K), AnchorHead([4], K)
    torch.testing.assert_close(one.anchors.flatten(), three.anchors.flatten())
    assert one(torch.zeros(2, 4, 5, 5)).maps[0].shape == (2, 9 * (5 + K), 5, 5)
    torch.testing.assert_close(640 * one.anchors[0, 8], torch.tensor([373.0, 326.0]))


def test_another_number_of_maps_is_refused():
    with pytest.raises(ConfigError, match="not 2"):
        AnchorHead([4, 4], K)


def test_distillation_towards_itself_is_nothing_and_leaves_the_reference_alone():
    out, other = outputs(), outputs(seed=1)
    assert isinstance(out, DetectorOutput)
    assert out.compatible_with(other)
    assert out.soft_loss(out, 2.0).item() == pytest.approx(0, abs=1e-6)
    student, teacher = (
        p._replace(maps=tuple(m.detach().requires_grad_() for m in p.maps)) for p in (out, other)
    )
    loss = student.soft_loss(teacher, 2.0)
    loss.backward()
    assert loss > 0
    assert all(m.grad.any() for m in student.maps)
    assert all(m.grad is None for m in teacher.maps)


def test_heads_of_other_forms_do_not_compare():
    assert not outputs(1).compatible_with(outputs(3))
    assert not outputs().compatible_with("something else")


def test_it_is_born_to_see_eight_objects_in_an_image_of_640():
    head = AnchorHead([4, 4, 4], K)
    prediction = head([torch.zeros(1, 4, 640 // s, 640 // s) for s in (8, 16, 32)])
    for m in prediction.maps:
        is_object = m.unflatten(1, (3, -1))[:, :, 4].sigmoid()
        assert is_object.sum((0, 2, 3)).mean().item() == pytest.approx(
            8, rel=0.6
        )  # biases are noisy
