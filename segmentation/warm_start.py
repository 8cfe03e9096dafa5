"""Beginning a run with what an earlier one learned."""

from __future__ import annotations

from gaze_capture.errors import UserError
from segmentation.checkpoints import latest_checkpoint, load_state, load_weights, shapes
from segmentation.job import RunSpec
from segmentation.methods.base import Method
from segmentation.runs import RunFolder
from segmentation.study import Study


def begin_with(method: Method, study: Study, spec: RunSpec) -> None:
    """Give a method's networks the weights of the run that `spec.warm_start` names; the student those that predict.

    Raises
    ------
    UserError
        If the study has no such run, it has no checkpoint, or its networks are of another architecture or for other
        targets.
    """
    run_id = spec.warm_start
    if run_id not in study.run_ids():
        raise UserError(f"The study has no run {run_id!r} to begin with; name one of its runs as warm_start.")
    earlier = RunFolder(study.runs_folder / run_id)
    folder = latest_checkpoint(earlier)
    if folder is None:
        raise UserError(
            f"The run {run_id} has learned nothing to begin with yet: it has no checkpoint. Train it first."
        )
    learned = earlier.spec
    if learned.targets != spec.targets:
        raise UserError(
            f"The run {run_id} cannot be built on: it learned {', '.join(learned.targets)}, in this order, not "
            f"{', '.join(spec.targets)}; begin with a run of the same targets."
        )
    predicts = load_state(folder)["predicts"]
    for name, network in method.networks.items():
        file = predicts if name == "student" else name
        weights = load_weights(folder, file) if (folder / f"{file}.safetensors").exists() else {}
        if shapes(weights) != shapes(network.state_dict()):
            raise UserError(
                f"The run {run_id} (method {learned.method}) cannot be built on: its {name} network has another "
                f"architecture than that of this run (method {spec.method}); begin with a run of the same method and "
                "widths."
            )
        network.load_state_dict(weights)
