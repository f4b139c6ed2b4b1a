import io
import json
import os

import pytest
from PIL import Image

from app.implementations.training.loss_curve import Curve, draw, earlier_curve, png, smoothed


def curve(steps, every=5):
    made = Curve()
    for step in range(1, steps + 1):
        made.add(step, {"loss": 3 / step, "learning_rate": 1e-3 * step, "grad_norm": 1.0})
        if step % every == 0:
            made.add(step, {"eval_loss": 3.5 / step, "perplexity": 2.0})
    return made


def lines(figure):
    losses, rates = figure.axes
    return {line.get_label(): line.get_xydata().tolist() for line in losses.lines} | {
        "learning rate": rates.lines[0].get_xydata().tolist()
    }


def test_every_point_is_in_the_picture():
    drawn = lines(draw(curve(20), "shop"))
    assert drawn["training"] == [[step, 3 / step] for step in range(1, 21)]
    assert drawn["validation"] == [[step, 3.5 / step] for step in (5, 10, 15, 20)]
    assert [step for step, _ in drawn["training, smoothed"]] == list(range(1, 21))
    assert drawn["learning rate"] == [[step, 1e-3 * step] for step in range(1, 21)]


def test_the_lowest_validation_loss_is_named():
    made = curve(10)
    made.add(15, {"eval_loss": 0.9})
    assert draw(made, "shop").axes[0].get_title("right") == "lowest validation loss 0.35 at step 10"


@pytest.mark.parametrize("steps", [1, 3, 2000])
def test_it_is_a_picture_of_a_readable_size(steps):
    picture = Image.open(io.BytesIO(png(draw(curve(steps), "shop"))))
    picture.verify()
    assert picture.format == "PNG"
    assert picture.width >= 1000
    assert picture.height >= 600


@pytest.mark.parametrize(("last", "from_zero"), [(1.0, True), (5.9, False)])
def test_a_loss_that_moves_little_fills_the_picture_too(last, from_zero):
    bottom, _ = draw(Curve(loss={1: 6.0, 2: last}), "shop").axes[0].get_ylim()
    assert (bottom == 0) == from_zero
    assert bottom <= last


def test_without_validation_there_is_no_line_for_it():
    assert "validation" not in lines(draw(curve(3), "shop"))


def test_smoothing_is_a_centred_mean():
    assert smoothed([4.0]) == [4.0]
    assert smoothed([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == pytest.approx([2.0, 2.5, 3.0, 4.0, 4.5, 5.0])
    noisy = smoothed([1.0, -1.0] * 500)
    assert max(map(abs, noisy)) < 0.1


def events(folder, number, losses, at, tail=""):
    """An attempt's, written at the time ``at``."""
    place = folder / "attempts" / number
    place.mkdir(parents=True)
    written = [
        {"seq": step, "type": "metrics", "data": {"step": step, "loss": loss, "learning_rate": 0.1}}
        for step, loss in losses.items()
    ]
    written.insert(0, {"seq": 0, "type": "message", "data": {}})
    file = place / "events.ndjson"
    file.write_text("".join(json.dumps(event) + "\n" for event in written) + tail)
    os.utime(file, (at, at))


def test_earlier_attempts_are_remembered(tmp_path):
    """Up to where the present one began; of a step that was done twice, the later loss."""
    events(tmp_path, "2", {1: 3.0, 2: 2.0, 3: 1.5}, at=100, tail='{"seq": 9, "type": "met')
    events(tmp_path, "10", {3: 1.25, 4: 1.0, 5: 0.9, 6: 0.8}, at=200)
    (tmp_path / "attempts" / "11").mkdir()  # it has said nothing yet
    found = earlier_curve(tmp_path, before=5)
    assert found.loss == {1: 3.0, 2: 2.0, 3: 1.25, 4: 1.0}
    assert found.learning_rate.keys() == found.loss.keys()

    now = Curve(loss={5: 0.95, 6: 0.85}, eval_loss={6: 1.0})
    whole = now.after(found)
    assert whole.loss == {1: 3.0, 2: 2.0, 3: 1.25, 4: 1.0, 5: 0.95, 6: 0.85}
    assert (whole.eval_loss, now.first_step) == ({6: 1.0}, 5)


def test_a_run_that_begins_with_the_first_step_has_no_past(tmp_path):
    events(tmp_path, "1", {1: 9.0, 2: 9.0}, at=100)
    assert earlier_curve(tmp_path, before=1) == Curve()
    assert earlier_curve(tmp_path / "nothing here", before=9) == Curve()
