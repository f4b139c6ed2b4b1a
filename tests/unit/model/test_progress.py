from datetime import UTC, datetime

from app.core.entities.jobs import JobEvent
from app.model.progress import RunProgress


def event(seq, kind, message="", **data):
    return JobEvent(seq, kind, "info", message, datetime.now(UTC), data)


def figures(step, total):
    return {
        "step": step,
        "total_steps": total,
        "loss": 0.5,
        "learning_rate": 1e-3,
        "tokens_per_second": 321.4,
        "eta_seconds": 65.0,
    }


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr("app.model.progress._is_terminal", lambda: True)
    with RunProgress() as progress:
        progress(event(1, "message", "loading"))
        for step in (1, 2, 3):
            progress(event(step + 1, "metrics", **figures(step, 3)))
        progress(event(5, "metrics", step=3, total_steps=3, eval_loss=0.25, perplexity=1.28))
        progress(event(6, "metrics", step=3, total_steps=3, eval_loss=0.5, eval_accuracy=0.8, eval_macro_f1=0.7))
        progress(event(7, "metrics", step=3, total_steps=3, eval_loss=0.4, eval_accuracy=0.9, eval_margin=1.25))

    said = capsys.readouterr().err
    assert "loading" in said
    assert "3/3" in said
    assert "loss 0.500  321 tokens/s  1:05 left" in said
    assert "validation loss 0.250\n" in said
    assert "validation loss 0.500, accuracy 0.800, macro-F1 0.700" in said
    assert "step 3: validation loss 0.400, accuracy 0.900, margin 1.250\n" in said


def test_a_log_gets_few_lines(capsys):
    with RunProgress() as progress:
        for step in range(1, 101):
            progress(event(step, "metrics", **figures(step, 100)))

    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["1/100", "100/100"]
