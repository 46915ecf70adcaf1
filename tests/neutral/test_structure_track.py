"""The structure track's measures: OpenCV's own values, a restatement by flood fill, scipy's fit, the published row."""
import numpy as np
import pytest
from scipy import ndimage, optimize, stats

from jittwin.data.submission import binarise, to_levels
from jittwin.draws import Draws
from jittwin.imaging import resize_levels
from jittwin.metrics import distortion_regions
from jittwin.metrics.distortion_regions import (
    PREDICTED_LEAST,
    SIDE,
    TRUE_LEAST,
    Tally,
    compared,
    on_square,
    regions,
)
from jittwin.metrics.structure_track import THRESHOLDS, StructureTrack, final_score, fitted, score_agreement


def square(*boxes, side=SIDE):
    """bool (side, side) with these (top, left, bottom, right) set."""
    mask = np.zeros((side, side), bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


def drawn(*rows):
    return np.array([[pixel == "#" for pixel in row] for row in rows])


# ---- areas and regions --------------------------------------------------------------

# Values of cv2.contourArea.
@pytest.mark.parametrize("mask, area", [
    (np.ones((10, 10), bool), 81), (np.ones((1, 9), bool), 0), (np.ones((1, 1), bool), 0), (np.ones((2, 2), bool), 1),
    (drawn(".#.", "###", ".#."), 2), (drawn("##.", "##.", "..#"), 1), (drawn("####", ".###", "..##", "...#"), 4.5)])
def test_areas_are_those_of_contours(mask, area):
    two = np.concatenate([mask, np.zeros((len(mask), 1), bool), mask], 1)
    for place, count in ((mask, 1), (mask.T, 1), (two, 2)):
        assert regions(place, area - 0.25)[1] == count and regions(place, area)[1] == 0


def test_holes_are_filled_and_corners_connect():
    ring = square((10, 10, 60, 60))
    ring[20:50, 20:50] = False
    ring[30:40, 30:40] = True                       # an island in the hole is no region of its own
    ring[60:80, 60:80] = True                       # touches at a corner
    numbers, count = regions(ring, 10)
    assert count == 1 and (numbers > 0).sum() == 50 * 50 + 20 * 20
    assert regions(square((0, 0, 20, 20), (40, 40, 45, 45)), 300)[1] == 1
    assert regions(np.zeros((SIDE, SIDE), bool), 0)[1] == 0


def test_regions_are_scipys_components_of_the_filled_mask():
    """Of grain and of large places, which touch the border. Every 2x2 window that lies inside a region adds 1."""
    for number in range(300):
        draws = Draws(number)
        noise = ndimage.gaussian_filter(draws.normal("noise", (30, 47)), number % 5 * 0.7)
        mask = noise > np.quantile(noise, draws.uniform("part", ()))
        least = float(draws.integers("least", -1, 12, ()))
        outside, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
        labels, count = ndimage.label(outside != 1, np.ones((3, 3)))
        windows = np.lib.stride_tricks.sliding_window_view(labels, (2, 2)).reshape(-1, 4)
        kept = [label for label in range(1, count + 1) if
                ((inside := (windows == label).sum(1)) == 4).sum() + (inside == 3).sum() / 2 > least]
        found, amount = regions(mask, least)
        assert amount == len(kept)
        expected = np.where(np.isin(labels, kept), labels, 0)[1:-1, 1:-1]
        assert np.array_equal(found > 0, expected > 0)
        pairs = np.unique(np.stack([found.ravel(), expected.ravel()]), axis=1)
        assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


def flooded(mask, least):
    """The regions as sets of pixels: what cannot be reached from outside by steps to the four sides, cut into parts by
    steps to eight sides; the area from the border polygon's corner rule, block by block."""
    height, width = mask.shape
    outside, ways = {(-1, -1)}, [(-1, -1)]
    while ways:
        y, x = ways.pop()
        for a, b in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if -1 <= a <= height and -1 <= b <= width and (a, b) not in outside and not (
                    0 <= a < height and 0 <= b < width and mask[a, b]):
                outside.add((a, b))
                ways.append((a, b))
    rest = {(y, x) for y in range(height) for x in range(width)} - outside
    found = []
    while rest:
        part, ways = set(), [rest.pop()]
        while ways:
            y, x = ways.pop()
            part.add((y, x))
            near = {(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & rest
            rest -= near
            ways += near
        corners = [sum((y + a, x + b) in part for a in (0, 1) for b in (0, 1)) for y, x in {
            (y - a, x - b) for y, x in part for a in (0, 1) for b in (0, 1)}]
        if corners.count(4) + corners.count(3) / 2 > least:
            found.append(part)
    return found


def test_counts_equal_a_restatement_by_flood_fill(monkeypatch):
    side = 40
    monkeypatch.setattr(distortion_regions, "SIDE", side)
    monkeypatch.setattr(distortion_regions, "TRUE_LEAST", 4.0)
    total = Tally()
    for number in range(60):
        draws = Draws(number)
        first, noise = (ndimage.gaussian_filter(draws.normal(name, (side, side)), 2.2) for name in "ab")
        predicted, true = first > 0.08, first + noise > 0.08
        found = compared(predicted, true, 6 / side ** 2)
        a, b = flooded(predicted, 6), flooded(true, 4)
        meets = [[len(x & y) / len(x | y) > 0.1 for y in b] for x in a]
        matched = [any(row) for row in meets], [any(row[j] for row in meets) for j in range(len(b))]
        assert (found.predicted, found.hits, found.true, found.misses) == (
            len(a), sum(matched[0]), len(b), len(b) - sum(matched[1]))
        assert found.overlap == pytest.approx(((predicted & true).sum() + 1e-4) / ((predicted | true).sum() + 1e-4))
        total += found
    assert total.pictures == 60 and 0.2 < total.precision < 0.98 and 0.2 < total.recall < 0.98 and total.hits > 60


def test_small_regions_do_not_count_and_the_overlap_decides():
    # 14 pixels square have 169 of area, 13 have 144: more than 157.3 and 150, and less.
    assert compared(square((0, 0, 14, 14)), square((0, 0, 14, 14))) == Tally(1, 1, 1, 0, 1, 1.0)
    assert compared(square((0, 0, 13, 13)), square((0, 0, 13, 13))) == Tally(0, 0, 0, 0, 1, 1.0)
    assert PREDICTED_LEAST * SIDE ** 2 == pytest.approx(157.2864) and TRUE_LEAST == 150
    true = square((0, 0, 100, 100))
    for width, hits in ((10, 0), (11, 1)):          # intersection over union 0.1 and 0.11
        assert compared(square((0, 0, 100, width)), true).hits == hits
    assert compared(square((0, 0, 20, 20)), square((0, 0, 20, 20)), 0.01) == Tally(0, 0, 1, 1, 1, 1.0)
    both = compared(square((0, 0, 100, 40), (0, 60, 100, 100)), true)       # one annotated region, met by two
    assert (both.predicted, both.hits, both.true, both.misses) == (2, 2, 1, 0)


@pytest.mark.parametrize("tally, precision, recall, f1", [
    (Tally(), 1, 1, 1), (Tally(predicted=2), 0, 0, 0), (Tally(true=2, misses=2), 0, 0, 0),
    (Tally(4, 3, 2, 1), 0.75, 0.5, 0.6)])
def test_nothing_predicted_or_annotated_divides_by_nothing(tally, precision, recall, f1):
    assert (tally.precision, tally.recall) == (precision, recall) and tally.f1 == pytest.approx(f1)
    assert np.isnan(Tally().iou)


# Pixels that are not 0 after cv2.resize to 512 x 512.
@pytest.mark.parametrize("side, box, expected", [
    (768, (100, 100, 200, 200), 4356), (448, (31, 40, 130, 222), 23682), (640, (33, 40, 131, 222), 11495),
    (1024, (101, 100, 200, 203), 2599), (512, (3, 4, 7, 9), 20)])
def test_masks_are_brought_to_the_square(side, box, expected):
    assert on_square(square(box, side=side).astype(np.uint8)).sum() == expected


# ---- scores -------------------------------------------------------------------------

def test_the_published_baseline_has_its_final_score():
    precision, recall, plcc, srcc = 0.5086, 0.6728, 0.6945, 0.6677
    f1 = 2 * precision * recall / (precision + recall)
    assert f1 == pytest.approx(0.5793, abs=5e-5) and final_score(f1, plcc, srcc) == pytest.approx(0.6098, abs=5e-5)
    assert final_score(0.5, float("nan"), 0.4) == pytest.approx(0.35 + 0.3 * 0.2)


def test_plcc_is_measured_after_the_logistic_fit():
    votes = np.linspace(0.02, 0.98, 60)
    predicted = np.log(votes / (1 - votes)) + 0.01 * Draws(1).normal("noise", (60,))
    plcc, srcc = score_agreement(predicted, votes)
    assert plcc > 0.9995 > 0.99 > np.corrcoef(predicted, votes)[0, 1]
    assert srcc == pytest.approx(stats.spearmanr(predicted, votes).statistic)

    def curve(x, b1, b2, b3, b4):
        return b2 + (b1 - b2) / (1 + np.exp(-(x - b3) / abs(b4)))

    found, _ = optimize.curve_fit(curve, predicted, votes, (votes.max(), votes.min(), predicted.mean(), predicted.std()),
                                  maxfev=10 ** 6)
    np.testing.assert_allclose(fitted(predicted, votes), curve(predicted, *found), atol=1e-5)


@pytest.mark.parametrize("predicted, votes", [
    ([0.1, 0.2, 0.3], [1, 2, 3]), ([0.1, 0.2, 0.9, 0.4, 0.5], [2, 1, 3, 3, 1]), ([0, 0, 0, 0, 1], [1, 2, 3, 4, 5])])
def test_no_fit_leaves_the_plain_correlation_or_a_better_one(predicted, votes):
    plcc, srcc = score_agreement(predicted, votes)
    assert np.isfinite(plcc) and np.isfinite(srcc) and plcc >= np.corrcoef(predicted, votes)[0, 1] - 1e-6


@pytest.mark.parametrize("predicted, votes", [([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]), ([1], [2]), ([0.1, np.nan], [1, 2])])
def test_correlations_that_are_not_defined(predicted, votes):
    assert np.isnan(score_agreement(predicted, votes)).all()


# ---- thresholds ---------------------------------------------------------------------

def test_the_search_finds_the_threshold_that_separates_and_is_what_is_handed_in():
    heat = np.full((SIDE, SIDE), 0.3)
    heat[100:200, 100:200] = 0.3535                  # 90.14
    heat[300:400, 300:400] = 0.3563                  # 90.86, which rounds to 91
    true = square((300, 300, 400, 400)).astype(np.uint8)
    area = to_levels(heat)
    assert np.unique(area).tolist() == [76, 90, 91]
    track = StructureTrack(THRESHOLDS)
    for score, vote in ((0.1, 0.2), (0.5, 0.4), (0.8, 0.9), (0.9, 0.8), (0.3, 0.5)):
        track.add(area, score, 180 * true, vote)
    outcome = track.outcome()
    single = StructureTrack((outcome.threshold,))
    seen = on_square(binarise(area, outcome.threshold).astype(np.uint8))
    for score, vote in ((0.1, 0.2), (0.5, 0.4), (0.8, 0.9), (0.9, 0.8), (0.3, 0.5)):
        single.add(area, score, true, vote)
    assert outcome.threshold == 90 and seen.sum() == true.sum() and outcome.measures == single.outcome().measures
    assert outcome.measures["f1"] == pytest.approx(1) and set(outcome.by_threshold) == set(THRESHOLDS)
    assert outcome.by_threshold[80] < outcome.by_threshold[90] and outcome.by_threshold[95] < 0.5
    assert outcome.measures["final"] == pytest.approx(
        final_score(1.0, outcome.measures["plcc"], outcome.measures["srcc"]), abs=1e-9)
    with pytest.raises(ValueError, match="no picture"):
        StructureTrack().outcome()


def test_the_measures_of_drawn_pictures_are_what_they_were():
    """Counted with scipy's components of whole pictures, before runs of pixels took their place."""
    def drawn_levels(name, number, grid, size):
        return resize_levels(Draws(number).integers(name, 0, 256, (grid, grid)).astype(np.uint8), size)

    track = StructureTrack((0, 40, 90, 110))
    for number, side in enumerate((128, 512, 768, 200)):
        places, grain = (drawn_levels(name, number, grid, (side, side)) for name, grid in (("places", 14), ("grain", 90)))
        marks = drawn_levels("marks", number, 12, (300, 400)) // 200
        track.add(np.maximum(places, 70) - 70 + grain // 8, number, marks, number)
    assert track.tallies == {
        0: Tally(4, 0, 60, 60, 4, 0.3113141308164809), 40: Tally(6, 1, 60, 59, 4, 0.2932387123645549),
        90: Tally(79, 12, 60, 48, 4, 0.24249910116435391), 110: Tally(92, 15, 60, 45, 4, 0.21486690522824287)}


def test_levels_round_and_the_threshold_itself_is_not_above_it():
    assert to_levels(np.array([0, 90.4 / 255, 90.6 / 255, 1, 1.5, -1])).tolist() == [0, 90, 91, 255, 255, 0]
    assert binarise(np.array([89, 90, 91], np.uint8)).tolist() == [False, False, True]
