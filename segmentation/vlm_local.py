"""A vision-language model from a local folder, at work: pictures and words in, words out. Needs transformers."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaze_capture.errors import UserError
from segmentation.vlm_folder import check_model_folder, is_hub_id

DTYPES = ("auto", "fp32", "bf16", "fp16")
ANSWER_TOKENS = 768
"""An answer is cut here; the longest preset's JSON has about 400."""
_DOWNLOADED = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")

TOO_LARGE = (
    "Memory ran out for the vision-language model; choose a smaller model, --dtype bf16, or --device cpu "
    "where it was a GPU's, or close other programs."
)


@dataclass(frozen=True)
class Generated:
    """What a model said."""

    text: str
    prompt_tokens: int
    completion_tokens: int


def describe(job: dict[str, Any], items: Iterator[dict[str, Any]], report: Callable[..., None]) -> bool:
    """Load the job's model and answer items until they end.

    An item has an ``id``, a ``picture`` (PNG, base64) and ``turns``: the prompt, then answers and what was replied
    to them. Each becomes an ``answer`` event with its ``id``, ``seconds`` and ``text`` with counts of tokens, or
    ``problem`` with ``everywhere``, which says whether the next picture can expect the same.

    Raises
    ------
    UserError
        If the model cannot be loaded.
    """
    os.environ.update(
        TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false", HF_HUB_DISABLE_TELEMETRY="1"
    )
    if not job.get("allow_download"):
        os.environ["HF_HUB_OFFLINE"] = "1"
    folder = Path(job["model"])
    if is_hub_id(job["model"]):
        report("phase", 0, 0, name="downloading the model")
        folder = find_in_hub(job["model"], bool(job.get("allow_download")))
    report("phase", 0, 0, name="loading the model", folder=str(folder))

    def loaded(done: int, total: int) -> None:
        report("progress", done, total, name="loading the model")

    model = LocalModel(folder, job.get("device") or "auto", job.get("dtype") or "auto", loaded)
    report("started", 0, 0, device=model.device, dtype=model.dtype)
    count = 0
    for item in items:
        begun = time.monotonic()
        said: dict[str, object]
        try:
            generated = model.say(base64.b64decode(item["picture"]), item["turns"])
            said = {
                "text": generated.text,
                "prompt_tokens": generated.prompt_tokens,
                "completion_tokens": generated.completion_tokens,
            }
        except UserError as error:
            said = {"problem": str(error), "everywhere": str(error) == TOO_LARGE}
        count += 1
        report("answer", count, 0, id=item["id"], seconds=time.monotonic() - begun, **said)
    report("done", count, count)
    return True


def find_in_hub(name: str, allow_download: bool) -> Path:
    """Return the folder of a model of the Hugging Face hub, downloading what is missing where that is allowed.

    Raises
    ------
    UserError
        If it is not at hand and may not or cannot be downloaded.
    """
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, local_files_only=not allow_download, allow_patterns=list(_DOWNLOADED)
            )
        )
    except Exception as error:
        if not allow_download:
            raise UserError(
                f"There is no folder {name}, and downloading that model is not permitted here; give the folder of a "
                "model, or allow the download: gaze-insight allow-sending STUDY --base-url https://huggingface.co "
                "--download --yes"
            ) from None
        raise UserError(
            f"{name} could not be downloaded from the Hugging Face hub: {_first_line(error)}; give the folder of a "
            "model instead."
        ) from None


class LocalModel:
    """A loaded image-text-to-text model with its processor.

    Raises
    ------
    UserError
        If the folder is no such model, or it cannot be loaded here; the sentence says why.
    """

    def __init__(
        self,
        folder: Path,
        device: str = "auto",
        dtype: str = "auto",
        loaded: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        check_model_folder(folder)
        where = _choose_device(device)
        precision = _choose_dtype(dtype, where)
        import safetensors
        import transformers

        _tell_loading(transformers, loaded)
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            _check_kind(transformers, folder, options)
            self._processor = transformers.AutoProcessor.from_pretrained(folder, **options)
            self._model, told = transformers.AutoModelForImageTextToText.from_pretrained(
                folder, dtype=precision, use_safetensors=True, output_loading_info=True, **options
            )
            if missing := sorted(told["missing_keys"]):
                raise UserError(
                    f"The weights in {folder} are incomplete: {len(missing)} are missing, such as {missing[0]}; "
                    "copy or download the model again."
                )
            self._model = self._model.eval().to(where)
        except ImportError as error:
            raise UserError(_missing_package(error, folder)) from None
        except safetensors.SafetensorError as error:
            raise UserError(
                f"The weights in {folder} are damaged ({_first_line(error)}); copy or download the model again."
            ) from None
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, MemoryError) as error:
            if _is_memory(error):
                raise UserError(TOO_LARGE) from None
            raise UserError(
                f"{folder} could not be loaded as a vision-language model: {_first_line(error)}"
            ) from error
        self._where, self._precision = where, precision
        self.device = str(where)
        self.dtype = str(precision).removeprefix("torch.")

    def say(self, picture_png: bytes, turns: list[str]) -> Generated:
        """Answer about a picture, choosing the likeliest word each time.

        Parameters
        ----------
        turns : the prompt, and where there was an answer already, that answer and the reply to it

        Raises
        ------
        UserError
            If memory runs out or the model cannot take the picture or the prompt.
        """
        import torch

        try:
            inputs = self._inputs(picture_png, turns).to(self._where, dtype=self._precision)
            length = inputs["input_ids"].shape[1]
            with torch.inference_mode():
                output = self._model.generate(
                    **inputs, do_sample=False, num_beams=1, max_new_tokens=ANSWER_TOKENS
                )[0]
        except (RuntimeError, MemoryError, ValueError, KeyError, TypeError, IndexError) as error:
            if _is_memory(error):
                if self._where.type == "cuda":
                    torch.cuda.empty_cache()
                raise UserError(TOO_LARGE) from None
            raise UserError(
                f"The model could not take the picture and its prompt: {_first_line(error)}"
            ) from error
        # An encoder-decoder returns its answer alone.
        new = output if self._model.config.is_encoder_decoder else output[length:]
        text = self._processor.decode(new, skip_special_tokens=True).strip()
        # Half a surrogate pair cannot be written to a file.
        return Generated(text.encode("utf-8", "replace").decode("utf-8"), length, len(new))

    def _inputs(self, picture_png: bytes, turns: list[str]) -> Any:
        from PIL import Image

        picture = Image.open(io.BytesIO(picture_png)).convert("RGB")
        if getattr(self._processor, "chat_template", None):
            messages = []
            for number, text in enumerate(turns):
                content: list[dict[str, Any]] = [{"type": "text", "text": text}]
                if number == 0:
                    content.insert(0, {"type": "image", "image": picture})
                messages.append({"role": "assistant" if number % 2 else "user", "content": content})
            return self._processor.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
        token = getattr(self._processor, "image_token", None) or ""
        return self._processor(images=picture, text="\n".join([str(token), *turns]), return_tensors="pt")


def _choose_device(wish: str) -> Any:
    import torch

    from segmentation.device import choose_device

    has_mps = torch.backends.mps.is_available()
    if wish == "mps" and not has_mps:
        raise UserError("There is no Apple GPU (mps) that this PyTorch can use; choose --device auto or cpu.")
    if wish == "mps" or (wish == "auto" and has_mps and not torch.cuda.is_available()):
        return torch.device("mps")
    return choose_device(wish)


def _choose_dtype(wish: str, device: Any) -> Any:
    import torch

    known = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if wish == "auto":
        # Processors compute slowly in halves; older GPUs only imitate bf16.
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        wish = "bf16" if has_bf16 else "fp16" if device.type == "cuda" else "fp32"
    if wish not in known:
        raise UserError(f"There is no dtype {wish!r}; choose one of: {', '.join(DTYPES)}.")
    return known[wish]


def _check_kind(transformers: Any, folder: Path, options: dict[str, Any]) -> None:
    """Refuse a model that is not made for pictures and words, or that this transformers does not know."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = str(config.get("model_type", "unknown"))[:60]
    if kind not in transformers.CONFIG_MAPPING:
        own = (
            " and it would need program code from the folder, which is never run"
            if config.get("auto_map")
            else ""
        )
        raise UserError(
            f"{folder} holds a model of the kind {kind!r}, which transformers {transformers.__version__} does not "
            f"know{own}; update transformers or choose another model."
        )
    known = transformers.AutoConfig.from_pretrained(folder, **options)
    if type(known) not in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise UserError(
            f"{folder} holds a {kind} model, which does not answer questions about pictures; choose an "
            "image-text-to-text model, such as LLaVA or Gemma 3."
        )


def _tell_loading(transformers: Any, loaded: Callable[[int, int], None]) -> None:
    """Have the loading of weights reported instead of drawn."""

    def counted(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bar = factory(*args, **{**kwargs, "disable": True})
        if not args or not hasattr(args[0], "__len__"):
            return bar
        total = len(args[0])
        told = 0.0

        def items() -> Iterator[Any]:
            nonlocal told
            for number, item in enumerate(bar):
                if time.monotonic() - told > 0.2:
                    told = time.monotonic()
                    loaded(number, total)
                yield item

        return items()

    transformers.utils.logging.set_tqdm_hook(counted)


def _missing_package(error: ImportError, folder: Path) -> str:
    found = re.search(r"requires the (\S+) library", str(error)) or re.search(
        r"No module named '([\w]+)", str(error)
    )
    name = error.name or (found[1] if found else "")
    if not name:
        return f"The model in {folder} cannot be loaded here: {_first_line(error)}"
    package = name.partition(".")[0].lower()
    return (
        f"The model in {folder} needs the package {package}, which is missing or does not work here; install it with "
        f"pip install {package}, or choose a model that does without, such as LLaVA or Gemma 3."
    )


def _is_memory(error: BaseException) -> bool:
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in text
        or "not enough memory" in text
        or "out of memory" in text
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0][:240] if lines else type(error).__name__
    return line if line.endswith(".") else f"{line}."
