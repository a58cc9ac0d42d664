import numpy as np
import pytest

from utils.explanation.measures import (
    area_under,
    center_map,
    edge_map,
    energy_inside_mask,
    faithfulness,
    iou_at_otsu,
    mask_share,
    overlap_table,
    perturb,
    pointing_hit,
    random_map,
    similarity,
)


def quarter_mask() -> np.ndarray:
    mask = np.zeros((8, 8), bool)
    mask[:4, :4] = True
    return mask


def test_energy_in_closed_form():
    mask = quarter_mask()
    cam = np.ones((8, 8))
    assert energy_inside_mask(cam, mask) == 0.25 == mask_share(mask)
    cam[:4, :4] = 3  # 16 * 3 inside, 48 outside
    assert energy_inside_mask(cam, mask) == 0.5
    assert energy_inside_mask(7 * cam, mask) == 0.5
    assert energy_inside_mask(mask.astype(float), mask) == 1
    assert energy_inside_mask((~mask).astype(float), mask) == 0


def test_pointing_in_closed_form():
    mask = quarter_mask()
    cam = np.zeros((8, 8))
    cam[7, 7] = 1
    assert pointing_hit(cam, mask) == 0
    cam[1, 1] = 2
    assert pointing_hit(cam, mask) == 1
    cam[7, 7] = 2
    assert pointing_hit(cam, mask) == 0.5  # two highest points, one inside
    assert pointing_hit(np.ones((8, 8)), mask) == mask_share(mask)  # a flat map points nowhere


def test_a_zero_map_and_an_empty_mask_have_no_overlap():
    mask, cam = quarter_mask(), np.ones((8, 8))
    for measure in (energy_inside_mask, pointing_hit):
        with np.errstate(all="raise"):
            assert np.isnan(measure(np.zeros((8, 8)), mask))
            assert np.isnan(measure(cam, np.zeros((8, 8), bool)))


def test_masks_and_maps_are_checked():
    mask, cam = quarter_mask(), np.ones((8, 8))
    with pytest.raises(ValueError, match="only 0 and 1, not values from 0 to 255"):
        energy_inside_mask(cam, mask.astype(np.uint8) * 255)
    with pytest.raises(ValueError, match=r"\(8, 8\) and mask \(4, 4\)"):
        pointing_hit(cam, mask[:4, :4])
    with pytest.raises(ValueError, match="negative or NaN; its minimum is -1"):
        energy_inside_mask(-cam, mask)
    with pytest.raises(ValueError, match="NaN"):
        pointing_hit(np.full((8, 8), np.nan), mask)


def test_overlap_table():
    mask = quarter_mask()
    other = np.roll(mask, 4, axis=1)
    maps = np.stack([4.0 * mask, np.ones((8, 8)), np.zeros((8, 8)), np.ones((8, 8))])
    masks = np.stack([mask, other, mask, np.zeros((8, 8), bool)])
    table = overlap_table(maps, masks, ["a", "b", "c", "d"])
    assert table.index.tolist() == ["a", "b", "c", "d"] and table.index.name == "image_id"
    np.testing.assert_array_equal(table.energy_inside, [1, 0.25, np.nan, np.nan])
    # The first map is in one corner; of the two other masks one covers it, the other does not.
    np.testing.assert_array_equal(table.energy_in_other_masks, [0.5, 0.25, np.nan, 0.25])
    np.testing.assert_array_equal(table.pointing_hit, [1, 0.25, np.nan, np.nan])
    np.testing.assert_array_equal(table.mask_share, [0.25, 0.25, 0.25, 0])
    np.testing.assert_array_equal(table.maximum, [4, 1, 0, 1])
    assert table.zero_map.tolist() == [False, False, True, False]
    assert np.isnan(overlap_table(maps[:1], masks[:1], ["a"]).energy_in_other_masks["a"])
    with pytest.raises(ValueError, match="must both be"):
        overlap_table(maps, masks[:2], ["a", "b"])
    with pytest.raises(ValueError, match="4 maps but 1 image_ids"):
        overlap_table(maps, masks, ["a"])


def test_iou_of_squares_is_known():
    mask, cam = np.zeros((20, 20), bool), np.zeros((20, 20))
    mask[5:15, 5:15], cam[5:15, 10:20] = True, 3.0
    assert iou_at_otsu(cam, mask) == pytest.approx(50 / 150)
    assert iou_at_otsu(mask * 2.0, mask) == 1
    assert np.isnan(iou_at_otsu(np.ones((20, 20)), mask))
    assert np.isnan(iou_at_otsu(cam, np.zeros((20, 20), bool)))
    with pytest.raises(ValueError, match="must have one shape"):
        iou_at_otsu(cam[:10], mask)


def test_random_cells_are_drawn_and_enlarged():
    cells = random_map((4, 4), 4, 1)
    assert len(np.unique(cells)) == 16 and 0 <= cells.min() and cells.max() <= 1
    assert random_map((10, 12), 5, 1).shape == (10, 12)
    np.testing.assert_array_equal(random_map((10, 12), 5, 1), random_map((10, 12), 5, 1))
    assert not np.array_equal(random_map((10, 12), 5, 1), random_map((10, 12), 5, 2))


def test_random_cells_point_anywhere():
    mask = quarter_mask()
    hits = [pointing_hit(random_map((8, 8), 8, seed), mask) for seed in range(2000)]
    assert np.mean(hits) == pytest.approx(0.25, abs=0.04)


def test_the_center_is_highest_and_the_corners_are_zero():
    center = center_map((11, 11))
    assert center[5, 5] == 1 == center.max()
    assert center[0, 0] == pytest.approx(0) == center[10, 0] and center.min() > -1e-12


def test_edges_are_where_the_step_is():
    step = np.zeros((10, 10))
    step[:, 5:] = 255
    edges = edge_map(step)
    assert edges[:, 4:6].min() > 0.5 and edges[:, :3].max() == 0 == edges[:, 7:].max()


def test_similarity_of_known_pairs():
    cam = np.random.default_rng(0).random((16, 16))
    assert similarity(cam, 3 * cam) == pytest.approx((1, 1))
    assert similarity(cam, 1 - cam)[0] == pytest.approx(-1)
    assert abs(similarity(cam, np.random.default_rng(1).random((16, 16)))[0]) < 0.2
    assert np.isnan(similarity(cam, np.zeros((16, 16)))).all()
    assert np.isnan(similarity(cam, np.ones((16, 16)))[0])


def test_pixels_are_replaced_in_order():
    image, replacement = np.zeros((2, 2, 1)), np.full((2, 2, 1), 9.0)
    frames = perturb(image, np.array([[4, 3], [2, 1]]), replacement, steps=4)[..., 0]
    assert [frame.ravel().tolist() for frame in frames] == [
        [0, 0, 0, 0], [9, 0, 0, 0], [9, 9, 0, 0], [9, 9, 9, 0], [9, 9, 9, 9],
    ]  # fmt: skip


def test_equal_pixels_have_no_preferred_side():
    image, replacement = np.zeros((40, 40, 1)), np.ones((40, 40, 1))
    half = perturb(image, np.zeros((40, 40)), replacement, steps=2)[1, ..., 0]
    assert half.sum() == 800
    assert half[:20].mean() == pytest.approx(0.5, abs=0.05)
    assert half[:, :20].mean() == pytest.approx(0.5, abs=0.05)


def test_curves_of_a_network_that_looks_at_one_pixel():
    image, blurred = np.zeros((10, 10, 1)), np.zeros((10, 10, 1))
    image[2, 3] = 100.0
    first, last = np.zeros((10, 10)), np.ones((10, 10))
    first[2, 3], last[2, 3] = 1, 0

    def look_at_one_pixel(images: np.ndarray) -> np.ndarray:
        return images[:, 2, 3, 0] / 100

    areas = {
        name: [
            area_under(curve) for curve in faithfulness(look_at_one_pixel, image, order, blurred)
        ]
        for name, order in {"first": first, "last": last}.items()
    }
    # Twenty steps: the curve falls, or rises, within the first or the last one.
    assert areas["first"] == pytest.approx([0.025, 0.975])
    assert areas["last"] == pytest.approx([0.975, 0.025])
