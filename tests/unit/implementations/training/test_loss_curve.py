import io
import json

import pytest
from PIL import Image

from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import TrainerJob
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


def test_without_validation_there_is_no_line_for_it():
    assert "validation" not in lines(draw(curve(3), "shop"))


def test_smoothing_is_a_centred_mean():
    assert smoothed([4.0]) == [4.0]
    assert smoothed([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == pytest.approx([2.0, 2.5, 3.0, 4.0, 4.5, 5.0])
    noisy = smoothed([1.0, -1.0] * 500)
    assert max(map(abs, noisy)) < 0.1


def events(folder, number, job_id, attempt, losses, tail=""):
    place = folder / "attempts" / number
    place.mkdir(parents=True)
    (place / "job.json").write_text(json.dumps({"job_id": job_id, "attempt": attempt}))
    written = [
        {"seq": step, "type": "metrics", "data": {"step": step, "loss": loss, "learning_rate": 0.1}}
        for step, loss in losses.items()
    ]
    written.insert(0, {"seq": 0, "type": "message", "data": {}})
    (place / "events.ndjson").write_text("".join(json.dumps(event) + "\n" for event in written) + tail)


def test_earlier_attempts_at_the_job_are_remembered(tmp_path):
    """The tenth after the second; a step that was done again counts as it was last; other jobs' do not count."""
    events(tmp_path, "2", "ftjob-1", 2, {1: 3.0, 2: 2.0, 3: 1.5}, tail='{"seq": 9, "type": "met')
    events(tmp_path, "10", "ftjob-1", 10, {3: 1.25, 4: 1.0})
    events(tmp_path, "2-2", "ftjob-other", 2, {1: 9.0, 9: 9.0})
    events(tmp_path, "11", "ftjob-1", 11, {5: 9.0})
    (tmp_path / "attempts" / "12").mkdir()
    job = TrainerJob("ftjob-1", 11, "torch", TrainingConfig(), tmp_path, tmp_path, tmp_path, threads=1)
    found = earlier_curve(job)
    assert found.loss == {1: 3.0, 2: 2.0, 3: 1.25, 4: 1.0}
    assert found.learning_rate.keys() == found.loss.keys()
