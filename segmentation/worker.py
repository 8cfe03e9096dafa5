"""The worker process: one job given as JSON, told in events, one line each.

Jobs are objects with a ``task``:

- ``train``: ``study``, ``run``, ``text_encoder_folder``, ``image_encoder_folder``
- ``predict``: ``study``, ``run``, ``split`` or ``images``, ``networks``, ``overwrite``, ``flip_average``, ``device``,
  ``engine``, ``text_encoder_folder``, ``shard``: ``[1, 4]`` for the second of four shares of the images
- ``text-use``: ``study``, ``run``, ``split`` or ``images``, ``limit``, ``device``, ``text_encoder_folder``
- ``embed``: ``study``, and ``folder`` (a text encoder, or null for MiniLM) where the study shall have another encoder,
  else ``text_encoder_folder``
- ``import-embeddings``: ``study``, ``folder``, ``name``, ``target``, ``split``, ``token_axis``, ``width``
- ``image-encoder``: ``study``, ``encoder`` (a folder, or a name of the Hugging Face hub), ``allow_download``
- ``import-checkpoint``: ``study``, ``file``, ``name`` (of the run, or null), ``target`` (or null)
- ``export-model``: ``study``, ``run``, ``folder``, ``onnx``
- ``pack``: ``study``, ``spec``, ``file``, ``text_encoder_folder``, ``image_encoder_folder``
- ``pseudomask``: ``study``, ``settings``, ``split``, ``segmenter_folder`` (of the refiner ``sam``)
- ``describe``: ``model``, ``device``, ``dtype``, ``allow_download``. No study is opened for it: what is to be described
  arrives on stdin, one JSON object a line (see `segmentation.vlm_local.describe`), up to ``{"end": true}``.

``text_encoder_folder`` and ``image_encoder_folder`` are given where this computer has that encoder. All take
``threads`` (None: all cores), ``detached``, ``tell`` (on stdout, though detached) and ``nice``. What a training tells
is kept in its run's events.jsonl.

Of several workers that torchrun starts with the same job, ``train`` or ``predict``, the first leads and tells for all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, read_json, write_json_atomic
from segmentation.job import JobEvent, Kind, ProcessGone, RunSpec
from segmentation.runs import HEARTBEAT_SECONDS, RunFolder, begun_after
from segmentation.study import Study

OUT_OF_MEMORY = (
    "Memory ran out. Choose a smaller batch_size, image_size_px or narrower networks for the run, "
    "or close other programs."
)


class Reporter:
    """Writes events to a file that is only ever added to and, where somebody listens, to a stream."""

    def __init__(self, run_id: str, path: Path | None, stream: BinaryIO | None) -> None:
        self._run_id = run_id
        self._path = path
        self._stream = stream
        if path is not None and path.exists() and not path.read_bytes().endswith(b"\n"):
            # A crash tore the last line: close it, so that the next event begins its own.
            self._append(b"\n")

    def _append(self, data: bytes) -> None:
        assert self._path is not None
        with explained_os_errors(self._path), open(self._path, "ab", buffering=0) as file:
            file.write(data)

    def __call__(self, kind: Kind, step: int, total: int, **values: object) -> None:
        """Report one event."""
        line = (JobEvent(self._run_id, kind, step, total, time.time(), values).to_line() + "\n").encode()
        if self._stream is not None:
            with contextlib.suppress(OSError):
                self._stream.write(line)
                self._stream.flush()
        if self._path is not None:
            self._append(line)


def main(arguments: list[str]) -> int:
    """Do the job given as JSON, or as the path of a JSON file; return the exit status."""
    status = _work(arguments)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # All is written. Torn down with the interpreter, gloo's threads now and then abort what has ended well.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _work(arguments: list[str]) -> int:
    stream = _claim_stdout()
    [argument] = arguments
    job = json.loads(argument) if argument.lstrip().startswith("{") else read_json(Path(argument))
    detached = bool(job.get("detached"))
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    if not detached:
        _end_with_parent(lines.put)
    if job["task"] == "predict":
        # Ctrl-C reaches all programs of a terminal: who started this one asks it to stop, so that nothing is cut off.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    _lower_priority(int(job.get("nice", 10)))
    started = time.time()
    run = RunFolder(Path(job["study"]) / "runs" / job["run"]) if job.get("run") else None
    training = run is not None and job["task"] == "train"
    leads = os.environ.get("TORCHELASTIC_RUN_ID") is None or os.environ.get("RANK") == "0"
    events = run.events_path if run and training and leads else None
    told = not detached or bool(job.get("tell"))
    report = Reporter(run.id if run else "", events, stream if leads and told else None)
    if run and training:
        _stop_when_terminated(run)
    try:
        with _heartbeat(run) if run and training and leads else contextlib.nullcontext():
            finished = _describe(job, lines, report) if job["task"] == "describe" else _do(job, run, report)
        if not finished:
            _tell_ending(report, "stopped", "Stopped as asked; what was done is kept.")
        return 0
    except UserError as error:
        reason, known = str(error), isinstance(error, ProcessGone)
    except MemoryError:
        traceback.print_exc()
        reason, known = OUT_OF_MEMORY, False
    except Exception as error:
        traceback.print_exc()
        reason, known = _sentence(error), False
    if run and training and (known or not leads):
        # The leader learns only that another is gone; what happened is told by whom it happened to, once.
        if _has_failed(run, started) or (known and not leads):
            return 1
        if not leads:
            reason = f"Process {os.environ.get('RANK')} on {socket.gethostname()}: {reason}"
            report = Reporter(run.id, run.events_path, None)
    _tell_ending(report, "failed", reason)
    return 1


def _describe(job: dict[str, Any], lines: queue.SimpleQueue[bytes], report: Reporter) -> bool:
    """Answer what arrives on stdin."""
    from segmentation.device import use_threads
    from segmentation.vlm_local import describe

    def items() -> Iterator[dict[str, Any]]:
        while not (item := json.loads(lines.get())).get("end"):
            yield item

    use_threads(job.get("threads"))
    return describe(job, items(), report)


def _do(job: dict[str, Any], run: RunFolder | None, report: Reporter) -> bool:
    """Do the job; False if it was stopped before its end."""
    study = Study.open(job["study"])
    # Torch is imported here, not above: a broken installation becomes a `failed` event, too.
    import cv2

    cv2.setNumThreads(1)
    if job["task"] in ("embed", "import-embeddings"):
        return _do_text(job, study, report)
    if job["task"] == "image-encoder":
        from segmentation.backbones import find

        folder, fields = find(job["encoder"], bool(job.get("allow_download")))
        report("done", 1, 1, folder=str(folder), fields=fields)
        return True
    if job["task"] == "pseudomask":
        return _do_pseudomasks(job, study, report)
    if job["task"] == "import-checkpoint":
        from segmentation.checkpoint_import import import_checkpoint

        made = import_checkpoint(study, Path(job["file"]), run_id=job["name"], target=job["target"])
        report("done", 1, 1, **made)
        return True
    known = job.get("text_encoder_folder")
    encoder_folder = Path(known) if known else None
    if job["task"] == "pack":
        return _do_packing(job, study, report, encoder_folder)
    if job["task"] == "train" and run:
        from segmentation.device import keep_freed_memory
        from segmentation.processes import joined
        from segmentation.training import train

        keep_freed_memory()
        begins_with = job.get("image_encoder_folder")
        with joined() as processes:
            return train(
                study,
                run,
                report,
                threads=job.get("threads"),
                encoder_folder=encoder_folder,
                image_encoder_folder=Path(begins_with) if begins_with else None,
                processes=processes,
            )
    if job["task"] == "export-model" and run:
        return _do_model(job, run, report)
    if job["task"] == "predict" and run:
        return _do_prediction(job, study, run, report, encoder_folder)
    if job["task"] == "text-use" and run:
        from segmentation.text.measuring import measure

        return measure(
            study,
            run,
            report,
            split=job.get("split"),
            image_ids=job.get("images"),
            limit=job.get("limit"),
            device=job.get("device"),
            threads=job.get("threads"),
            encoder_folder=encoder_folder,
        )
    raise UserError(f"The worker knows no such job: {job.get('task')!r}.")


def _do_model(job: dict[str, Any], run: RunFolder, report: Reporter) -> bool:
    from segmentation.model_export import export_weights

    over = threading.Event()

    def beat() -> None:
        # Converting takes its time in one piece; who waits may cancel at each word.
        while not over.wait(0.5):
            report("progress", 0, 1, name="converting")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        facts = export_weights(run, Path(job["folder"]), onnx=bool(job["onnx"]))
    finally:
        over.set()
        thread.join()
    report("done", 1, 1, **facts)
    return True


def _do_packing(job: dict[str, Any], study: Study, report: Reporter, encoder_folder: Path | None) -> bool:
    from segmentation.device import use_threads
    from segmentation.packing import pack

    use_threads(job.get("threads"))
    begins_with = job.get("image_encoder_folder")
    packed = pack(
        study,
        RunSpec.from_json(job["spec"]),
        Path(job["file"]),
        encoder_folder=encoder_folder,
        image_encoder_folder=Path(begins_with) if begins_with else None,
        progress=lambda done, total: report("progress", done, total, name="reading images"),
    )
    report("done", packed.images, packed.images, **dataclasses.asdict(packed))
    return True


def _do_pseudomasks(job: dict[str, Any], study: Study, report: Reporter) -> bool:
    from segmentation.device import use_threads
    from segmentation.promptable import PromptableSegmenter
    from segmentation.pseudomask import PseudoMaskSettings
    from segmentation.pseudomask_making import make_pseudomasks

    def progress(done: int, total: int, label: str) -> None:
        report("progress", done, total, name=label)

    use_threads(job.get("threads"))
    made = make_pseudomasks(
        study,
        settings=PseudoMaskSettings.from_json(job["settings"]),
        segment=PromptableSegmenter(Path(job["segmenter_folder"])),
        split=job.get("split"),
        progress=progress,
    )
    report("done", made.made, made.made, **dataclasses.asdict(made))
    return True


def _do_prediction(
    job: dict[str, Any], study: Study, run: RunFolder, report: Reporter, encoder_folder: Path | None
) -> bool:
    from segmentation.device import use_threads
    from segmentation.prediction import predict
    from segmentation.processes import joined, share_out

    options: dict[str, Any] = {
        "split": job.get("split"),
        "image_ids": job.get("images"),
        "networks": tuple(job.get("networks") or ("student",)),
        "overwrite": bool(job.get("overwrite")),
        "flip_average": bool(job.get("flip_average", True)),
        "engine": job.get("engine") or "auto",
        "encoder_folder": encoder_folder,
        "heeds_earlier_stop": True,
    }
    # A share may take hours longer than another's; one that died is noticed at once all the same.
    with joined(timedelta(hours=12)) as processes:
        device = job.get("device")
        if processes.count == 1:
            index, count = job.get("shard") or (0, 1)
            options |= {"device": device, "shard": (index, count), "threads": job.get("threads")}
            return predict(study, run, report, **options)
        options |= {
            "device": processes.device(device or run.spec.device),
            "shard": (processes.rank, processes.count),
            "threads": use_threads(job.get("threads"), processes.local_count),
        }
        return share_out(processes, report, lambda tell: predict(study, run, tell, **options))


def _do_text(job: dict[str, Any], study: Study, report: Reporter) -> bool:
    def progress(done: int, total: int, label: str) -> None:
        report("progress", done, total, name=label)

    if job["task"] == "import-embeddings":
        from segmentation.text.imported import import_embeddings

        options = ("name", "target", "split", "token_axis", "width")
        found = import_embeddings(
            study,
            Path(job["folder"]),
            progress=progress,
            **{name: job[name] for name in options if name in job},
        )
        report("done", found.images, found.images, **dataclasses.asdict(found))
        return True
    from segmentation.text.embedding import chosen_encoder, embed_study, use_encoder

    if "folder" in job:
        encoder, count = use_encoder(study, Path(job["folder"]) if job["folder"] else None, progress)
    else:
        known = job.get("text_encoder_folder")
        encoder = chosen_encoder(study, Path(known) if known else None)
        count = embed_study(study, encoder, progress)
    report("done", count, count, phrases=count, name=encoder.name, sha256=encoder.sha256, width=encoder.width)
    return True


def _stop_when_terminated(run: RunFolder) -> None:
    """Stop with a checkpoint when asked to end, as clusters do before they take their machines back."""

    def stop(*_: object) -> None:
        with contextlib.suppress(UserError):
            run.request_stop()

    signal.signal(signal.SIGTERM, stop)


def _has_failed(run: RunFolder, since: float) -> bool:
    """Whether another process of the run has said what went wrong; it may still be writing."""
    for _ in range(20):
        events = run.events()
        if events and events[-1].kind == "failed" and events[-1].time >= since:
            return True
        time.sleep(0.05)
    return False


def _tell_ending(report: Reporter, kind: Kind, message: str) -> None:
    try:
        report(kind, 0, 0, message=message)
    except UserError:
        # The disk that failed the job may refuse its last word, too; the log or the stream has it then.
        traceback.print_exc()


def _sentence(error: Exception) -> str:
    text = str(error)
    if (
        type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in text
        or "not enough memory" in text
    ):
        return OUT_OF_MEMORY
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    return f"Something unforeseen went wrong: {first} ({type(error).__name__}); worker.log has the details."


def _claim_stdout() -> BinaryIO:
    """Keep the real stdout for events and lead whatever else is printed to stderr."""
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return stream


def _end_with_parent(take: Callable[[bytes], object]) -> None:
    """End this process when the one that started it is gone, whose end of our stdin is closed then.

    Until then, `take` is given each line that arrives.
    """

    def watch() -> None:
        with contextlib.suppress(OSError), open(0, "rb", closefd=False) as stream:
            for line in stream:
                take(line)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":
        import ctypes

        parent = os.getppid()

        def parent_thread_gone(*_: object) -> None:
            # The kernel sends this when the thread that started us ends, which need not be the whole program's end.
            if os.getppid() != parent:
                os._exit(1)

        signal.signal(signal.SIGUSR2, parent_thread_gone)
        ctypes.CDLL(None).prctl(1, signal.SIGUSR2)


def _lower_priority(amount: int) -> None:
    """Let the window and everything else go first."""
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            import ctypes

            below_normal = 0x4000
            ctypes.windll.kernel32.SetPriorityClass(ctypes.windll.kernel32.GetCurrentProcess(), below_normal)
        else:
            os.nice(amount)


@contextlib.contextmanager
def _heartbeat(run: RunFolder) -> Iterator[None]:
    """Say in worker.json, every other second, that this process lives."""
    ended = threading.Event()
    about = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": time.time(),
        "after": begun_after(run),
    }

    def beat() -> None:
        while not ended.is_set():
            with contextlib.suppress(UserError):
                write_json_atomic(run.path / "worker.json", {**about, "heartbeat": time.time()})
            ended.wait(HEARTBEAT_SECONDS)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
