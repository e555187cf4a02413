"""What a trial has for TensorBoard's HParams page."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from genlab.core.storage import locate
from genlab.sweeps.hparams import write_hyperparameters
from genlab.training.tracking import Tracker


def test_a_trials_point_stands_on_the_hparams_page_beside_its_metrics(tmp_path: Path) -> None:
    options = {"objective.beta": 0.5, "data.flip": True, "schedule": "cosine", "model.channels": [8, 16]}
    for step in (1, 2):  # the second goes on with the run
        write_hyperparameters(locate(tmp_path), options, ["val/kid"])
        with Tracker(locate(tmp_path), step - 1) as tracker:
            tracker.log("val", step, 8 * step, step, {"kid": 1.0 / step})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {(one.step, one.value) for one in events.Scalars("val/kid")} == {(1, 1.0), (2, 0.5)}
    found = events.PluginTagToContent("hparams")
    start = HParamsPluginData.FromString(found["_hparams_/session_start_info"]).session_start_info
    values = {name: getattr(value, str(value.WhichOneof("kind"))) for name, value in start.hparams.items()}
    assert values == options | {"model.channels": "[8, 16]"}
    shown = HParamsPluginData.FromString(found["_hparams_/experiment"]).experiment
    assert {one.name for one in shown.hparam_infos} == options.keys()
    assert [one.name.tag for one in shown.metric_infos] == ["val/kid"]
